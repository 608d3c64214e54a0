"""The one place that reads a clock; everything else takes a :class:`Clock` as an argument."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Two clocks: wall time for records, monotonic time for waiting (safe when the wall jumps)."""

    def now_s(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        ...

    def monotonic_s(self) -> float:
        """Seconds that never go backwards."""
        ...


class SystemClock:
    """The clock of this machine."""

    def now_s(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        return time.time()

    def monotonic_s(self) -> float:
        """Seconds that never go backwards."""
        return time.monotonic()
