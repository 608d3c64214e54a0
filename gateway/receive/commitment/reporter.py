"""Tells peers what became of their requests for storage commitment (PS3.4 J.3.3).

A report is told on the association on which it was asked for, as long as that is open and the peer waits
there; else on one that we open to the peer. Before it, every file is read and compared with its digest, and
every attempt looks the instances up anew: a report says what is true when it is sent. What could not be told
is tried again, also after a restart, until it is given up.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from gateway import failpoint
from gateway.clock import Clock
from gateway.errors import LostRace, OutOfResources, PeerError
from gateway.journal import Journal
from gateway.journal.commitment_records import ClaimedCommitment, Outcome, WaitingCommitment
from gateway.journal.records import Failure
from gateway.receive.commitment.call import ReportCall
from gateway.receive.commitment.check import examine
from gateway.receive.commitment.codec import write_report
from gateway.receive.commitment.endings import Endings, ReporterSettings
from gateway.receive.commitment.lines import Line, Lines
from gateway.receive.commitment.link import (
    ALL_COMMITTED,
    FAILURES_EXIST,
    Exchange,
    Report,
    ReportAddress,
)
from gateway.receive.commitment.verify import Examine, Verification

_POLL_S = 0.1
_LONGEST_PATIENCE_S = 10.0  # with a peer that goes on sending and could be called as well
_TOLD_IN_FULL_S = 7 * 24 * 3600.0  # after it was told, the journal forgets which instances a request named
_SHORTEN_EVERY_S = 1.0  # one at a time
_AT_ONCE = 8  # peers that are told at the same time
_AFTER_ERROR_S = 5.0
_JOIN_S = 5.0
_CALL = "call"


@dataclass
class _Hold:
    """A peer that could not be called: monotonic time of the next try, and failures in a row."""

    until_s: float = 0.0
    failures: int = 0


class CommitmentReporter:
    """``run`` is the body of its thread; each peer that is told has a thread of its own meanwhile.

    ``verify`` looks at stored files; see :class:`gateway.receive.commitment.verify.Verification`.
    """

    def __init__(
        self,
        journal: Journal,
        spool_root: Path,
        lines: Lines,
        exchange: Exchange,
        settings: ReporterSettings,
        verify: Examine,
        clock: Clock,
        log: FilteringBoundLogger,
    ) -> None:
        self._journal = journal
        self._verification = Verification(journal, verify, clock)
        self._spool_root = spool_root
        self._lines = lines
        self._exchange = exchange
        self._settings = settings
        self._clock = clock
        self._log = log
        self._endings = Endings(journal, settings, clock, log)
        self._holds: defaultdict[str, _Hold] = defaultdict(_Hold)
        self._unverified_until_s: dict[int, float] = {}  # requests with a file that cannot be read; monotonic
        self._shorten_at_s = 0.0
        self._busy: dict[str, threading.Thread] = {}
        self._crash: Exception | None = None

    def run(self, stopping: threading.Event) -> None:
        """Report until ``stopping``, and then as long as peers that may wait have associations open.

        Raises what a peer's thread did not foresee.
        """
        wait_s = _POLL_S
        while not stopping.wait(wait_s) or self._lines.sources():
            wait_s = _POLL_S
            if stopping.is_set():
                threading.Event().wait(wait_s)
            self._busy = {source: thread for source, thread in self._busy.items() if thread.is_alive()}
            if self._crash is not None:
                raise self._crash
            try:
                self._start_due(stopping)
                self._shorten_told()
            except sqlite3.Error as error:
                self._log.error("journal_unavailable", reason=f"{error}; reports are tried again.")
                wait_s = _AFTER_ERROR_S
        for thread in self._busy.values():
            thread.join(_JOIN_S)

    def _start_due(self, stopping: threading.Event) -> None:
        """A thread for each peer that can be told something now."""
        only_here = self._lines.sources() - self._settings.addresses.keys()
        waiting = self._journal.waiting_commitments(
            self._clock.now_s(), self._settings.policy.give_up_after_s, sorted(only_here)
        )
        by_source: dict[str, list[WaitingCommitment]] = {}
        for each in waiting:
            if each.source not in self._busy and self._way(each) is not None:
                by_source.setdefault(each.source, []).append(each)
        for source, due in list(by_source.items())[: _AT_ONCE - len(self._busy)]:
            thread = threading.Thread(
                target=self._tell_peer, args=(due, stopping), name=f"commitment-{source}", daemon=True
            )
            self._busy[source] = thread
            thread.start()

    def _shorten_told(self) -> None:
        now_s = self._clock.monotonic_s()
        if now_s >= self._shorten_at_s:
            self._shorten_at_s = now_s + _SHORTEN_EVERY_S
            self._journal.shorten_commitment(self._clock.now_s() - _TOLD_IN_FULL_S)

    def _way(self, waiting: WaitingCommitment) -> Line | str | None:
        """An open association, ``call`` for one that we open (or cannot open), or None: not now."""
        if self._clock.monotonic_s() < self._unverified_until_s.get(waiting.id, 0.0):
            return None
        source = waiting.source
        can_call = source in self._settings.addresses
        overdue_s = self._clock.now_s() - waiting.next_attempt_at
        is_due = overdue_s >= 0 or -overdue_s > self._settings.policy.give_up_after_s
        line = self._lines.find(waiting.id, source, any_of_source=not can_call)
        if line is not None:
            if self._lines.is_quiet(line, waiting.id):
                return line
            if not can_call or overdue_s < _LONGEST_PATIENCE_S:
                return None
        if not is_due or (can_call and self._clock.monotonic_s() < self._holds[source].until_s):
            return None
        return _CALL

    # -- one peer -----------------------------------------------------------------------------

    def _tell_peer(self, due: Sequence[WaitingCommitment], stopping: threading.Event) -> None:
        """The body of a peer's thread."""
        settings = self._settings
        call = ReportCall(settings.calling_ae_title, self._exchange, settings.answer_timeout_s)
        try:
            for waiting in due:
                if not stopping.is_set() or self._lines.sources():
                    self._tell_one(waiting, call, stopping)
        except sqlite3.Error as error:
            self._log.error("commitment_not_verified", reason=f"{error} The report is tried again.")
            stopping.wait(_AFTER_ERROR_S)
        except Exception as error:  # noqa: BLE001 - raised in the reporter's own thread
            self._crash = error
        finally:
            call.close()

    def _tell_one(self, waiting: WaitingCommitment, call: ReportCall, stopping: threading.Event) -> None:
        if self._way(waiting) is None:  # then nothing is read from the disk
            return
        way = self._cannot_verify(waiting.id, stopping) or self._way(waiting)  # reading took a while
        if way is None:
            return
        try:
            claimed = self._journal.claim_commitment(waiting.id, self._clock.now_s())
        except LostRace:
            return
        failpoint.reach("commitment.claimed")
        try:
            outcome = examine(self._journal, self._spool_root, claimed.source, claimed.references)
        except sqlite3.Error as error:
            failure = Failure("JOURNAL_UNAVAILABLE", f"The journal could not be read ({error}).")
            until_s = self._clock.now_s() + self._settings.policy.first_retry_s
            self._endings.until_written(self._endings.postponed(claimed, failure, until_s), stopping)
            return
        if isinstance(way, OutOfResources):
            ending, wait_s = self._endings.later(claimed, outcome, way, claimed.attempts)
            self._unverified_until_s[claimed.id] = self._clock.monotonic_s() + wait_s
        else:
            ending = self._tell(claimed, outcome, way, call)
        failpoint.reach("commitment.told")
        self._endings.until_written(ending, stopping)

    def _cannot_verify(self, commitment_id: int, stopping: threading.Event) -> OutOfResources | None:
        """Read the files of a request; says why it cannot be told yet."""
        self._unverified_until_s.pop(commitment_id, None)
        try:
            self._verification.verify(commitment_id, stopping)
        except OutOfResources as error:
            return error
        return None

    def _tell(
        self, claimed: ClaimedCommitment, outcome: Outcome, way: Line | str, call: ReportCall
    ) -> Callable[[], None]:
        """Tell the peer, here or there; returns what is to be written into the journal."""
        report = _report(claimed, outcome)
        error: PeerError | None = None
        if isinstance(way, Line):
            way.tried.add(claimed.id)
            try:
                timeout_s = self._settings.answer_timeout_s
                self._exchange.tell(way.association, claimed.source, report, timeout_s)
            except PeerError as problem:
                error = problem
            else:
                return self._endings.reported(claimed, outcome, "on the association that it had opened")
        address = self._settings.addresses.get(claimed.source)
        if address is None:
            return self._endings.wait_for_peer(claimed, outcome, error)
        return self._tell_there(claimed, outcome, address, report, call)

    def _tell_there(
        self,
        claimed: ClaimedCommitment,
        outcome: Outcome,
        address: ReportAddress,
        report: Report,
        call: ReportCall,
    ) -> Callable[[], None]:
        """On an association that we open."""
        hold = self._holds[claimed.source]
        try:
            call.open(address)
        except PeerError as problem:
            hold.failures += 1
            ending, wait_s = self._endings.later(claimed, outcome, problem, hold.failures)
            hold.until_s = self._clock.monotonic_s() + wait_s
            return ending
        hold.failures, hold.until_s = 0, 0.0
        try:
            call.tell(address, report)
        except PeerError as problem:
            if problem.retryable:
                return self._endings.later(claimed, outcome, problem, claimed.attempts)[0]
            return self._endings.dead(claimed, outcome, Failure(problem.name, problem.reason))
        return self._endings.reported(claimed, outcome, "on an association of its own")


def _report(claimed: ClaimedCommitment, outcome: Outcome) -> Report:
    def encoded(explicit_vr: bool) -> bytes:
        uid, committed, failed = claimed.transaction_uid, outcome.committed, outcome.failed
        return write_report(uid, committed, failed, explicit_vr=explicit_vr)

    return Report(FAILURES_EXIST if outcome.failed else ALL_COMMITTED, encoded)
