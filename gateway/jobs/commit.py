"""What became of a job, written into the journal."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from gateway import failpoint
from gateway.clock import Clock
from gateway.errors import LostRace
from gateway.jobs.checks import result_damage
from gateway.jobs.messages import Done
from gateway.journal import Journal
from gateway.journal.profiles import Profiles
from gateway.journal.records import NOTHING_FOUND, QUALITY_HOLD, ClaimedJob, Failure
from gateway.states import JobEvent


@dataclass(frozen=True)
class Retries:
    """How often a job is tried, and how long it waits before it is tried again."""

    max_attempts: int
    retry_after_s: float


@dataclass(frozen=True)
class Sending:
    """What the destinations get.

    Attributes
    ----------
    failed_quality
        Results for which a quality rule of the card says FAIL.
    nothing_found
        Results of a run that found no structure.
    failures
        A report of a run that has failed for good.
    """

    profiles: Profiles = field(default_factory=Profiles)
    failed_quality: bool = False
    nothing_found: bool = True
    failures: bool = False


class Commit:
    """Ends jobs in the journal: done, failed, or back in the queue."""

    def __init__(
        self,
        journal: Journal,
        results_root: Path,
        retries: Retries,
        clock: Clock,
        log: FilteringBoundLogger,
        sending: Sending,
    ) -> None:
        self._sending = sending
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
        hold = _hold(done, self._sending)
        try:
            now = self._clock.now_s()
            self._journal.finish_job(job, done.results, done.run, now, hold, self._sending.profiles)
        except sqlite3.IntegrityError:
            sentence = "A result with the same SOP Instance UID is already in the journal for another job."
            self.fail(job, Failure("RESULT_ALREADY_EXISTS", sentence))
            return
        failpoint.reach("dispatch.finished")
        if hold is not None:
            self._log.warning("results_held", job=job.id, series=job.series_id, reason=hold.reason)
        kinds = [result.kind for result in done.results]
        self._log.info("job_done", job=job.id, series=job.series_id, purpose=job.purpose, results=kinds)

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
        """Give up; the destinations are told where the site wants that."""
        report = self._sending.profiles if self._sending.failures else None
        self._journal.fail_job(job, failure, self._clock.now_s(), report)
        failpoint.reach("dispatch.gave_up")
        self._log.error("job_failed", job=job.id, failure=failure.name, reason=failure.reason)


def _hold(done: Done, sending: Sending) -> Failure | None:
    """Why results are kept and not sent; None when nothing speaks against them."""
    if done.held and not sending.failed_quality:
        return Failure(QUALITY_HOLD, f"The results are kept here and not sent: {' '.join(done.held)}")
    segments = done.run.get("segments", ())
    if segments and not any(segment["found"] for segment in segments) and not sending.nothing_found:
        sentence = (
            f"None of the {len(segments)} structures was found; the results are kept here and not sent "
            "(results.send_when_nothing_found is false)."
        )
        return Failure(NOTHING_FOUND, sentence)
    return None
