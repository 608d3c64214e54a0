"""Bytes of a connection through one fixed buffer: nothing that a peer announces is allocated for.

The buffer takes what the kernel has, so that a message costs few system calls; what is in it is
handed on without a copy, all of it together before the next wait. Only the time that is spent waiting
for the peer counts against it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from gateway.receive.association.violations import too_slow


class Interrupted(Exception):
    """We want to end the association: stop reading."""


class Inbound:
    """Reads from ``receive_into``, which waits a little, then returns how many bytes it got (or 0).

    Parameters
    ----------
    receive_into
        Raises ConnectionError (or another OSError) when the connection is gone.
    is_interrupted
        Asked at every wait.
    size_bytes
        Of the buffer: the longest piece that :meth:`need` can be asked for.
    """

    def __init__(
        self,
        receive_into: Callable[[memoryview], int],
        is_interrupted: Callable[[], bool],
        size_bytes: int,
    ) -> None:
        self._receive_into = receive_into
        self._is_interrupted = is_interrupted
        self._view = memoryview(bytearray(size_bytes))
        self._start = 0
        self._end = 0
        self._limit_s = float("inf")
        self.before_fill: Callable[[], None] = _nothing
        """Called before the buffer is filled again: whoever keeps views uses them up."""
        self.waited_s = 0.0
        """Time spent waiting for the peer in the middle of something, in all."""

    @property
    def is_empty(self) -> bool:
        """Nothing is buffered."""
        return self._start == self._end

    def allow(self, wait_s: float) -> None:
        """From now on the peer may keep us waiting for so long in all; then it is too slow."""
        self._limit_s = self.waited_s + wait_s

    def need(self, count: int) -> memoryview:
        """The next ``count`` bytes; the view is good until :attr:`before_fill` is called."""
        while self._end - self._start < count:
            self.before_fill()
            if self._start:
                self._move_to_front()
            self._fill()
        return self._taken(count)

    def take(self, most: int) -> memoryview:
        """At least one and at most ``most`` of the next bytes; the view is good until :attr:`before_fill`."""
        if self._start == self._end:
            self.before_fill()
            self._start = self._end = 0
            self._fill()
        return self._taken(min(most, self._end - self._start))

    def read(self, count: int) -> bytearray:
        """The next ``count`` bytes as a copy, which grows only as they come."""
        whole = bytearray()
        while len(whole) < count:
            whole += self.take(count - len(whole))
        return whole

    def widen(self, size_bytes: int) -> None:
        """Go on with a longer buffer."""
        left = bytes(self._view[self._start : self._end])
        self._view = memoryview(bytearray(size_bytes))
        self._view[: len(left)] = left
        self._start, self._end = 0, len(left)

    def drop(self) -> None:
        """Forget what is buffered."""
        self._start = self._end = 0

    def _taken(self, count: int) -> memoryview:
        start = self._start
        self._start += count
        return self._view[start : self._start]

    def _move_to_front(self) -> None:
        left = self._end - self._start
        self._view[:left] = bytes(self._view[self._start : self._end])
        self._start, self._end = 0, left

    def _fill(self) -> None:
        while True:
            began_s = time.monotonic()
            count = self._receive_into(self._view[self._end :])
            self.waited_s += time.monotonic() - began_s
            if self._is_interrupted():
                raise Interrupted
            if self.waited_s > self._limit_s:
                raise too_slow("The peer began a PDU and did not finish it in time.")
            if count:
                self._end += count
                return


def _nothing() -> None:
    """Nobody keeps views."""
