"""What the README says is so: its commands exist, its numbers are the ones measured."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.cli.app import COMMANDS
from tests.crash.test_node_kill import RUNS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DATA = ROOT.parent / "shared" / "data"

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def test_every_command_of_the_readme_exists() -> None:
    assert set(re.findall(r"\baigw ([a-z]+)", README)) <= set(COMMANDS)
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make ([a-z-]+)", README, re.MULTILINE)) <= targets


def test_every_file_that_the_readme_names_is_there() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    tests = re.findall(r"`(tests/[\w/.]+)`", README)
    assert links
    assert tests
    assert [name for name in links + tests if not (ROOT / name).exists()] == []


def test_the_number_of_kill_runs_is_the_one_of_the_test() -> None:
    runs = len(RUNS)
    soak = int(re.findall(r"AIGW_KILL_RUNS=(\d+)", (ROOT / "Makefile").read_text())[0])
    assert f"{runs} runs: nothing acknowledged is lost" in README
    assert f"`make soak` repeats it {soak // runs} times" in README


def quoted_dice() -> dict[str, dict[str, str]]:
    """Case → structure → what the README's table says."""
    table = [
        [cell.strip(" *") for cell in line.strip("|").split("|")]
        for line in README.split("How good is ct-tissue?")[1].splitlines()
        if line.startswith("|") and not line.startswith("|--")
    ]
    return {row[0]: dict(zip(table[0][1:], row[1:], strict=True)) for row in table[1:]}


def test_the_dice_of_the_readme_is_what_the_benchmark_measures(tmp_path: Path) -> None:
    out = tmp_path / "dice.json"
    command = [sys.executable, "benchmarks/dice_ct_tissue.py", "--data", str(DATA), "--json", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    cases = {case["case"]: case for case in json.loads(out.read_text())}
    quoted = quoted_dice()
    assert quoted.keys() == cases.keys()
    assert "rows" in cases["drawn sample chest"], "the sample needs no data"
    for name, case in cases.items():
        for row in case.get("rows", []):  # none where the real images are missing
            said = quoted[name][row["label"]]
            measured = row["dice"]
            assert said == "none in either" if measured is None else abs(float(said) - measured) < 0.006, (
                name,
                row,
            )


def shown(ratio: float) -> str:
    """As the README's table writes it."""
    return f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.1f}" if ratio >= 1 else f"{ratio:.2f}"


def test_the_figures_of_receiving_are_those_of_the_run_that_is_kept() -> None:
    run = json.loads((ROOT / "docs" / "benchmark-receive.json").read_text(encoding="utf-8"))
    section = README.split("## How fast does it receive?")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    lines = {line.split("|")[1].strip(): line for line in rows}
    found = {verdict["measure"]: shown(verdict["found"]) for verdict in run["verdicts"]}
    rates = {(row["load"], row["server"]): f"{row['median']:.0f}" for row in run["rows"]}
    quoted = {
        "one association": ("(b)", [rates["one association", "gateway, durable"]]),
        "one association, nothing flushed": ("(a)", [rates["one association", "gateway, no fsync"]]),
        "four associations": ("(c)", [rates["4 associations", "gateway, durable"]]),
        "DCMTK's dcmsend / storescu as packaged": (
            "(f)",
            [rates[f"{tool}, one association", "gateway, durable"] for tool in ("dcmsend", "storescu")],
        ),
    }
    for name, (measure, ours) in quoted.items():
        ratios = [ratio for what, ratio in found.items() if what.startswith(measure)]
        assert ratios
        assert re.findall(r"([\d.]+)[ *]*×", lines[name]) == ratios
        assert lines[name].split("|")[2].split("/") == [f" {each} " for each in ours]
    commit = "limit: socket+write+hash+flush+commit"
    limits = [rates["one association", commit], rates["4 associations", commit]]
    assert f"reaches {limits[0]} images/s\n(one) and {limits[1]} (four)" in section
