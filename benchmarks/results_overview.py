"""How long does the overview picture take, with 24 and with 104 structures on 512 × 512 × 400?

    python -m benchmarks.results_overview [--rounds 7] [--check] [--png FOLDER] [--json FILE]

The time is that of ``build_overview``: from a finished run to the Secondary Capture and the PNG, everything
in between counted (choice of the planes, drawing, compression). Measurements are part of the run and not
counted. The first round warms fonts and tables and is not counted either. The target is 200 ms for the
median; a missed one is told, and with --check the exit status is 1 then. CPU time is told beside it, for busy
machines.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from ai.measure import measure
from ai.model import Structure
from ai.profile import DEFAULT_PROFILE
from ai.quality import Finding, Verdict
from ai.results.context import ResultContext
from ai.results.overview import build_overview
from ai.terminology import structures
from ai.volume import LabelArray
from benchmarks.results_data import SHAPE, draw, run_on

_TARGET_MS = 200.0
_COUNTS = (24, 104)


@dataclass(frozen=True)
class Result:
    """The rounds of one case, milliseconds."""

    structures: int
    wall_ms: tuple[float, ...]
    cpu_ms: tuple[float, ...]
    picture: tuple[int, int]

    @property
    def median_ms(self) -> float:
        """Median of the wall times."""
        return statistics.median(self.wall_ms)


def main() -> int:
    """Draw the cases, time them, print a table."""
    options = _options()
    print(f"{' × '.join(str(n) for n in SHAPE[::-1])} voxels, load average {os.getloadavg()[0]:.1f}")
    print(f"{'structures':>10} {'median ms':>10} {'least':>7} {'most':>7} {'CPU ms':>7}  picture")
    results = [_time(count, options.rounds, options.png) for count in _COUNTS]
    for result in results:
        wide, high = result.picture
        print(
            f"{result.structures:>10} {result.median_ms:>10.0f} {min(result.wall_ms):>7.0f} "
            f"{max(result.wall_ms):>7.0f} {statistics.median(result.cpu_ms):>7.0f}  {wide} × {high}"
        )
    missed = [result for result in results if result.median_ms > _TARGET_MS]
    for result in missed:
        print(f"  MISSED: {result.median_ms:.0f} ms for {result.structures} structures, not {_TARGET_MS:.0f}")
    if options.json:
        options.json.write_text(json.dumps([asdict(r) for r in results], indent=1), encoding="utf-8")
    return 1 if missed and options.check else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--check", action="store_true", help="exit status 1 if a target is missed")
    parser.add_argument("--png", type=Path, help="keep the pictures here")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def _time(count: int, rounds: int, keep: Path | None) -> Result:
    run = run_of(draw(count), count)
    wall_ms, cpu_ms = [], []
    for _ in range(rounds + 1):
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        dataset, png = build_overview(run)
        wall_ms.append(1e3 * (time.perf_counter() - wall_s))
        cpu_ms.append(1e3 * (time.process_time() - cpu_s))
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        (keep / f"overview-{count}.png").write_bytes(png)
    size = (int(dataset.Columns), int(dataset.Rows))
    return Result(count, tuple(wall_ms[1:]), tuple(cpu_ms[1:]), size)


def run_of(labels: LabelArray, count: int) -> ResultContext:
    """A run on a noisy CT, with names and colours of the code table, and a few doubts."""
    run = run_on(labels, count, DEFAULT_PROFILE)
    rows = list(structures().values())[5:]
    named = tuple(Structure(number=n, key=rows[n].key, label=rows[n].label) for n in range(1, count + 1))
    spec = run.spec.model_copy(update={"structures": named, "title": f"{count} structures"})
    series = replace(run.series, volume=replace(run.series.volume, voxels=_ct(labels)))
    series.__dict__.update({name: run.series.__dict__[name] for name in ("datasets", "input_digest")})
    doubts = (Verdict.PARTIAL, Verdict.SUSPECT, Verdict.FAIL)
    quality = tuple(
        Finding(
            (named[7 * i].key,), "complete", doubts[i % 3], f"{named[7 * i].label}: an example of a doubt."
        )
        for i in range(count // 10)
    )
    return replace(
        run,
        spec=spec,
        series=series,
        quality=quality,
        measurements=measure(series.volume, labels, named),
    )


def _ct(labels: LabelArray) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    """Values of soft tissue, another one for each structure, with noise; air in the corners."""
    slices, rows, columns = labels.shape
    rng = np.random.default_rng(1)
    noise = rng.normal(0.0, 12.0, (rows, columns)).astype(np.int16)
    y, x = np.ogrid[-1.0 : 1.0 : rows * 1j, -1.0 : 1.0 : columns * 1j]
    body = np.where(x**2 / 0.95 + y**2 / 0.7 < 1.0, 20, -1000).astype(np.int16)
    shift = (np.arange(256) * 37 % 90).astype(np.int16)
    voxels = np.empty(labels.shape, np.int16)
    for k in range(slices):
        voxels[k] = body + np.roll(noise, k, axis=0) + shift[labels[k]]
    return voxels


if __name__ == "__main__":
    sys.exit(main())
