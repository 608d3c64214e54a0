"""The tables of docs/volumes.md: every verdict has a rule, and every rule has tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

from ai.geometry import VerdictCode
from ai.geometry.model import NoteCode

ROOT = Path(__file__).parents[2]
RULES = (
    (ROOT / "docs" / "volumes.md")
    .read_text(encoding="utf-8")
    .partition("## Rules\n")[2]
    .partition("\n## ")[0]
)
_TABLE_ROWS = [line.strip("| ").split(" | ") for line in RULES.splitlines() if line.startswith("| ")]
ROWS = [row for row in _TABLE_ROWS if row[0] != "input"]
# Refusals of a run that is told what to read, and not of the images.
_NO_RULE = {"FILE_UNREADABLE", "INPUT_NOT_ACCEPTED", "SEVERAL_CHANNELS", "CHANNELS_DO_NOT_FIT"} | {
    "NO_READABLE_FILE"
}
_NOT_DICOM = "NIFTI_"


def test_every_rule_has_a_verdict_and_tests_that_exist() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    there = set(re.findall(r"^def (test_\w+)\(", sources, re.MULTILINE))
    assert ROWS
    for row in ROWS:
        assert len(row) == 4, row
        assert row[1], f"{row[0]} has no verdict"
        named = re.findall(r"`(test_\w+)`", row[3])
        assert named, f"{row[0]} has no test"
        assert set(named) <= there, f"{row[0]}: {sorted(set(named) - there)} does not exist"


def test_every_verdict_and_note_of_geometry_has_a_rule() -> None:
    told = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)*\b", RULES))
    assert {*map(str, VerdictCode), *map(str, NoteCode)} <= told


def test_every_refusal_of_files_and_pixels_has_a_rule() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "ai").rglob("*.py"))
    raised = set(re.findall(r'\bSeriesRefused\(\s*"([A-Z_0-9]+)"', sources))
    assert len(raised) > 10
    assert (
        sorted(code for code in raised - _NO_RULE if code not in RULES and not code.startswith(_NOT_DICOM))
        == []
    )
