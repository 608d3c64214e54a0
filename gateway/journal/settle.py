"""A decision on a series, acted on: its state, and a new or an adopted job for each part that is wanted.

A part of a later revision that has the same images as before is not run and not sent again, even where what
came later has given it another key: the job of the earlier revision becomes the job of the later one, with
its results and deliveries.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.errors import LostRace
from gateway.journal.connection import Transaction
from gateway.journal.edges import as_json, open_delivery, take_edge, write_event
from gateway.journal.records import QUALITY_HOLD, NewJob, ReceivingSeries, SeriesDecision
from gateway.states import (
    DELIVERY,
    JOB,
    SERIES,
    DeliveryEvent,
    DeliveryState,
    JobEvent,
    JobState,
    SeriesEvent,
    SeriesState,
)


def settle(
    work: Transaction, series: ReceivingSeries, decision: SeriesDecision, at: float
) -> tuple[int, ...]:
    """Complete a series and give it its jobs; returns their ids, in the order of the decision.

    Raises LostRace if an instance arrived since ``series`` was read.
    """
    counted = {"id": series.id, "instance_count": series.instance_count}
    if work.one("lock_series_count", counted) is None:
        raise LostRace("LOST_RACE", f"series {series.id} grew while it was being decided.")
    settled = (SeriesState.RECEIVING, SeriesEvent.SETTLED)
    take_edge(work, SERIES, series.id, settled, str(decision.evidence.get("reason", "")), at)
    records = {
        "evidence": as_json(decision.evidence),
        "verdict": as_json(decision.verdict),
        "decision": as_json(decision.decision),
    }
    work.run("record_decision", {**records, "id": series.id, "at": at})
    event = (
        SeriesEvent.ROUTE_MATCHED
        if decision.jobs
        else SeriesEvent.GEOMETRY_REFUSED
        if decision.refused
        else SeriesEvent.NO_ROUTE
    )
    reason = f"{decision.name}: {decision.reason}"
    take_edge(work, SERIES, series.id, (SeriesState.COMPLETE, event), reason, at)
    return tuple(_insert_or_adopt(work, series, job, at) for job in decision.jobs)


def _insert_or_adopt(work: Transaction, series: ReceivingSeries, job: NewJob, at: float) -> int:
    values = {
        "study_instance_uid": series.study_instance_uid,
        "series_instance_uid": series.series_instance_uid,
        "revision": series.revision,
        "card": job.card,
        "input_digest": job.input_digest,
    }
    known = work.one("job_on_same_input", values)
    return _insert(work, series, job, at) if known is None else _adopt(work, series, job, dict(known), at)


def _insert(work: Transaction, series: ReceivingSeries, job: NewJob, at: float) -> int:
    row = {
        "series_id": series.id,
        "part": job.part,
        "input_digest": job.input_digest,
        "model": job.model,
        "card": job.card,
        "destinations": as_json(job.destinations),
        "priority": job.priority,
        "at": at,
    }
    job_id = work.insert("insert_job", row)
    write_event(work, "job", job_id, "created", job.reason, at, states=(None, JobState.QUEUED))
    return job_id


def _adopt(
    work: Transaction, series: ReceivingSeries, job: NewJob, known: Mapping[str, Any], at: float
) -> int:
    """Make a job of an earlier revision one of this; what a destination lacks is sent there."""
    job_id = int(known["id"])
    part = f"part {job.part}" if job.part else "the volume"
    reason = (
        f"Revision {series.revision} of the series has the same instances in {part} as revision "
        f"{known['revision']}: its job is taken over, and what was run and sent is not repeated."
    )
    take_edge(work, JOB, job_id, (JobState(known["state"]), JobEvent.ADOPTED), reason, at)
    destinations = as_json(job.destinations)
    row = {
        "id": job_id,
        "series_id": series.id,
        "part": job.part,
        "model": job.model,
        "priority": job.priority,
    }
    work.run("adopt_job", {**row, "destinations": destinations})
    taken = f"Job {job_id} is taken over by revision {series.revision}: the same instances in {part}."
    write_event(work, "series", int(known["series_id"]), "JOB_ADOPTED", taken, at, details={"job": job_id})
    for destination in () if known["failure_name"] == QUALITY_HOLD else job.destinations:
        _send_what_is_lacking(work, job_id, destination, series.revision, at)
    return job_id


def _send_what_is_lacking(work: Transaction, job_id: int, destination: str, revision: int, at: float) -> None:
    """Results that this destination was never to get, and those that a revision in between did not want."""
    where = {"job_id": job_id, "destination": destination}
    for result in work.run("results_without_delivery", where).fetchall():
        open_delivery(work, result["id"], result["kind"], destination, at)
    reason = f"Revision {revision} of the series wants the result again."
    for row in work.run("superseded_deliveries", where).fetchall():
        edge = (DeliveryState.DEAD, DeliveryEvent.WANTED_AGAIN)
        take_edge(work, DELIVERY, row["id"], edge, reason, at)
        work.run("reopen_delivery", {"id": row["id"], "at": at})
