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


class Dicom(Section):
    """Our own application entity."""

    ae_title: AETitle = "AIGW"
    listen: Listen = Listen(port=11112)
    unknown_callers: Literal["reject", "accept"] = "reject"
    max_associations: int = Field(default=20, ge=1, le=1000)
    max_pdu: Bytes = 131072
    idle_timeout: Seconds = 60.0
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


class Peer(Section):
    """A system that we talk to."""

    ae_title: AETitle
    host: str
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    roles: tuple[Literal["source", "destination", "query"], ...] = Field(min_length=1)
    results: ResultProfile = ResultProfile()
    """Only of a destination."""


class Admission(Section):
    """What is taken in."""

    max_instance_size: Bytes = 2 * 1024**3
    refuse_when_disk_over: Fraction = 0.95
    keep_free: Bytes = 512 * 1024**2
    """Refuse (0xA700) when less than this is free on the disk of ``data_dir``, whichever comes first."""


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


class Web(Section):
    """Health and metrics."""

    listen: Listen = Listen(host="127.0.0.1", port=8080)


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
    web: Web = Web()
    workers: Workers = Workers()
    drain_timeout: Seconds = 30.0
