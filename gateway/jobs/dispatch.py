"""The dispatcher: leases queued jobs to workers and writes down what became of them.

One thread. Attempts are counted when a job is claimed, so a job that kills its worker ends as
failed. Waiting is measured on the monotonic clock, so a jump of the wall clock expires nothing.
"""

from __future__ import annotations

import errno
import secrets
import sqlite3
import threading
from collections import deque

from structlog.typing import FilteringBoundLogger

from gateway import failpoint
from gateway.clock import Clock
from gateway.jobs.breaker import Breaker, Turns
from gateway.jobs.checks import refusal, stored
from gateway.jobs.commit import Commit, Retries
from gateway.jobs.damage import Damage, Examine
from gateway.jobs.executor import Executor, Heard
from gateway.jobs.messages import Died, Done, Failed, Heartbeat, Progress, Ready
from gateway.jobs.request import DispatchSettings, job_request
from gateway.jobs.slots import Running, Slot, silent, too_slow, waiting_for_model
from gateway.journal import Journal
from gateway.journal.records import ClaimedJob, Failure, Purpose, Wanted
from gateway.states import JobEvent

_POLL_S = 0.1
_TROUBLE_WAIT_S = 1.0
_MODEL_FAULTS = ("MODEL_CRASHED", "MODEL_HUNG")
_STOPPED = Failure(
    "GATEWAY_STOPPED", "The gateway was stopped while this job was running; it runs again after the start."
)


class Dispatcher:
    """Moves jobs from the journal to the workers and back; ``run`` is the body of its thread."""

    def __init__(
        self,
        journal: Journal,
        executor: Executor,
        settings: DispatchSettings,
        clock: Clock,
        log: FilteringBoundLogger,
        examine: Examine | None = None,
    ) -> None:
        self._damage = Damage(settings.spool_root, examine, log)
        retries = Retries(settings.max_attempts, settings.retry_after_s)
        self._journal = journal
        self._executor = executor
        self._settings = settings
        self._clock = clock
        self._log = log
        self._commit = Commit(journal, settings.results_root, retries, clock, log, settings.sending)
        self._slots: dict[int, Slot] = {}
        self._breaker = Breaker()
        self._turns = Turns()
        self._events: deque[Heard] = deque()

    def run(self, stopping: threading.Event, drain_timeout_s: float) -> None:
        """Work until ``stopping``; then give running jobs their time, and put back those that need more."""
        while not stopping.is_set():
            self._step_or_wait(may_claim=True)
        deadline_s = self._clock.monotonic_s() + drain_timeout_s
        while self._has_jobs() and self._clock.monotonic_s() < deadline_s:
            self._step_or_wait(may_claim=False)
        for slot in self._slots.values():
            if slot.running:
                self._executor.kill(slot.number)
            while slot.running:
                self._commit.requeue(slot.running[0].job, JobEvent.INTERRUPTED, _STOPPED, wait_s=0.0)
                del slot.running[0]

    def _has_jobs(self) -> bool:
        return any(slot.running for slot in self._slots.values())

    def _step_or_wait(self, *, may_claim: bool) -> None:
        """One step. If the disk or the table of open files is full, the event stays: the job waits."""
        try:
            self.step(may_claim=may_claim)
        except sqlite3.OperationalError as error:
            self._log.critical("journal_cannot_be_written", error=str(error))
            threading.Event().wait(_TROUBLE_WAIT_S)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            self._log.critical("too_many_open_files", error=error.strerror)
            threading.Event().wait(_TROUBLE_WAIT_S)

    def step(self, *, may_claim: bool = True) -> None:
        """Handle at most one event of a worker, watch the running jobs, claim new ones."""
        if not self._events:
            heard = self._executor.next_event(_POLL_S)
            if heard is not None:
                self._events.append(heard)
        if self._events:
            self._handle(self._events[0])
            self._events.popleft()
        for slot in self._slots.values():
            self._watch(slot)
            if may_claim and not self._events:
                self._claim(slot)

    # -- events of the workers ----------------------------------------------------------------

    def _handle(self, heard: Heard) -> None:
        slot, event = self._slots.setdefault(heard.slot, Slot(heard.slot)), heard.event
        slot.heard_s = self._clock.monotonic_s()
        match event:
            case Ready():
                self._can_work(slot, event)
            case Died():
                self._lost(slot, event)
            case Heartbeat():
                for lease_id in event.lease_ids:
                    self._renew(slot, slot.find(lease_id))
            case Progress():
                running = slot.find(event.lease_id)
                if running is not None:
                    running.stage = event.stage
                    self._renew(slot, running)
            case Done() | Failed():
                running = slot.find(event.lease_id)
                if running is not None:
                    self._ended(running, event)
                    slot.running.remove(running)

    def _can_work(self, slot: Slot, ready: Ready) -> None:
        slot.cards, slot.is_killed = ready.cards, False
        slot.pid = ready.pid if ready.usable else None
        self._log.info(
            "worker_ready", slot=slot.number, pid=ready.pid, device=ready.device, models=ready.models
        )
        for problem in ready.problems:
            self._log.error("model_not_loaded", reason=problem)
        for state in ready.cards:
            if self._breaker.seen(state.card, state.signature):
                self._log.info("model_switched_on", card=state.card)
        self._note_holds()

    def _note_holds(self) -> None:
        self._journal.hold_cards(
            waiting_for_model(list(self._slots.values()), self._breaker.off), self._clock.now_s()
        )

    def _lost(self, slot: Slot, died: Died) -> None:
        """The jobs that ended the worker are counted; those that merely were there are not."""
        slot.pid, slot.is_killed = None, False
        blamed = list(slot.blamed())
        # The others first: where the journal cannot be written, this is begun again with those that remain.
        for running in sorted(slot.running, key=blamed.__contains__):
            counted = f"{running.job.attempts} of {self._settings.max_attempts} attempts."
            reason = f"The worker ended with {died.ending} {running.doing}, {counted}"
            failure = running.ended_because or Failure("WORKER_DIED", reason)
            if running in blamed:
                retryable = not running.is_final
                self._commit.retry_or_fail(running.job, JobEvent.LEASE_EXPIRED, failure, retryable=retryable)
            else:
                self._commit.requeue(running.job, JobEvent.INTERRUPTED, failure, wait_s=0.0)
            slot.running.remove(running)

    def _ended(self, running: Running, event: Done | Failed) -> None:
        job = running.job
        if isinstance(event, Failed):
            event = self._damage.looked_at(event)
        if isinstance(event, Done):
            if job.purpose is Purpose.RUN:
                self._breaker.worked(job.card)
            self._commit.finish(job, event)
            return
        failure = running.ended_because or Failure(event.name, event.reason)
        if event.name in _MODEL_FAULTS:
            failure = self._model_fault(job, failure)
        if event.blameless and running.ended_because is None:
            wait_s = self._settings.retry_after_s
            self._commit.requeue(job, JobEvent.INTERRUPTED, failure, wait_s=wait_s)
            return
        retryable = event.retryable and not running.is_final
        self._commit.retry_or_fail(job, JobEvent.RETRYABLE_ERROR, failure, retryable=retryable)

    def _model_fault(self, job: ClaimedJob, failure: Failure) -> Failure:
        """The model ended its process on this series: count it for the series, and for the model."""
        most = self._settings.max_attempts
        reason = f"{failure.reason}, {job.attempts} of {most} attempts."
        if self._breaker.crashed(job.card, job.series_instance_uid, reason):
            self._log.critical("model_switched_off", card=job.card, reason=reason)
            self._note_holds()
        if job.attempts >= most:
            reason += " The series is quarantined: it is not tried again, and the queue goes on."
        return Failure(failure.name, reason)

    def _renew(self, slot: Slot, running: Running | None) -> None:
        now_s = self._clock.monotonic_s()
        if running is None or now_s - running.renewed_s < self._settings.lease_s / 3:
            return
        running.renewed_s = now_s
        self._journal.renew_lease(running.job, self._clock.now_s() + self._settings.lease_s)
        superseded = self._journal.newer_revision(running.job)
        if superseded is not None and running.ended_because is None:
            running.is_final = True
            self._end(slot, running, superseded)

    # -- watch --------------------------------------------------------------------------------

    def _watch(self, slot: Slot) -> None:
        """End what is silent or too slow: a job that can be asked to end first, else its worker."""
        now_s, settings = self._clock.monotonic_s(), self._settings
        if slot.is_killed or not slot.running:
            return
        if now_s - slot.heard_s > settings.lease_s:
            for running in slot.running:
                running.ended_because = silent(running, settings.lease_s, settings.max_attempts)
            self._kill(slot, "WORKER_SILENT")
            return
        for running in slot.running:
            if running.ended_because is None and now_s - running.started_s > settings.job_timeout_s:
                self._end(slot, running, too_slow(running, settings.job_timeout_s, settings.max_attempts))
            elif running.ended_because and now_s - running.cancelled_s > settings.cancel_within_s:
                self._kill(slot, running.ended_because.name)
                return

    def _end(self, slot: Slot, running: Running, failure: Failure) -> None:
        """Ask a job to end."""
        running.ended_because, running.cancelled_s = failure, self._clock.monotonic_s()
        self._log.warning("job_cancelled", job=running.job.id, failure=failure.name)
        if slot.pid is not None:
            self._executor.cancel(slot.number, running.job.lease_id, slot.pid)

    def _kill(self, slot: Slot, failure: str) -> None:
        slot.is_killed = True
        self._log.error("worker_killed", slot=slot.number, failure=failure)
        self._executor.kill(slot.number)

    # -- claim --------------------------------------------------------------------------------

    def _claim(self, slot: Slot) -> None:
        """A job for a slot that has none, or an urgent one to overtake the one that it has."""
        if slot.pid is None or not (slot.may_take_any or slot.may_be_overtaken):
            return
        now = self._clock.now_s()
        overtakes = not slot.may_take_any
        wanted = Wanted(
            except_cards=frozenset((*slot.unable, *self._breaker.off)),
            only_urgent=overtakes,
            oldest_first=self._turns.oldest_first and not overtakes,
        )
        settings = self._settings
        job = self._journal.claim_job(
            lease_id=secrets.token_hex(16),
            lease_expires_at=now + settings.lease_s,
            at=now,
            longest_wait_s=settings.retry_after_s,
            wanted=wanted,
            series_number_base=settings.series_number_base,
        )
        if job is None:
            return
        failpoint.reach("dispatch.claimed")
        self._turns.claimed(job.priority)
        self._log.info(
            "job_claimed",
            job=job.id,
            series=job.series_id,
            part=job.part,
            model=job.model,
            purpose=job.purpose,
            attempt=job.attempts,
            priority=job.priority,
            slot=slot.number,
        )
        self._give(slot, slot.pid, job)

    def _give(self, slot: Slot, pid: int, job: ClaimedJob) -> None:
        """Hand a claimed job to the worker of a slot, or fail it here where it cannot run."""
        settings, mono_s = self._settings, self._clock.monotonic_s()
        slot.heard_s = max(slot.heard_s, mono_s) if not slot.running else slot.heard_s
        slot.running.append(Running(job, started_s=mono_s, renewed_s=mono_s))
        members = self._journal.members(job.series_id)
        refused = refusal(job, members, settings.spool_root)
        if refused is not None:
            self._events.append(Heard(slot.number, refused))
            return
        if job.reports is not None:  # what is left of the series will do; why it failed may be the rest
            members = stored(members, settings.spool_root)
        predecessors = self._journal.reports_before(job)
        request = job_request(settings, job, members, predecessors)
        self._executor.submit(slot.number, request, pid)
