"""The settings: every one with its default, unit and bound. Frozen; read once at start."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from gateway.routing import Priority
from gateway.settings.dicom import Dicom, Peer, ResultProfile, Tls, WebAccess
from gateway.settings.section import (
    Bytes,
    DrainTime,
    Fraction,
    PathName,
    Seconds,
    Section,
    SizeLimit,
    Timeout,
    Wait,
)
from gateway.settings.web import Web

__all__ = ["Dicom", "Peer", "ResultProfile", "Settings", "Tls", "Web", "WebAccess", "Workers"]

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


class Admission(Section):
    """What is taken in."""

    max_instance_size: SizeLimit = 2 * 1024**3
    refuse_when_disk_over: Fraction = 0.95
    keep_free: Bytes = 512 * 1024**2
    """Refuse (0xA700) when less than this is free on the disk of ``data_dir``, whichever comes first."""
    duplicates: Literal["keep-first", "new-revision", "refuse"] = "keep-first"
    """What a known UID with other bytes does; see :class:`gateway.journal.records.Duplicates`."""


class Storage(Section):
    """How what was stored is looked after."""

    verify_rate: Bytes = 8 * 1024**2
    """Bytes per second that are read in the background to find damaged files; 0: only jobs find them."""


class Completion(Section):
    """When a series is complete."""

    quiet_for: Seconds = 30.0
    at_most: Wait = 15 * 60.0


class ModelChoice(Section):
    """A model that routes may name."""

    card: str
    pinned: bool = False
    """Stays loaded as long as it fits; others are let go, least recently used first, to make room."""


class RouteSettings(Section):
    """One routing rule; ``when`` is parsed by gateway.routing."""

    name: str
    when: dict[str, object] = Field(default={})
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

    first_retry: Wait = 10.0
    factor: float = Field(default=2.0, ge=1.0, le=1000.0)
    longest_wait: Wait = 15 * 60.0
    give_up_after: Seconds = 14 * 24 * 3600.0
    refused_attempts: int = Field(default=5, ge=1)
    """Attempts for an object that the destination itself refuses (0xA9xx, 0xCxxx)."""
    timeout: Timeout = 60.0


class Commitment(Section):
    """Reports of storage commitment: the wait before one that could not be delivered is tried again."""

    first_retry: Wait = 10.0
    longest_wait: Wait = 15 * 60.0
    give_up_after: Seconds = 3 * 24 * 3600.0


class Workers(Section):
    """The processes that run models."""

    device: Devices = ("auto",)
    max_attempts: int = Field(default=3, ge=1)
    retry_after: Seconds = 10.0
    job_timeout: Wait = 30 * 60.0
    memory_limit: Bytes = 0
    """Of the worker's data (RLIMIT_DATA); 0: only the machine's memory bounds a series."""
    model_memory: Bytes = 0
    """On each device, for weights and runs; 0: what is free at the start, less a reserve."""
    deterministic: bool = False
    step_timeout: Timeout = 30.0
    heartbeat: Timeout = 2.0
    lease: Timeout = 30.0


class Settings(Section):
    """The whole configuration file."""

    version: Literal[1]
    data_dir: PathName
    model_dirs: tuple[PathName, ...] = ()
    """Folders with model cards, searched before the cards that ship with the gateway."""
    dicom: Dicom = Dicom()
    peers: dict[str, Peer] = Field(default={})
    admission: Admission = Admission()
    storage: Storage = Storage()
    completion: Completion = Completion()
    models: dict[str, ModelChoice] = Field(default={})
    routes: tuple[RouteSettings, ...] = ()
    results: Results = Results()
    delivery: Delivery = Delivery()
    commitment: Commitment = Commitment()
    web: Web = Web()
    workers: Workers = Workers()
    drain_timeout: DrainTime = 30.0
