"""Connections without an association: so many and no more, and always room for one that is quick."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass


@dataclass(frozen=True)
class _Waiting:
    address: str
    cut: Callable[[], None]


class Connections:
    """Bounds the connections that have not asked for an association, or have none any more.

    Where there are too many, the oldest makes room: a real peer asks within milliseconds, so it gets
    in while idle connections come and go. Safe from threads.

    Parameters
    ----------
    most
        In all.
    most_of_address
        Of one address.
    on_crowded
        Told the address of a connection that had to make room, and which limit was reached.
    """

    def __init__(self, most: int, most_of_address: int, on_crowded: Callable[[str, str], None]) -> None:
        self._most = most
        self._most_of_address = most_of_address
        self._on_crowded = on_crowded
        self._lock = threading.Lock()
        self._waiting: dict[Hashable, _Waiting] = {}  # the oldest first

    def opened(self, connection: Hashable, address: str, cut: Callable[[], None]) -> None:
        """One more; ``cut`` ends it. Ends another one, if there are too many."""
        with self._lock:
            self._waiting[connection] = _Waiting(address, cut)
            too_many = self._too_many(address)
        if too_many is not None:
            key, limit = too_many
            self.make_room(key, limit)

    def associated(self, connection: Hashable) -> None:
        """It has an association now: it does not count."""
        with self._lock:
            self._waiting.pop(connection, None)

    def closed(self, connection: Hashable) -> None:
        """It is gone."""
        self.associated(connection)

    def count(self) -> int:
        """Waiting now."""
        with self._lock:
            return len(self._waiting)

    def make_room(self, connection: Hashable | None = None, limit: str = "descriptors") -> None:
        """End a connection, or the oldest of the address with most of them."""
        with self._lock:
            if connection is None:
                connection = self._oldest_of_most()
            found = self._waiting.pop(connection, None)
        if found is not None:
            found.cut()
            self._on_crowded(found.address, limit)

    def end_all(self) -> None:
        """We stop."""
        with self._lock:
            waiting = list(self._waiting.values())
            self._waiting.clear()
        for each in waiting:
            each.cut()

    def _too_many(self, address: str) -> tuple[Hashable, str] | None:
        of_address = [key for key, each in self._waiting.items() if each.address == address]
        if len(of_address) > self._most_of_address:
            return of_address[0], f"dicom.max_connections_per_address ({self._most_of_address})"
        if len(self._waiting) > self._most:
            return self._oldest_of_most(), f"all connections ({self._most})"
        return None

    def _oldest_of_most(self) -> Hashable | None:
        counts = Counter(each.address for each in self._waiting.values())
        if not counts:
            return None
        ((busiest, _),) = counts.most_common(1)
        return next(key for key, each in self._waiting.items() if each.address == busiest)
