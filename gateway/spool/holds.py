"""One at a time for each digest: what is being admitted must not be thrown away meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Holds:
    """Digests that somebody works on; others wait for theirs. Hold one at a time only."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held: set[str] = set()

    @contextmanager
    def hold(self, digest: str) -> Iterator[None]:
        """Nobody else holds this digest in the block."""
        with self._changed:
            while digest in self._held:
                self._changed.wait()
            self._held.add(digest)
        try:
            yield
        finally:
            with self._changed:
                self._held.discard(digest)
                self._changed.notify_all()
