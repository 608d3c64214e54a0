"""The settings: every one with its default, unit and bound. Frozen; read once at start."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from ai.profile import DEFAULT_PROFILE, Compression, SegmentationKind
from gateway.routing import Priority
from gateway.settings.units import (
    DURATION_UNITS,
    SIZE_UNITS,
    parse_bytes,
    parse_duration_s,
    parse_fraction,
    text_schema,
)
from gateway.uids import is_ae_title


def _ae_title(text: str) -> str:
    if not is_ae_title(text):
        raise ValueError("an AE title has 1 to 16 printable characters and no backslash")
    return text.strip()


AETitle = Annotated[str, AfterValidator(_ae_title)]
Seconds = Annotated[
    float, BeforeValidator(parse_duration_s), Field(ge=0), WithJsonSchema(text_schema(DURATION_UNITS))
]
Bytes = Annotated[int, BeforeValidator(parse_bytes), Field(ge=0), WithJsonSchema(text_schema(SIZE_UNITS))]
Fraction = Annotated[
    float, BeforeValidator(parse_fraction), Field(ge=0, le=1), WithJsonSchema(text_schema({"%": 0.01}))
]


_DEVICE = r"^(auto|cpu|cuda(:\d+)?)$"


def _devices(value: object) -> object:
    """One device, or a list of them, as a tuple."""
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not names:
        raise ValueError("must be a device, or a list of devices")
    for name in names:
        if not isinstance(name, str) or not re.match(_DEVICE, name):
            raise ValueError(f"a device is auto, cpu, cuda or cuda:N, not {name!r}")
    return tuple(names)


Devices = Annotated[
    tuple[str, ...],
    BeforeValidator(_devices),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": _DEVICE},
                {"type": "array", "items": {"type": "string", "pattern": _DEVICE}, "minItems": 1},
            ]
        }
    ),
]
Port = Annotated[int, Field(ge=0, le=65535)]


class Section(BaseModel):
    """A part of the configuration: unknown settings are errors, values never change."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _boolean_where_it_belongs(cls, value: object, info: ValidationInfo) -> object:
        """Few settings are booleans; elsewhere pydantic would read ``true`` as the number 1."""
        wanted = cls.model_fields[info.field_name or ""].annotation is bool
        if isinstance(value, bool) and not wanted:
            raise ValueError("true and false are no values of this setting; text goes in quotes")
        if wanted and not isinstance(value, bool):
            raise ValueError("must be true or false, without quotes")
        return value


class Listen(Section):
    """Where a listener waits for peers. Port 0 takes a free one."""

    host: str = "0.0.0.0"  # noqa: S104 - a DICOM node is there to be reached; the file may narrow it
    port: Port


class Tls(Section):
    """A second listener, for DICOM over TLS (PS3.15 B.12). The files are PEM, read anew when they change."""

    listen: Listen = Listen(port=2762)
    certificate: Path
    """Ours, followed by the intermediate ones."""
    key: Path
    authorities: Path
    """Certificates of who may have signed those of our peers."""
    client_certificates: Literal["required", "optional"] = "required"
    warn_before: Seconds = 30 * 24 * 3600.0
    """How long before a certificate ends the gateway says so."""


class Dicom(Section):
    """Our own application entity."""

    ae_title: AETitle = "AIGW"
    listen: Listen = Listen(port=11112)
    unknown_callers: Literal["reject", "accept"] = "reject"
    max_associations: int = Field(default=20, ge=1, le=1000)
    max_pdu: Bytes = 131072
    idle_timeout: Seconds = 60.0
    association_timeout: Seconds = Field(default=10.0, gt=0)
    """For a new connection to shake hands (TLS) and to ask for an association (ARTIM timer, PS3.8 9.1.5)."""
    max_connections_per_address: int = Field(default=32, ge=1)
    """That have not asked for an association yet."""
    tls: Tls | None = None
    storage_classes: tuple[str, ...] = ()
    """Further storage SOP classes by UID or keyword; empty: every storage class of the standard."""


class ResultProfile(Section):
    """How results are written for a destination; see :class:`ai.profile.Profile`."""

    segmentation: SegmentationKind = DEFAULT_PROFILE.segmentation
    compression: Compression = DEFAULT_PROFILE.compression
    """Of label maps and fractional segmentations; binary ones are never compressed (PS3.5 8.2)."""
    max_frames: int = Field(default=DEFAULT_PROFILE.maximum_frames or 0, ge=0)
    """Of one object; 0: no limit."""
    max_segments: int = Field(default=DEFAULT_PROFILE.maximum_segments or 0, ge=0)
    when_over: Literal["split", "label_map"] = DEFAULT_PROFILE.when_over
    absent: Literal["segment", "report"] = DEFAULT_PROFILE.absent
    report: bool = DEFAULT_PROFILE.report
    overview: bool = DEFAULT_PROFILE.overview
    rtstruct: bool = DEFAULT_PROFILE.rtstruct


class WebAccess(Section):
    """How a peer says who it is over HTTP: a bearer token, or a user and a password."""

    token: str | None = None
    user: str | None = None
    password: str | None = None


class Peer(Section):
    """A system that we talk to."""

    ae_title: AETitle
    host: str
    """Where we call it, and where it may call from."""
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    roles: tuple[Literal["source", "destination", "query"], ...] = Field(min_length=1)
    addresses: tuple[str, ...] = ()
    """Further addresses and ranges (10.1.0.0/16) that a source may call from."""
    max_associations: int = Field(default=0, ge=0)
    """Of a source at the same time; 0: only dicom.max_associations."""
    storage_classes: tuple[str, ...] = ()
    """All that is taken from a source, by UID or keyword; empty: everything that dicom takes."""
    tls: Literal["allowed", "required"] = "allowed"
    """required: this source is refused on the plain port."""
    certificate: str | None = None
    """Subject (RFC 4514, ``CN=ct1,O=Clinic``) or ``sha256:…`` of the certificate that this source must show."""
    web: WebAccess | None = None
    """A source with it may store by STOW-RS."""
    results: ResultProfile = ResultProfile()
    """Only of a destination."""


class Admission(Section):
    """What is taken in."""

    max_instance_size: Bytes = 2 * 1024**3
    refuse_when_disk_over: Fraction = 0.95
    keep_free: Bytes = 512 * 1024**2
    """Refuse (0xA700) when less than this is free on the disk of ``data_dir``, whichever comes first."""
    duplicates: Literal["keep-first", "new-revision", "refuse"] = "keep-first"
    """What a known UID with other bytes does; see :class:`gateway.journal.records.Duplicates`."""


class Completion(Section):
    """When a series is complete."""

    quiet_for: Seconds = 30.0
    at_most: Seconds = 15 * 60.0


class ModelChoice(Section):
    """A model that routes may name."""

    card: str
    pinned: bool = False
    """Stays loaded as long as it fits; others are let go, least recently used first, to make room."""


class RouteSettings(Section):
    """One routing rule; ``when`` is parsed by gateway.routing."""

    name: str
    when: dict[str, object] = {}
    model: str | None = None
    send: tuple[str, ...] = ()
    priority: Priority = "normal"
    action: Literal["process", "ignore"] = "process"
    reason: str = ""


class Results(Section):
    """What happens to results."""

    status: Literal["live", "shadow"] = "shadow"
    series_number_base: int = Field(default=9000, ge=1, le=2_000_000_000)
    """Of the first results in a study; those of the next job there begin ten higher."""
    send_failed_quality: bool = False
    """Send what a quality rule of the model's card calls FAIL; otherwise it is kept here, QUALITY_HOLD."""
    send_when_nothing_found: bool = True
    """False: the results of a run that found no structure are kept here, NOTHING_FOUND."""
    send_when_failed: bool = False
    """Send a report that says so when a job has failed for good."""


class Delivery(Section):
    """How long we try to deliver."""

    first_retry: Seconds = 10.0
    factor: float = Field(default=2.0, ge=1.0)
    longest_wait: Seconds = 15 * 60.0
    give_up_after: Seconds = 14 * 24 * 3600.0
    refused_attempts: int = Field(default=5, ge=1)
    """Attempts for an object that the destination itself refuses (0xA9xx, 0xCxxx)."""
    timeout: Seconds = 60.0


class Stow(Section):
    """What STOW-RS takes in one request, from a peer with ``web``."""

    max_instances: int = Field(default=10_000, ge=1)
    max_request: Bytes = 16 * 1024**3
    max_requests: int = Field(default=8, ge=1)
    """At the same time; further ones get 503."""
    idle_timeout: Seconds = Field(default=30.0, gt=0)
    """A client that sends nothing for so long is cut off."""


class Commitment(Section):
    """Reports of storage commitment: the wait before one that could not be delivered is tried again."""

    first_retry: Seconds = Field(default=10.0, gt=0)
    longest_wait: Seconds = 15 * 60.0
    give_up_after: Seconds = 3 * 24 * 3600.0


class Web(Section):
    """Health, metrics and STOW-RS."""

    listen: Listen = Listen(host="127.0.0.1", port=8080)
    stow: Stow = Stow()


class Workers(Section):
    """The processes that run models."""

    device: Devices = ("auto",)
    max_attempts: int = Field(default=3, ge=1)
    retry_after: Seconds = 10.0
    job_timeout: Seconds = 30 * 60.0
    memory_limit: Bytes = 0
    """Of the worker's data (RLIMIT_DATA); 0: only the machine's memory bounds a series."""
    model_memory: Bytes = 0
    """On each device, for weights and runs; 0: what is free at the start, less a reserve."""
    deterministic: bool = False
    step_timeout: Seconds = Field(default=30.0, gt=0)
    heartbeat: Seconds = Field(default=2.0, gt=0)
    lease: Seconds = 30.0


class Settings(Section):
    """The whole configuration file."""

    version: Literal[1]
    data_dir: Path
    model_dirs: tuple[Path, ...] = ()
    """Folders with model cards, searched before the cards that ship with the gateway."""
    dicom: Dicom = Dicom()
    peers: dict[str, Peer] = {}
    admission: Admission = Admission()
    completion: Completion = Completion()
    models: dict[str, ModelChoice] = {}
    routes: tuple[RouteSettings, ...] = ()
    results: Results = Results()
    delivery: Delivery = Delivery()
    commitment: Commitment = Commitment()
    web: Web = Web()
    workers: Workers = Workers()
    drain_timeout: Seconds = 30.0
