"""The sweeper: looks at receiving series, and has each complete one decided."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from structlog.typing import FilteringBoundLogger

from gateway import completion, failpoint
from gateway.clock import Clock
from gateway.completion import Wait
from gateway.errors import LostRace
from gateway.journal import Journal
from gateway.journal.records import ReceivingSeries
from gateway.sweep.decide import SweepRules, consider, without_routing
from gateway.sweep.facts import with_all_facts

_Seen = tuple[int, float]

_SHORTEST_WAIT_S = 0.05
_LONGEST_WAIT_S = 60.0
_AFTER_ERROR_S = 5.0
_LOOK_S = 0.2


class Sweeper:
    """Decides the series that are complete. One per gateway; the caller owns the loop::

        while not sweeper.wait(stopping):
            sweeper.sweep_once()

    Parameters
    ----------
    spool_root
        Where the files of the instances are.
    open_associations
        Peer name → number of its associations that are open now.
    """

    def __init__(
        self,
        journal: Journal,
        spool_root: Path,
        open_associations: Callable[[str], int],
        rules: SweepRules,
        clock: Clock,
        log: FilteringBoundLogger,
    ) -> None:
        self._journal = journal
        self._spool_root = spool_root
        self._open_associations = open_associations
        self._rules = rules
        self._clock = clock
        self._log = log
        self._seen: dict[int, tuple[_Seen, float]] = {}
        self._wait_s = _SHORTEST_WAIT_S
        self._woken = threading.Event()
        self._started_s = clock.monotonic_s()

    def wait_s(self) -> float:
        """Seconds until the next sweep is due.

        A series that arrives meanwhile cannot be complete before ``quiet_for``, unless its source says
        so: see :meth:`wake`.
        """
        return self._wait_s

    def wake(self) -> None:
        """Let the next sweep be due: a series may be complete that was not quiet."""
        self._woken.set()

    def wait(self, stopping: threading.Event) -> bool:
        """Wait until the next sweep is due; True if we are to stop."""
        until_s = self._clock.monotonic_s() + self._wait_s
        while not stopping.is_set() and not self._woken.is_set():
            left_s = until_s - self._clock.monotonic_s()
            if left_s <= 0:
                break
            stopping.wait(min(left_s, _LOOK_S))
        self._woken.clear()
        return stopping.is_set()

    def sweep_once(self) -> int:
        """Look at every receiving series once; returns how many were decided.

        A journal that cannot be read or written now (full disk) is tried again a little later.
        """
        try:
            return self._sweep()
        except sqlite3.Error as error:
            self._log.error("journal_unavailable", reason=f"{error}; the sweep is tried again.")
            self._wait_s = _AFTER_ERROR_S
            return 0

    def _sweep(self) -> int:
        decided = 0
        wait_s = min(self._rules.completion.quiet_for_s, _LONGEST_WAIT_S)
        receiving = self._journal.receiving_series()
        self._seen = {series.id: self._first_seen(series) for series in receiving}
        for series in receiving:
            now_s = self._now_s(series)
            open_associations = self._open_associations(series.source)
            listening_since_s = now_s - (self._clock.monotonic_s() - self._started_s)
            outcome = completion.decide(
                series, open_associations, now_s, self._rules.completion, listening_since_s
            )
            if isinstance(outcome, Wait):
                wait_s = min(wait_s, outcome.until_s - now_s)
            elif self._decide(series, outcome.evidence):
                decided += 1
        self._wait_s = max(wait_s, _SHORTEST_WAIT_S)
        return decided

    def _decide(self, series: ReceivingSeries, evidence: Mapping[str, Any]) -> bool:
        """Decide one complete series; False if it changed at the last moment."""
        is_ours = self._journal.is_own_result_series(series.series_instance_uid)
        members = with_all_facts(self._journal.members(series.id), self._spool_root)
        try:
            decision = consider(series, members, evidence, self._rules, is_ours=is_ours)
        except Exception as error:  # noqa: BLE001 - one strange series must not stop all the others
            self._log.exception("series_not_assessed", series=series.series_instance_uid)
            reason = f"The gateway failed to assess the series ({type(error).__name__}); please report it."
            decision = without_routing("ASSESSMENT_FAILED", reason, evidence, self._rules, refused=True)
        failpoint.reach("sweep.before_decision")
        try:
            now_s = self._clock.now_s()
            job_ids = self._journal.decide_series(series, decision, now_s, self._rules.profiles)
        except LostRace:
            return False
        failpoint.reach("sweep.decided")
        self._log.info(
            "series_decided",
            series=series.series_instance_uid,
            revision=series.revision,
            instances=series.instance_count,
            decision=decision.name,
            reason=decision.reason,
            jobs=job_ids,
        )
        return True

    def _first_seen(self, series: ReceivingSeries) -> tuple[_Seen, float]:
        """What tells two contents of a series apart, and the monotonic time at which we first saw it."""
        now = (series.instance_count, series.last_instance_at)
        known, at_s = self._seen.get(series.id, (now, self._clock.monotonic_s()))
        return (now, at_s) if known == now else (now, self._clock.monotonic_s())

    def _now_s(self, series: ReceivingSeries) -> float:
        """Now; if the wall clock was set back before the newest instance, counted on from there."""
        now_s = self._clock.now_s()
        if now_s >= series.last_instance_at:
            return now_s
        return series.last_instance_at + self._clock.monotonic_s() - self._seen[series.id][1]
