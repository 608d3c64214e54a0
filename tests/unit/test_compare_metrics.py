"""Overlap and surface metrics: against MONAI, against arithmetic, and where there is nothing to measure."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.metrics import (
    compute_dice,
    compute_hausdorff_distance,
    compute_iou,
    compute_surface_dice,
)
from scipy import ndimage

from ai.compare import compare, compare_files, label_map
from ai.compare.surface import agreement, surface
from ai.nifti import write_nifti
from tests.builders import affine
from tests.runs import even_geometry

SPACINGS_MM = [(1.0, 1.0, 1.0), (3.0, 0.7, 0.9), (0.5, 2.0, 5.0)]


def blob(seed: int, shape: tuple[int, int, int] = (20, 26, 24)) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2.5)
    return np.asarray(noise > np.quantile(noise, 0.8))


def steps(spacing_mm: tuple[float, float, float]) -> np.ndarray:
    return np.diag(spacing_mm)


def batch(mask: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(mask)[None, None].float()


@pytest.mark.parametrize("spacing_mm", SPACINGS_MM)
@pytest.mark.parametrize("seed", range(4))
def test_every_metric_is_that_of_monai(seed: int, spacing_mm: tuple[float, float, float]) -> None:
    one, other = blob(seed), np.roll(blob(seed), (1, -2, 2), (0, 1, 2)) | blob(seed + 50)
    found = agreement(one, other, steps(spacing_mm), tolerance_mm=1.0)
    both = (batch(one), batch(other))
    assert found.dice == pytest.approx(compute_dice(*both).item(), abs=1e-6)
    assert found.jaccard == pytest.approx(compute_iou(*both).item(), abs=1e-6)
    hausdorff = compute_hausdorff_distance(*both, include_background=True, percentile=95, spacing=spacing_mm)
    assert found.hausdorff95_mm == pytest.approx(hausdorff.item(), abs=1e-4)
    near = compute_surface_dice(*both, [1.0], include_background=True, spacing=spacing_mm)
    assert found.surface_dice == pytest.approx(near.item(), abs=1e-6)


def test_a_mask_that_fills_the_image_to_its_border_is_measured_as_monai_does() -> None:
    one, other = np.ones((6, 7, 8), np.bool_), np.ones((6, 7, 8), np.bool_)
    other[:2] = False
    padded = [np.pad(mask, 1) for mask in (one, other)]
    found = agreement(padded[0], padded[1], steps((2.0, 1.0, 1.0)), 1.0)
    both = (batch(one), batch(other))
    hausdorff = compute_hausdorff_distance(
        *both, include_background=True, percentile=95, spacing=(2.0, 1.0, 1.0)
    )
    assert found.hausdorff95_mm == pytest.approx(hausdorff.item())


@pytest.mark.parametrize(("axis", "spacing_mm"), [(0, 3.0), (1, 0.7), (2, 0.9)])
def test_a_shifted_box_has_the_distance_of_the_shift(axis: int, spacing_mm: float) -> None:
    box = np.zeros((30, 30, 30), np.bool_)
    box[8:20, 8:20, 8:20] = True
    shifted = np.roll(box, 3, axis)
    found = agreement(box, shifted, steps((3.0, 0.7, 0.9)), tolerance_mm=3 * spacing_mm)
    assert found.hausdorff95_mm == pytest.approx(3 * spacing_mm)
    assert found.surface_dice == 1.0
    assert found.dice == pytest.approx(2 * 9 / 24)
    assert found.jaccard == pytest.approx(9 / 15)


def test_concentric_spheres_are_apart_by_the_difference_of_their_radii() -> None:
    z, y, x = np.ogrid[:61, :61, :61]
    distance_mm = np.sqrt(sum((axis - 30.0) ** 2 for axis in (z, y, x))) * 0.5
    small, large = distance_mm <= 9.0, distance_mm <= 13.0
    found = agreement(small, large, steps((0.5, 0.5, 0.5)), tolerance_mm=1.0)
    assert found.hausdorff95_mm == pytest.approx(4.0, abs=0.5)  # within one voxel
    assert found.surface_dice == 0.0
    assert found.dice == pytest.approx(2 * 9**3 / (9**3 + 13**3), rel=0.01)
    assert agreement(small, large, steps((0.5, 0.5, 0.5)), tolerance_mm=5.0).surface_dice == 1.0


def test_distances_follow_the_axes_of_an_oblique_grid() -> None:
    box = np.zeros((12, 20, 22), np.bool_)
    box[3:9, 4:14, 4:14] = True
    turned = affine((12, 20, 22), (3.0, 0.8, 0.7), "oblique")[:3, :3]
    for axis in range(3):
        shifted = np.roll(box, 2, axis)
        straight = agreement(box, shifted, steps((3.0, 0.8, 0.7)), 1.0)
        oblique = agreement(box, shifted, turned, 1.0)
        assert oblique.hausdorff95_mm == pytest.approx(straight.hausdorff95_mm)
        assert oblique.surface_dice == straight.surface_dice


def test_equal_masks_agree_in_everything() -> None:
    mask = blob(3)
    found = agreement(mask, mask, steps((3.0, 0.7, 0.9)), 0.0)
    assert (found.dice, found.jaccard, found.hausdorff95_mm, found.surface_dice) == (1.0, 1.0, 0.0, 1.0)


def test_where_neither_side_has_a_structure_there_is_no_number() -> None:
    nothing = np.zeros((4, 4, 4), np.bool_)
    found = agreement(nothing, nothing, steps((1.0, 1.0, 1.0)), 1.0)
    assert (found.dice, found.jaccard, found.hausdorff95_mm, found.surface_dice) == (None,) * 4


@pytest.mark.parametrize("swap", [False, True])
def test_where_one_side_lacks_it_nothing_agrees_and_there_is_no_distance(swap: bool) -> None:
    pair = [np.zeros((4, 5, 6), np.bool_), np.ones((4, 5, 6), np.bool_)]
    one, other = pair[::-1] if swap else pair
    found = agreement(one, other, steps((1.0, 1.0, 1.0)), 1.0)
    assert (found.dice, found.jaccard, found.hausdorff95_mm, found.surface_dice) == (0.0, 0.0, None, 0.0)


def test_the_surface_is_what_an_erosion_takes_away() -> None:
    mask = np.pad(blob(9), 1)
    np.testing.assert_array_equal(surface(mask), mask & ~ndimage.binary_erosion(mask))
    flat = mask[10:11]
    np.testing.assert_array_equal(surface(flat)[0], flat[0] & ~ndimage.binary_erosion(flat[0]))


def test_a_single_image_is_measured_within_its_plane(tmp_path: Path) -> None:
    image = np.zeros((1, 40, 40), np.uint8)
    image[0, 10:30, 10:30] = 1
    where = even_geometry(affine((1, 40, 40), (5.0, 0.5, 0.5)), (1, 40, 40))
    write_nifti(tmp_path / "mask.nii.gz", image, where)
    write_nifti(tmp_path / "truth.nii.gz", np.roll(image, 4, 2), where)
    (row,) = compare_files(tmp_path / "mask.nii.gz", tmp_path / "truth.nii.gz").rows
    assert row.hausdorff95_mm == pytest.approx(2.0)
    assert row.surface_dice is not None
    assert 0.4 < row.surface_dice < 0.8  # the sides along the shift agree, the others are 2 mm off


def test_small_structures_in_a_large_image_take_little_memory_and_time() -> None:
    labels = np.zeros((300, 400, 400), np.uint8)
    for number, start in enumerate((20, 150, 260), start=1):
        labels[start : start + 20, start : start + 30, start : start + 25] = number
    place = affine(labels.shape, (1.0, 0.8, 0.8))
    other = label_map(np.roll(labels, 1, 2), place)
    mask = label_map(labels, place)
    tracemalloc.start()
    result = compare(mask, other)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40 << 20  # the image has 46 MiB
    assert [row.hausdorff95_mm for row in result.rows] == pytest.approx([0.8, 0.8, 0.8])


def test_the_tolerance_is_what_is_asked_and_said(tmp_path: Path) -> None:
    box = np.zeros((10, 20, 20), np.uint8)
    box[2:8, 4:14, 4:14] = 1
    where = even_geometry(affine(box.shape, (1.0, 1.0, 1.0)), box.shape)
    write_nifti(tmp_path / "mask.nii.gz", box, where)
    write_nifti(tmp_path / "truth.nii.gz", np.roll(box, 2, 2), where)
    tight = compare_files(tmp_path / "mask.nii.gz", tmp_path / "truth.nii.gz")
    wide = compare_files(tmp_path / "mask.nii.gz", tmp_path / "truth.nii.gz", tolerance_mm=2.0)
    assert (tight.tolerance_mm, wide.tolerance_mm) == (1.0, 2.0)
    assert tight.rows[0].surface_dice is not None
    assert tight.rows[0].surface_dice < 1.0
    assert wide.rows[0].surface_dice == 1.0
