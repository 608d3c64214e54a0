"""Which peers have an association open now: evidence for the completeness of a series."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Hashable


class OpenAssociations:
    """A thread-safe register of open associations by the name of their peer."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._open: dict[Hashable, str] = {}

    def opened(self, association: Hashable, source: str) -> None:
        """An association of ``source`` was accepted."""
        with self._changed:
            self._open[association] = source

    def closed(self, association: Hashable) -> None:
        """It ended, in whatever way; one that is not open is fine."""
        with self._changed:
            self._open.pop(association, None)
            self._changed.notify_all()

    def source_of(self, association: Hashable) -> str | None:
        """The peer of an association; None if it is not open."""
        with self._changed:
            return self._open.get(association)

    def count(self, source: str | None = None) -> int:
        """Associations open now, of one peer or of all."""
        with self._changed:
            return sum(1 for name in self._open.values() if source in (None, name))

    def by_source(self) -> dict[str, int]:
        """Peer → associations open now."""
        with self._changed:
            return dict(Counter(self._open.values()))

    def wait_until_none(self, timeout_s: float) -> bool:
        """Wait for the last one to end; False if some are still open after the time."""
        return self.wait_for(lambda: not self._open, timeout_s)

    def wait_for(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until the open associations are as ``condition`` wants; it is asked when one has ended."""
        with self._changed:
            return self._changed.wait_for(condition, timeout_s)
