"""The dispatcher: leases queued jobs to the worker and writes down what became of them.

One thread. Attempts are counted when a job is claimed, so a job that kills its worker ends as
failed. Waiting is measured on the monotonic clock, so a jump of the wall clock expires nothing.
"""

from __future__ import annotations

import secrets
import sqlite3
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from gateway import failpoint
from gateway.clock import Clock
from gateway.errors import LostRace
from gateway.jobs.checks import refusal, result_damage
from gateway.jobs.executor import LocalExecutor
from gateway.jobs.messages import Died, Done, Event, Failed, Heartbeat, JobRequest, Progress, Ready
from gateway.journal import Journal
from gateway.journal.records import ClaimedJob, Failure, Member, NewResult
from gateway.states import JobEvent

RESULT_ORDER = ("seg", "sr", "overview")
"""Results enter the outbox in this order: a report follows what it cites, unless that is refused."""

_POLL_S = 0.1
_DISK_TROUBLE_WAIT_S = 1.0
_STAGES = {
    "read": "while reading the pixels",
    "segment": "while the model was running",
    "measure": "while measuring",
    "write": "while writing the results",
    "verify": "while checking the results",
}
_STOPPED = Failure(
    "GATEWAY_STOPPED", "The gateway was stopped while this job was running; it runs again after the start."
)


@dataclass(frozen=True)
class DispatchSettings:
    """What the dispatcher needs of the configuration. Times in seconds."""

    spool_root: Path
    results_root: Path
    card_folders: tuple[Path, ...]
    device: str
    series_number_base: int
    software_version: str
    max_attempts: int
    retry_after_s: float
    job_timeout_s: float
    lease_s: float


@dataclass
class _Running:
    """The job that the worker has now; times on the monotonic clock."""

    job: ClaimedJob
    started_s: float
    heard_s: float
    renewed_s: float
    stage: str = ""
    killed_because: Failure | None = None

    @property
    def doing(self) -> str:
        """What the worker was doing when it was last heard of."""
        return _STAGES.get(self.stage, "while running this series")


class Dispatcher:
    """Moves jobs from the journal to the worker and back; ``run`` is the body of its thread."""

    def __init__(
        self,
        journal: Journal,
        executor: LocalExecutor,
        settings: DispatchSettings,
        clock: Clock,
        log: FilteringBoundLogger,
    ) -> None:
        self._journal = journal
        self._executor = executor
        self._settings = settings
        self._clock = clock
        self._log = log
        self._worker_pid: int | None = None
        self._running: _Running | None = None
        self._events: deque[Event] = deque()

    def run(self, stopping: threading.Event, drain_timeout_s: float) -> None:
        """Work until ``stopping``; then give a running job its time, and put it back if that is over."""
        while not stopping.is_set():
            self._step_or_wait(may_claim=True)
        deadline_s = self._clock.monotonic_s() + drain_timeout_s
        while self._running is not None and self._clock.monotonic_s() < deadline_s:
            self._step_or_wait(may_claim=False)
        if self._running is not None:
            job, self._running = self._running.job, None
            self._executor.kill()
            self._requeue(job, JobEvent.INTERRUPTED, _STOPPED, wait_s=0.0)

    def _step_or_wait(self, *, may_claim: bool) -> None:
        """One step. If the disk is full, the event stays and is handled again: the job waits."""
        try:
            self.step(may_claim=may_claim)
        except sqlite3.OperationalError as error:
            self._log.critical("journal_cannot_be_written", error=str(error))
            threading.Event().wait(_DISK_TROUBLE_WAIT_S)

    def step(self, *, may_claim: bool = True) -> None:
        """Handle at most one event of the worker, watch the running job, claim a new one."""
        if not self._events:
            event = self._executor.next_event(_POLL_S)
            if event is not None:
                self._events.append(event)
        if self._events:
            self._handle(self._events[0])
            self._events.popleft()
        if self._running is not None:
            self._watch(self._running)
        elif may_claim and self._worker_pid is not None and not self._events:
            self._claim(self._worker_pid)

    # -- events of the worker -----------------------------------------------------------------

    def _handle(self, event: Event) -> None:
        if isinstance(event, Ready):
            self._worker_pid = event.pid if event.usable else None
            self._log.info("worker_ready", pid=event.pid, device=event.device, models=event.models)
            for problem in event.problems:
                self._log.error("model_not_loaded", reason=problem)
            return
        if isinstance(event, Died):
            self._worker_pid = None
        running = self._running
        if running is None:
            return
        if isinstance(event, Died):
            self._lost(running, event)
            return
        running.heard_s = self._clock.monotonic_s()
        if event.lease_id != running.job.lease_id:
            return
        if isinstance(event, Heartbeat | Progress):
            running.stage = event.stage if isinstance(event, Progress) else running.stage
            self._renew(running)
        elif isinstance(event, Done):
            self._finish(running.job, event)
            self._running = None
        elif isinstance(event, Failed):
            failure = Failure(event.name, event.reason)
            self._retry_or_fail(running.job, JobEvent.RETRYABLE_ERROR, failure, retryable=event.retryable)
            self._running = None

    def _lost(self, running: _Running, event: Died) -> None:
        limit = self._settings.max_attempts
        died = Failure(
            "WORKER_DIED",
            f"The worker ended with {event.ending} {running.doing}, "
            f"{running.job.attempts} of {limit} attempts.",
        )
        failure = running.killed_because or died
        self._retry_or_fail(running.job, JobEvent.LEASE_EXPIRED, failure, retryable=True)
        self._running = None

    def _renew(self, running: _Running) -> None:
        now_s = self._clock.monotonic_s()
        if now_s - running.renewed_s < self._settings.lease_s / 3:
            return
        running.renewed_s = now_s
        self._journal.renew_lease(running.job, self._clock.now_s() + self._settings.lease_s)

    def _watch(self, running: _Running) -> None:
        """Kill a worker that is silent or too slow; ``Died`` then does the rest."""
        if running.killed_because is not None:
            return
        now_s, settings, attempts = self._clock.monotonic_s(), self._settings, running.job.attempts
        if now_s - running.heard_s > settings.lease_s:
            running.killed_because = Failure(
                "WORKER_SILENT",
                f"The worker gave no sign of life for {settings.lease_s:.0f} s {running.doing} and was "
                f"ended, {attempts} of {settings.max_attempts} attempts.",
            )
        elif now_s - running.started_s > settings.job_timeout_s:
            running.killed_because = Failure(
                "JOB_TIMEOUT",
                f"The job took more than {settings.job_timeout_s:g} s (workers.job_timeout) and was ended "
                f"{running.doing}, {attempts} of {settings.max_attempts} attempts.",
            )
        else:
            return
        self._log.error("worker_killed", job=running.job.id, failure=running.killed_because.name)
        self._executor.kill()

    # -- claim --------------------------------------------------------------------------------

    def _claim(self, worker_pid: int) -> None:
        now = self._clock.now_s()
        job = self._journal.claim_job(
            secrets.token_hex(16), now + self._settings.lease_s, now, self._settings.retry_after_s
        )
        if job is None:
            return
        failpoint.reach("dispatch.claimed")
        self._log.info(
            "job_claimed",
            job=job.id,
            series=job.series_id,
            part=job.part,
            model=job.model,
            attempt=job.attempts,
        )
        mono_s = self._clock.monotonic_s()
        self._running = _Running(job, started_s=mono_s, heard_s=mono_s, renewed_s=mono_s)
        members = self._journal.members(job.series_id)
        refused = refusal(job, members, self._settings.spool_root)
        if refused is not None:
            self._events.append(refused)
            return
        self._executor.submit(self._request(job, members), worker_pid)

    def _request(self, job: ClaimedJob, members: Sequence[Member]) -> JobRequest:
        settings = self._settings
        return JobRequest(
            job_id=job.id,
            lease_id=job.lease_id,
            files=tuple(str(settings.spool_root / member.path) for member in members),
            part=job.part,
            card=job.card,
            card_folders=tuple(str(folder) for folder in settings.card_folders),
            device=settings.device,
            created_at_s=job.created_at,
            series_number_base=settings.series_number_base,
            results_root=str(settings.results_root),
            software_version=settings.software_version,
            revision=job.revision,
        )

    # -- ends of a job ------------------------------------------------------------------------

    def _finish(self, job: ClaimedJob, done: Done) -> None:
        failpoint.reach("dispatch.results_received")
        for result in done.results:
            damage = result_damage(self._settings.results_root, result)
            if damage:
                failure = Failure("RESULT_FILE_DAMAGED", damage)
                self._retry_or_fail(job, JobEvent.RETRYABLE_ERROR, failure, retryable=True)
                return
        results = sorted(done.results, key=_delivery_order)
        try:
            self._journal.finish_job(job, results, done.run, self._clock.now_s())
        except sqlite3.IntegrityError:
            sentence = "A result with the same SOP Instance UID is already in the journal for another job."
            self._fail(job, Failure("RESULT_ALREADY_EXISTS", sentence))
            return
        failpoint.reach("dispatch.finished")
        self._log.info("job_done", job=job.id, series=job.series_id, results=[r.kind for r in results])

    def _retry_or_fail(self, job: ClaimedJob, event: JobEvent, failure: Failure, *, retryable: bool) -> None:
        if retryable and job.attempts < self._settings.max_attempts:
            self._requeue(job, event, failure, wait_s=self._settings.retry_after_s)
        else:
            self._fail(job, failure)

    def _requeue(self, job: ClaimedJob, event: JobEvent, failure: Failure, wait_s: float) -> None:
        now = self._clock.now_s()
        try:
            self._journal.requeue_job(job, event, failure, now + wait_s, now)
        except LostRace as error:
            self._log.error("lease_lost", job=job.id, reason=error.reason)
            return
        self._log.warning("job_requeued", job=job.id, failure=failure.name, reason=failure.reason)

    def _fail(self, job: ClaimedJob, failure: Failure) -> None:
        self._journal.fail_job(job, failure, self._clock.now_s())
        self._log.error("job_failed", job=job.id, failure=failure.name, reason=failure.reason)


def _delivery_order(result: NewResult) -> int:
    return RESULT_ORDER.index(result.kind) if result.kind in RESULT_ORDER else len(RESULT_ORDER)
