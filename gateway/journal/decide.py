"""What a person decides about results: held ones are released or discarded, others are sent once more."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.errors import RefusedByState
from gateway.journal.connection import Transaction
from gateway.journal.edges import take_edge, write_event
from gateway.journal.finish import send, write_what_is_lacking
from gateway.journal.profiles import Profiles
from gateway.journal.records import DISCARDED, Purpose
from gateway.states import DELIVERY, JOB, DeliveryEvent, DeliveryState, JobEvent, JobState


@dataclass(frozen=True)
class Person:
    """Who decides, and why; both stand in the event."""

    name: str
    why: str

    def says(self, what: str) -> str:
        """A sentence for the event."""
        return f"{what} by {self.name}: {self.why}" if self.why else f"{what} by {self.name}."


def release(work: Transaction, job_id: int, person: Person, at: float, profiles: Profiles) -> str:
    """Send held results, discarded ones too, for they are still here; returns what happens now."""
    row = _held(work, job_id)
    destinations = tuple(json.loads(row["destinations"]))
    if not destinations:
        raise RefusedByState(
            "NO_DESTINATION",
            f"Job {job_id} has no destination (shadow mode, or a route without one): nothing can be sent.",
        )
    edge = (JobState.DONE, JobEvent.RELEASED)
    take_edge(work, JOB, job_id, edge, person.says(f"{row['failure_name']} released"), at)
    work.run("release_results", {"id": job_id, "at": at})
    count = send(work, job_id, destinations, profiles, at)
    written = json.loads(row["profiles"])
    purpose = Purpose(row["purpose"])
    lacking = write_what_is_lacking(work, job_id, destinations, written, purpose, profiles, at)
    again = f" The job runs once more, for {', '.join(lacking)} alone." if lacking else ""
    return f"Results on their way to {', '.join(destinations)}: {count}.{again}"


def discard(work: Transaction, job_id: int, person: Person, at: float) -> str:
    """Never send held results; their files stay here."""
    row = _held(work, job_id)
    if row["failure_name"] == DISCARDED:
        raise RefusedByState("ALREADY_DISCARDED", f"The results of job {job_id} are discarded already.")
    reason = person.says(f"{row['failure_name']} discarded")
    take_edge(work, JOB, job_id, (JobState.DONE, JobEvent.DISCARDED), reason, at)
    columns = {"failure_name": DISCARDED, "failure_reason": f"{reason} It was held: {row['failure_reason']}"}
    work.run("discard_results", {"id": job_id, **columns})
    return "Its results are kept here and not sent."


def resend(work: Transaction, job_id: int, person: Person, at: float, destination: str) -> str:
    """Send once more what was sent or given up, the stored bytes under the same UIDs.

    Parameters
    ----------
    destination
        Only there; empty: to every destination that had it, or was to have it.
    """
    row = _current(work, job_id)
    found = work.run("deliveries_to_resend", {"job_id": job_id, "destination": destination}).fetchall()
    if not found:
        there = f" to {destination}" if destination else ""
        reason = f"Job {job_id} has no result that was sent{there} or given up: what waits is sent by itself."
        if row["held"]:
            reason = f"The results of job {job_id} are held: `aigw results release` sends them."
        raise RefusedByState("NOTHING_TO_RESEND", reason)
    reason = person.says("Sent once more")
    for each in found:
        edge = (DeliveryState(each["state"]), DeliveryEvent.RESEND_ASKED)
        take_edge(work, DELIVERY, each["id"], edge, reason, at)
        work.run("resend_delivery", {"id": each["id"], "at": at})
    write_event(work, "job", job_id, "RESEND_ASKED", reason, at, details={"deliveries": len(found)})
    return f"Deliveries that are made once more: {len(found)}."


def _held(work: Transaction, job_id: int) -> Mapping[str, Any]:
    row = _current(work, job_id)
    if not row["held"]:
        raise RefusedByState(
            "NOT_HELD", f"The results of job {job_id} are not held: the job is {row['state']}."
        )
    return row


def _current(work: Transaction, job_id: int) -> Mapping[str, Any]:
    """A job that no later revision took the place of."""
    row = work.one("job_by_id", {"id": job_id})
    if row is None:
        raise RefusedByState("NOT_FOUND", f"There is no job {job_id}.")
    if row["newest_revision"] > row["revision"]:
        raise RefusedByState(
            "SUPERSEDED",
            f"Job {job_id} is of revision {row['revision']} of its series, and instances of revision "
            f"{row['newest_revision']} have come since: see `aigw study explain`.",
        )
    return dict(row)
