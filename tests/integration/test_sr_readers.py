"""Reports read by the tools of others: dciodvfy, dsr2html and tid1500reader."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from html import unescape
from pathlib import Path
from re import sub
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from ai.measure import measure
from ai.model import find_card
from ai.pipeline import RunOptions, report_not_run
from ai.profile import Profile
from ai.quality import Finding, Verdict
from ai.results.context import ResultContext
from ai.results.encode import encode
from ai.results.seg import build_segs
from ai.results.sr import build_sr
from tests import builders
from tests.runs import CREATED_AT, torso_run
from tests.sr_tree import groups, numbers, text

TOUCHES = "Left lung: touches the superior border of the field of view; 9 mL is a lower bound."
LABEL_MAP_STORAGE = "1.2.840.10008.5.1.4.1.1.66.7"
TOO_OLD = (  # the tool of 2022 does not know Label Map Segmentation Storage, which came in 2024
    "Error - Shall not be present for Referenced SOP Class that is not segmentation - attribute "
    "<ReferencedSegmentNumber>"
)
UNLIKELY = "Right lung: 9 mL; expected at least 100 mL."


def torso() -> ResultContext:
    findings = (
        Finding(("body",), "complete", Verdict.PASS, "Body: within the field of view."),
        Finding(("left_lung",), "complete", Verdict.PARTIAL, TOUCHES),
        Finding(("right_lung",), "volume_ml", Verdict.SUSPECT, UNLIKELY),
    )
    return replace(torso_run(shape=(6, 32, 40), spacing_mm=(30, 10, 9), without=(5,)), quality=findings)


def nothing_found() -> ResultContext:
    run = torso()
    labels = np.zeros_like(run.labels)
    measured = measure(run.series.volume, labels, run.spec.structures)
    return replace(run, labels=labels, measurements=measured, quality=())


RUNS = {
    "usual": torso(),
    "several objects": replace(torso(), profile=Profile(maximum_segments=2)),
    "label map, absent said": replace(torso(), profile=Profile(segmentation="label_map", absent="report")),
    "later stage not run": replace(torso(), not_evaluated=frozenset({5})),
    "nothing found": nothing_found(),
    "nothing found, no SEG": replace(nothing_found(), profile=Profile(absent="report")),
}


@pytest.fixture(scope="module", params=RUNS, ids=str)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Path]:
    run = RUNS[request.param]
    report = build_sr(run, [seg.header for seg in build_segs(run)])
    path = tmp_path_factory.mktemp("sr") / "sr.dcm"
    path.write_bytes(encode(report, run.software_version))
    return report, path


def test_dciodvfy_finds_no_error(written: tuple[Dataset, Path]) -> None:
    report, path = written
    cited = {
        item.ReferencedSOPSequence[0].ReferencedSOPClassUID
        for group in groups(report)
        for item in group.ContentSequence
        if item.ValueType == "IMAGE"
    }
    _no_error(path, TOO_OLD if cited == {LABEL_MAP_STORAGE} else "")


def test_tid1500reader_reads_every_measurement(written: tuple[Dataset, Path], tmp_path: Path) -> None:
    report, path = written
    out = tmp_path / "sr.json"
    tool("tid1500reader", "--inputDICOM", str(path), "--outputMetadata", str(out))
    read = {
        group["TrackingUniqueIdentifier"]: group
        for group in json.loads(out.read_text(encoding="utf-8"))["Measurements"]
    }
    assert len(read) == len(groups(report))
    for group in groups(report):
        theirs = read[text(group, "112040")]
        ours = [(value, unit) for value, unit in numbers(group).values()]
        assert [_measurement(item) for item in theirs.get("measurementItems", [])] == ours
        if any(item.ValueType == "IMAGE" for item in group.ContentSequence):
            assert theirs["ReferencedSegment"] >= 1
        assert theirs["TrackingIdentifier"] == text(group, "112039")


def _measurement(item: Mapping[str, Any]) -> tuple[float, str]:
    return float(item["value"]), item["units"]["CodeValue"]


def test_a_radiologist_reads_the_result_in_the_page_of_dsr2html(tmp_path: Path) -> None:
    run = torso()
    path = tmp_path / "sr.dcm"
    report = build_sr(run, [seg.header for seg in build_segs(run)])
    path.write_bytes(encode(report, run.software_version))
    page = _page(path)
    told = [
        "Summary: CT tissue 1.0.0: completed, 4 of 5 structures found. Found: Body ",
        "Looked for and not found: Metal implant.",
        f"Quality SUSPECT. {UNLIKELY}",
        f"Quality PARTIAL. {TOUCHES}",
        "Quality checks passed: 1 of 3.",
        "Geometry of the source: ACCEPTED.",
        "Limits of CT tissue 1.0.0: Dense disease of the lung",
        "Research use only. Not for diagnosis. Intended use: Research, demonstration",
        "Image Library",
        "Finding: Lung (39607008, SCT)",
        f"Volume: {numbers(groups(report)[1])['Volume', 'Sum of segmented voxel method for volume'][0]:g} mL",
        "Presence of property: Present (52101004, SCT)",
        "Quality Finding: Anatomy coverage incomplete (130576, DCM)",
        "Quality Assessment: PARTIAL (QUALITY_PARTIAL, 99GATEWAY)",
        f"Comment: {TOUCHES}",
        "Presence of property: Absent (272519000, SCT)",
        "Ratio: ",
        "left minus right",
    ]
    place = 0
    for words in told:
        assert words in page[place:], words
        place += page[place:].index(words)


def test_the_report_of_a_job_without_a_result_is_valid_and_says_why(tmp_path: Path) -> None:
    files = builders.write_series(builders.ct_series((6, 16, 16), (30.0, 10.0, 9.0), "HFS"), tmp_path / "in")
    reason = "One slice of 7 is missing: send the whole series."
    options = RunOptions(CREATED_AT, "1.2.3")
    (result,) = report_not_run(list(files), find_card("ct-tissue"), "MISSING_SLICE", reason, options)
    path = tmp_path / "sr.dcm"
    path.write_bytes(result.content)
    _no_error(path)
    page = _page(path)
    assert f"Summary: CT tissue 1.0.0: not completed, no result. MISSING_SLICE: {reason}" in page
    assert page.count("Presence of property: Not Evaluated (373121007, SCT)") == 5


def _no_error(path: Path, known: str = "") -> None:
    lines = tool("dciodvfy", str(path)).splitlines()
    assert "Comprehensive3DSR" in lines
    assert {line.strip() for line in lines if line.startswith("Error")} <= {known}


def _page(path: Path) -> str:
    """The words of the page, one space between them."""
    return " ".join(unescape(sub(r"<[^>]*>", " ", tool("dsr2html", str(path)))).split())


def tool(program: str, *arguments: str) -> str:
    """What a tool says. dicom3tools end with 1 on a warning, so output decides."""
    found = shutil.which(program) or shutil.which(program, path=str(Path(sys.executable).parent))
    if found is None:
        pytest.fail(f"{program} is missing: run `make setup test-tools`")
    done = subprocess.run([found, *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout + done.stderr
