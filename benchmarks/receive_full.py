"""A node that knows a million instances, against an empty one: the rate of a new series, and the start."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from benchmarks.receive_full_journal import fill
from benchmarks.receive_peers import Durable
from benchmarks.receive_rates import Load, Rounds, compare
from benchmarks.receive_report import Report, Verdict

_MOST_START_S = 10.0
_TARGET = 0.9


class FullNode(Durable):
    """``aigw serve`` after years of work."""

    name = "gateway, full journal"

    def __init__(self, folder: Path, instances: int) -> None:
        super().__init__(folder)
        self._instances = instances

    def start(self) -> None:
        """Fill the journal and the spool, then start."""
        data = self.folder / "data"
        data.mkdir(parents=True, mode=0o700)
        fill(data / "journal.db", self._instances, digest)
        _touch_files(data / "spool" / "objects", self._instances)
        os.sync()
        super().start()


def full_journal(
    report: Report, empty: Durable, load: Load, rounds: Rounds, count: int, instances: int
) -> None:
    """The same series to both nodes, in turns."""
    with FullNode(empty.folder.with_name("full"), instances) as full:
        assert isinstance(full, FullNode)
        what = f"(h) start with {instances} instances in journal and spool"
        report.judge(Verdict(what, full.start_s, _MOST_START_S, "s", at_least=False))
        own = Load(f"{load.name}, {instances} known", load.folders)
        compare(report, own, [full, empty], rounds, count)
        what = f"(h) rate with {instances} instances against an empty journal"
        report.compare(what, own.name, full.name, empty.name, _TARGET)


def digest(number: int) -> str:
    """SHA-256 (hex) that stands for the data set of an instance."""
    return hashlib.sha256(str(number).encode()).hexdigest()


def _touch_files(objects: Path, instances: int) -> None:
    """Empty files under the names that the journal knows: the start looks for names, not for contents."""
    for value in range(256):
        (objects / f"{value:02x}").mkdir(parents=True, mode=0o700)
    for number in range(1, instances + 1):
        name = digest(number)
        os.mknod(objects / name[:2] / f"{name}.dcm", 0o600)
