"""Validators and readers of others on our results: dicom3tools, DCMTK, dcmqi read what the run found.

Label maps are the truth of the synthetic torso, or boxes drawn here on real series: each is asymmetric
about every axis, so that a flip, a shift or an exchange of segments cannot hide.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread

from ai.measure import Measurement
from ai.nifti import read_nifti
from ai.results.context import ResultContext
from ai.results.encode import encode
from ai.results.overview import build_overview
from ai.results.seg import build_seg
from ai.results.sr import build_sr
from ai.results.verify import verify_segmentation
from ai.volume import LabelArray, read_series
from tests import builders
from tests.runs import run_of

FIXTURES = Path(__file__).parents[3] / "shared" / "data" / "fixture"
REAL = {
    "body CT": "ct_body_siemens_j2k_totalseg/dicom",
    "3 liver slices": "ct3_liver_seg_dcmqi/ct",
    "chest CT": "ct_chest_lidc0314/dicom_j2k",
}
ORIENTATIONS = ("HFS", "FFS", "prone", "oblique")
IODS = {"seg": "Segmentation", "sr": "Comprehensive3DSR", "overview": "SCImage"}
METAL = 5
# Code value of the derivation (None: the volume itself) to what it derives.
VOLUME, MEAN, SD, MINIMUM, MAXIMUM = None, "373098007", "386136009", "255605001", "56851009"


@dataclass(frozen=True)
class Results:
    """The three encoded results of one run, as files beside their sources."""

    run: ResultContext
    folder: Path
    sources: tuple[Path, ...]

    def path(self, kind: str) -> Path:
        return self.folder / f"{kind}.dcm"


def results_of(files: list[Path], folder: Path, labels: LabelArray | None = None) -> Results:
    """Read a series and write the results of a run that found these labels (or the boxes)."""
    series = read_series(files)
    run = run_of(series, boxes(series.volume.geometry.shape) if labels is None else labels)
    folder.mkdir(parents=True)
    seg = build_seg(run)
    overview, _ = build_overview(run)
    for kind, dataset in zip(IODS, (seg, build_sr(run, [seg]), overview), strict=True):
        (folder / f"{kind}.dcm").write_bytes(encode(dataset, run.software_version))
    return Results(run, folder, tuple(files))


def boxes(shape: tuple[int, int, int]) -> LabelArray:
    """Numbers 1 to 4 in boxes that no flip, transposition or shift maps onto themselves; no metal."""
    labels = np.zeros(shape, np.uint8)
    slices, rows, columns = shape
    labels[:, rows // 8 : rows // 2, columns // 8 : columns - columns // 4] = 1
    labels[: max(1, slices // 2), rows // 6 : rows // 4, columns // 6 : columns // 3] = 2
    labels[slices // 3 :, rows // 4 : rows // 3, columns // 2 : columns // 2 + columns // 8] = 3
    labels[slices - 1, rows - rows // 4, columns - columns // 8] = 4
    return labels


@pytest.fixture(scope="module", params=[*ORIENTATIONS, "nothing found", *REAL])
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Results of the torso in every orientation, of a run that found nothing, and of real series."""
    folder = tmp_path_factory.mktemp("results")
    if request.param in REAL:
        source = FIXTURES / REAL[request.param]
        if not source.is_dir():
            pytest.skip(f"the real images (../shared/data) are not on this machine: {REAL[request.param]}")
        return results_of(sorted(path for path in source.rglob("*") if path.is_file()), folder / "out")
    orientation = request.param if request.param in ORIENTATIONS else "HFS"
    series, labels = builders.torso_series(orientation, (24, 64, 72), (10.0, 6.0, 5.0))
    labels[(labels == METAL) | (request.param == "nothing found")] = 0
    return results_of(builders.write_series(series, folder / "in"), folder / "out", labels)


def test_each_case_finds_four_structures_and_no_metal_or_nothing(results: Results) -> None:
    assert {m.structure.number for m in results.run.measurements if m.found} in ({1, 2, 3, 4}, set())


# -- valid, and about the same patient -------------------------------------------------------------


@pytest.mark.parametrize("kind", IODS)
def test_dciodvfy_finds_no_error(results: Results, kind: str) -> None:
    lines = run("dciodvfy", results.path(kind)).splitlines()
    assert IODS[kind] in lines
    assert [line for line in lines if line.startswith("Error")] == []


def test_dcentvfy_finds_patient_study_and_frame_of_reference_equal_to_the_source(results: Results) -> None:
    alone = inconsistencies(results.sources)
    assert inconsistencies((*results.sources, *map(results.path, IODS))) - alone == set()


def test_dcentvfy_would_have_found_the_name_of_another_patient(tmp_path: Path) -> None:
    series = builders.ct_series((3, 16, 16))
    series[0].PatientName = "Another"
    assert inconsistencies(tuple(builders.write_series(series, tmp_path)))


@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        ("ISO_IR 100", "M\u00fcller^J\u00f6rg"),
        ("ISO_IR 192", "\u5c71\u7530^\u592a\u90ce"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=\u5c71\u7530^\u592a\u90ce"),
        ("", "Plain^Name"),
    ],
)
def test_a_name_in_any_character_set_is_the_same_in_every_result(
    character_set: str | list[str], name: str, tmp_path: Path
) -> None:
    series = builders.ct_series((3, 16, 16), SpecificCharacterSet=character_set, PatientName=name)
    written = results_of(builders.write_series(series, tmp_path / "in"), tmp_path / "out")
    for kind in IODS:
        assert dcmread(written.path(kind), stop_before_pixels=True).PatientName == name


# -- the Segmentation ------------------------------------------------------------------------------


def test_our_own_check_passes_the_segmentation(results: Results) -> None:
    verify_segmentation(results.path("seg").read_bytes(), results.run)


def test_dcmqi_gives_back_exactly_our_voxels_in_patient_space(results: Results, tmp_path: Path) -> None:
    run("segimage2itkimage", "--inputDICOM", results.path("seg"), "--outputDirectory", tmp_path,
        "-t", "nii", "-p", "labels", "--mergeSegments")  # fmt: skip
    (path,) = tmp_path.glob("*.nii.gz")
    grid = read_nifti(path)
    to_ours = np.linalg.inv(results.run.series.volume.geometry.index_to_lps) @ grid.index_to_lps
    labels = np.zeros_like(results.run.labels)
    for number, plane in enumerate(grid.voxels):
        row, column = np.nonzero(plane)
        exact = (to_ours @ [np.full(row.size, number), row, column, np.ones(row.size)])[:3]
        index = np.rint(exact).astype(int)
        assert np.abs(exact - index).max(initial=0.0) < 0.05  # of a voxel: the grids are the same
        labels[tuple(index)] = plane[row, column]
    np.testing.assert_array_equal(labels, results.run.labels)


def test_dcmdump_lists_every_structure_as_a_segment_found_or_not(results: Results) -> None:
    lines = run("dcmdump", "+P", "0062,0005", results.path("seg")).splitlines()
    assert [line.split("[")[1].split("]")[0] for line in lines] == [
        structure.label for structure in results.run.spec.structures
    ]


# -- the report ------------------------------------------------------------------------------------


def test_tid1500reader_gives_back_segments_volumes_and_attenuation(results: Results, tmp_path: Path) -> None:
    out = tmp_path / "sr.json"
    run("tid1500reader", "--inputDICOM", results.path("sr"), "--outputMetadata", out)
    groups = json.loads(out.read_text(encoding="utf-8"))["Measurements"]
    uids = results.run.identity.tracking_uids
    assert {g["TrackingUniqueIdentifier"]: g.get("ReferencedSegment") for g in groups} == {
        uids[m.structure.number]: m.structure.number if m.found else None for m in results.run.measurements
    }
    by_uid = {g["TrackingUniqueIdentifier"]: numbers(g["measurementItems"]) for g in groups}
    for measurement in results.run.measurements:
        read = by_uid[uids[measurement.structure.number]]
        assert read == pytest.approx(expected_numbers(measurement), abs=1e-6)


def numbers(items: list[dict[str, Any]]) -> dict[str | None, float]:
    """Values of the measurements of a group, by derivation; each in its unit."""
    read: dict[str | None, float] = {}
    for item in items:
        derivation = item.get("derivationModifier", {}).get("CodeValue")
        quantity = (item["quantity"]["CodeValue"], item["units"]["CodeValue"])
        assert quantity == (("118565006", "mL") if derivation is VOLUME else ("112031", "[hnsf'U]"))
        assert derivation not in read
        read[derivation] = float(item["value"])
    return read


def expected_numbers(measurement: Measurement) -> dict[str | None, float]:
    hu = measurement.intensity
    if hu is None:
        return {}
    return {VOLUME: measurement.volume_ml, MEAN: hu.mean, SD: hu.sd, MINIMUM: hu.minimum, MAXIMUM: hu.maximum}


def test_dsrdump_says_preliminary_and_which_structures_are_absent(results: Results) -> None:
    text = run("dsrdump", results.path("sr"))
    for flag in ("Preliminary Flag    : PRELIMINARY", "Verification Flag   : UNVERIFIED"):
        assert flag in text
    presence = ["Absent" in group for group in text.split('"Tracking Identifier"')[1:]]
    assert presence == [not m.found for m in results.run.measurements]


def test_dsr2html_renders_the_summary_before_the_images(results: Results) -> None:
    page = run("dsr2html", results.path("sr"))
    found = any(m.found for m in results.run.measurements)
    summary = "Found: Body" if found else "None of the structures was found."
    assert page.index(summary) < page.index("Not for diagnosis.") < page.index("Image Library")


# -- the overview ----------------------------------------------------------------------------------


def test_dcmtk_decodes_the_overview_to_the_same_picture(results: Results, tmp_path: Path) -> None:
    picture = tmp_path / "overview.ppm"
    run("dcm2pnm", results.path("overview"), picture)
    with Image.open(picture) as decoded:
        np.testing.assert_array_equal(np.asarray(decoded), dcmread(results.path("overview")).pixel_array)


# -- tools -----------------------------------------------------------------------------------------


def inconsistencies(files: tuple[Path, ...]) -> set[str]:
    """What dcentvfy finds: values that differ, attributes of the patient or study that only some have.

    Left out are its remarks that its own tables put an attribute (Accession Number) at another entity
    for another IOD.
    """
    findings = {
        line for line in run("dcentvfy", *files).splitlines() if line.startswith(("Error", "Warning"))
    }
    return {line for line in findings if "Different information entities for attribute" not in line}


def run(program: str, *arguments: str | Path) -> str:
    """Run a tool; give back what it says. dicom3tools end with 1 on a warning, so output decides."""
    path = shutil.which(program) or shutil.which(program, path=str(Path(sys.executable).parent))
    if path is None:
        pytest.fail(f"{program} is missing: run `make setup test-tools`")
    done = subprocess.run(
        [path, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )
    accepted = (0, 1) if program in ("dciodvfy", "dcentvfy") else (0,)
    assert done.returncode in accepted, done.stderr
    return done.stdout + done.stderr
