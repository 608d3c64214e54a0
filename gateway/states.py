"""Every state machine of the gateway, as one transition table each.

The journal moves a row only along an edge of these tables; docs/states.md is drawn from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Generic, TypeVar

from gateway.errors import IllegalTransition


class SeriesState(StrEnum):
    """A revision of a series. Late instances open a new revision; nothing is changed in place."""

    RECEIVING = "receiving"
    COMPLETE = "complete"
    ROUTED = "routed"
    UNMATCHED = "unmatched"
    REFUSED = "refused"


class SeriesEvent(StrEnum):
    """What can happen to a series revision."""

    SETTLED = "settled"
    ROUTE_MATCHED = "route_matched"
    NO_ROUTE = "no_route"
    GEOMETRY_REFUSED = "geometry_refused"


class JobState(StrEnum):
    """One model run on one part of a series revision, or the report that such a run has failed."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class JobEvent(StrEnum):
    """What can happen to a job."""

    CLAIMED = "claimed"
    SUCCEEDED = "succeeded"
    RETRYABLE_ERROR = "retryable_error"
    LEASE_EXPIRED = "lease_expired"
    INTERRUPTED = "interrupted"
    GAVE_UP = "gave_up"
    SUPERSEDED = "superseded"
    ADOPTED = "adopted"
    PROFILE_WANTED = "profile_wanted"
    PROFILE_NOT_WANTED = "profile_not_wanted"
    INPUT_RESTORED = "input_restored"
    RELEASED = "released"
    DISCARDED = "discarded"


class DeliveryState(StrEnum):
    """One result for one destination."""

    PENDING = "pending"
    SENDING = "sending"
    SENT = "sent"
    DEAD = "dead"


class DeliveryEvent(StrEnum):
    """What can happen to a delivery."""

    CLAIMED = "claimed"
    STORED = "stored"
    TRY_AGAIN = "try_again"
    INTERRUPTED = "interrupted"
    GAVE_UP = "gave_up"
    SUPERSEDED = "superseded"
    WANTED_AGAIN = "wanted_again"
    RESEND_ASKED = "resend_asked"


class CommitmentState(StrEnum):
    """A request for storage commitment, and the report on it."""

    PENDING = "pending"
    REPORTING = "reporting"
    REPORTED = "reported"
    DEAD = "dead"


class CommitmentEvent(StrEnum):
    """What can happen to a request for storage commitment."""

    CLAIMED = "claimed"
    ACKNOWLEDGED = "acknowledged"
    TRY_AGAIN = "try_again"
    INTERRUPTED = "interrupted"
    GAVE_UP = "gave_up"
    ASKED_AGAIN = "asked_again"


State = TypeVar("State", bound=StrEnum)
Event = TypeVar("Event", bound=StrEnum)


class Machine(Generic[State, Event]):
    """A named transition table: ``(state, event) → state``."""

    def __init__(self, name: str, initial: State, edges: Mapping[tuple[State, Event], State]) -> None:
        self.name = name
        self.initial = initial
        self.edges = edges

    def next(self, state: State, event: Event) -> State:
        """The state after ``event``; raises IllegalTransition where the table has no edge."""
        try:
            return self.edges[state, event]
        except KeyError:
            raise IllegalTransition(
                "ILLEGAL_TRANSITION", f"A {self.name} that is {state} cannot take the event {event}."
            ) from None


SERIES: Machine[SeriesState, SeriesEvent] = Machine(
    "series",
    SeriesState.RECEIVING,
    {
        (SeriesState.RECEIVING, SeriesEvent.SETTLED): SeriesState.COMPLETE,
        (SeriesState.COMPLETE, SeriesEvent.ROUTE_MATCHED): SeriesState.ROUTED,
        (SeriesState.COMPLETE, SeriesEvent.NO_ROUTE): SeriesState.UNMATCHED,
        (SeriesState.COMPLETE, SeriesEvent.GEOMETRY_REFUSED): SeriesState.REFUSED,
    },
)

JOB: Machine[JobState, JobEvent] = Machine(
    "job",
    JobState.QUEUED,
    {
        (JobState.QUEUED, JobEvent.CLAIMED): JobState.RUNNING,
        (JobState.RUNNING, JobEvent.SUCCEEDED): JobState.DONE,
        (JobState.RUNNING, JobEvent.RETRYABLE_ERROR): JobState.QUEUED,
        (JobState.RUNNING, JobEvent.LEASE_EXPIRED): JobState.QUEUED,
        (JobState.RUNNING, JobEvent.INTERRUPTED): JobState.QUEUED,
        (JobState.RUNNING, JobEvent.GAVE_UP): JobState.FAILED,
        (JobState.QUEUED, JobEvent.SUPERSEDED): JobState.FAILED,
        # A later revision has the same instances in the part: the job is its job, as far as it is.
        (JobState.QUEUED, JobEvent.ADOPTED): JobState.QUEUED,
        (JobState.RUNNING, JobEvent.ADOPTED): JobState.RUNNING,
        (JobState.DONE, JobEvent.ADOPTED): JobState.DONE,
        (JobState.FAILED, JobEvent.ADOPTED): JobState.FAILED,
        # A destination wants the results written as no destination did before: they are written once more.
        (JobState.DONE, JobEvent.PROFILE_WANTED): JobState.QUEUED,
        # A newer revision came before that was done: what was done before stays done, and can be adopted.
        (JobState.QUEUED, JobEvent.PROFILE_NOT_WANTED): JobState.DONE,
        (JobState.RUNNING, JobEvent.PROFILE_NOT_WANTED): JobState.DONE,
        # It failed for an instance that was damaged or gone, and that is whole again.
        (JobState.FAILED, JobEvent.INPUT_RESTORED): JobState.QUEUED,
        # A person decides on results that are held.
        (JobState.DONE, JobEvent.RELEASED): JobState.DONE,
        (JobState.DONE, JobEvent.DISCARDED): JobState.DONE,
    },
)

DELIVERY: Machine[DeliveryState, DeliveryEvent] = Machine(
    "delivery",
    DeliveryState.PENDING,
    {
        (DeliveryState.PENDING, DeliveryEvent.CLAIMED): DeliveryState.SENDING,
        (DeliveryState.SENDING, DeliveryEvent.STORED): DeliveryState.SENT,
        (DeliveryState.SENDING, DeliveryEvent.TRY_AGAIN): DeliveryState.PENDING,
        (DeliveryState.SENDING, DeliveryEvent.INTERRUPTED): DeliveryState.PENDING,
        (DeliveryState.SENDING, DeliveryEvent.GAVE_UP): DeliveryState.DEAD,
        (DeliveryState.PENDING, DeliveryEvent.SUPERSEDED): DeliveryState.DEAD,
        # The revision that superseded it had no such part; a still later one has it again.
        (DeliveryState.DEAD, DeliveryEvent.WANTED_AGAIN): DeliveryState.PENDING,
        # A person asks for it: the destination was repaired, or has lost what it had.
        (DeliveryState.DEAD, DeliveryEvent.RESEND_ASKED): DeliveryState.PENDING,
        (DeliveryState.SENT, DeliveryEvent.RESEND_ASKED): DeliveryState.PENDING,
    },
)

COMMITMENT: Machine[CommitmentState, CommitmentEvent] = Machine(
    "commitment",
    CommitmentState.PENDING,
    {
        (CommitmentState.PENDING, CommitmentEvent.CLAIMED): CommitmentState.REPORTING,
        (CommitmentState.REPORTING, CommitmentEvent.ACKNOWLEDGED): CommitmentState.REPORTED,
        (CommitmentState.REPORTING, CommitmentEvent.TRY_AGAIN): CommitmentState.PENDING,
        (CommitmentState.REPORTING, CommitmentEvent.INTERRUPTED): CommitmentState.PENDING,
        (CommitmentState.REPORTING, CommitmentEvent.GAVE_UP): CommitmentState.DEAD,
        # The peer asks for the same transaction once more: it is told once more, and as it is then.
        (CommitmentState.REPORTING, CommitmentEvent.ASKED_AGAIN): CommitmentState.PENDING,
        (CommitmentState.REPORTED, CommitmentEvent.ASKED_AGAIN): CommitmentState.PENDING,
        (CommitmentState.DEAD, CommitmentEvent.ASKED_AGAIN): CommitmentState.PENDING,
    },
)
