"""The benchmark of receiving, in short: every measure runs, and every receiver stores what it is sent."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = ("gateway, durable", "gateway, no fsync")
MEASURES = {f"({letter})" for letter in "abcdefgh"}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("benchmark")
    out = folder / "report.json"
    command = [
        sys.executable, "-m", "benchmarks.receive", "--quick", "--out", str(out), "--scratch", str(folder),
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, object] = json.loads(out.read_text())
    return found


def test_every_measure_of_the_benchmark_has_a_verdict(report: dict[str, list[dict[str, object]]]) -> None:
    assert {str(verdict["measure"])[:3] for verdict in report["verdicts"]} == MEASURES
    (fidelity,) = (v for v in report["verdicts"] if str(v["measure"]).startswith("(d)"))
    assert fidelity["met"], "what is stored is what was sent"


def test_every_receiver_takes_the_same_load(report: dict[str, list[dict[str, object]]]) -> None:
    one = {row["server"] for row in report["rows"] if row["load"] == "one association"}
    assert one >= {*OURS, "storescp", "Orthanc", "Orthanc Sync=false", "limit: socket"}
    four = {row["server"] for row in report["rows"] if row["load"] == "4 associations"}
    assert four >= {*OURS, "storescp --fork"}
    stock = {row["load"] for row in report["rows"] if row["server"] == "storescp as packaged"}
    assert stock == {"dcmsend, one association", "storescu, one association"}
    assert all(rate > 0 for row in report["rows"] for rate in row["rates"])  # type: ignore[attr-defined]
