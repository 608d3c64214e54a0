"""A decision on a series, acted on: its state, and a new or an adopted job for each part that is wanted.

A part of a later revision that has the same images as before is not run and not sent again, even where what
came later has given it another key: the job of the earlier revision becomes the job of the later one, with
its results and deliveries, and with the report of its failure. A destination that wants the results in a
profile in which they were never written gets them: the job is queued once more for that profile alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gateway.errors import LostRace
from gateway.journal.connection import Transaction
from gateway.journal.edges import as_json, take_edge, write_event
from gateway.journal.finish import insert_job, send, write_what_is_lacking
from gateway.journal.profiles import Profiles
from gateway.journal.records import (
    SUPERSEDED,
    NewJob,
    Purpose,
    ReceivingSeries,
    SeriesDecision,
)
from gateway.states import JOB, SERIES, JobEvent, JobState, SeriesEvent, SeriesState


def settle(
    work: Transaction, series: ReceivingSeries, decision: SeriesDecision, at: float, profiles: Profiles
) -> tuple[int, ...]:
    """Complete a series and give it its jobs; returns their ids, in the order of the decision.

    Raises LostRace if an instance arrived since ``series`` was read, or took the place of one.
    """
    seen = {
        "id": series.id,
        "instance_count": series.instance_count,
        "last_instance_at": series.last_instance_at,
    }
    if work.one("lock_series_count", seen) is None:
        raise LostRace("LOST_RACE", f"series {series.id} changed while it was being decided.")
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
    return tuple(_insert_or_adopt(work, series, job, at, profiles) for job in decision.jobs)


def _insert_or_adopt(
    work: Transaction, series: ReceivingSeries, job: NewJob, at: float, profiles: Profiles
) -> int:
    values = {
        "study_instance_uid": series.study_instance_uid,
        "series_instance_uid": series.series_instance_uid,
        "revision": series.revision,
        "card": job.card,
        "input_digest": job.input_digest,
    }
    known = work.one("job_on_same_input", values)
    if known is None:
        row = {**vars(job), "series_id": series.id, "purpose": Purpose.RUN}
        return insert_job(work, row, job.destinations, job.reason, at)
    report = work.one("failure_report_of", dict(known))
    _adopt(work, series, job, dict(known), at, profiles)
    if report is not None:
        told = profiles.report_to(job.destinations, json.loads(known["profiles"]))
        _adopt_report(work, series, replace(job, destinations=told), dict(report), at, profiles)
    return int(known["id"])


def _adopt_report(
    work: Transaction,
    series: ReceivingSeries,
    job: NewJob,
    report: Mapping[str, Any],
    at: float,
    profiles: Profiles,
) -> None:
    """Make the report of a failure one of this revision; one that was superseded in between is made anew.

    ``job`` has the destinations that are told.
    """
    if report["failure_name"] != SUPERSEDED:
        _adopt(work, series, job, report, at, profiles)
    elif job.destinations:
        row = {**vars(job), "series_id": series.id, "purpose": Purpose.FAILURE_REPORT}
        reason = f"Revision {series.revision} of the series wants the report of the failure again."
        insert_job(work, row, job.destinations, reason, at)


def _adopt(
    work: Transaction,
    series: ReceivingSeries,
    job: NewJob,
    known: Mapping[str, Any],
    at: float,
    profiles: Profiles,
) -> None:
    """Make a job of an earlier revision one of this; what a destination lacks is sent there."""
    job_id, destinations = int(known["id"]), job.destinations
    part = f"part {job.part}" if job.part else "the volume"
    reason = (
        f"Revision {series.revision} of the series has the same instances in {part} as revision "
        f"{known['revision']}: its job is taken over, and what was run and sent is not repeated."
    )
    take_edge(work, JOB, job_id, (JobState(known["state"]), JobEvent.ADOPTED), reason, at)
    row = {
        "id": job_id,
        "series_id": series.id,
        "part": job.part,
        "model": job.model,
        "priority": job.priority,
    }
    work.run("adopt_job", {**row, "destinations": as_json(destinations)})
    taken = f"Job {job_id} is taken over by revision {series.revision}: the same instances in {part}."
    write_event(work, "series", int(known["series_id"]), "JOB_ADOPTED", taken, at, details={"job": job_id})
    if known["held"]:
        return  # a release sends it, and has it written as it is wanted then
    send(work, job_id, destinations, profiles, at)
    if known["state"] == JobState.DONE:
        # One that is not done yet finds out what is wanted when it is claimed, and once more at its end.
        written, purpose = json.loads(known["profiles"]), Purpose(known["purpose"])
        write_what_is_lacking(work, job_id, destinations, written, purpose, profiles, at)
