"""What follows when a file that was damaged or gone is there again: jobs that failed for it run after all.

Nobody has to ask for it: whoever sends a series again, because a job failed for a damaged instance, expects
its results. The job keeps its identity, so its results have the UIDs that they would have had.
"""

from __future__ import annotations

from gateway.journal.connection import Transaction
from gateway.journal.edges import take_edge
from gateway.states import JOB, JobEvent, JobState

INSTANCE_DAMAGED = "INSTANCE_DAMAGED"
"""Failure name of a job that lacks an instance, because its file is not what was received."""

INSTANCE_FILE_MISSING = "INSTANCE_FILE_MISSING"
"""The same where the file is gone."""


def run_again(work: Transaction, instance_id: int, at: float) -> int:
    """Queue the failed jobs of the revisions that an instance is in, now that it is whole; returns how many.

    Only of the newest revision, and only where none of its other instances is damaged.
    """
    values = {"id": instance_id, "damaged": INSTANCE_DAMAGED, "missing": INSTANCE_FILE_MISSING}
    jobs = work.run("jobs_that_lacked_instance", values).fetchall()
    for job in jobs:
        edge = (JobState.FAILED, JobEvent.INPUT_RESTORED)
        take_edge(work, JOB, job["id"], edge, "Its instances are whole again: the job runs once more.", at)
        work.run("reopen_job", {"id": job["id"], "at": at})
    return len(jobs)
