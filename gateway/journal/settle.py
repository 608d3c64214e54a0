"""A decision on a series, acted on: its state, and a new or an adopted job for each part that is wanted.

A part of a later revision that has the same instances as before is not run and not sent again: the job of
the earlier revision becomes the job of the later one, with its results and deliveries.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from gateway.errors import LostRace
from gateway.journal.connection import Transaction
from gateway.journal.edges import as_json, open_delivery, take_edge, write_event
from gateway.journal.records import NewJob, ReceivingSeries, SeriesDecision
from gateway.states import JOB, SERIES, JobEvent, JobState, SeriesEvent, SeriesState


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
    shared = Counter((job.model, job.input_digest) for job in decision.jobs)
    jobs = []
    for job in decision.jobs:
        sole = shared[job.model, job.input_digest] == 1
        known = _job_on_same_input(work, series, job, sole=sole)
        jobs.append(_insert(work, series, job, at) if known is None else _adopt(work, series, job, known, at))
    return tuple(jobs)


def _insert(work: Transaction, series: ReceivingSeries, job: NewJob, at: float) -> int:
    row = {
        "series_id": series.id,
        "part": job.part,
        "input_digest": job.input_digest,
        "model": job.model,
        "card": job.card,
        "destinations": as_json(job.destinations),
        "at": at,
    }
    job_id = work.insert("insert_job", row)
    write_event(work, "job", job_id, "created", job.reason, at, states=(None, JobState.QUEUED))
    return job_id


def _job_on_same_input(
    work: Transaction, series: ReceivingSeries, job: NewJob, *, sole: bool
) -> Mapping[str, Any] | None:
    """The job of an earlier revision on exactly these instances.

    Of the same part; or of the whole series, where what came later has made it a part among others and no
    second part (``sole``) has the same instances, as the stacks of one multi-frame image have.
    """
    values = {
        "study_instance_uid": series.study_instance_uid,
        "series_instance_uid": series.series_instance_uid,
        "revision": series.revision,
        "model": job.model,
        "card": job.card,
        "input_digest": job.input_digest,
    }
    found: list[Mapping[str, Any]] = work.run("jobs_on_same_input", values).fetchall()
    same_part = [row for row in found if row["part"] == job.part]
    whole_series = [row for row in found if row["part"] == "" and sole]
    return next(iter((*same_part, *whole_series)), None)


def _adopt(
    work: Transaction, series: ReceivingSeries, job: NewJob, known: Mapping[str, Any], at: float
) -> int:
    """Make a job of an earlier revision one of this; what a new destination lacks is sent there."""
    job_id = int(known["id"])
    part = f"part {job.part}" if job.part else "the volume"
    reason = (
        f"Revision {series.revision} of the series has the same instances in {part} as revision "
        f"{known['revision']}: its job is taken over, and what was run and sent is not repeated."
    )
    take_edge(work, JOB, job_id, (JobState(known["state"]), JobEvent.ADOPTED), reason, at)
    destinations = as_json(job.destinations)
    row = {"id": job_id, "series_id": series.id, "part": job.part, "destinations": destinations}
    work.run("adopt_job", row)
    taken = f"Job {job_id} is taken over by revision {series.revision}: the same instances in {part}."
    write_event(work, "series", int(known["series_id"]), "JOB_ADOPTED", taken, at, details={"job": job_id})
    for destination in job.destinations:
        for result in work.run(
            "results_without_delivery", {"job_id": job_id, "destination": destination}
        ).fetchall():
            open_delivery(work, result["id"], result["kind"], destination, at)
    return job_id
