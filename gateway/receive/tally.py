"""What came in since the start, in numbers: for metrics and status. No UID, no attribute of a patient."""

from __future__ import annotations

import bisect
import threading
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

UNKNOWN = "unknown"
"""All callers that are no configured peer: their names are their own, and there may be any number."""

BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class Tally:
    """Counts instances, bytes and rejections by source, and how long storing took. Thread-safe.

    ``sources``: what callers are counted under.
    """

    def __init__(self, sources: Collection[str] = ()) -> None:
        self.sources = frozenset(sources) | {UNKNOWN}
        self._lock = threading.Lock()
        self._instances: Counter[tuple[str, str]] = Counter()
        self._bytes: Counter[str] = Counter()
        self._rejected: Counter[tuple[str, str]] = Counter()
        self._last_s: dict[str, float] = {}
        self._in_bucket = [0] * (len(BUCKETS_S) + 1)
        self._total_s = 0.0

    def stored(self, source: str, receipt: str, size_bytes: int, took_s: float, at_s: float) -> None:
        """An instance was taken in; ``took_s`` from its first byte to its receipt."""
        source = self._label(source)
        with self._lock:
            self._instances[source, receipt] += 1
            self._bytes[source] += size_bytes
            self._last_s[source] = at_s
            self._in_bucket[bisect.bisect_left(BUCKETS_S, took_s)] += 1
            self._total_s += took_s

    def rejected(self, source: str, name: str) -> None:
        """An instance was rejected by this name."""
        with self._lock:
            self._rejected[self._label(source), name] += 1

    def instances(self) -> Mapping[tuple[str, str], int]:
        """(source, receipt) → instances taken in."""
        with self._lock:
            return dict(self._instances)

    def bytes(self) -> Mapping[str, int]:
        """Source → bytes of the data sets that were taken in."""
        with self._lock:
            return dict(self._bytes)

    def rejections(self) -> Mapping[tuple[str, str], int]:
        """(source, name) → instances rejected."""
        with self._lock:
            return dict(self._rejected)

    def last_s(self) -> Mapping[str, float]:
        """Source → when its last instance was taken in, seconds since 1970."""
        with self._lock:
            return dict(self._last_s)

    def durations(self) -> tuple[Sequence[tuple[str, float]], float]:
        """(upper bound in seconds, instances up to it), growing, as Prometheus counts; and the sum."""
        with self._lock:
            counts, total_s = list(self._in_bucket), self._total_s
        bounds = [*(f"{bound:g}" for bound in BUCKETS_S), "+Inf"]
        grown, buckets = 0, []
        for bound, count in zip(bounds, counts, strict=True):
            grown += count
            buckets.append((bound, float(grown)))
        return buckets, total_s

    def _label(self, source: str) -> str:
        return source if source in self.sources else UNKNOWN
