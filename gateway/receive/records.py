"""Writes down what peers do wrong on a connection, at most so often that it fills no disk."""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter, OrderedDict
from collections.abc import Hashable, Mapping

from structlog.typing import FilteringBoundLogger

from gateway.clock import Clock
from gateway.journal import Journal
from gateway.logs import places

_SAME_AGAIN_S = 60.0
_MOST_REMEMBERED = 1000
_MOST_RECORDS = 120
_WINDOW_S = 60.0


class Repeats:
    """Decides what is written: the same thing once a minute, and of one name 120 a minute. Thread-safe.

    The names are few and ours: a flood of one does not hide the others.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._last: OrderedDict[Hashable, tuple[float, int]] = OrderedDict()
        self._window_s = float("-inf")
        self._in_window: Counter[str] = Counter()

    def due(self, name: str, *who: Hashable) -> int | None:
        """How often this came unwritten since it was written last; None if it need not be written now."""
        now_s, key = self._clock.monotonic_s(), (name, *who)
        with self._lock:
            written_s, unwritten = self._last.pop(key, (float("-inf"), 0))
            if now_s - self._window_s >= _WINDOW_S:
                self._window_s = now_s
                self._in_window.clear()
            is_due = now_s - written_s >= _SAME_AGAIN_S and self._in_window[name] < _MOST_RECORDS
            self._in_window[name] += is_due
            self._last[key] = (now_s, 0) if is_due else (written_s, unwritten + 1)
            while len(self._last) > _MOST_REMEMBERED:
                self._last.popitem(last=False)
        return unwritten if is_due else None


class Incidents:
    """A log line and a journal record of what happened to no instance or job of ours, and how often.

    Raises nothing: the journal being out of order keeps nobody from being refused.
    """

    def __init__(self, journal: Journal, clock: Clock, log: FilteringBoundLogger) -> None:
        self._journal = journal
        self._clock = clock
        self._log = log
        self._repeats = Repeats(clock)
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def counts(self) -> Mapping[str, int]:
        """By name since the start, written or not."""
        with self._lock:
            return dict(self._counts)

    def mistake(self, error: BaseException) -> None:
        """Log a mistake of ours on a connection; the same one once a minute. Its text may quote a peer."""
        where = places(error)
        repeated = self._repeats.due(type(error).__name__, *where)
        if repeated is not None:
            self._log.error("association_failed", error=type(error).__name__, places=where, repeated=repeated)

    def note(self, subject: str, name: str, reason: str, who: Mapping[str, object], advice: str = "") -> None:
        """The same name of the same ``who`` is written once a minute; ``advice`` is for the other side."""
        with self._lock:
            self._counts[name] += 1
        repeated = self._repeats.due(name, *(str(value) for value in who.values()))
        if repeated is None:
            return
        details = dict(who)
        if advice:
            details["advice"] = advice
        if repeated:
            details["repeated"] = repeated
        self._log.warning(f"{subject}_rejected", name=name, reason=reason, **details)
        try:
            self._journal.record(subject, name, reason, self._clock.now_s(), details)
        except sqlite3.Error as error:
            self._log.error("journal_unavailable", reason=str(error))
