"""Which prediction makes the next step on a device. Pure; the clock is an argument.

The most urgent one does, and of equals the one that is being served. So an urgent one that comes in
overtakes at the next step. One that has waited for long enough has a turn before all others, short enough
for what is urgent to bear.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass

LEVELS: Mapping[str, int] = {"urgent": 0, "normal": 1, "offpeak": 2}
OVERDUE_AFTER_S: Mapping[str, float] = {"normal": 120.0, "offpeak": 900.0}
TURN_S = 30.0
"""How long what was overdue goes before what is urgent."""

_FIRST = -1
_NEVER_S = float("inf")


@dataclass
class _Entry:
    """``since_s``: since when it has been waiting, or being served."""

    order: int
    priority: str
    since_s: float
    waited_s: float = 0.0

    @property
    def overdue_after_s(self) -> float:
        return OVERDUE_AFTER_S.get(self.priority, _NEVER_S)

    def level(self, now_s: float, *, served: bool) -> int:
        passed_s = now_s - self.since_s
        waited_s = self.waited_s if served else self.waited_s + passed_s
        has_turn = waited_s >= self.overdue_after_s and not (served and passed_s >= TURN_S)
        return _FIRST if has_turn else LEVELS[self.priority]


class Schedule:
    """The predictions of one device; ids are the caller's."""

    def __init__(self) -> None:
        self._entries: dict[int, _Entry] = {}
        self._arrivals = 0
        self._served: int | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, number: int) -> bool:
        return number in self._entries

    def add(self, number: int, priority: str, now_s: float) -> None:
        """One more waits from now."""
        self._arrivals += 1
        self._entries[number] = _Entry(self._arrivals, priority, now_s)

    def remove(self, number: int) -> None:
        """It has ended, or nobody wants it any more."""
        self._entries.pop(number, None)
        if self._served == number:
            self._served = None

    def order(self, now_s: float) -> list[int]:
        """All of them, the one that is due first; of equals the one that came first."""
        heap = [
            (entry.level(now_s, served=served), not served, entry.order, number)
            for number, entry in self._entries.items()
            for served in (number == self._served,)
        ]
        heapq.heapify(heap)
        return [heapq.heappop(heap)[3] for _ in range(len(heap))]

    def serve(self, number: int, now_s: float) -> None:
        """From now on this one makes its steps, and the one before it waits."""
        if number == self._served:
            return
        if self._served is not None:
            before = self._entries[self._served]
            before.since_s = now_s
            if before.waited_s >= before.overdue_after_s:  # it has had its turn
                before.waited_s = 0.0
        entry = self._entries[number]
        entry.waited_s += now_s - entry.since_s
        entry.since_s = now_s
        self._served = number
