"""How fast the disk of the data folder makes things durable: what bounds the rate of one association."""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

_SLICE_BYTES = 512 * 1024
_ROUNDS = 7
_LONGEST_S = 1.5


@dataclass(frozen=True)
class FlushTime:
    """Median of some rounds of what a slice of 512 KiB needs before it is acknowledged.

    Attributes
    ----------
    flush_s
        The file written and fsynced, renamed, and its folder fsynced.
    commit_s
        A small write to the journal's disk fsynced.
    """

    flush_s: float
    commit_s: float

    @property
    def slices_per_s(self) -> float:
        """What one association can get durable per second at most, if all else took no time."""
        return 1.0 / max(self.flush_s + self.commit_s, 1e-6)


def measure_flush(folder: Path) -> FlushTime:
    """Measure for at most about 1.5 seconds, in a folder of its own that is removed. Raises OSError."""
    flushes: list[float] = []
    commits: list[float] = []
    ends_s = time.monotonic() + _LONGEST_S
    probe = folder / "probe"
    probe.mkdir(mode=0o700, exist_ok=True)
    content = os.urandom(_SLICE_BYTES)
    try:
        while len(flushes) < _ROUNDS and (time.monotonic() < ends_s or not flushes):
            began_s = time.perf_counter()
            _write(probe / "part", content, os.O_TRUNC)
            (probe / "part").rename(probe / "whole")
            _sync_folder(probe)
            flushed_s = time.perf_counter()
            _write(probe / "log", content[:4096], os.O_APPEND)
            flushes.append(flushed_s - began_s)
            commits.append(time.perf_counter() - flushed_s)
    finally:
        for name in ("part", "whole", "log"):
            (probe / name).unlink(missing_ok=True)
        probe.rmdir()
    return FlushTime(statistics.median(flushes), statistics.median(commits))


def _write(path: Path, content: bytes, how: int) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | how, 0o600)
    try:
        os.write(file, content)
        os.fsync(file)
    finally:
        os.close(file)


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
