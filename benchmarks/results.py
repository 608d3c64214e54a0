"""How long from a label map to a Segmentation file, and how much memory, against plain highdicom?

    python -m benchmarks.results [--quick] [--rounds 3] [--structures 1 24 104] [--kinds "binary none" …]
                                 [--check] [--json FILE]

1, 24 and 104 organs on 512 × 512 × 400 voxels, as binary segmentation and as label map, uncompressed and
compressed. Ours is build_segs and writing the file, highdicom's is its constructor and save_as, with the same
images and segments. Each runs in a process of its own, in turns; seconds are medians, also those of the CPU
alone, which a busy machine disturbs less. Memory is how much the resident size of the process grew at its
peak, beyond the label map. The frames of both files must be the
same, byte for byte (of RLE, voxel for voxel): if not, the exit status is 1. Targets of the 104 structures as
binary segmentation are 3 × the speed and half the memory, of label maps 1.5 × the speed; those that are
missed are told, and with --check the exit status is 1 then.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.results_contenders import OURS, THEIRS
from benchmarks.results_data import MOST, SHAPE, draw

_ROOT = Path(__file__).parents[1]
_QUICK_SHAPE = (40, 128, 128)
_KINDS = ("binary none", "label_map none", "label_map rle", "label_map jpeg_ls")
_TARGET_BINARY, _TARGET_LABEL_MAP, _TARGET_MEMORY = 3.0, 1.5, 0.5


@dataclass(frozen=True)
class Result:
    """The runs of one writer."""

    writer: str
    structures: int
    kind: str
    seconds: tuple[float, ...]
    cpu_s: float
    memory_bytes: float
    file_bytes: int
    frames: int
    sha256: tuple[str, ...]

    @property
    def median_s(self) -> float:
        """Median of the runs."""
        return statistics.median(self.seconds)


def main() -> int:
    """Draw the organs, run both writers, print a line for each."""
    options = _options()
    shape = _QUICK_SHAPE if options.quick else SHAPE
    print(
        f"{' × '.join(map(str, shape))} voxels, {len(os.sched_getaffinity(0))} CPUs, {options.rounds} rounds"
    )
    print(
        f"{'':<32} {'median s':>9} {'least':>7} {'most':>7} {'CPU s':>7} "
        f"{'memory':>9} {'file':>9} {'frames':>7}"
    )
    rows: list[dict[str, object]] = []
    missed, wrong = 0, 0
    with tempfile.TemporaryDirectory() as scratch:
        for structures in options.structures:
            file = Path(scratch) / f"{structures}.npy"
            np.save(file, draw(structures, shape))
            for kind in options.kinds:
                ours, theirs = _compare(file, structures, kind, options.rounds)
                sentences = _missed(ours, theirs)
                differ = len({*ours.sha256, *theirs.sha256}) != 1
                _print(ours, theirs, [*["the frames differ"] * differ, *sentences])
                missed += len(sentences)
                wrong += differ
                rows += [{"load": os.getloadavg()[0], **asdict(result)} for result in (ours, theirs)]
    print(
        f"load average {os.getloadavg()[0]:.1f}; "
        + (f"{missed} targets missed" if missed else "all targets met")
    )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return 1 if wrong or (missed and options.check) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a small volume, one round")
    parser.add_argument("--check", action="store_true", help="exit status 1 if a target is missed")
    parser.add_argument("--structures", type=int, nargs="+", default=[1, 24, MOST])
    parser.add_argument("--kinds", nargs="+", default=_KINDS, help='such as "binary none", "fractional rle"')
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else 3)
    return options


def _compare(file: Path, structures: int, kind: str, rounds: int) -> tuple[Result, Result]:
    """Run both writers in turns, each round starting with the other one."""
    writers = [OURS, THEIRS]
    runs: dict[str, list[dict[str, object]]] = {writer: [] for writer in writers}
    for _ in range(rounds):
        for writer in writers:
            runs[writer].append(_run(writer, file, structures, kind))
        writers.reverse()
    ours, theirs = (_result(writer, structures, kind, runs[writer]) for writer in (OURS, THEIRS))
    return ours, theirs


def _run(writer: str, file: Path, structures: int, kind: str) -> dict[str, object]:
    """What one process measured."""
    out = file.with_name("out.dcm")
    arguments = [writer, str(file), str(structures), *kind.split(), str(out)]
    command = [sys.executable, "-m", "benchmarks.results_contenders", *arguments]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{writer} failed on {kind}: {done.stderr}")
    measured: dict[str, object] = json.loads(done.stdout.strip().splitlines()[-1])
    out.unlink()
    return measured


def _result(writer: str, structures: int, kind: str, runs: Sequence[dict[str, object]]) -> Result:
    grown = [int(str(r["resident_peak_bytes"])) - int(str(r["resident_before_bytes"])) for r in runs]
    return Result(
        writer,
        structures,
        kind,
        seconds=tuple(float(str(run["seconds"])) for run in runs),
        cpu_s=statistics.median(float(str(run["cpu_seconds"])) for run in runs),
        memory_bytes=statistics.median(grown),
        file_bytes=int(str(runs[0]["bytes"])),
        frames=int(str(runs[0]["frames"])),
        sha256=tuple(sorted({str(run["sha256"]) for run in runs})),
    )


def _missed(ours: Result, theirs: Result) -> list[str]:
    """The targets that are missed, as sentences."""
    missed = []
    speed = theirs.median_s / ours.median_s
    is_label_map = ours.kind.startswith("label_map")
    target = _TARGET_LABEL_MAP if is_label_map else _TARGET_BINARY if ours.structures == MOST else 1.0
    if speed < target:
        missed.append(f"{speed:.2f} × as fast, not {target} ×")
    share = ours.memory_bytes / max(theirs.memory_bytes, 1)
    if ours.structures == MOST and share > _TARGET_MEMORY:
        missed.append(f"{share:.2f} × the memory, not {_TARGET_MEMORY} ×")
    return missed


def _print(ours: Result, theirs: Result, missed: Sequence[str]) -> None:
    for result in (ours, theirs):
        name = f"{result.structures} {result.kind}, {result.writer}"
        print(
            f"{name:<32} {result.median_s:>9.3f} {min(result.seconds):>7.3f} {max(result.seconds):>7.3f} "
            f"{result.cpu_s:>7.3f} {result.memory_bytes / 1e6:>6.0f} MB "
            f"{result.file_bytes / 1e6:>6.1f} MB {result.frames:>7}"
        )
    cpu = theirs.cpu_s / ours.cpu_s
    print(f"  {theirs.median_s / ours.median_s:.2f} × as fast, {cpu:.2f} × by the CPU")
    for sentence in missed:
        print(f"  MISSED: {sentence}")


if __name__ == "__main__":
    sys.exit(main())
