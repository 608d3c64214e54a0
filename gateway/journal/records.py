"""What goes into the journal and comes out of it, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gateway.header import Facts, InstanceHeader

Json = dict[str, Any]

QUALITY_HOLD = "QUALITY_HOLD"
"""Failure name of a job that is done, whose results a quality rule of the card holds back."""

NOTHING_FOUND = "NOTHING_FOUND"
"""The same of one that found no structure, where the site does not want such results."""

DISCARDED = "RESULTS_DISCARDED"
"""The same of one whose held results a person does not want to be sent."""

SUPERSEDED = "SUPERSEDED"
"""Failure name of what nobody needs any more, because its series has a newer revision."""


class Purpose(StrEnum):
    """What a job does."""

    RUN = "run"
    FAILURE_REPORT = "failure_report"


class Duplicates(StrEnum):
    """What an instance does whose SOP Instance UID is known with other bytes."""

    KEEP_FIRST = "keep-first"
    """Both are kept, the first stays the member of its series."""
    NEW_REVISION = "new-revision"
    """Both are kept, the new one takes the place of the first: in a new revision, where one was decided."""
    REFUSE = "refuse"
    """The first is kept; the new one is not taken, and its sender is told so."""


class Receipt(StrEnum):
    """What became of an instance that was admitted. All but REFUSED and RELABELLED are answered 0000.

    RELABELLED: its bytes are known under another transfer syntax, which its row and file keep.
    """

    STORED = "stored"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    REPLACED = "replaced"
    REFUSED = "refused"
    RELABELLED = "relabelled"


@dataclass(frozen=True)
class NewInstance:
    """An instance whose file is durable in the spool."""

    header: InstanceHeader
    transfer_syntax_uid: str
    digest: str
    path: str
    size_bytes: int
    source: str


@dataclass(frozen=True)
class StoredPath:
    """A file that a row points to, below the spool."""

    path: str
    is_quarantined: bool


@dataclass(frozen=True)
class StoredAs:
    """What a row says of the file that it points to."""

    sop_instance_uid: str
    transfer_syntax_uid: str


@dataclass(frozen=True)
class ReceivingSeries:
    """A series revision that may still grow."""

    id: int
    study_instance_uid: str
    series_instance_uid: str
    revision: int
    source: str
    instance_count: int
    opened_at: float
    last_instance_at: float
    committed_at: float | None = None
    committed_count: int | None = None


@dataclass(frozen=True)
class Member:
    """An instance of a series revision.

    Attributes
    ----------
    frames
        The facts of each frame of a multi-frame image.
    has_all_facts
        False for one that schema 1 of the journal entered, which kept fewer facts.
    is_damaged
        Its file was found damaged or gone, and has not come again.
    """

    sop_instance_uid: str
    digest: str
    sop_class_uid: str
    transfer_syntax_uid: str
    path: str
    size_bytes: int
    facts: Facts
    frames: tuple[Facts, ...] = ()
    has_all_facts: bool = True
    is_damaged: bool = False


@dataclass(frozen=True)
class NewJob:
    """A model run that a route asks for.

    Attributes
    ----------
    reason
        Why, in a sentence.
    part
        Key of the sub-volume; empty when the series is one volume.
    input_digest
        SHA-256 hex over the sorted lines "SOP Instance UID, space, digest" of the part's instances, with the
        frame numbers behind a space where they are not 1 alone. Without those it is what ``ai`` writes into
        the results. A part with the same one needs no second run.
    priority
        ``urgent``, ``normal`` or ``offpeak``.
    """

    model: str
    card: str
    destinations: tuple[str, ...]
    reason: str
    part: str = ""
    input_digest: str = ""
    priority: str = "normal"


@dataclass(frozen=True)
class SeriesDecision:
    """Everything that was decided about a complete series, with its reasons, as records.

    ``jobs`` has one for each part of the series that a route matched and whose geometry was accepted.
    """

    evidence: Mapping[str, Any]
    verdict: Mapping[str, Any]
    decision: Mapping[str, Any]
    name: str
    reason: str
    jobs: tuple[NewJob, ...]
    refused: bool


@dataclass(frozen=True)
class Wanted:
    """Which queued job a worker would take.

    Attributes
    ----------
    except_cards
        Models that it cannot run at present.
    oldest_first
        Whatever its priority: so that urgent jobs, one after another, do not keep the others away for good.
    """

    except_cards: frozenset[str] = frozenset()
    only_urgent: bool = False
    oldest_first: bool = False


@dataclass(frozen=True)
class ClaimedJob:
    """A job under a lease.

    Attributes
    ----------
    destinations
        As they were when it was claimed: a later revision may change them meanwhile.
    written
        Keys of the profiles whose results earlier runs of it have written.
    reports
        Of a failure report: why the run failed.
    series_number_base
        Its own in the study; see :mod:`gateway.journal.numbers`.
    """

    id: int
    lease_id: str
    series_id: int
    part: str
    model: str
    card: str
    attempts: int
    interruptions: int
    created_at: float
    priority: str
    study_instance_uid: str
    series_instance_uid: str
    revision: int
    destinations: tuple[str, ...]
    written: frozenset[str]
    purpose: Purpose
    reports: Failure | None
    series_number_base: int


@dataclass(frozen=True)
class NewResult:
    """An encoded result whose file is durable in the results folder.

    Attributes
    ----------
    number
        Its Instance Number: segmentations can be several.
    profiles
        Keys of the profiles that it belongs to.
    """

    kind: str
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    path: str
    digest: str
    size_bytes: int
    number: int = 1
    profiles: tuple[str, ...] = ("",)


@dataclass(frozen=True)
class SentReport:
    """A structured report that was sent, as a later one refers to it."""

    study_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True)
class ClaimedDelivery:
    """A result that is being sent to one destination."""

    id: int
    destination: str
    attempts: int
    created_at: float
    kind: str
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    path: str
    digest: str


@dataclass(frozen=True)
class Failure:
    """Why something did not work: a stable name and a sentence."""

    name: str
    reason: str
