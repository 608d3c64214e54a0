"""Connections without an association: so many and no more, and always room for one that is quick."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass


@dataclass(frozen=True)
class _Open:
    address: str
    cut: Callable[[], None]
    has_ended: bool = False


class Connections:
    """Bounds the connections that have not asked for an association, or have none any more.

    Where there are too many, the oldest makes room for a new one: a real peer asks within milliseconds, so
    it gets in while idle connections come and go. Safe from threads.

    Parameters
    ----------
    most
        In all.
    most_of_address
        Of one address, that have not asked yet.
    on_crowded
        Told the address of a connection that had to make room, and which limit was reached.
    """

    def __init__(self, most: int, most_of_address: int, on_crowded: Callable[[str, str], None]) -> None:
        self._most = most
        self._most_of_address = most_of_address
        self._on_crowded = on_crowded
        self._lock = threading.Lock()
        self._open: dict[Hashable, _Open] = {}  # the oldest first

    def opened(self, connection: Hashable, address: str, cut: Callable[[], None]) -> None:
        """One more; ``cut`` ends it. Ends another one, if there are too many."""
        with self._lock:
            self._open[connection] = _Open(address, cut)
            too_many = self._too_many(address)
        if too_many is not None:
            key, limit = too_many
            self.make_room(key, limit)

    def associated(self, connection: Hashable) -> None:
        """It has an association now: it does not count."""
        with self._lock:
            self._open.pop(connection, None)

    def ended(self, connection: Hashable, address: str, cut: Callable[[], None]) -> None:
        """Its association is over, and it lingers until its peer has the answer: it ends no other one."""
        with self._lock:
            self._open.pop(connection, None)
            self._open[connection] = _Open(address, cut, has_ended=True)

    def closed(self, connection: Hashable) -> None:
        """It is gone."""
        self.associated(connection)

    def count(self) -> int:
        """Without association now."""
        with self._lock:
            return len(self._open)

    def make_room(self, connection: Hashable | None = None, limit: str = "descriptors") -> None:
        """End a connection, or the oldest of the address with most of them."""
        with self._lock:
            if connection is None:
                connection = self._oldest_of_most()
            found = self._open.pop(connection, None)
        if found is not None:
            found.cut()
            self._on_crowded(found.address, limit)

    def end_all(self) -> None:
        """We stop: end those that have not asked; the others are at their end."""
        with self._lock:
            waiting = {key: each for key, each in self._open.items() if not each.has_ended}
            for key in waiting:
                del self._open[key]
        for each in waiting.values():
            each.cut()

    def _too_many(self, address: str) -> tuple[Hashable, str] | None:
        waiting = [k for k, each in self._open.items() if each.address == address and not each.has_ended]
        if len(waiting) > self._most_of_address:
            return waiting[0], f"dicom.max_connections_per_address ({self._most_of_address})"
        if len(self._open) > self._most:
            return self._oldest_of_most(), f"all connections ({self._most})"
        return None

    def _oldest_of_most(self) -> Hashable | None:
        counts = Counter(each.address for each in self._open.values())
        if not counts:
            return None
        ((busiest, _),) = counts.most_common(1)
        return next(key for key, each in self._open.items() if each.address == busiest)
