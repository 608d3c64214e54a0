"""The benchmark of receiving, in short: every measure runs, and every receiver stores what it is sent."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.receive_profile import steps_of

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


def test_it_says_where_the_time_of_the_node_goes(report: dict[str, dict[str, str]]) -> None:
    profiles = [name for name in report["notes"] if name.startswith("ms of each instance")]
    assert len(profiles) == 3
    assert all(report["notes"][name] for name in profiles)


def test_a_sample_counts_for_the_innermost_step() -> None:
    outer = "UpperLayer.run_reactor (gateway/receive/association/dul.py:130)"
    samples = {
        "Incoming.write (gateway/spool/incoming.py:88)": "SHA-256",
        "Incoming.write (gateway/spool/incoming.py:81);write_all (gateway/spool/disk.py:45)": "write",
        "Incoming._appear (gateway/spool/incoming.py:150);Incoming._sync (gateway/spool/incoming.py:163)": (
            "fsync of the file"
        ),
        "Incoming._keep (gateway/spool/incoming.py:140);sync_directory (gateway/spool/disk.py:73)": (
            "fsync of the directory"
        ),
        "WriteConnection.transaction (gateway/journal/connection.py:84)": "journal",
        "Messages._complete (gateway/receive/association/messages.py:259)": "the rest: Python between them",
    }
    for frames, step in samples.items():
        assert steps_of([f"{outer};{frames} 3"]) == {step: 3}
    assert not steps_of(["wait (threading.py:320);select (selectors.py:415) 7"])
