"""Geometry verdicts: each fault has its own name, and a correct stack gets the right affine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from ai.geometry import NotAVolume, NoteCode, VolumeGeometry, assess
from ai.volume import slice_header
from tests import builders

FIXTURES = Path(__file__).parents[3] / "shared" / "data" / "fixture"


def verdict(series: Sequence[Dataset]) -> VolumeGeometry | NotAVolume:
    return assess([slice_header(dataset) for dataset in series])


def refusal(series: Sequence[Dataset]) -> NotAVolume:
    found = verdict(series)
    assert isinstance(found, NotAVolume)
    return found


def accepted(series: Sequence[Dataset]) -> VolumeGeometry:
    found = verdict(series)
    assert isinstance(found, VolumeGeometry), found
    return found


@pytest.mark.parametrize("orientation", builders.ORIENTATIONS)
def test_a_correct_series_is_a_volume_in_every_orientation(orientation: str) -> None:
    shape, spacing_mm = (12, 32, 40), (3.0, 0.8, 0.7)
    geometry = accepted(builders.ct_series(shape, spacing_mm, orientation))
    np.testing.assert_allclose(
        geometry.index_to_lps, builders.affine(shape, spacing_mm, orientation), atol=1e-6
    )
    assert geometry.shape == shape
    assert geometry.spacing_mm == pytest.approx(spacing_mm)
    assert geometry.voxel_volume_ml == pytest.approx(3.0 * 0.8 * 0.7 / 1000)


def test_slices_are_ordered_by_position_and_never_by_instance_number() -> None:
    series = builders.ct_series()
    for number, dataset in enumerate(reversed(series), start=1):
        dataset.InstanceNumber = number
    geometry = accepted(series[5:] + series[:5])
    assert geometry.sop_instance_uids == tuple(d.SOPInstanceUID for d in series)


def test_the_distance_between_rows_goes_with_the_column_direction() -> None:
    geometry = accepted(builders.ct_series(spacing_mm=(3.0, 2.0, 0.5)))
    np.testing.assert_allclose(geometry.index_to_lps[:3, 1], (0.0, 2.0, 0.0), atol=1e-9)
    np.testing.assert_allclose(geometry.index_to_lps[:3, 2], (0.5, 0.0, 0.0), atol=1e-9)


def test_the_spacing_comes_from_positions_and_not_from_slice_thickness() -> None:
    geometry = accepted(builders.ct_series(SliceThickness="5"))
    assert geometry.spacing_mm[0] == pytest.approx(3.0)
    assert geometry.slice_thickness_mm == 5.0


def test_a_series_with_a_missing_slice_is_refused_by_name() -> None:
    found = refusal(builders.without_slice(builders.ct_series(origin_mm=(0.0, 0.0, -300.0)), 4))
    assert found.code == "MISSING_SLICE"
    assert "5 of 12" in found.reason
    assert "z = -291.0 mm" in found.reason
    assert (found.numbers["missing"], found.numbers["expected"]) == (1, 12)


def test_every_hole_is_counted_and_named() -> None:
    found = refusal(builders.without_slice(builders.ct_series(), 3, 4, 8))
    assert (found.code, found.numbers["missing"]) == ("MISSING_SLICE", 3)
    assert "4 to 5 of 12" in found.reason
    assert "9 of 12" in found.reason


@pytest.mark.parametrize(("jitter_mm", "code"), [(0.005, None), (0.4, "IRREGULAR_SPACING")])
def test_jitter_of_positions_is_accepted_up_to_one_percent(jitter_mm: float, code: str | None) -> None:
    found = verdict(builders.with_jitter(builders.ct_series(), jitter_mm))
    assert getattr(found, "code", None) == code


def test_irregular_spacing_names_the_smallest_and_largest_gap() -> None:
    shifts = np.zeros((12, 3))
    shifts[6:, 2] = 1.25
    found = refusal(builders.moved(builders.ct_series(), shifts))
    assert found.code == "IRREGULAR_SPACING"
    assert (found.numbers["smallest_gap_mm"], found.numbers["largest_gap_mm"]) == (3.0, 4.25)


def test_a_duplicate_position_is_refused_by_name() -> None:
    found = refusal(builders.with_duplicate_position(builders.ct_series(), 3))
    assert found.code == "DUPLICATE_POSITION"
    assert "13 images" in found.reason
    assert found.numbers["positions"] == 12


def test_two_phases_in_one_series_are_refused_as_duplicate_positions() -> None:
    second = builders.ct_series(seed=2, FrameOfReferenceUID=builders.uid(1, "frame of reference"))
    found = refusal([*builders.ct_series(), *second])
    assert (found.code, found.numbers["positions"]) == ("DUPLICATE_POSITION", 12)


@pytest.mark.parametrize(("apart_mm", "code"), [(0.1, "IRREGULAR_SPACING"), (0.01, "DUPLICATE_POSITION")])
def test_two_slices_close_together_are_not_called_missing_slices(apart_mm: float, code: str) -> None:
    shifts = np.zeros((12, 3))
    shifts[5, 2] = apart_mm - 3.0
    assert refusal(builders.moved(builders.ct_series(), shifts)).code == code


@pytest.mark.parametrize("tilt", [builders.with_sheared_tilt, builders.with_true_tilt])
def test_gantry_tilt_is_refused_with_its_degrees(tilt: Callable[..., list[Dataset]]) -> None:
    found = refusal(tilt(builders.ct_series(), 18.5))
    assert found.code == "GANTRY_TILT"
    assert found.numbers["degrees"] == pytest.approx(18.5, abs=0.02)
    assert "18.5°" in found.reason


def test_localizers_among_slices_are_left_out_and_noted() -> None:
    geometry = accepted(builders.with_localizer(builders.ct_series(), 2))
    assert geometry.shape[0] == 12
    assert [note.code for note in geometry.notes] == [NoteCode.LOCALIZERS_DROPPED]


def test_a_series_of_localizers_only_is_refused_by_name() -> None:
    assert refusal(builders.with_localizer(builders.ct_series(), 2)[:2]).code == "LOCALIZER"


def test_slices_of_two_sizes_are_refused_by_name() -> None:
    found = refusal(builders.with_mixed_size(builders.ct_series(), 2))
    assert found.code == "MIXED_SIZE"
    assert "11 of 32 × 40" in found.reason


def _with_one_changed(keyword: str, value: object) -> list[Dataset]:
    series = builders.ct_series()
    setattr(series[3], keyword, value)
    return series


@pytest.mark.parametrize(
    ("keyword", "value", "code"),
    [
        ("PixelSpacing", [0.9, 0.7], "MIXED_SPACING"),
        ("ImageOrientationPatient", [1, 0, 0, 0, 0.984808, 0.173648], "MIXED_ORIENTATION"),
        ("FrameOfReferenceUID", "1.2.3", "MIXED_FRAME_OF_REFERENCE"),
        ("NumberOfFrames", 8, "MULTI_FRAME"),
        ("Rows", None, "NOT_AN_IMAGE"),
        ("ImagePositionPatient", None, "NO_POSITION"),
        ("ImageOrientationPatient", None, "NO_POSITION"),
        ("ImageOrientationPatient", [1, 0, 0, 0.5, 0.5, 0], "NO_POSITION"),
        ("ImageOrientationPatient", [0, 0, 0, 0, 0, 0], "NO_POSITION"),
        ("PixelSpacing", None, "NO_POSITION"),
        ("PixelSpacing", [0, 0.7], "NO_POSITION"),
    ],
)
def test_one_odd_slice_gives_the_name_of_its_fault(keyword: str, value: object, code: str) -> None:
    assert refusal(_with_one_changed(keyword, value)).code == code


def test_a_slice_turned_by_ten_degrees_is_said_in_degrees() -> None:
    turned = _with_one_changed("ImageOrientationPatient", [1, 0, 0, 0, 0.984808, 0.173648])
    assert "10.0°" in refusal(turned).reason


def test_noise_in_the_orientation_is_accepted() -> None:
    assert accepted(_with_one_changed("ImageOrientationPatient", [1, 0.0002, 0, -0.0002, 1, 0]))


def test_one_slice_is_no_volume() -> None:
    assert refusal(builders.ct_series()[:1]).code == "SINGLE_SLICE"


def test_nothing_at_all_is_no_image() -> None:
    assert refusal([]).code == "NOT_AN_IMAGE"


def test_a_series_without_frame_of_reference_is_accepted_with_a_note() -> None:
    geometry = accepted(builders.without(builders.ct_series(), "FrameOfReferenceUID"))
    assert geometry.frame_of_reference_uid is None
    assert [note.code for note in geometry.notes] == [NoteCode.FRAME_OF_REFERENCE_DERIVED]


def test_the_verdict_does_not_depend_on_a_private_order_of_equal_input() -> None:
    headers = [slice_header(d) for d in builders.ct_series()]
    one, other = assess(headers), assess([replace(h) for h in reversed(headers)])
    assert isinstance(one, VolumeGeometry)
    assert isinstance(other, VolumeGeometry)
    np.testing.assert_array_equal(one.index_to_lps, other.index_to_lps)
    assert one.sop_instance_uids == other.sop_instance_uids


def test_noise_in_the_orientation_does_not_make_the_order_of_files_matter() -> None:
    series = _with_one_changed("ImageOrientationPatient", [1, 0.0009, 0, -0.0009, 1, 0])
    rotated = series[3:] + series[:3]
    np.testing.assert_allclose(
        accepted(rotated).index_to_lps, accepted(series).index_to_lps, rtol=0, atol=1e-9
    )


@pytest.mark.parametrize(
    ("folder", "code"),
    [
        ("ct_head_ge_vartilt", "GANTRY_TILT"),
        ("awkward_dicom2nifti/failing_gantrytilting_001", "GANTRY_TILT"),
        ("awkward_dicom2nifti/failing_sliceorientation_001", "MIXED_ORIENTATION"),
        ("awkward_dicom2nifti/ge_dti_001", "DUPLICATE_POSITION"),
        ("awkward_dicom2nifti/siemens_multiframe_anatomical_001", "MULTI_FRAME"),
        ("ct_body_siemens_j2k_totalseg/dicom", None),
        ("mr_t1_siemens_hfdl_decubitus", None),
    ],
)
def test_real_series_get_the_verdict_that_their_makers_describe(folder: str, code: str | None) -> None:
    if not (FIXTURES / folder).is_dir():
        pytest.skip(f"the real images of {folder} are not on this machine")
    files = list((FIXTURES / folder).rglob("*.dcm")) or list((FIXTURES / folder).iterdir())
    found = verdict([dcmread(path, stop_before_pixels=True) for path in files if path.is_file()])
    assert getattr(found, "code", None) == code
