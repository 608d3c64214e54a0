"""How fast and how light the node receives, against Orthanc and DCMTK's storescp, side by side in one run.

    python -m benchmarks.receive [--quick] [--rounds 5] [--only a c …] [--out FILE] [--scratch DIR] [--check]

The series has 400 slices of 512 × 512 × 16 bit. Receivers take it in turns from the same client, each round
starting with another receiver and with UIDs that nobody has seen; the first round warms up and proves that
all of it is stored. Rates are medians with least and most, ratios those of the medians with their spread
over the rounds. Files to send lie in memory where there is /dev/shm, those received below --scratch.

Measures, each with its target: (a) one association, nothing flushed; (b) one, durable; (c) four, durable;
(d) stored equals sent; (e) set-up and idling; (f) dcmsend and storescu as they come; (g) memory; (h) a
journal with 1,000,000 instances. Without a target: (i) what the machine can do at best; (j) where the time
of the node goes. With --check the exit status is 1 if a target was missed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.receive_associations import idle, set_up
from benchmarks.receive_data import COLUMNS, SLICES
from benchmarks.receive_fidelity import fidelity
from benchmarks.receive_full import full_journal
from benchmarks.receive_limits import flush_times_s, hash_rate_bytes_s
from benchmarks.receive_memory import memory
from benchmarks.receive_peers import (
    Durable,
    NotDurable,
    OrthancDefault,
    OrthancNoSync,
    Server,
    Storescp,
    StorescpFork,
    StorescpPackaged,
)
from benchmarks.receive_profile import profile
from benchmarks.receive_rates import Load, Rounds, compare, compare_stock, limits
from benchmarks.receive_report import Report, heading, machine
from tests.path import without_environments

_KINDS = (Durable, NotDurable, Storescp, StorescpFork, StorescpPackaged, OrthancDefault, OrthancNoSync)
_MEASURES = "abcdefghij"


@dataclass(frozen=True)
class Plan:
    """How much of everything."""

    slices: int = SLICES
    side: int = COLUMNS
    stock_slices: int = 100
    rounds: int = 5
    stock_rounds: int = 3
    idle_s: float = 10.0
    warm_up: bool = True
    memory_scale: float = 1.0
    known_instances: int = 1_000_000
    profile_s: float = 10.0


_QUICK = Plan(
    slices=8,
    side=64,
    stock_slices=3,
    rounds=1,
    stock_rounds=1,
    idle_s=0.1,
    warm_up=False,
    memory_scale=0.01,
    known_instances=500,
    profile_s=1.0,
)


class Benchmark:
    """The receivers, running, and what has been found."""

    def __init__(self, plan: Plan, scratch: Path, source: Path, stack: ExitStack) -> None:
        self.report = Report()
        self._plan = plan
        self._scratch = scratch
        self._source = source
        self._stack = stack
        self._rounds = Rounds(warm_up=plan.warm_up)
        self._servers: dict[type[Server], Server] = {}
        self._loads: dict[int, Load] = {}
        self._compared: set[int] = set()

    def settings(self) -> dict[str, str]:
        """Name → settings of every receiver that ran."""
        return {server.name: server.settings for server in self._servers.values()}

    def run(self, measure: str) -> None:
        """One letter of the measures."""
        getattr(self, f"_measure_{measure}")()

    def _measure_a(self) -> None:
        load = self._rates(1).name
        what = "(a) one association, no fsync, against"
        self.report.compare(f"{what} storescp", load, NotDurable.name, Storescp.name, 1.0)
        self.report.compare(f"{what} Orthanc Sync=false", load, NotDurable.name, OrthancNoSync.name, 3.0)

    def _measure_b(self) -> None:
        load = self._rates(1).name
        what = "(b) one association, durable, against"
        self.report.compare(f"{what} Orthanc Sync=false", load, Durable.name, OrthancNoSync.name, 1.0)
        self.report.compare(f"{what} Orthanc", load, Durable.name, OrthancDefault.name, 3.0)

    def _measure_c(self) -> None:
        load = self._rates(4).name
        what = "(c) four associations, durable, against storescp --fork"
        self.report.compare(what, load, Durable.name, StorescpFork.name, 0.7)

    def _measure_d(self) -> None:
        fidelity(self.report, self._server(Durable), self._source)

    def _measure_e(self) -> None:
        servers = [self._server(kind) for kind in (Durable, Storescp, OrthancDefault)]
        set_up(self.report, servers, max(3, 4 * self._plan.rounds))
        idle(self.report, [servers[0], servers[2]], self._plan.idle_s)

    def _measure_f(self) -> None:
        plan = self._plan
        load = Load.drawn("one association", self._source, 1, plan.stock_slices, plan.side, number=3)
        servers = [self._server(kind) for kind in (Durable, StorescpPackaged, Storescp)]
        for tool in ("dcmsend", "storescu"):
            compare_stock(self.report, tool, load, servers, self._rounds, plan.stock_rounds)
            name = f"{tool}, {load.name}"
            what = f"(f) {tool} to us against to storescp, both as packaged"
            self.report.compare(what, name, Durable.name, StorescpPackaged.name, 10.0)

    def _measure_g(self) -> None:
        memory(self.report, self._server(Durable), self._scratch, self._plan.memory_scale)

    def _measure_h(self) -> None:
        with Durable(self._scratch / "empty") as empty:
            assert isinstance(empty, Durable)
            plan = self._plan
            full_journal(self.report, empty, self._load(1), self._rounds, plan.rounds, plan.known_instances)

    def _measure_i(self) -> None:
        loads = [self._load(1), self._load(4)]
        size = next(loads[0].folders[0].glob("*.dcm")).stat().st_size
        flushes_ms = [1e3 * second for second in flush_times_s(self._scratch, size)]
        spread = f"{min(flushes_ms):.2f}–{max(flushes_ms):.2f}"
        self.report.note("fsync of one instance", f"{statistics.median(flushes_ms):.2f} ms [{spread}]")
        self.report.note("SHA-256 on one core", f"{hash_rate_bytes_s(size) / 1e6:.0f} MB/s")
        limits(self.report, loads, self._rounds, min(3, self._plan.rounds), self._scratch)

    def _measure_j(self) -> None:
        for kind, associations in ((NotDurable, 1), (Durable, 1), (Durable, 4)):
            profile(
                self.report,
                self._server(kind),
                self._load(associations),
                self._rounds,
                self._plan.profile_s,
            )

    def _rates(self, associations: int) -> Load:
        load = self._load(associations)
        if associations not in self._compared:
            self._compared.add(associations)
            single = Storescp if associations == 1 else StorescpFork
            kinds = (Durable, NotDurable, single, OrthancNoSync, OrthancDefault)
            servers = [self._server(kind) for kind in kinds]
            compare(self.report, load, servers, self._rounds, self._plan.rounds)
        return load

    def _load(self, associations: int) -> Load:
        if associations not in self._loads:
            name = "one association" if associations == 1 else f"{associations} associations"
            slices, side = self._plan.slices // associations, self._plan.side
            self._loads[associations] = Load.drawn(
                name, self._source, associations, slices, side, number=associations
            )
        return self._loads[associations]

    def _server(self, kind: type[Server]) -> Server:
        if kind not in self._servers:
            self._servers[kind] = self._stack.enter_context(kind(self._scratch / kind.__name__))
        return self._servers[kind]


def main() -> int:
    """Measure, print, write."""
    options = _options()
    os.environ["PATH"] = without_environments(os.environ["PATH"])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # end the receivers, remove the folders
    plan = _QUICK if options.quick else Plan()
    if options.rounds:
        plan = replace(plan, rounds=options.rounds, stock_rounds=options.rounds)
    print(f"{plan.slices} slices of {plan.side} × {plan.side} × 16 bit, {plan.rounds} rounds; {machine()}")
    for kind in _KINDS:
        print(f"  {kind.name}: {kind.settings}")
    print(heading())
    memory_disk = "/dev/shm" if Path("/dev/shm").is_dir() else options.scratch  # noqa: S108
    with (
        tempfile.TemporaryDirectory(prefix="receive-", dir=options.scratch) as scratch,
        tempfile.TemporaryDirectory(prefix="receive-", dir=memory_disk) as source,
        ExitStack() as stack,
    ):
        benchmark = Benchmark(plan, Path(scratch), Path(source), stack)
        for measure in options.only:
            benchmark.run(measure)
        report = benchmark.report
        missed = [verdict for verdict in report.verdicts if not verdict.met]
        if options.out:
            content = json.dumps(report.as_json(benchmark.settings()), indent=1)
            options.out.write_text(content, encoding="utf-8")
    print(
        f"load average {os.getloadavg()[0]:.1f}; {len(report.verdicts) - len(missed)} of "
        f"{len(report.verdicts)} targets met"
    )
    return 1 if missed and options.check else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="little of everything, one round")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--only", nargs="+", choices=_MEASURES, default=list(_MEASURES), metavar="LETTER")
    parser.add_argument("--out", type=Path, help="write everything as JSON")
    parser.add_argument("--scratch", type=Path, help="on the disk to measure; otherwise the temporary folder")
    parser.add_argument("--check", action="store_true", help="exit status 1 if a target is missed")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
