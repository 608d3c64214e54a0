"""The coverage-guided loop of `make fuzz` starts, and knows every reader."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import seeds, targets

ROOT = Path(__file__).parents[2]

with_atheris = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64" or sys.version_info >= (3, 14),
    reason="there is no Atheris for this machine",
)


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.fuzz.coverage_guided", *arguments]
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@with_atheris
def test_it_names_every_target_for_the_makefile(tmp_path: Path) -> None:
    assert run(tmp_path).stdout.split() == list(targets.TARGETS)


@with_atheris
def test_it_fuzzes_a_reader(tmp_path: Path) -> None:
    done = run(tmp_path, "pdu", "-runs=300")
    assert done.returncode == 0, done.stderr
    assert "Done 300 runs" in done.stderr
    assert len(list((tmp_path / ".fuzz" / "pdu").iterdir())) >= len(seeds.of("pdu"))


@pytest.mark.parametrize("target", targets.TARGETS)
def test_every_target_takes_its_seeds_and_nothing(target: str) -> None:
    for seed in (*seeds.of(target), b"", b"\0"):
        targets.TARGETS[target](seed)
