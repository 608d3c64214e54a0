"""Geometry verdicts: each fault has its own name, and a correct stack gets the right affine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from ai.errors import SeriesRefused
from ai.geometry import Needs, NotAVolume, NoteCode, VerdictCode, VolumeGeometry, assess, unfit
from ai.source.part10 import read_file
from ai.source.slices import slice_headers
from tests import builders
from tests.headers import headers_of

FIXTURES = Path(__file__).parents[3] / "shared" / "data" / "fixture"


def verdict(series: Sequence[Dataset]) -> VolumeGeometry | NotAVolume:
    """What becomes of a series that is one part."""
    (part,) = assess(headers_of(series))
    assert part.key == part.label == ""
    return part.geometry


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
    assert geometry.voxel_volumes_ml == pytest.approx(np.full(12, 3.0 * 0.8 * 0.7 / 1000))
    assert (geometry.verdict, geometry.code, geometry.needs) == ("ACCEPTED", "ACCEPTED", ())


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
    assert "z = -288.0 mm" in found.reason
    assert (found.numbers["missing"], found.numbers["expected"]) == (1, 12)


def test_every_hole_is_counted_and_named() -> None:
    found = refusal(builders.without_slice(builders.ct_series(), 3, 4, 8))
    assert (found.code, found.numbers["missing"]) == ("MISSING_SLICE", 3)
    assert "4 to 5 of 12" in found.reason
    assert "9 of 12" in found.reason


def test_jitter_of_positions_is_accepted_up_to_one_percent() -> None:
    assert accepted(builders.with_jitter(builders.ct_series(), 0.005)).needs == ()


def test_more_jitter_is_irregular_spacing_that_a_model_may_have_resampled() -> None:
    geometry = accepted(builders.with_jitter(builders.ct_series(), 0.4))
    assert (geometry.verdict, geometry.code) == ("FIXED", "IRREGULAR_SPACING")
    assert geometry.needs == ("IRREGULAR_SPACING",)


def test_irregular_spacing_names_the_smallest_and_largest_gap() -> None:
    shifts = np.zeros((12, 3))
    shifts[6:, 2] = 1.25
    geometry = accepted(builders.moved(builders.ct_series(), shifts))
    assert geometry.code == "IRREGULAR_SPACING"
    assert "from 3.000 mm to 4.250 mm" in geometry.reason


def test_uneven_slices_have_the_volume_that_reaches_half_way_to_their_neighbours() -> None:
    shifts = np.zeros((12, 3))
    shifts[6:, 2] = 1.0
    geometry = accepted(builders.moved(builders.ct_series(), shifts))
    thick_mm = np.array([3, 3, 3, 3, 3, 3.5, 3.5, 3, 3, 3, 3, 3])
    np.testing.assert_allclose(geometry.voxel_volumes_ml, thick_mm * 0.8 * 0.7 / 1000)


def test_slices_that_drift_off_an_even_grid_are_irregular() -> None:
    gaps_mm = np.linspace(2.975, 3.025, 59)
    shifts = np.zeros((60, 3))
    shifts[1:, 2] = np.cumsum(gaps_mm - 3.0)
    geometry = accepted(builders.moved(builders.ct_series((60, 8, 8)), shifts))
    assert geometry.code == "IRREGULAR_SPACING"


def test_slices_that_are_not_in_line_are_refused() -> None:
    shifts = np.zeros((12, 3))
    shifts[5, 0] = 1.0
    found = refusal(builders.moved(builders.ct_series(), shifts))
    assert found.code == "IRREGULAR_SPACING"
    assert "1.00 mm" in found.reason


def test_a_duplicate_position_is_refused_by_name() -> None:
    found = refusal(builders.with_duplicate_position(builders.ct_series(), 3))
    assert found.code == "DUPLICATE_POSITION"
    assert "13 images" in found.reason
    assert found.numbers["positions"] == 12


def test_two_phases_in_one_series_are_refused_as_duplicate_positions() -> None:
    second = builders.ct_series(seed=2, FrameOfReferenceUID=builders.uid(1, "frame of reference"))
    found = refusal([*builders.ct_series(), *second])
    assert (found.code, found.numbers["positions"]) == ("DUPLICATE_POSITION", 12)


@pytest.mark.parametrize(("apart_mm", "code"), [(0.5, "IRREGULAR_SPACING"), (0.1, "DUPLICATE_POSITION")])
def test_two_slices_close_together_are_not_called_missing_slices(apart_mm: float, code: str) -> None:
    shifts = np.zeros((12, 3))
    shifts[5, 2] = apart_mm - 3.0
    assert verdict(builders.moved(builders.ct_series(), shifts)).code == code


def at_heights(heights_mm: Sequence[float], **attributes: object) -> list[Dataset]:
    series = builders.ct_series((len(heights_mm), 8, 8), (1.0, 0.8, 0.7), origin_mm=(0, 0, 0), **attributes)
    for dataset, height_mm in zip(series, heights_mm, strict=True):
        dataset.ImagePositionPatient = [0.0, 0.0, height_mm]
    return series


def test_thin_slices_in_groups_along_the_body_are_not_taken_for_duplicates() -> None:
    groups = [20.0 * station + 1.3 * k for station in range(8) for k in range(2)]
    assert accepted(at_heights(groups, SliceThickness="1.3")).code == "IRREGULAR_SPACING"


def test_slices_that_are_as_much_thicker_as_they_are_farther_apart_are_not_missing() -> None:
    head = [5.0 * k for k in range(10)] + [45.0 + 10.0 * k for k in range(1, 8)]
    series = at_heights(head)
    for k, dataset in enumerate(series):
        dataset.SliceThickness = "5" if k < 10 else "10"
    assert accepted(series).code == "IRREGULAR_SPACING"
    assert refusal(at_heights(head, SliceThickness="5")).code == "MISSING_SLICE"
    found = refusal([*series[:12], *series[13:]])
    assert (found.code, found.numbers["missing"]) == ("MISSING_SLICE", 1)
    assert "Slice 13 of 17 is missing at z = 75.0 mm" in found.reason


def test_a_spacing_that_changes_once_is_uneven_when_most_gaps_are_wide() -> None:
    assert accepted(at_heights([0, 5, 10, 20, 30, 40, 50, 60, 70])).code == "IRREGULAR_SPACING"


def test_a_series_that_lost_half_of_its_slices_is_refused_and_not_interpolated() -> None:
    found = refusal(at_heights([0, 1, 2, 4, 7, 8, 12, 13, 15, 20, 21, 23]))
    assert (found.code, found.numbers["missing"]) == ("MISSING_SLICE", 12)


def test_mosaics_are_refused_by_name() -> None:
    found = refusal(builders.ct_series(ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"]))
    assert found.code == "MOSAIC"
    assert "12 images" in found.reason


def test_noise_that_gives_each_of_many_slices_its_own_orientation_is_one_orientation() -> None:
    noise = np.random.default_rng(1).uniform(-4e-4, 4e-4, (1500, 6))
    cosines = np.array([1.0, 0, 0, 0, 1, 0]) + noise
    (first, *_) = headers_of(builders.ct_series((1, 8, 8)))
    slices = [
        replace(first, sop_instance_uid=f"1.2.{k}", position_mm=(0.0, 0.0, float(k)), orientation=tuple(c))
        for k, c in enumerate(cosines.tolist())
    ]
    (part,) = assess(slices)
    assert part.geometry.code == "ACCEPTED"


@pytest.mark.parametrize(
    ("series", "needs", "code"),
    [
        (builders.ct_series(), Needs(), None),
        (builders.ct_series(), Needs(minimum_slices=13), "TOO_FEW_SLICES"),
        (builders.ct_series()[:1], Needs(minimum_slices=2), "SINGLE_SLICE"),
        (builders.ct_series(), Needs(maximum_slice_spacing_mm=2.5), "SLICES_TOO_FAR_APART"),
        (builders.with_sheared_tilt(builders.ct_series(), 10.0), Needs(), "GANTRY_TILT"),
        (
            builders.with_sheared_tilt(builders.ct_series(), 10.0),
            Needs(resampled=frozenset({VerdictCode.GANTRY_TILT})),
            None,
        ),
        (builders.with_jitter(builders.ct_series(), 0.4), Needs(), "IRREGULAR_SPACING"),
    ],
)
def test_a_volume_that_a_model_does_not_take_is_told_by_name(
    series: list[Dataset], needs: Needs, code: str | None
) -> None:
    found = unfit(accepted(series), needs)
    assert (found.code if found else None) == code


@pytest.mark.parametrize("tilt", [builders.with_sheared_tilt, builders.with_true_tilt])
def test_gantry_tilt_is_told_with_its_degrees(tilt: Callable[..., list[Dataset]]) -> None:
    geometry = accepted(tilt(builders.ct_series(), 18.5))
    assert (geometry.verdict, geometry.code, geometry.needs) == ("FIXED", "GANTRY_TILT", ("GANTRY_TILT",))
    assert "18.5°" in geometry.reason


def test_the_affine_of_a_tilted_stack_meets_every_slice() -> None:
    series = builders.with_sheared_tilt(builders.ct_series(), 18.5)
    geometry = accepted(series)
    for k, origin_mm in enumerate(geometry.origins_mm):
        np.testing.assert_allclose((geometry.index_to_lps @ (k, 0, 0, 1))[:3], origin_mm, atol=1e-4)
    assert geometry.spacing_mm[0] == pytest.approx(3.0, abs=1e-4)


def test_a_tilted_stack_with_uneven_gaps_needs_both_repairs() -> None:
    shifts = np.zeros((12, 3))
    shifts[:, 2] = np.cumsum([0.0] * 6 + [1.5] * 6)
    series = builders.with_sheared_tilt(builders.moved(builders.ct_series(), shifts), 10.0)
    assert accepted(series).needs == ("GANTRY_TILT", "IRREGULAR_SPACING")


def test_slices_that_move_sideways_more_than_any_gantry_tilts_are_refused() -> None:
    shifts = np.zeros((12, 3))
    shifts[:, 1] = 6.0 * np.arange(12)
    assert refusal(builders.moved(builders.ct_series(), shifts)).code == "GANTRY_TILT"


def test_localizers_among_slices_are_left_out_and_noted() -> None:
    geometry = accepted(builders.with_localizer(builders.ct_series(), 2))
    assert geometry.shape[0] == 12
    assert [note.code for note in geometry.notes] == [NoteCode.LOCALIZERS_DROPPED]


def test_a_series_of_localizers_only_is_refused_by_name() -> None:
    assert refusal(builders.with_localizer(builders.ct_series(), 2)[:2]).code == "LOCALIZER"


def _with_one_changed(keyword: str, value: object) -> list[Dataset]:
    series = builders.ct_series()
    setattr(series[3], keyword, value)
    return series


@pytest.mark.parametrize(
    ("keyword", "value", "code"),
    [
        ("NumberOfFrames", 8, "MULTI_FRAME"),
        ("ImagePositionPatient", None, "NO_POSITION"),
        ("ImageOrientationPatient", None, "NO_POSITION"),
        ("ImageOrientationPatient", [1, 0, 0, 0.5, 0.5, 0], "NO_POSITION"),
        ("ImageOrientationPatient", [0, 0, 0, 0, 0, 0], "NO_POSITION"),
        ("PixelSpacing", None, "NO_POSITION"),
        ("PixelSpacing", [0, 0.7], "NO_POSITION"),
        ("PixelSpacing", ["1e-300", "0.7"], "NO_POSITION"),
    ],
)
def test_one_odd_slice_gives_the_name_of_its_fault_and_leaves_a_hole(
    keyword: str, value: object, code: str
) -> None:
    parts = assess(headers_of(_with_one_changed(keyword, value)))
    assert sorted(str(part.geometry.code) for part in parts) == sorted([code, "MISSING_SLICE"])


def test_an_instance_without_rows_is_no_slice() -> None:
    assert refusal(_with_one_changed("Rows", None)).code == "MISSING_SLICE"
    geometry = accepted(
        [*builders.ct_series(), *builders.without(builders.ct_series((1, 32, 40), seed=3), "Rows")]
    )
    assert (geometry.verdict, geometry.code) == ("FIXED", "NON_IMAGES_DROPPED")


def test_noise_in_the_orientation_is_accepted() -> None:
    assert accepted(_with_one_changed("ImageOrientationPatient", [1, 0.0002, 0, -0.0002, 1, 0]))


def test_one_slice_is_as_thick_as_its_header_says() -> None:
    geometry = accepted(builders.ct_series()[:1])
    assert geometry.spacing_mm == pytest.approx((3.0, 0.8, 0.7))
    assert (geometry.verdict, [n.code for n in geometry.notes]) == ("ACCEPTED", ["SPACING_FROM_THICKNESS"])


@pytest.mark.parametrize("thickness", [None, "0"])
def test_one_slice_without_thickness_is_no_volume(thickness: str | None) -> None:
    assert refusal(builders.ct_series(SliceThickness=thickness)[:1]).code == "SINGLE_SLICE"


def test_nothing_at_all_is_no_image() -> None:
    assert refusal([]).code == "NOT_AN_IMAGE"


def test_a_series_without_frame_of_reference_is_accepted_with_a_note() -> None:
    geometry = accepted(builders.without(builders.ct_series(), "FrameOfReferenceUID"))
    assert geometry.frame_of_reference_uid is None
    assert [note.code for note in geometry.notes] == [NoteCode.FRAME_OF_REFERENCE_DERIVED]
    assert geometry.verdict == "FIXED"
    assert "Frame of Reference" in geometry.reason


def test_the_verdict_does_not_depend_on_a_private_order_of_equal_input() -> None:
    headers = headers_of(builders.ct_series())
    (one,), (other,) = (
        (p.geometry for p in assess(h)) for h in (headers, [replace(h) for h in headers[::-1]])
    )
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
    ("folder", "codes"),
    [
        ("ct_head_ge_vartilt", ["GANTRY_TILT"]),
        ("awkward_dicom2nifti/failing_gantrytilting_001", ["GANTRY_TILT"]),
        ("awkward_dicom2nifti/failing_sliceincrement_001", ["MISSING_SLICE"]),
        ("awkward_dicom2nifti/failing_sliceincrement_002", ["MISSING_SLICE"]),
        ("awkward_dicom2nifti/failing_notavolume_001", ["DUPLICATE_POSITION"]),
        ("awkward_dicom2nifti/failing_sliceorientation_001", ["FRAME_OF_REFERENCE_DERIVED"] * 2),
        ("awkward_dicom2nifti/ge_dti_001", ["DUPLICATE_POSITION"]),
        ("awkward_dicom2nifti/siemens_multiframe_anatomical_001", ["FRAME_OF_REFERENCE_DERIVED"]),
        ("awkward_dicom2nifti/philips_enhanced_anatomical_001", ["FRAME_OF_REFERENCE_DERIVED"]),
        ("mr_enhanced_nema_multiframe", ["ACCEPTED"] * 6),
        ("mr_t1_siemens_xa30_enhanced", ["ACCEPTED"]),
        ("pet_qin_headneck_with_seg/PET", ["ACCEPTED"]),
        ("ct_chest_lidc0314/dicom_j2k", ["FRAME_OF_REFERENCE_DERIVED"]),
        ("ct_phantom_philips/secondary_capture", ["ACCEPTED"]),
        ("ct_body_siemens_j2k_totalseg/dicom", ["ACCEPTED"]),
        ("mr_t1_siemens_hfdl_decubitus", ["ACCEPTED"]),
    ],
)
def test_real_series_get_the_verdict_that_their_makers_describe(folder: str, codes: list[str]) -> None:
    if not (FIXTURES / folder).is_dir():
        pytest.skip(f"the real images of {folder} are not on this machine")
    headers = []
    for path in sorted(p for p in (FIXTURES / folder).rglob("*") if p.is_file()):
        with suppress(SeriesRefused):  # licence texts
            headers += slice_headers(read_file(path).header)
    assert [str(part.geometry.code) for part in assess(headers)] == codes
