"""What every transition shares: the compare-and-set along one edge, and its event row."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gateway.errors import LostRace
from gateway.journal.connection import Transaction
from gateway.journal.records import Failure
from gateway.states import JOB, DeliveryState, Event, JobEvent, JobState, Machine, State

_ENCODE = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode  # made once: it is not cheap


def as_json(value: Any) -> str:
    """Compact JSON text for a column."""
    return _ENCODE(value)


def write_event(
    work: Transaction,
    subject: str,
    subject_id: int | None,
    name: str,
    reason: str,
    at: float,
    *,
    states: tuple[str | None, str | None] = (None, None),
    details: Mapping[str, Any] | None = None,
) -> int:
    """Write down what happened to a row (or, without ``subject_id``, to none) and why; returns its number."""
    return work.insert(
        "insert_event",
        {
            "at": at,
            "subject": subject,
            "subject_id": subject_id,
            "name": name,
            "from_state": states[0],
            "to_state": states[1],
            "reason": reason,
            "details": as_json(details or {}),
        },
    )


def take_edge(
    work: Transaction,
    machine: Machine[State, Event],
    row_id: int,
    edge: tuple[State, Event],
    reason: str,
    at: float,
) -> None:
    """Take one edge of a state machine: compare-and-set, then the event row."""
    state, event = edge
    to_state = machine.next(state, event)
    if not work.move(machine.name, row_id, state, to_state):
        raise LostRace(
            "LOST_RACE", f"{machine.name} {row_id} is not {state} any more; {event} was not applied."
        )
    write_event(work, machine.name, row_id, event, reason, at, states=(state, to_state))


def open_delivery(work: Transaction, result_id: int, kind: str, destination: str, at: float) -> None:
    """Enter a result into the outbox of a destination."""
    delivery_id = work.insert(
        "insert_delivery", {"result_id": result_id, "destination": destination, "at": at}
    )
    states = (None, DeliveryState.PENDING)
    write_event(work, "delivery", delivery_id, "created", f"{kind} for {destination}.", at, states=states)


def failure_columns(failure: Failure | None) -> dict[str, str | None]:
    """Values for the failure columns; None clears them."""
    name, reason = (failure.name, failure.reason) if failure else (None, None)
    return {"failure_name": name, "failure_reason": reason}


def stay_done(work: Transaction, job_id: int, state: JobState, reason: str, at: float) -> None:
    """End a job that was to write its results once more and need not: what it has written stays."""
    take_edge(work, JOB, job_id, (state, JobEvent.PROFILE_NOT_WANTED), reason, at)
    work.run("close_job", {**failure_columns(None), "id": job_id, "at": at, "run": None})
