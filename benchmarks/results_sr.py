"""How long does the report of a run take, against plain highdicom with the same content?

    python benchmarks/results_sr.py [--structures 104] [--slices 400] [--rounds 5] [--check] [--json FILE]

Both build a Comprehensive 3D SR by TID 1500 from the same measurements and segmentation headers and encode
it, in turns in one process: 104 measurement groups with all their measurements and evaluations, groups of
pairs, and an image library of 400 sources. Medians are told. The target is 0.6 × the time of highdicom;
where it is missed the exit status is 1 with --check. tests/integration/test_sr_equals_highdicom.py holds the
two against each other attribute by attribute.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from pydicom.dataset import Dataset

from ai.results.context import ResultContext
from ai.results.encode import encode
from ai.results.seg import build_segs
from ai.results.sr import build_sr
from benchmarks.results_sr_case import many_structures_run
from benchmarks.results_sr_plain import plain_report

TARGET = 0.6


def main() -> int:
    """Make the case, time both, print a table."""
    options = _options()
    context = many_structures_run(options.structures, options.slices)
    segs = [seg.header for seg in build_segs(context)]
    seconds = compare(context, segs, options.rounds)
    ours, plain = (statistics.median(seconds[name]) for name in ("ours", "highdicom"))
    print(
        f"{options.structures} structures, {options.slices} sources, {options.rounds} rounds, "
        f"load average {os.getloadavg()[0]:.1f}"
    )
    for name, runs in seconds.items():
        print(f"  {name:<10} median {statistics.median(runs):.3f} s, {min(runs):.3f} to {max(runs):.3f}")
    missed = ours > TARGET * plain
    print(f"  ours takes {ours / plain:.2f} × the time; target {TARGET}" + (": MISSED" if missed else ""))
    if options.json:
        rows = {**seconds, "structures": options.structures, "slices": options.slices, "ratio": ours / plain}
        options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return 1 if missed and options.check else 0


def compare(context: ResultContext, segs: Sequence[Dataset], rounds: int) -> dict[str, list[float]]:
    """Seconds of each round, by contender; the two take turns."""
    contenders: dict[str, Callable[[], int]] = {
        "ours": lambda: len(encode(build_sr(context, segs), context.software_version)),
        "highdicom": lambda: _plain_bytes(context, segs),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            start_s = time.perf_counter()
            contender()
            seconds[name].append(time.perf_counter() - start_s)
    return seconds


def _plain_bytes(context: ResultContext, segs: Sequence[Dataset]) -> int:
    buffer = BytesIO()
    plain_report(context, segs).save_as(buffer, enforce_file_format=True)
    return buffer.tell()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--structures", type=int, default=104)
    parser.add_argument("--slices", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--check", action="store_true", help="exit status 1 if the target is missed")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
