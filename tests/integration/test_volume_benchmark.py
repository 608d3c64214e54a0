"""The benchmark of reading volumes, in short: it runs, and every reader gives the same voxels."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONTENDERS = {"gateway", "SimpleITK", "MONAI LoadImage", "pydicom, float32", "pydicom, int16"}


def test_all_readers_of_the_benchmark_give_the_same_voxels_in_every_syntax(tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    command = [sys.executable, "benchmarks/volume.py", "--slices", "6", "--rounds", "1", "--json", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(out.read_text())
    syntaxes = {row["syntax"] for row in rows}
    assert {"uncompressed", "JPEG lossless", "JPEG-LS", "JPEG 2000", "HTJ2K", "RLE"} == syntaxes
    for syntax in syntaxes:
        of_syntax = [row for row in rows if row["syntax"] == syntax]
        assert {row["reader"] for row in of_syntax} == CONTENDERS
        assert len({row["sha256"] for row in of_syntax if not row["failure"]}) == 1
