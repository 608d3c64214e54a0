"""The end of a job: results and outbox rows, or the failure and, where it is wanted, its report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from sqlite3 import Row
from typing import Any

from gateway.errors import LostRace
from gateway.journal.connection import Transaction
from gateway.journal.edges import (
    as_json,
    failure_columns,
    open_delivery,
    stay_done,
    take_edge,
    write_event,
)
from gateway.journal.profiles import Profiles
from gateway.journal.records import SUPERSEDED, ClaimedJob, Failure, NewResult, Purpose
from gateway.states import DELIVERY, JOB, DeliveryEvent, DeliveryState, JobEvent, JobState

DELIVERY_ORDER = ("seg", "rtstruct", "sr", "overview")
"""Results enter the outbox in this order: a report follows what it cites, unless that is refused."""

_WANTED_AGAIN = "A revision in between did not want the result; the newest one does."


def under_lease(work: Transaction, job: ClaimedJob) -> Row:
    """The row of a job as it is now: a later revision may have adopted it since it was claimed."""
    row = work.one("job_under_lease", {"id": job.id, "lease_id": job.lease_id})
    if row is None:
        raise LostRace("LEASE_LOST", f"job {job.id} is not leased to us any more.")
    return row


def finish(
    work: Transaction,
    job: ClaimedJob,
    results: Sequence[NewResult],
    run: Mapping[str, Any],
    at: float,
    hold: Failure | None,
    profiles: Profiles,
) -> None:
    """See :meth:`gateway.journal.journal.Journal.finish_job`."""
    row = under_lease(work, job)
    if row["released_at"] is not None:
        hold = None  # a person has looked at what is found, and it is the same
    reason = f"{len(results)} results stored."
    take_edge(work, JOB, job.id, (JobState.RUNNING, JobEvent.SUCCEEDED), reason, at)
    record = as_json(_with_earlier(run, row["run"]))
    work.run("close_job", {**failure_columns(hold), "id": job.id, "at": at, "run": record})
    work.run("hold_results", {"id": job.id, "held": hold is not None})
    if hold is not None:
        write_event(work, "job", job.id, hold.name, hold.reason, at)
    for result in sorted(results, key=lambda each: _delivery_order(vars(each))):
        _keep(work, job.id, result, at)
    asked = profiles.wanted(job.destinations, job.written, job.purpose)
    written = {**json.loads(row["profiles"]), **{profile.key: asdict(profile) for profile in asked}}
    work.run("set_profiles", {"id": job.id, "profiles": as_json(written)})
    destinations = tuple(json.loads(row["destinations"]))
    if hold is not None:
        return  # a release sends it, and has it written as it is wanted then
    send(work, job.id, destinations, profiles, at)
    write_what_is_lacking(work, job.id, destinations, written, job.purpose, profiles, at)


def send(work: Transaction, job_id: int, destinations: Sequence[str], profiles: Profiles, at: float) -> int:
    """Enter into the outbox what each destination wants and does not get yet; returns how many results."""
    count = 0
    for destination in destinations:
        where = {"job_id": job_id, "destination": destination, "profile": profiles.of(destination).key}
        for result in sorted(work.run("results_without_delivery", where).fetchall(), key=_delivery_order):
            open_delivery(work, result["id"], result["kind"], destination, at)
            count += 1
        for row in work.run("superseded_deliveries", where).fetchall():
            edge = (DeliveryState.DEAD, DeliveryEvent.WANTED_AGAIN)
            take_edge(work, DELIVERY, row["id"], edge, _WANTED_AGAIN, at)
            work.run("reopen_delivery", {"id": row["id"], "at": at})
            count += 1
    return count


def write_what_is_lacking(
    work: Transaction,
    job_id: int,
    destinations: Sequence[str],
    written: Mapping[str, Any],
    purpose: Purpose,
    profiles: Profiles,
    at: float,
) -> tuple[str, ...]:
    """Queue a job that is done once more, if a destination wants its results in a profile that it has not.

    Returns those destinations.
    """
    if not destinations or not profiles.wanted(destinations, written, purpose):
        return ()
    lacking = tuple(name for name in destinations if profiles.of(name).key not in written)
    reason = (
        f"The results were never written as the profile of {', '.join(lacking)} wants them: "
        "the job runs once more; what is there and sent is not repeated."
    )
    take_edge(work, JOB, job_id, (JobState.DONE, JobEvent.PROFILE_WANTED), reason, at)
    work.run("reopen_job", {"id": job_id, "at": at})
    return lacking


def fail(work: Transaction, job: ClaimedJob, failure: Failure, at: float, report: Profiles | None) -> None:
    """See :meth:`gateway.journal.journal.Journal.fail_job`."""
    row = under_lease(work, job)
    if failure.name == SUPERSEDED and json.loads(row["profiles"]):
        stay_done(work, job.id, JobState.RUNNING, failure.reason, at)
        return
    reason = f"{failure.name}: {failure.reason}"
    take_edge(work, JOB, job.id, (JobState.RUNNING, JobEvent.GAVE_UP), reason, at)
    work.run("close_job", {**failure_columns(failure), "id": job.id, "at": at, "run": None})
    if report is None or failure.name == SUPERSEDED or job.purpose is not Purpose.RUN:
        return
    if work.one("failure_report_of", dict(row)) is not None:
        return  # told before its input was whole again
    told = report.report_to(json.loads(row["destinations"]), json.loads(row["profiles"]))
    if told:
        why = f"results.send_when_failed: {', '.join(told)} will be told that job {job.id} has failed."
        insert_job(work, {**dict(row), "purpose": Purpose.FAILURE_REPORT}, told, why, at)


def insert_job(
    work: Transaction, like: Mapping[str, Any], destinations: Sequence[str], reason: str, at: float
) -> int:
    """A queued job with the columns of ``like``."""
    names = ("series_id", "part", "input_digest", "model", "card", "priority", "purpose")
    row = {name: like[name] for name in names}
    job_id = work.insert("insert_job", {**row, "destinations": as_json(destinations), "at": at})
    write_event(work, "job", job_id, "created", reason, at, states=(None, JobState.QUEUED))
    return job_id


def _with_earlier(run: Mapping[str, Any], earlier: str | None) -> Mapping[str, Any]:
    """A run's record, with what earlier runs of the job said of the objects that they wrote."""
    known = json.loads(earlier or "{}").get("results", ())
    if not known:
        return run
    rows = {row["sop_instance_uid"]: row for row in (*known, *run.get("results", ()))}
    return {**run, "results": list(rows.values())}


def _delivery_order(result: Mapping[str, Any] | Row) -> tuple[int, int]:
    kind = result["kind"]
    place = DELIVERY_ORDER.index(kind) if kind in DELIVERY_ORDER else len(DELIVERY_ORDER)
    return place, int(result["number"])


def _keep(work: Transaction, job_id: int, result: NewResult, at: float) -> None:
    """A result row; one that an earlier run of the job has written belongs to more profiles now."""
    uid = {"job_id": job_id, "sop_instance_uid": result.sop_instance_uid}
    known = work.one("result_of_job_with_uid", uid)
    if known is None:
        row = {**vars(result), "profiles": as_json(result.profiles), "job_id": job_id, "at": at}
        work.insert("insert_result", row)
        return
    keys = dict.fromkeys((*json.loads(known["profiles"]), *result.profiles))
    work.run("set_result_profiles", {"id": known["id"], "profiles": as_json(list(keys))})
