"""What the gateway and its worker say to each other: frozen values, one JSON line each."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from ai.profile import DEFAULT_PROFILE, Profile
from gateway.journal.records import Failure, NewResult, SentReport


@dataclass(frozen=True)
class WorkerSettings:
    """First message to a fresh worker: where to run, what to warm, how often to show life, what to take.

    Attributes
    ----------
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    pinned
        Those of the cards that stay loaded as long as they fit.
    memory_limit_bytes
        Of the data of the worker, and of its model process; None: no limit.
    model_memory_bytes
        On the device, for weights and runs; None: what it has, less a reserve.
    step_timeout_s
        See :class:`gateway.modelhost.watchdog.Watchdog`.
    scratch
        The only folder that models may write to; empty: one among the temporary files.
    hidden
        Files, and folders of them, that models must not read.
    """

    device: str
    cards: tuple[str, ...]
    card_folders: tuple[str, ...]
    heartbeat_s: float
    memory_limit_bytes: int | None = None
    model_memory_bytes: int | None = None
    pinned: tuple[str, ...] = ()
    deterministic: bool = False
    step_timeout_s: float = 30.0
    scratch: str = ""
    hidden: tuple[str, ...] = ()


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
    profiles
        How the results are written: a set of objects for each.
    predecessors
        Key of a profile → the report of an earlier revision that the one of this job replaces.
    reports
        The failure that is to be reported; no model runs then. None: a model run.
    """

    job_id: int
    lease_id: str
    files: tuple[str, ...]
    part: str
    card: str
    card_folders: tuple[str, ...]
    created_at_s: float
    series_number_base: int
    results_root: str
    software_version: str
    revision: int
    priority: str = "normal"
    profiles: tuple[Profile, ...] = (DEFAULT_PROFILE,)
    predecessors: dict[str, SentReport] = field(default_factory=dict)
    reports: Failure | None = None


@dataclass(frozen=True)
class Cancel:
    """Nobody wants the result of this job any more; ``Failed`` (CANCELLED) follows, unless it is done."""

    lease_id: str


@dataclass(frozen=True)
class CardState:
    """A configured card as the worker finds it.

    Attributes
    ----------
    signature
        Changes when the card or a file of the model does.
    name, reason
        Why the model cannot be loaded; empty when it can.
    """

    card: str
    signature: str = ""
    name: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Ready:
    """The worker has tried its models; it says so again when one of them changes.

    Attributes
    ----------
    further_devices
        Of a worker whose device was ``auto``: the other GPUs of the machine.
    sandbox
        What the platform allowed, for people.
    """

    pid: int
    device: str
    cards: tuple[CardState, ...]
    further_devices: tuple[str, ...] = ()
    sandbox: str = ""

    @property
    def models(self) -> tuple[str, ...]:
        """Cards whose models can run."""
        return tuple(each.card for each in self.cards if not each.name)

    @property
    def problems(self) -> tuple[str, ...]:
        """Those that cannot, with the reason."""
        return tuple(f"{each.name}: {each.reason}" for each in self.cards if each.name)

    @property
    def usable(self) -> bool:
        """False when no model could be loaded: jobs wait then, they do not fail."""
        return bool(self.models) or not self.cards


@dataclass(frozen=True)
class Heartbeat:
    """The worker lives, and has these jobs."""

    lease_ids: tuple[str, ...]


@dataclass(frozen=True)
class Progress:
    """How far a job is."""

    lease_id: str
    stage: str
    fraction: float


@dataclass(frozen=True)
class Done:
    """The results are durable in the results folder; ``held`` says why they are not to be sent."""

    lease_id: str
    results: tuple[NewResult, ...]
    run: dict[str, Any] = field(default_factory=dict)
    held: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failed:
    """The job ended with a named error; the worker lives on.

    Attributes
    ----------
    blameless
        Not the job's doing (its model cannot be loaded, another run ended the model process): it goes back
        to the queue, and the attempt is not counted.
    damaged
        Those of the files that are not what was received.
    """

    lease_id: str
    name: str
    reason: str
    retryable: bool
    blameless: bool = False
    damaged: tuple[str, ...] = ()


@dataclass(frozen=True)
class Died:
    """The worker process ended; ``ending`` says how: ``signal 9``, ``exit code 1``."""

    ending: str


WorkerEvent = Ready | Heartbeat | Progress | Done | Failed
Event = WorkerEvent | Died
Request = WorkerSettings | JobRequest | Cancel

_KINDS: dict[str, type[WorkerEvent] | type[Request]] = {
    kind.__name__: kind
    for kind in (Ready, Heartbeat, Progress, Done, Failed, WorkerSettings, JobRequest, Cancel)
}


def encode(message: WorkerEvent | Request) -> bytes:
    """One line of UTF-8 JSON."""
    fields = {"type": type(message).__name__, **asdict(message)}
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def decode_event(line: bytes) -> WorkerEvent:
    """Parse a line of the worker; raises ValueError for anything else."""
    message = _decode(line)
    if isinstance(message, Request):
        raise ValueError("a worker does not send requests")
    return message


def decode_request(line: bytes) -> Request:
    """Parse a line of the gateway; raises ValueError for anything else."""
    message = _decode(line)
    if not isinstance(message, Request):
        raise ValueError("the gateway does not send events")
    return message


def _decode(line: bytes) -> WorkerEvent | Request:
    fields = json.loads(line)
    if not isinstance(fields, dict) or fields.get("type") not in _KINDS:
        raise ValueError("not a message of this protocol")
    kind: Any = _KINDS[fields.pop("type")]
    try:
        if kind is Done:
            fields["results"] = [_result(result) for result in fields["results"]]
        if kind is Ready:
            fields["cards"] = [CardState(**state) for state in fields["cards"]]
        if kind is JobRequest:
            fields["profiles"] = [Profile(**each) for each in fields["profiles"]]
            fields["predecessors"] = {k: SentReport(**each) for k, each in fields["predecessors"].items()}
            fields["reports"] = Failure(**fields["reports"]) if fields["reports"] else None
        message: WorkerEvent | Request = kind(
            **{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        )
        return message
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"not a {kind.__name__} message: {error}") from error


def _result(fields: dict[str, Any]) -> NewResult:
    return NewResult(**{**fields, "profiles": tuple(fields["profiles"])})
