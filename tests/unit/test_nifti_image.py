"""Images for models from NIfTI: the same voxels at the same places as from DICOM, and back."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ai.errors import AiError, SeriesRefused
from ai.nifti import write_nifti
from ai.nifti_image import read_nifti_image, write_labels
from ai.volume import read_series
from tests import builders
from tests.builders import ORIENTATIONS, affine
from tests.runs import even_geometry

SHAPE, SPACING_MM = (5, 7, 6), (2.0, 0.9, 0.8)
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def voxels() -> np.ndarray:
    return (np.arange(np.prod(SHAPE)) * 7 - 500).astype(np.int16).reshape(SHAPE)


def save(path: Path, array: np.ndarray, matrix: np.ndarray, units: str = "mm") -> Path:
    image = nib.Nifti1Image(array, matrix)
    image.header.set_xyzt_units(units)
    nib.save(image, path)
    return path


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_series_and_its_nifti_give_the_same_volume(orientation: str, tmp_path: Path) -> None:
    series = builders.ct_series(SHAPE, SPACING_MM, orientation, voxels())
    read = read_series(builders.write_series(series, tmp_path / "dicom")).volume
    write_nifti(tmp_path / "ct.nii.gz", read.voxels, read.geometry)
    found = read_nifti_image([tmp_path / "ct.nii.gz"], "HU")
    (volume,) = found.channels
    assert volume.voxels.dtype == np.int16
    np.testing.assert_array_equal(volume.voxels, read.voxels)
    np.testing.assert_allclose(volume.geometry.index_to_lps, read.geometry.index_to_lps, atol=1e-4)
    np.testing.assert_allclose(volume.geometry.origins_mm, read.geometry.origins_mm, atol=1e-4)
    assert (volume.unit, found.notes) == ("HU", ())


def stored_otherwise() -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    return [(order, flips) for order in permutations(range(3)) for flips in product((1, -1), repeat=3)]


@pytest.mark.parametrize(("order", "flips"), stored_otherwise())
def test_whatever_the_order_and_direction_of_its_axes_voxels_keep_their_place_and_labels_come_back(
    order: tuple[int, ...], flips: tuple[int, ...], tmp_path: Path
) -> None:
    file_shape = (6, 7, 5)
    spacing = (0.8, 0.9, 2.0)
    array = (np.arange(np.prod(file_shape)) * 3).astype(np.int16).reshape(file_shape)
    base = RAS_TO_LPS @ np.diag([*spacing, 1.0])
    base[:3, 3] = (11.0, -7.0, 30.0)
    turn = np.zeros((4, 4))
    turn[3, 3] = 1.0
    for new, (old, sign) in enumerate(zip(order, flips, strict=True)):
        turn[old, new] = sign
        turn[old, 3] = 0 if sign > 0 else file_shape[old] - 1
    stored = array.transpose(order)[tuple(slice(None, None, sign) for sign in flips)]
    path = save(tmp_path / "image.nii.gz", np.ascontiguousarray(stored), base @ turn)
    found = read_nifti_image([path])
    (volume,) = found.channels
    geometry = volume.geometry
    assert geometry.spacing_mm == pytest.approx((2.0, *geometry.spacing_mm[1:]))  # slices: the coarse axis
    assert geometry.index_to_lps[:3, 0] @ geometry.normal > 0  # stacked along the normal
    for index in [(0, 0, 0), (4, 1, 2), (1, 5, 3)]:
        lps = geometry.index_to_lps @ [*index, 1.0]
        back = np.linalg.solve(RAS_TO_LPS @ base, lps)[:3]
        i, j, k = np.rint(back).astype(int)
        np.testing.assert_allclose(back, [i, j, k], atol=1e-4)
        assert volume.voxels[index] == array[i, j, k]
    labels = (volume.voxels % 251).astype(np.uint8)
    write_labels(tmp_path / "mask.nii.gz", labels, found.stored)
    mask, source = nib.load(tmp_path / "mask.nii.gz"), nib.load(path)
    np.testing.assert_array_equal(mask.affine, source.affine)
    np.testing.assert_array_equal(np.asarray(mask.dataobj), np.asarray(source.dataobj) % 251)


def test_slices_are_those_of_the_third_axis_unless_another_is_much_coarser(tmp_path: Path) -> None:
    array = np.zeros((6, 7, 5), np.int16)
    for spacing, slices in (((1.0, 1.0, 1.0), 5), ((1.0, 1.2, 1.0), 5), ((1.0, 5.0, 1.0), 7)):
        path = save(tmp_path / "image.nii", array, np.diag([*spacing, 1.0]))
        assert read_nifti_image([path]).channels[0].geometry.shape[0] == slices


def test_slope_and_intercept_are_applied_and_integers_stay_integers(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4))
    image.header.set_slope_inter(2.0, -1024.0)
    image.header.set_data_dtype(np.int16)
    nib.save(image, tmp_path / "whole.nii")
    stored = np.asarray(nib.load(tmp_path / "whole.nii").dataobj.get_unscaled())
    image = nib.load(tmp_path / "whole.nii")
    slope, intercept = image.dataobj.slope, image.dataobj.inter
    assert (slope, intercept) != (1.0, 0.0)
    reference = np.rint(stored * slope + intercept).transpose(2, 1, 0)
    (volume,) = read_nifti_image([tmp_path / "whole.nii"]).channels
    assert volume.voxels.dtype == np.int16
    np.testing.assert_array_equal(volume.voxels, reference)
    fractions = save(tmp_path / "part.nii", np.full((2, 3, 4), 0.25, np.float32), np.eye(4))
    (volume,) = read_nifti_image([fractions]).channels
    assert volume.voxels.dtype == np.float32
    assert (volume.voxels == 0.25).all()
    large = save(tmp_path / "large.nii", np.full((2, 3, 4), 40000, np.uint16), np.eye(4))
    assert read_nifti_image([large]).channels[0].voxels.dtype == np.float32


def test_values_that_are_not_finite_become_the_lowest_and_are_told(tmp_path: Path) -> None:
    array = np.full((2, 3, 4), 5.5, np.float32)
    array[0, 0, :3] = (np.nan, np.inf, -3.25)
    path = save(tmp_path / "image.nii", array, np.eye(4))
    found = read_nifti_image([path])
    assert np.isfinite(found.channels[0].voxels).all()
    assert (found.channels[0].voxels == -3.25).sum() == 3
    assert found.notes == ("2 values of image.nii are not finite; they were taken as -3.25, the lowest.",)
    save(path, np.full((2, 3, 4), np.nan, np.float32), np.eye(4))
    with pytest.raises(SeriesRefused, match="NIFTI_NO_VALUES"):
        read_nifti_image([path])


def test_channels_come_along_the_fourth_axis_or_as_files(tmp_path: Path) -> None:
    one, other = (np.arange(24, dtype=np.int16).reshape(2, 3, 4) * factor for factor in (1, 3))
    both = save(tmp_path / "both.nii", np.stack([one, other], axis=3), np.diag([1.0, 1.0, 2.0, 1.0]))
    files = [
        save(tmp_path / f"case_000{i}.nii", array, np.diag([1.0, 1.0, 2.0, 1.0]))
        for i, array in enumerate((one, other))
    ]
    first, second = read_nifti_image([both]), read_nifti_image(files)
    assert len(first.channels) == len(second.channels) == 2
    for a, b in zip(first.channels, second.channels, strict=True):
        np.testing.assert_array_equal(a.voxels, b.voxels)
    assert first.stored.shape == second.stored.shape == (2, 3, 4)
    vector = save(tmp_path / "vector.nii", np.stack([one, other], 3)[:, :, :, None], np.eye(4))
    assert len(read_nifti_image([vector]).channels) == 2
    save(files[1], other, np.diag([1.0, 1.0, 3.0, 1.0]))
    with pytest.raises(SeriesRefused, match=r"NIFTI_GRIDS_DIFFER: case_0001\.nii lies on another grid"):
        read_nifti_image(files)


def test_units_of_the_header_count(tmp_path: Path) -> None:
    array = np.zeros((2, 3, 4), np.int16)
    metres = save(tmp_path / "m.nii", array, np.diag([0.001, 0.002, 0.003, 1.0]), "meter")
    found = read_nifti_image([metres])
    assert found.channels[0].geometry.spacing_mm == pytest.approx((3.0, 2.0, 1.0))
    write_labels(tmp_path / "mask.nii", np.ones((4, 3, 2), np.uint8), found.stored)
    mask = nib.load(tmp_path / "mask.nii")
    assert mask.header.get_xyzt_units()[0] == "meter"
    np.testing.assert_array_equal(mask.affine, nib.load(metres).affine)


def test_a_sheared_grid_is_refused_by_name_and_a_rounded_one_is_not(tmp_path: Path) -> None:
    array = np.zeros((4, 5, 6), np.int16)
    sheared = np.diag([1.0, 1.0, 2.0, 1.0])
    sheared[1, 2] = 0.2
    path = save(tmp_path / "tilt.nii", array, sheared)
    with pytest.raises(SeriesRefused, match=r"NIFTI_SHEARED: .*5\.71° off a right angle"):
        read_nifti_image([path])
    rounded = np.diag([1.0, 1.0, 2.0, 1.0])
    rounded[1, 2] = 1e-4
    assert read_nifti_image([save(path, array, rounded)]).channels[0].voxels.shape == (6, 5, 4)


def test_a_file_without_position_is_refused_by_name(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.eye(4))
    image.set_sform(None, code=0)
    image.set_qform(None, code=0)
    nib.save(image, tmp_path / "nowhere.nii")
    with pytest.raises(SeriesRefused, match="NIFTI_NO_POSITION"):
        read_nifti_image([tmp_path / "nowhere.nii"])


def test_a_qform_alone_is_enough_and_one_that_differs_is_told(tmp_path: Path) -> None:
    matrix = np.diag([-1.0, -1.0, 2.0, 1.0])
    image = nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), None)
    image.set_qform(matrix, code=1)
    image.set_sform(None, code=0)
    nib.save(image, tmp_path / "q.nii")
    found = read_nifti_image([tmp_path / "q.nii"])
    np.testing.assert_allclose(found.channels[0].geometry.index_to_lps[:3, 0], (0, 0, 2.0), atol=1e-6)
    write_labels(tmp_path / "mask.nii", np.zeros((6, 5, 4), np.uint8), found.stored)
    np.testing.assert_allclose(nib.load(tmp_path / "mask.nii").affine, image.affine, atol=1e-6)
    moved = matrix.copy()
    moved[0, 3] = 4.0
    image.set_sform(moved, code=1)
    nib.save(image, tmp_path / "both.nii")
    (note,) = read_nifti_image([tmp_path / "both.nii"]).notes
    assert note == "sform and qform of both.nii differ by up to 4.0 mm; the sform is used."


def test_what_is_no_image_is_refused_by_name(tmp_path: Path) -> None:
    five = save(tmp_path / "five.nii", np.zeros((2, 3, 4, 2, 2), np.int16), np.eye(4))
    with pytest.raises(SeriesRefused, match="NIFTI_DIMENSIONS"):
        read_nifti_image([five])
    colour = np.zeros((2, 3, 4), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    with pytest.raises(AiError, match="NIFTI_UNREADABLE"):
        read_nifti_image([save(tmp_path / "rgb.nii", colour, np.eye(4))])
    whole = tmp_path / "whole.nii.gz"
    write_nifti(whole, voxels(), even_geometry(affine(SHAPE, SPACING_MM), SHAPE))
    damaged = bytearray(whole.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    (tmp_path / "damaged.nii.gz").write_bytes(bytes(damaged))
    with pytest.raises(AiError, match="NIFTI_UNREADABLE"):
        read_nifti_image([tmp_path / "damaged.nii.gz"])


def test_a_plane_image_is_one_slice(tmp_path: Path) -> None:
    path = save(
        tmp_path / "plane.nii", np.arange(12, dtype=np.int16).reshape(3, 4), np.diag([0.5, 0.5, 3, 1])
    )
    found = read_nifti_image([path])
    assert found.channels[0].voxels.shape == (1, 4, 3)
    write_labels(tmp_path / "mask.nii", np.ones((1, 4, 3), np.uint8), found.stored)
    assert nib.load(tmp_path / "mask.nii").shape == (3, 4)
