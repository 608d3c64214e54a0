"""Claiming the next job: who is first in the queue, and who has no place in it any more."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.journal.connection import Transaction
from gateway.journal.edges import as_json, failure_columns, stay_done, take_edge
from gateway.journal.numbers import base_for
from gateway.journal.records import SUPERSEDED, ClaimedJob, Failure, Purpose, Wanted
from gateway.states import JOB, JobEvent, JobState

_OFFPEAK_AGES_S = 3600.0


@dataclass(frozen=True)
class Lease:
    """Who has a job until when."""

    id: str
    expires_at: float


def claim(
    work: Transaction, lease: Lease, at: float, longest_wait_s: float, wanted: Wanted, first_base: int
) -> ClaimedJob | None:
    """Lease the first queued job; see :meth:`gateway.journal.journal.Journal.claim_job`."""
    _supersede_jobs(work, at)
    values = {
        "at": at,
        "longest_wait_s": longest_wait_s,
        "except_cards": as_json(sorted(wanted.except_cards)),
        "only_urgent": wanted.only_urgent,
        "oldest_first": wanted.oldest_first,
        "offpeak_ages_s": _OFFPEAK_AGES_S,
    }
    row = work.one("next_queued_job", values)
    if row is None:
        return None
    work.run("take_lease", {"id": row["id"], "lease_id": lease.id, "lease_expires_at": lease.expires_at})
    job = work.one("job_to_run", {"id": row["id"]})
    assert job is not None  # noqa: S101 - selected in this transaction
    reason = f"Attempt {job['attempts']}."
    take_edge(work, JOB, row["id"], (JobState.QUEUED, JobEvent.CLAIMED), reason, at)
    return _claimed({**dict(job), "series_number_base": base_for(work, dict(job), first_base)}, lease)


def _claimed(row: dict[str, Any], lease: Lease) -> ClaimedJob:
    name, reason = row.pop("failure_name"), row.pop("failure_reason")
    decoded = {
        "destinations": tuple(json.loads(row["destinations"])),
        "written": frozenset(json.loads(row.pop("profiles"))),
        "purpose": Purpose(row["purpose"]),
        "reports": Failure(name, reason) if name else None,
    }
    return ClaimedJob(lease_id=lease.id, **{**row, **decoded})


def superseded(row: Mapping[str, Any]) -> Failure:
    """What is said of a row whose series has a newer revision."""
    return Failure(
        SUPERSEDED,
        f"More instances of the series arrived: revision {row['newest_revision']} takes the place of "
        f"revision {row['revision']}.",
    )


def _supersede_jobs(work: Transaction, at: float) -> None:
    for row in work.run("outdated_jobs", {}).fetchall():
        failure = superseded(row)
        if json.loads(row["profiles"]):
            stay_done(work, row["id"], JobState.QUEUED, failure.reason, at)
            continue
        take_edge(work, JOB, row["id"], (JobState.QUEUED, JobEvent.SUPERSEDED), failure.reason, at)
        work.run("close_job", {**failure_columns(failure), "id": row["id"], "at": at, "run": None})
