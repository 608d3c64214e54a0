"""The benchmark of results, in short: it runs, and both writers write the same frames."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
KINDS = ("binary none", "label_map none", "label_map rle", "label_map jpeg_ls")


def test_both_writers_of_the_benchmark_give_the_same_frames(tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    command = [
        sys.executable,
        "-m",
        "benchmarks.results",
        "--quick",
        "--structures",
        "24",
        "--json",
        str(out),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(out.read_text())
    assert {row["kind"] for row in rows} == set(KINDS)
    for kind in KINDS:
        ours, theirs = (row for row in rows if row["kind"] == kind)
        assert (ours["writer"], theirs["writer"]) == ("gateway", "highdicom")
        assert ours["sha256"] == theirs["sha256"]
        assert ours["frames"] == theirs["frames"] > 0
