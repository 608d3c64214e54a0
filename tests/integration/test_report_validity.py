"""Report and overview under the validators and readers of others: dicom3tools, DCMTK, dcmqi."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from ai.results.context import ResultContext
from ai.results.encode import encode
from ai.results.overview import build_overview
from ai.results.seg import build_seg
from ai.results.sr import build_sr
from tests.builders import ct_series, write_series
from tests.runs import finished_run

SHAPE, SPACING_MM = (16, 48, 60), (15.0, 7.0, 6.0)


@dataclass(frozen=True)
class Written:
    """One run's objects on disk."""

    run: ResultContext
    source: Path
    sr: Path
    overview: Path


@pytest.fixture(scope="module", params=["HFS", "oblique"])
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("report")
    run = finished_run(request.param, SHAPE, SPACING_MM, without=(5,))
    (source, *_) = write_series(ct_series(SHAPE, SPACING_MM, request.param), folder / "source")
    objects = {"sr": build_sr(run, build_seg(run)), "overview": build_overview(run)[0]}
    for name, dataset in objects.items():
        (folder / f"{name}.dcm").write_bytes(encode(dataset, run.software_version))
    return Written(run, source, folder / "sr.dcm", folder / "overview.dcm")


def tool(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)


def expected_volumes(run: ResultContext) -> list[float]:
    return [m.volume_ml for m in run.measurements if m.found]


@pytest.mark.parametrize("name", ["sr", "overview"])
def test_dciodvfy_finds_no_error(written: Written, name: str) -> None:
    run = tool("dciodvfy", getattr(written, name))
    assert [line for line in run.stderr.splitlines() if line.startswith("Error")] == []
    assert {"sr": "Comprehensive3DSR", "overview": "SCImage"}[name] in run.stderr


@pytest.mark.parametrize("name", ["sr", "overview"])
def test_dcentvfy_finds_patient_and_study_consistent_with_the_source(written: Written, name: str) -> None:
    run = tool("dcentvfy", written.source, getattr(written, name))
    # The tool puts Accession Number at the series of some IODs; the values are equal.
    lines = [line for line in run.stderr.splitlines() if "<AccessionNumber>" not in line]
    assert [line for line in lines if line.startswith(("Error", "Warning"))] == []


def test_dcmqi_reads_the_volumes_and_segments_back(written: Written, tmp_path: Path) -> None:
    output = tmp_path / "report.json"
    reader = Path(sys.executable).with_name("tid1500reader")
    run = tool(reader, "--inputDICOM", written.sr, "--outputMetadata", output)
    assert run.returncode == 0, run.stderr
    groups = json.loads(output.read_text())["Measurements"]
    volumes = {
        group["ReferencedSegment"]: float(item["value"])
        for group in groups
        for item in group.get("measurementItems", ())
        if item["quantity"]["CodeValue"] == "118565006"
    }
    assert volumes == pytest.approx(
        {m.structure.number: m.volume_ml for m in written.run.measurements if m.found}, abs=1e-6
    )


def test_dsrdump_prints_the_volume_of_each_structure_found(written: Written) -> None:
    run = tool("dsrdump", written.sr)
    assert run.returncode == 0, run.stderr
    printed = [float(v) for v in re.findall(r'Volume"\)="([0-9.]+)"', run.stdout)]
    assert printed == pytest.approx(expected_volumes(written.run), abs=1e-6)
    assert "PRELIMINARY" in run.stdout
    assert "UNVERIFIED" in run.stdout


def test_dsr2html_renders_the_summary_first(written: Written) -> None:
    run = tool("dsr2html", written.sr)
    assert run.returncode == 0, run.stderr
    summary, library = run.stdout.index("Found: Body"), run.stdout.index("Image Library")
    assert summary < library
    assert "Not for diagnosis." in run.stdout


def test_the_overview_is_decoded_by_dcmtk(written: Written, tmp_path: Path) -> None:
    picture = tmp_path / "overview.ppm"
    run = tool("dcm2pnm", written.overview, picture)
    assert run.returncode == 0, run.stderr
    assert picture.read_bytes().startswith(b"P6\n1024 ")
