"""Waiting for what another thread or process does."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any


def wait_until(
    condition: Callable[[], Any], timeout_s: float = 20.0, what: str = "it", interval_s: float = 0.02
) -> Any:
    """The first true value of ``condition``; fails with ``what`` when the time is over.

    It looks so often, not so long: where the whole machine stands still, the time of what is waited for
    does not run either.
    """
    for _ in range(math.ceil(timeout_s / interval_s)):
        value = condition()
        if value:
            return value
        time.sleep(interval_s)
    raise AssertionError(f"waited {timeout_s:.0f} s in vain for {what}")
