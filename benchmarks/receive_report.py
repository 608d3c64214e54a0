"""What benchmarks/receive.py has found: rows of the table, and a verdict for every target."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from benchmarks.receive_wire import MAX_PDU_BYTES


@dataclass(frozen=True)
class Row:
    """The runs of one receiver under one load: instances per second of each round."""

    load: str
    server: str
    rates: tuple[float, ...]
    bytes_of_instance: float
    cpu_ms_of_instance: float
    """Of the receiver's process."""
    answer_p99_ms: float
    associate_ms: float

    @property
    def median(self) -> float:
        """Instances per second."""
        return statistics.median(self.rates)


@dataclass(frozen=True)
class Verdict:
    """A target, and what was found; ``at_least`` or at most."""

    measure: str
    found: float
    target: float
    unit: str = "×"
    at_least: bool = True
    spread: tuple[float, float] | None = None
    """Least and most of the single rounds."""

    @property
    def met(self) -> bool:
        """Whether the target was reached."""
        return self.found >= self.target if self.at_least else self.found <= self.target


@dataclass
class Report:
    """Everything that was measured, as it is printed and written."""

    rows: list[Row] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    notes: dict[str, object] = field(default_factory=dict)

    def row(self, load: str, server: str) -> Row:
        """The row of a server under a load."""
        return next(row for row in self.rows if (row.load, row.server) == (load, server))

    def add(self, row: Row) -> None:
        """Keep a row and print it."""
        self.rows.append(row)
        print(
            f"{row.load:<28} {row.server:<32} "
            f"{row.median:>7.0f} {min(row.rates):>7.0f} {max(row.rates):>7.0f} "
            f"{row.median * row.bytes_of_instance / 1e6:>7.0f} {row.cpu_ms_of_instance:>8.2f} "
            f"{row.answer_p99_ms:>8.1f} {row.associate_ms:>8.1f}",
            flush=True,
        )

    def compare(self, measure: str, load: str, ours: str, theirs: str, target: float) -> None:
        """Judge the ratio of two rows that alternated: of their medians, and the spread of the rounds."""
        mine, other = self.row(load, ours), self.row(load, theirs)
        ratios = [a / b for a, b in zip(mine.rates, other.rates, strict=True)]
        self.judge(Verdict(measure, mine.median / other.median, target, spread=(min(ratios), max(ratios))))

    def judge(self, verdict: Verdict) -> None:
        """Keep a verdict and print it."""
        self.verdicts.append(verdict)
        sign = "≥" if verdict.at_least else "≤"
        spread = f" [{verdict.spread[0]:.2f}–{verdict.spread[1]:.2f}]" if verdict.spread else ""
        print(
            f"  {'MET    ' if verdict.met else 'NOT MET'}  {verdict.measure}: "
            f"{verdict.found:.2f} {verdict.unit}{spread}, target {sign} {verdict.target:g} {verdict.unit}",
            flush=True,
        )

    def note(self, name: str, value: object) -> None:
        """Keep and print a fact beside the targets."""
        self.notes[name] = value
        print(f"  {name}: {value}", flush=True)

    def as_json(self, settings: Mapping[str, str]) -> dict[str, object]:
        """All of it, with what the machine and the receivers were like."""
        return {
            "machine": machine(),
            "servers": dict(settings),
            "client": f"benchmarks/receive_sender.py, PDU {MAX_PDU_BYTES}, TCP_NODELAY, encoded beforehand",
            "rows": [{**asdict(row), "median": row.median} for row in self.rows],
            "verdicts": [{**asdict(verdict), "met": verdict.met} for verdict in self.verdicts],
            "notes": self.notes,
        }


def machine() -> dict[str, object]:
    """Kernel, processors, load."""
    return {
        "kernel": platform.release(),
        "python": platform.python_version(),
        "cpus": len(os.sched_getaffinity(0)),
        "load_average": os.getloadavg()[0],
    }


def heading() -> str:
    """Of the table that :meth:`Report.add` prints."""
    return (
        f"{'load':<28} {'receiver':<32} {'inst/s':>7} {'least':>7} {'most':>7} {'MB/s':>7} {'CPU ms':>8} "
        f"{'p99 ms':>8} {'open ms':>8}"
    )


def median_row(load: str, server: str, runs: Sequence[Mapping[str, float]]) -> Row:
    """The row of several runs of the sender."""
    return Row(
        load,
        server,
        tuple(run["instances"] / run["seconds"] for run in runs),
        statistics.median(run["bytes"] / run["instances"] for run in runs),
        statistics.median(1e3 * run.get("cpu_s", 0.0) / run["instances"] for run in runs),
        statistics.median(1e3 * run.get("answer_p99_s", 0.0) for run in runs),
        statistics.median(1e3 * run.get("associate_s", 0.0) for run in runs),
    )
