"""``aigw volume``: the command as a person runs it, and its numbers against the truth and another reader."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image
from pydicom import dcmread
from pydicom.fileset import FileSet
from pydicom.uid import RLELossless

from ai.nifti import read_nifti
from ai.quiet import quiet
from ai.sample import write_sample_series
from gateway.cli.app import run
from tests import odd_series
from tests.builders import (
    affine,
    counting_voxels,
    ct_series,
    with_attributes,
    with_duplicate_position,
    with_sheared_tilt,
    without,
    without_slice,
    write_series,
)

FIXTURE = Path(__file__).parents[3] / "shared" / "data" / "fixture"
REAL = {
    "ct_chest_lidc0314/dicom_native_sub": "CT",
    "mr_t1_siemens_hfdl_decubitus": "MR",
    "mr_hippocrop_dicom": "MR",
}
SHAPE, SPACING_MM = (8, 20, 24), (3.0, 0.8, 0.7)

Ended = tuple[int, str, str]
Call = Callable[..., Ended]


@pytest.fixture
def aigw(capsys: pytest.CaptureFixture[str]) -> Call:
    """Run ``aigw volume``: exit code, stdout, stderr."""

    def call(*arguments: object) -> Ended:
        with pytest.raises(SystemExit) as ended:
            run(["volume", *map(str, arguments)])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return call


def volumes(ended: Ended) -> list[dict[str, Any]]:
    return list(json.loads(ended[1])["volumes"])


def phases() -> list[Any]:
    return odd_series.phases(2, "TemporalPositionIdentifier", [1, 2])


@pytest.mark.parametrize("orientation", ["HFS", "FFS", "sagittal", "oblique"])
def test_a_series_is_described_by_its_true_numbers(aigw: Call, tmp_path: Path, orientation: str) -> None:
    series = ct_series(SHAPE, SPACING_MM, orientation, origin_mm=(10.0, -20.0, 30.0))
    write_series(series[::-1], tmp_path)
    code, *_ = ended = aigw(tmp_path, "--json")
    (found,) = volumes(ended)
    truth, voxels = affine(SHAPE, SPACING_MM, orientation, (10.0, -20.0, 30.0)), counting_voxels(SHAPE)
    assert (code, found["verdict"], found["code"]) == (0, "ACCEPTED", "ACCEPTED")
    assert found["series_instance_uid"] == series[0].SeriesInstanceUID
    assert found["study_instance_uid"] == series[0].StudyInstanceUID
    assert (found["modality"], found["unit"], found["part"], found["images"]) == ("CT", "HU", "", SHAPE[0])
    assert found["shape"] == list(SHAPE)
    np.testing.assert_allclose(found["spacing_mm"], SPACING_MM, atol=1e-6)
    np.testing.assert_allclose(found["affine_lps"], truth, atol=1e-6)
    centre = (truth @ [*((np.array(SHAPE) - 1) / 2), 1])[:3]
    np.testing.assert_allclose(found["centre_lps_mm"], centre, atol=1e-6)
    assert (found["intensity_minimum"], found["intensity_maximum"]) == (voxels.min(), voxels.max())
    assert found["intensity_mean"] == pytest.approx(voxels.mean())


@pytest.mark.parametrize("folder", REAL)
def test_a_real_series_has_the_numbers_that_another_reader_finds(
    aigw: Call, tmp_path: Path, folder: str
) -> None:
    if not (FIXTURE / folder).is_dir():
        pytest.skip("the real images are not here (../shared/data)")
    (found,) = volumes(aigw(FIXTURE / folder, "--json", "--nifti", tmp_path / "voxels.nii.gz"))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(FIXTURE / folder)))
    image = reader.Execute()
    voxels = sitk.GetArrayFromImage(image)
    middle = image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()])
    assert found["modality"] == REAL[folder]
    assert found["shape"] == list(voxels.shape)
    assert found["intensity_maximum"] == voxels.max()
    assert found["intensity_mean"] == pytest.approx(voxels.mean(dtype=np.float64), abs=1e-6)
    np.testing.assert_allclose(found["centre_lps_mm"], middle, atol=1e-3)
    written = sitk.ReadImage(str(tmp_path / "voxels.nii.gz"))
    np.testing.assert_allclose(written.GetOrigin(), image.GetOrigin(), atol=1e-3)
    np.testing.assert_allclose(written.GetDirection(), image.GetDirection(), atol=1e-5)
    assert np.array_equal(sitk.GetArrayFromImage(written), voxels)


def test_a_tilted_series_is_fixed_and_shown_on_its_upright_grid(aigw: Call, tmp_path: Path) -> None:
    write_series(with_sheared_tilt(ct_series(SHAPE, SPACING_MM), 15.0), tmp_path / "in")
    code, *_ = ended = aigw(tmp_path / "in", "--json", "--nifti", tmp_path / "upright.nii")
    (found,) = volumes(ended)
    assert (code, found["verdict"], found["code"]) == (0, "FIXED", "GANTRY_TILT")
    assert found["shape"][0] == SHAPE[0]
    assert found["shape"][1] > SHAPE[1]
    steps = np.array(found["affine_lps"])[:3, :3]
    np.testing.assert_allclose(steps.T @ steps, np.diag(np.square(found["spacing_mm"])), atol=1e-6)
    assert found["intensity_mean"] == pytest.approx(
        counting_voxels(SHAPE).mean()
    )  # of the slices as they are
    written = read_nifti(tmp_path / "upright.nii")
    assert list(written.voxels.shape) == found["shape"]
    np.testing.assert_allclose(written.index_to_lps, found["affine_lps"], atol=1e-4)


def test_a_study_has_a_row_for_each_series_volumes_first(aigw: Call, tmp_path: Path) -> None:
    write_series(without_slice(ct_series(SHAPE, seed=1), 3), tmp_path / "a")
    write_series(ct_series(SHAPE, seed=2), tmp_path / "b")
    write_series(without(ct_series((1, 8, 8), seed=3, Modality="SR"), "Rows", "PixelData"), tmp_path / "c")
    code, *_ = ended = aigw(tmp_path, "--json")
    verdicts = [(found["verdict"], found["code"]) for found in volumes(ended)]
    assert code == 0
    assert verdicts == [("ACCEPTED", "ACCEPTED"), ("REFUSED", "MISSING_SLICE"), ("REFUSED", "NOT_AN_IMAGE")]


def test_a_refused_series_has_a_reason_and_no_grid(aigw: Call, tmp_path: Path) -> None:
    write_series(with_duplicate_position(ct_series(SHAPE), 2), tmp_path)
    code, *_ = ended = aigw(tmp_path, "--json")
    (found,) = volumes(ended)
    assert (code, found["verdict"], found["code"]) == (0, "REFUSED", "DUPLICATE_POSITION")
    assert found["reason"]
    assert found["images"] == SHAPE[0] + 1
    assert [found[key] for key in ("shape", "spacing_mm", "affine_lps", "intensity_mean")] == [None] * 4


def test_a_picture_of_a_folder_in_which_all_is_refused_cannot_be_drawn(aigw: Call, tmp_path: Path) -> None:
    write_series(without_slice(ct_series(), 4), tmp_path / "in")
    code, _, said = aigw(tmp_path / "in", "--picture", tmp_path / "picture.png")
    assert (code, said.split(":")[0]) == (6, "NO_VOLUME")
    assert not (tmp_path / "picture.png").exists()


def test_a_series_whose_pixels_cannot_be_read_is_refused_by_that_name(aigw: Call, tmp_path: Path) -> None:
    files = write_series(ct_series(SHAPE), tmp_path)
    files[2].write_bytes(files[2].read_bytes()[:-100])
    code, *_ = ended = aigw(tmp_path, "--json")
    (found,) = volumes(ended)
    assert (code, found["verdict"], found["code"]) == (0, "REFUSED", "PIXEL_DATA_TOO_SHORT")
    assert found["shape"] is None


def test_a_damaged_file_is_a_row_of_its_own_beside_the_volume(aigw: Call, tmp_path: Path) -> None:
    write_series(ct_series(SHAPE), tmp_path)
    (tmp_path / "empty.dcm").touch()
    code, *_ = ended = aigw(tmp_path, "--json")
    found, damaged = volumes(ended)
    assert (code, found["verdict"]) == (0, "ACCEPTED")
    assert (damaged["verdict"], damaged["code"], damaged["files"]) == ("REFUSED", "EMPTY_FILE", ["empty.dcm"])


def test_files_that_a_dicomdir_names_in_vain_are_said(aigw: Call, tmp_path: Path) -> None:
    medium = FileSet()
    for dataset in ct_series(SHAPE):
        medium.add(dataset)
    medium.write(tmp_path / "medium")
    last = sorted(p for p in (tmp_path / "medium").rglob("*") if p.is_file() and p.name != "DICOMDIR")[-1]
    last.unlink()
    found, missing = volumes(aigw(tmp_path / "medium" / "DICOMDIR", "--json"))
    assert (found["verdict"], found["shape"][0]) == ("ACCEPTED", SHAPE[0] - 1)
    assert (missing["code"], missing["files"]) == (
        "FILES_MISSING",
        [last.relative_to(tmp_path / "medium").as_posix()],
    )


def test_parts_of_a_series_have_a_key_by_which_one_can_be_chosen(aigw: Call, tmp_path: Path) -> None:
    write_series(phases(), tmp_path / "in")
    both = volumes(aigw(tmp_path / "in", "--json", "--picture", tmp_path / "plane.png"))
    keys = [found["part"] for found in both]
    assert len(set(keys)) == 2
    assert all(keys)
    assert sorted(p.name for p in tmp_path.glob("*.png")) == ["plane-1.png", "plane-2.png"]
    args = (tmp_path / "in", "--json", "--part", keys[1], "--nifti", tmp_path / "one.nii.gz")
    (second,) = volumes(aigw(*args))
    assert second["part"] == keys[1]
    assert (tmp_path / "one.nii.gz").is_file()


def test_one_series_can_be_chosen(aigw: Call, tmp_path: Path) -> None:
    write_series(ct_series(SHAPE, seed=1), tmp_path / "a")
    second = ct_series(SHAPE, seed=2)
    write_series(second, tmp_path / "b")
    (found,) = volumes(aigw(tmp_path, "--json", "--series", second[0].SeriesInstanceUID))
    assert found["series_instance_uid"] == second[0].SeriesInstanceUID


def test_a_series_without_uid_can_be_chosen_by_the_one_that_is_shown(aigw: Call, tmp_path: Path) -> None:
    write_series(without(ct_series(SHAPE), "SeriesInstanceUID"), tmp_path)
    (found,) = volumes(aigw(tmp_path, "--json"))
    (again,) = volumes(aigw(tmp_path, "--json", "--series", found["series_instance_uid"]))
    assert again == found


def test_the_picture_of_a_volume_is_a_png(aigw: Call, tmp_path: Path) -> None:
    write_series(ct_series(SHAPE), tmp_path / "in")
    (found,) = volumes(aigw(tmp_path / "in", "--json", "--picture", tmp_path / "planes.png"))
    assert found["picture"] == str(tmp_path / "planes.png")
    with Image.open(tmp_path / "planes.png") as picture:
        assert (picture.format, picture.mode, picture.width) == ("PNG", "RGB", 1600)


def test_pet_has_its_suv_factor_or_the_reason_why_not(aigw: Call, tmp_path: Path) -> None:
    write_series(odd_series.pet_series(), tmp_path / "whole")
    write_series(without(odd_series.pet_series(), "PatientWeight"), tmp_path / "lacking")
    (whole,) = volumes(aigw(tmp_path / "whole", "--json"))
    (lacking,) = volumes(aigw(tmp_path / "lacking", "--json"))
    assert (whole["unit"], lacking["unit"]) == ("BQML", "BQML")
    assert whole["suv_bw_factor"] > 0
    assert lacking["suv_bw_factor"] is None
    assert lacking["suv_bw_reason"].startswith("SUV_NOT_POSSIBLE")


def test_the_table_fits_100_columns_and_says_what_matters(aigw: Call, tmp_path: Path) -> None:
    origin_mm = (-512.25, -480.5, -1220.75)
    series = ct_series(SHAPE, (3.0, 0.8125, 0.7321), "oblique", origin_mm=origin_mm, seed=8)
    write_series(series, tmp_path / "a")
    write_series(without_slice(ct_series(SHAPE, seed=9), 3), tmp_path / "b")
    write_series(phases(), tmp_path / "c")
    (tmp_path / "readme.txt").write_text("no image")
    code, table, _ = aigw(tmp_path)
    assert code == 0
    assert max(map(len, table.splitlines())) <= 100
    for said in (
        *("8 × 20 × 24", "3 × 0.8125 × 0.7321", "axial", "oblique", "HU", "mean"),
        *("REFUSED MISSING_SLICE", "4 of 8 is missing", "3 volumes, 1 refused. 1 file is not DICOM."),
        *(str(series[0].SeriesInstanceUID), "part "),
    ):
        assert said in table


def test_nothing_that_is_printed_or_drawn_tells_the_patient(aigw: Call, tmp_path: Path) -> None:
    series = with_attributes(ct_series(SHAPE), PatientName="SECRET^NAME", PatientID="SECRET-ID")
    write_series(series, tmp_path)
    for option in ((), ("--json",)):
        _, out, err = aigw(tmp_path, *option)
        assert "SECRET" not in out + err


def test_a_header_cannot_steer_the_terminal(aigw: Call, tmp_path: Path) -> None:
    with quiet():
        write_series(ct_series(SHAPE, Modality="C\x1b[2J"), tmp_path)
    assert "\x1b[2J" not in aigw(tmp_path)[1]


def test_what_cannot_be_done_has_a_name_and_a_code(aigw: Call, tmp_path: Path) -> None:
    write_series(ct_series(SHAPE), tmp_path / "in")
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "notes.txt").write_text("no image")
    cases = {
        ("FOLDER_NOT_FOUND", 5): (tmp_path / "nowhere",),
        ("NOT_DICOM", 1): (tmp_path / "none",),
        ("SERIES_NOT_FOUND", 5): (tmp_path / "in", "--series", "1.2.3"),
        ("PART_NOT_FOUND", 5): (tmp_path / "in", "--part", "EchoTime=1"),
        ("OUT_UNUSABLE", 2): (tmp_path / "in", "--picture", tmp_path / "planes.jpg"),
    }
    for (name, code), arguments in cases.items():
        ended, _, said = aigw(*arguments)
        assert (said.split(":")[0], ended) == (name, code)
    assert aigw(tmp_path / "in", "--nifti", tmp_path / "no" / "folder.nii")[0] == 2
    write_series(ct_series((1, 1, 32768)), tmp_path / "long")
    ended, _, said = aigw(tmp_path / "long", "--nifti", tmp_path / "long.nii")
    assert (said.split(":")[0], ended) == ("NIFTI_TOO_LARGE", 2)
    assert volumes(aigw(tmp_path / "none", "--json")) == []


def test_the_command_works_where_only_the_core_is_installed(tmp_path: Path) -> None:
    write_series(with_sheared_tilt(ct_series(SHAPE), 15.0), tmp_path / "in")
    code = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(('torch', 'scipy', 'monai')))\n"  # importing one fails
        "from gateway.cli.app import run\n"
        "run(sys.argv[1:])\n"
    )
    files = ["--picture", str(tmp_path / "a.png"), "--nifti", str(tmp_path / "a.nii.gz")]
    command = [sys.executable, "-c", code, "volume", str(tmp_path / "in"), *files]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert (tmp_path / "a.png").is_file()
    assert (tmp_path / "a.nii.gz").is_file()


@pytest.mark.parametrize(
    ("arguments", "name"),
    [(("--device", "gpu"), "DEVICE_UNKNOWN"), ((), "SEVERAL_SERIES")],
)
def test_segment_ends_with_2_when_it_is_asked_for_what_is_not_clear(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: tuple[str, ...], name: str
) -> None:
    write_series(ct_series(SHAPE, seed=1), tmp_path / "in" / "a")
    write_series(ct_series(SHAPE, seed=2), tmp_path / "in" / "b")
    with pytest.raises(SystemExit) as ended:
        run(["segment", str(tmp_path / "in"), "--out", str(tmp_path / "out"), *arguments])
    assert (capsys.readouterr().err.split(":")[0], ended.value.code) == (name, 2)


def test_segment_writes_results_as_a_destination_wants_them(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    write_sample_series(tmp_path / "in")
    config = tmp_path / "gateway.yaml"
    config.write_text(
        f"version: 1\ndata_dir: {tmp_path / 'data'}\npeers:\n"
        "  archive: {ae_title: A, host: 127.0.0.1, port: 104, roles: [destination], "
        "results: {segmentation: label_map, compression: rle, rtstruct: true, overview: false}}\n"
    )
    out = tmp_path / "out"
    given = ["segment", str(tmp_path / "in"), "--out", str(out), "--device", "cpu", "--config", str(config)]
    with pytest.raises(SystemExit) as ended:
        run([*given, "--destination", "archiv"])
    assert (capsys.readouterr().err.split(":")[0], ended.value.code) == ("UNKNOWN_PEER", 5)
    with pytest.raises(SystemExit) as ended:
        run([*given, "--destination", "archive"])
    assert ended.value.code in (0, None)
    seg = dcmread(out / "seg.dcm")
    assert seg.SegmentationType == "LABELMAP"
    assert seg.file_meta.TransferSyntaxUID == RLELossless
    assert dcmread(out / "rtstruct.dcm").Modality == "RTSTRUCT"
    assert not (out / "overview.dcm").exists()


def test_segment_of_a_series_of_two_volumes_lists_the_parts_to_choose_from(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    write_series(phases(), tmp_path / "in")
    with pytest.raises(SystemExit) as ended:
        run(["segment", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--device", "cpu"])
    said = capsys.readouterr().err
    assert (said.split(":")[0], ended.value.code) == ("SEVERAL_VOLUMES", 2)
    assert "TemporalPositionIdentifier=1" in said
