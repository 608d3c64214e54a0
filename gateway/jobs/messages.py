"""What the gateway and its worker say to each other: frozen values, one JSON line each."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from gateway.journal.records import NewResult


@dataclass(frozen=True)
class WorkerSettings:
    """First message to a fresh worker: where to run, what to warm, how often to show life, what to take."""

    device: str
    cards: tuple[str, ...]
    card_folders: tuple[str, ...]
    heartbeat_s: float
    memory_limit_bytes: int | None = None


@dataclass(frozen=True)
class JobRequest:
    """One model run.

    Attributes
    ----------
    lease_id
        Comes back in every answer, so that a late answer to an old attempt is recognised.
    files
        Absolute paths of all stored instances of the series; the names of our own digests.
    part
        Key of the sub-volume to run on; empty when the series is one volume.
    created_at_s
        Time of the job's row: results carry it, so that a repeated run writes the same bytes.
    """

    job_id: int
    lease_id: str
    files: tuple[str, ...]
    part: str
    card: str
    card_folders: tuple[str, ...]
    device: str
    created_at_s: float
    series_number_base: int
    results_root: str
    software_version: str
    revision: int


@dataclass(frozen=True)
class Ready:
    """The worker has loaded its models; ``problems`` are those that it could not load."""

    pid: int
    device: str
    models: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def usable(self) -> bool:
        """False when no model could be loaded: jobs wait then, they do not fail."""
        return bool(self.models) or not self.problems


@dataclass(frozen=True)
class Heartbeat:
    """The worker lives; ``lease_id`` is empty when it is idle."""

    lease_id: str


@dataclass(frozen=True)
class Progress:
    """How far a job is."""

    lease_id: str
    stage: str
    fraction: float


@dataclass(frozen=True)
class Done:
    """The results are durable in the results folder."""

    lease_id: str
    results: tuple[NewResult, ...]
    run: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Failed:
    """The job ended with a named error; the worker lives on."""

    lease_id: str
    name: str
    reason: str
    retryable: bool


@dataclass(frozen=True)
class Died:
    """The worker process ended; ``ending`` says how: ``signal 9``, ``exit code 1``."""

    ending: str


WorkerEvent = Ready | Heartbeat | Progress | Done | Failed
Event = WorkerEvent | Died
Request = WorkerSettings | JobRequest

_KINDS: dict[str, type[WorkerEvent] | type[Request]] = {
    kind.__name__: kind for kind in (Ready, Heartbeat, Progress, Done, Failed, WorkerSettings, JobRequest)
}


def encode(message: WorkerEvent | Request) -> bytes:
    """One line of UTF-8 JSON."""
    fields = {"type": type(message).__name__, **asdict(message)}
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def decode_event(line: bytes) -> WorkerEvent:
    """Parse a line of the worker; raises ValueError for anything else."""
    message = _decode(line)
    if isinstance(message, WorkerSettings | JobRequest):
        raise ValueError("a worker does not send requests")
    return message


def decode_request(line: bytes) -> Request:
    """Parse a line of the gateway; raises ValueError for anything else."""
    message = _decode(line)
    if not isinstance(message, WorkerSettings | JobRequest):
        raise ValueError("the gateway does not send events")
    return message


def _decode(line: bytes) -> WorkerEvent | Request:
    fields = json.loads(line)
    if not isinstance(fields, dict) or fields.get("type") not in _KINDS:
        raise ValueError("not a message of this protocol")
    kind: Any = _KINDS[fields.pop("type")]
    if kind is Done:
        fields["results"] = [NewResult(**result) for result in fields["results"]]
    try:
        message: WorkerEvent | Request = kind(
            **{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        )
        return message
    except TypeError as error:
        raise ValueError(f"not a {kind.__name__} message: {error}") from error
