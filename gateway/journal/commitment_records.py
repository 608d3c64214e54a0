"""What the journal takes and gives about storage commitment (PS3.4 annex J)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Reference = tuple[str, str]
"""SOP Class UID and SOP Instance UID."""

SeriesKey = tuple[str, str]
"""Study and Series Instance UID."""


@dataclass(frozen=True)
class KeptInstance:
    """A row of an instance, as a commitment needs it. ``is_member``: its bytes are those of its series."""

    sop_instance_uid: str
    sop_class_uid: str
    study_instance_uid: str
    series_instance_uid: str
    path: str
    size_bytes: int
    is_quarantined: bool
    is_member: bool

    @property
    def series(self) -> SeriesKey:
        """The series that it belongs to."""
        return self.study_instance_uid, self.series_instance_uid


@dataclass(frozen=True)
class NewCommitment:
    """A request. ``ae_title`` is the one that the source asked under."""

    source: str
    ae_title: str
    transaction_uid: str
    references: tuple[Reference, ...]


@dataclass(frozen=True)
class Outcome:
    """What is true of the instances of a request now.

    Attributes
    ----------
    committed
        Those that are here and intact.
    failed
        The others, each with its Failure Reason (PS3.3 C.14.1.1).
    members
        Series → how many of its members were asked for.
    committed_members
        The same of those that are committed.
    """

    committed: tuple[Reference, ...]
    failed: tuple[tuple[str, str, int], ...] = ()
    members: Mapping[SeriesKey, int] = field(default_factory=dict)
    committed_members: Mapping[SeriesKey, int] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """For a person: how many are committed, and why the others are not."""
        return outcome_sentence(len(self.committed), self.failed)


def outcome_sentence(committed: int, failed: Sequence[Sequence[Any]]) -> str:
    """See :attr:`Outcome.sentence`; each of ``failed`` has its Failure Reason at the end."""
    text = f"{committed} of {committed + len(failed)} instances committed"
    reasons = Counter(each[-1] for each in failed)
    told = ", ".join(f"{count} {_REASONS[reason]}" for reason, count in sorted(reasons.items()))
    return f"{text}; {told}" if told else text


_REASONS = {
    0x0110: "damaged, gone or refused in this version here (0110)",
    0x0112: "never arrived (0112)",
    0x0119: "of another SOP class (0119)",
}


@dataclass(frozen=True)
class WaitingCommitment:
    """A report that is due, or could be told on an association that is open now."""

    id: int
    source: str
    next_attempt_at: float


@dataclass(frozen=True)
class ClaimedCommitment:
    """A report that is being made."""

    id: int
    source: str
    ae_title: str
    transaction_uid: str
    attempts: int
    created_at: float
    references: tuple[Reference, ...]
