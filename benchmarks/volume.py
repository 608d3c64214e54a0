"""How long from the files of a series to its volume, and how much memory, against three other readers?

    python benchmarks/volume.py [--quick] [--slices 400] [--rounds 5] [--check] [--keep FOLDER] [--json FILE]

Every reader runs in a process of its own, in turns, from paths to the voxels of the whole volume in modality
units: headers, order of the slices and decoding count, imports and reading from the disk do not (the page
cache is warm). The numbers are medians. Memory is how much the resident size of the process grew at its
peak, as a multiple of the voxels as int16. Targets are 2 × the fastest other reader uncompressed, 1.5 ×
compressed, and 1.3 × the volume plus one slice for each decoding thread; those that are missed are told, and
with --check the exit status is 1 then. It is always 1 if the readers do not give the same voxels.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.volume_contenders import CONTENDERS, OURS
from benchmarks.volume_data import SYNTAXES, Syntax, draw, encoded

_TARGET_UNCOMPRESSED, _TARGET_COMPRESSED, _TARGET_MEMORY = 2.0, 1.5, 1.3
_SLICE_BYTES = 512 * 512 * 2
_WARM_UP_SLICES = 4
_QUICK_SLICES, _QUICK_ROUNDS = 100, 3


@dataclass(frozen=True)
class Result:
    """The runs of one reader on one syntax; ``failure`` if it cannot read it."""

    reader: str
    seconds: tuple[float, ...] = ()
    memory_ratio: float = 0.0
    sha256: str = ""
    failure: str = ""

    @property
    def median_s(self) -> float:
        """Median of the runs; infinite for a reader that failed."""
        return statistics.median(self.seconds) if self.seconds else float("inf")


def main() -> int:
    """Make the series, run everybody, print a table for each syntax."""
    options = _options()
    print(f"{options.slices} files of 512 × 512 × 16 bit, {_cpus()} CPUs, {_load()}, {options.rounds} rounds")
    rows: list[dict[str, object]] = []
    missed: list[str] = []
    wrong: list[str] = []
    with _folder(options.keep) as folder:
        drawn = folder / "drawn"
        files = sorted(drawn.iterdir()) if drawn.exists() else draw(drawn, options.slices)
        for syntax in (s for s in SYNTAXES if options.syntax in (None, s.name)):
            results = _compare(folder, files, syntax, options.rounds)
            differing = _differing(syntax, results)
            found = _missed(syntax, results, len(files))
            _print(syntax, results, [*differing, *found])
            wrong += differing
            missed += found
            rows += [{"syntax": syntax.name, "load": _load(), **asdict(r)} for r in results]
            if options.keep is None:
                shutil.rmtree(folder / syntax.name)
    print(f"\n{_load()}; " + ("all targets met" if not missed else f"{len(missed)} targets missed"))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return 1 if wrong or (missed and options.check) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help=f"{_QUICK_SLICES} slices, {_QUICK_ROUNDS} rounds"
    )
    parser.add_argument("--check", action="store_true", help="exit status 1 if a target is missed")
    parser.add_argument("--slices", type=int)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--syntax", choices=[syntax.name for syntax in SYNTAXES])
    parser.add_argument("--keep", type=Path, help="make the files here, or use those that are here")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.slices = options.slices or (_QUICK_SLICES if options.quick else 400)
    options.rounds = options.rounds or (_QUICK_ROUNDS if options.quick else 5)
    return options


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
        return
    with tempfile.TemporaryDirectory() as scratch:
        yield Path(scratch)


def _compare(folder: Path, files: Sequence[Path], syntax: Syntax, rounds: int) -> list[Result]:
    """Run the readers in turns, each round starting with another one."""
    series, warm_up = folder / syntax.name, folder / f"{syntax.name} warm-up"
    if not series.exists():
        copies = encoded(files, series, syntax)
        warm_up.mkdir()
        for path in copies[:_WARM_UP_SLICES]:
            shutil.copy(path, warm_up)
    readers = list(CONTENDERS)
    runs: dict[str, list[dict[str, object]]] = {reader: [] for reader in readers}
    failures: dict[str, str] = {}
    for _ in range(rounds):
        for reader in [r for r in readers if r not in failures]:
            outcome = _run(reader, series, warm_up)
            if isinstance(outcome, str):
                failures[reader] = outcome
            else:
                runs[reader].append(outcome)
        readers.append(readers.pop(0))
    return [_result(reader, runs[reader], failures.get(reader, ""), len(files)) for reader in CONTENDERS]


def _run(reader: str, series: Path, warm_up: Path) -> dict[str, object] | str:
    """What one process measured, or the last line of its complaint."""
    script = Path(__file__).with_name("volume_contenders.py")
    command = [sys.executable, str(script), reader, str(series), str(warm_up)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    measured: dict[str, object] = json.loads(done.stdout.strip().splitlines()[-1])
    return measured


def _result(reader: str, runs: Sequence[dict[str, object]], failure: str, slices: int) -> Result:
    if failure:
        return Result(reader, failure=failure)
    grown = [int(str(r["resident_peak_bytes"])) - int(str(r["resident_before_bytes"])) for r in runs]
    return Result(
        reader,
        seconds=tuple(float(str(run["seconds"])) for run in runs),
        memory_ratio=statistics.median(grown) / (slices * _SLICE_BYTES),
        sha256=", ".join(sorted({f"{run['sha256']}" for run in runs})),
    )


def _differing(syntax: Syntax, results: Sequence[Result]) -> list[str]:
    """Which readers give other voxels than ours, as sentences."""
    ours = next(r for r in results if r.reader == OURS)
    if ours.failure:
        return [f"cannot read {syntax.name}: {ours.failure}"]
    others = [r for r in results if r.reader != OURS and not r.failure]
    return [f"other voxels than {r.reader}" for r in others if r.sha256 != ours.sha256]


def _missed(syntax: Syntax, results: Sequence[Result], slices: int) -> list[str]:
    """The targets of speed and memory that our reader misses, as sentences."""
    ours = next(r for r in results if r.reader == OURS)
    others = [r for r in results if r.reader != OURS and not r.failure]
    if ours.failure:
        return []
    missed = []
    speed = min(r.median_s for r in others) / ours.median_s
    target = _TARGET_UNCOMPRESSED if syntax.encode is None else _TARGET_COMPRESSED
    if speed < target:
        missed.append(f"{speed:.2f} × as fast as the fastest other reader, not {target} ×")
    most = _TARGET_MEMORY + _cpus() / slices
    if ours.memory_ratio > most:
        missed.append(f"memory of {ours.memory_ratio:.2f} × the volume, not {most:.2f} ×")
    return missed


def _print(syntax: Syntax, results: Sequence[Result], missed: Sequence[str]) -> None:
    ours = next(r for r in results if r.reader == OURS)
    print(f"\n{syntax.name}")
    print(f"  {'reader':<18} {'median s':>9} {'least':>7} {'most':>7} {'ours is':>9} {'memory':>8}")
    for result in results:
        if result.failure:
            print(f"  {result.reader:<18} cannot read it: {result.failure[:70]}")
            continue
        ratio = "" if result is ours or ours.failure else f"{result.median_s / ours.median_s:.2f} ×"
        print(
            f"  {result.reader:<18} {result.median_s:>9.3f} {min(result.seconds):>7.3f} "
            f"{max(result.seconds):>7.3f} {ratio:>9} {result.memory_ratio:>6.2f} ×"
        )
    for sentence in missed:
        print(f"  MISSED: {sentence}")


def _cpus() -> int:
    return len(os.sched_getaffinity(0))


def _load() -> str:
    return f"load average {os.getloadavg()[0]:.1f}"


if __name__ == "__main__":
    sys.exit(main())
