"""Independent readers on our results: dicom3tools, dcmqi. What they read is what the run found.

The label maps are drawn here, not segmented: each is asymmetric about every axis, so that a flip, a
shift or an exchange of segments cannot hide.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from ai.measure import measure
from ai.model import find_card
from ai.nifti import read_nifti
from ai.results.context import ResultContext, derive_identity
from ai.results.encode import encode
from ai.results.overview import build_overview
from ai.results.seg import build_seg
from ai.results.sr import build_sr
from ai.results.verify import verify_segmentation
from ai.volume import ImageSeries, LabelArray, read_series
from tests import builders

FIXTURES = Path(__file__).parents[3] / "shared" / "data" / "fixture"
REAL = {"body CT": "ct_body_siemens_j2k_totalseg/dicom", "3 liver slices": "ct3_liver_seg_dcmqi/ct"}
KINDS = ("seg", "sr", "overview")
VERSION = "0.1.0"


@dataclass(frozen=True)
class Results:
    """The three encoded results of one run, as files beside their sources."""

    context: ResultContext
    folder: Path
    sources: tuple[Path, ...]

    def path(self, kind: str) -> Path:
        return self.folder / f"{kind}.dcm"


def asymmetric(shape: tuple[int, int, int]) -> LabelArray:
    """Numbers 1 to 4 in boxes that no flip, transposition or shift maps onto themselves; 5 is absent."""
    labels = np.zeros(shape, np.uint8)
    slices, rows, columns = shape
    labels[:, rows // 8 : rows // 2, columns // 8 : columns - columns // 4] = 1
    labels[: max(1, slices // 2), rows // 6 : rows // 4, columns // 6 : columns // 3] = 2
    labels[slices // 3 :, rows // 4 : rows // 3, columns // 2 : columns // 2 + columns // 8] = 3
    labels[slices - 1, rows - rows // 4, columns - columns // 8] = 4
    return labels


def results_of(files: list[Path], folder: Path, labels: LabelArray | None = None) -> Results:
    """Read a series and write the results of a run that found these labels."""
    series = read_series(files)
    context = context_of(series, asymmetric(series.volume.geometry.shape) if labels is None else labels)
    folder.mkdir(parents=True, exist_ok=True)
    seg = build_seg(context)
    overview, _ = build_overview(context)
    for kind, dataset in zip(KINDS, (seg, build_sr(context, seg), overview), strict=True):
        (folder / f"{kind}.dcm").write_bytes(encode(dataset, VERSION))
    return Results(context, folder, tuple(files))


def context_of(series: ImageSeries, labels: LabelArray) -> ResultContext:
    spec = find_card("ct-tissue")
    uid = str(series.datasets[0].SeriesInstanceUID)
    return ResultContext(
        series=series,
        spec=spec,
        labels=labels,
        measurements=measure(series.volume, labels, spec.structures),
        identity=derive_identity(uid, series.input_digest, spec),
        created_at=datetime(2026, 1, 5, 12, 34, 56, tzinfo=UTC),
        series_number_base=9000,
        software_version=VERSION,
    )


@pytest.fixture(scope="module", params=["synthetic", "nothing found", *REAL])
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Results of a synthetic series, of one in which nothing was found, and of real series."""
    folder = tmp_path_factory.mktemp("results")
    if request.param in REAL:
        source = FIXTURES / REAL[request.param]
        if not source.is_dir():
            pytest.skip(f"the real images are not here: {source.name}")
        files = sorted(path for path in source.rglob("*") if path.is_file())
        return results_of(files, folder / "out")
    files = builders.write_series(builders.ct_series((7, 40, 32)), folder / "in")
    empty = np.zeros((7, 40, 32), np.uint8) if request.param == "nothing found" else None
    return results_of(files, folder / "out", empty)


@pytest.mark.parametrize("kind", KINDS)
def test_dciodvfy_finds_no_error(results: Results, kind: str) -> None:
    messages = run("dciodvfy", results.path(kind))
    assert not [line for line in messages.splitlines() if line.startswith("Error")]


def test_dcentvfy_finds_patient_study_and_frame_of_reference_equal_to_the_source(results: Results) -> None:
    alone = entity_errors(results.sources)
    together = entity_errors((*results.sources, *(results.path(kind) for kind in KINDS)))
    assert together - alone == set()


def test_our_own_reader_accepts_what_dcmqi_reads(results: Results) -> None:
    verify_segmentation(results.path("seg").read_bytes(), results.context)


def test_dcmqi_gives_back_exactly_our_voxels_in_patient_space(results: Results, tmp_path: Path) -> None:
    assert_same_voxels(results, tmp_path)


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
    for kind in KINDS:
        assert dcmread(written.path(kind), stop_before_pixels=True).PatientName == name


@pytest.mark.parametrize("orientation", ["HFS", "FFS", "prone", "oblique"])
def test_an_asymmetric_phantom_comes_back_unmirrored(orientation: str, tmp_path: Path) -> None:
    series, labels = builders.torso_series(orientation, (24, 64, 72), (10.0, 6.0, 5.0))
    files = builders.write_series(series, tmp_path / "in")
    written = results_of(files, tmp_path / "out", labels)
    assert all(np.any(labels == number) for number in (1, 2, 3, 4))
    assert_same_voxels(written, tmp_path)


def test_tid1500reader_gives_back_our_volumes(results: Results, tmp_path: Path) -> None:
    found = {
        results.context.identity.tracking_uids[m.structure.number]: m
        for m in results.context.measurements
        if m.found
    }
    if not found:
        pytest.skip("a report without segments is not what dcmqi reads")
    out = tmp_path / "sr.json"
    run(dcmqi("tid1500reader"), "--inputDICOM", results.path("sr"), "--outputMetadata", out)
    groups = {
        g["TrackingUniqueIdentifier"]: g
        for g in json.loads(out.read_text(encoding="utf-8"))["Measurements"]
        if g["TrackingUniqueIdentifier"] in found
    }
    assert groups.keys() == found.keys()
    for uid, group in groups.items():
        measurement = found[uid]
        assert group["ReferencedSegment"] == measurement.structure.number
        assert volume_ml(group) == pytest.approx(measurement.volume_ml, abs=1e-6)


def volume_ml(group: dict[str, list[dict[str, dict[str, str]]]]) -> float:
    (item,) = (i for i in group["measurementItems"] if i["quantity"]["CodeValue"] == "118565006")
    assert item["units"]["CodeValue"] == "mL"
    return float(str(item["value"]))


def assert_same_voxels(results: Results, folder: Path) -> None:
    """dcmqi writes a NIfTI file for each segment; its voxels, in LPS, are those of the label map."""
    context = results.context
    run(dcmqi("segimage2itkimage"), "--inputDICOM", results.path("seg"), "--outputDirectory", folder,
        "-t", "nii", "-p", "dcmqi")  # fmt: skip
    lps_to_index = np.linalg.inv(context.series.volume.geometry.index_to_lps)
    read = np.zeros_like(context.labels)
    for path in sorted(folder.glob("dcmqi-*.nii.gz")):
        number = int(path.name.removeprefix("dcmqi-").removesuffix(".nii.gz"))
        grid = read_nifti(path)
        inside = np.argwhere(grid.voxels > 0)
        lps = np.c_[inside, np.ones(len(inside))] @ grid.index_to_lps.T
        exact = (lps @ lps_to_index.T)[:, :3]
        index = np.rint(exact).astype(int)
        assert np.abs(exact - index).max(initial=0.0) < 0.05  # of a voxel: the grids are the same
        read[tuple(index.T)] = number
    np.testing.assert_array_equal(read, context.labels)


def entity_errors(files: tuple[Path, ...]) -> set[str]:
    return {line for line in run("dcentvfy", *files).splitlines() if line.startswith("Error")}


@cache
def dcmqi(name: str) -> Path:
    import dcmqi as package

    path = Path(package.__file__).parent / "bin" / name
    return path if path.exists() else Path(sys.executable).with_name(name)


def run(program: str | Path, *arguments: str | Path) -> str:
    """Run a tool; give back what it says. dicom3tools end with 1 on a warning, so output decides."""
    if shutil.which(str(program)) is None:
        pytest.fail(f"{program} is not installed; `make setup` installs it")
    done = subprocess.run(
        [str(program), *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode in (0, 1), done.stderr
    return done.stdout + done.stderr
