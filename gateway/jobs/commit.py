"""What became of a job, written into the journal."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from gateway import failpoint
from gateway.clock import Clock
from gateway.errors import LostRace
from gateway.jobs.checks import result_damage
from gateway.jobs.messages import Done
from gateway.journal import Journal
from gateway.journal.records import QUALITY_HOLD, ClaimedJob, Failure, NewResult
from gateway.states import JobEvent

RESULT_ORDER = ("seg", "sr", "overview")
"""Results enter the outbox in this order: a report follows what it cites, unless that is refused."""


@dataclass(frozen=True)
class Retries:
    """How often a job is tried, and how long it waits before it is tried again."""

    max_attempts: int
    retry_after_s: float


class Commit:
    """Ends jobs in the journal: done, failed, or back in the queue."""

    def __init__(
        self,
        journal: Journal,
        results_root: Path,
        retries: Retries,
        clock: Clock,
        log: FilteringBoundLogger,
        *,
        send_failed_quality: bool = False,
    ) -> None:
        self._send_failed_quality = send_failed_quality
        self._journal = journal
        self._results_root = results_root
        self._retries = retries
        self._clock = clock
        self._log = log

    def finish(self, job: ClaimedJob, done: Done) -> None:
        """Results, outbox and state in one transaction, once the files are what the worker said they are."""
        failpoint.reach("dispatch.results_received")
        for result in done.results:
            damage = result_damage(self._results_root, result)
            if damage:
                failure = Failure("RESULT_FILE_DAMAGED", damage)
                self.retry_or_fail(job, JobEvent.RETRYABLE_ERROR, failure, retryable=True)
                return
        results = sorted(done.results, key=_delivery_order)
        hold = None if self._send_failed_quality else _hold(done.held)
        try:
            self._journal.finish_job(job, results, done.run, self._clock.now_s(), hold)
        except sqlite3.IntegrityError:
            sentence = "A result with the same SOP Instance UID is already in the journal for another job."
            self.fail(job, Failure("RESULT_ALREADY_EXISTS", sentence))
            return
        failpoint.reach("dispatch.finished")
        if hold is not None:
            self._log.warning("results_held", job=job.id, series=job.series_id, reason=hold.reason)
        self._log.info("job_done", job=job.id, series=job.series_id, results=[r.kind for r in results])

    def retry_or_fail(self, job: ClaimedJob, event: JobEvent, failure: Failure, *, retryable: bool) -> None:
        """Back to the queue if that can help and attempts are left, else failed."""
        if retryable and job.attempts < self._retries.max_attempts:
            self.requeue(job, event, failure, wait_s=self._retries.retry_after_s)
        else:
            self.fail(job, failure)

    def requeue(self, job: ClaimedJob, event: JobEvent, failure: Failure, wait_s: float) -> None:
        """Back to the queue, for the time being."""
        now = self._clock.now_s()
        try:
            self._journal.requeue_job(job, event, failure, now + wait_s, now)
        except LostRace as error:
            self._log.error("lease_lost", job=job.id, reason=error.reason)
            return
        self._log.warning("job_requeued", job=job.id, failure=failure.name, reason=failure.reason)

    def fail(self, job: ClaimedJob, failure: Failure) -> None:
        """Give up."""
        self._journal.fail_job(job, failure, self._clock.now_s())
        self._log.error("job_failed", job=job.id, failure=failure.name, reason=failure.reason)


def _hold(reasons: tuple[str, ...]) -> Failure | None:
    """Why results are kept and not sent; None when nothing speaks against them."""
    if not reasons:
        return None
    return Failure(QUALITY_HOLD, f"The results are kept here and not sent: {' '.join(reasons)}")


def _delivery_order(result: NewResult) -> int:
    return RESULT_ORDER.index(result.kind) if result.kind in RESULT_ORDER else len(RESULT_ORDER)
