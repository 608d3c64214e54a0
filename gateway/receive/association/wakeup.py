"""How one thread wakes another that waits: for a socket, or for a queue. And a clock that cannot jump."""

from __future__ import annotations

import os
import queue
import select
import threading
import time
from collections.abc import Callable
from typing import Any

from pynetdicom.timer import Timer


class Bell:
    """A descriptor that becomes readable when it rings (eventfd(2)). Ringing a closed one does nothing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # never write to a number that is somebody else's by now
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        """To poll on."""
        return self._descriptor

    def ring(self) -> None:
        """Make it readable."""
        with self._lock:
            if self._descriptor >= 0:
                os.eventfd_write(self._descriptor, 1)

    def silence(self) -> None:
        """Make it unreadable."""
        try:
            os.eventfd_read(self._descriptor)
        except BlockingIOError:
            return

    def wait(self, poll: select.poll, left_s: float) -> bool:
        """Wait for whatever is registered there, also this one; whether anything but this one is ready."""
        ready = {number for number, _ in poll.poll(None if left_s == float("inf") else max(left_s, 0) * 1000)}
        if self._descriptor in ready:
            self.silence()
        return bool(ready - {self._descriptor})

    def close(self) -> None:
        """Give the descriptor back."""
        with self._lock:
            descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class SignallingQueue(queue.Queue[Any]):
    """A queue that tells somebody when something was put into it."""

    def __init__(self, told: Callable[[], None]) -> None:
        super().__init__()
        self._told = told

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put, then tell."""
        super().put(item, block, timeout)
        self._told()


class SteadyTimer(Timer):
    """pynetdicom's timer by the monotonic clock: setting the wall clock neither ends nor prolongs it."""

    def start(self) -> None:
        """Start, or start again."""
        self._start_time = time.monotonic()

    def stop(self) -> None:
        """Stop; a stopped timer is not expired."""
        self._start_time = None

    @property
    def remaining(self) -> float:
        """Seconds until it expires; infinite if it does not run."""
        if self.timeout is None or self._start_time is None:
            return float("inf")
        return self.timeout - (time.monotonic() - self._start_time)

    @property
    def expired(self) -> bool:
        """It ran, and its time is over."""
        return self.remaining <= 0
