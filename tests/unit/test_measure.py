"""Measurements on a label map."""

from __future__ import annotations

import numpy as np
import pytest

from ai.geometry import VerdictCode, VolumeGeometry
from ai.measure import dice, measure
from ai.model import Structure
from ai.volume import Volume
from tests.runs import even_geometry

STRUCTURES = [Structure(number=n, key="bone", label=f"structure {n}") for n in (1, 2, 3)]


def volume(voxels: np.ndarray) -> Volume:
    affine = np.diag([2.5, 0.8, 0.5, 1.0])
    shape = (voxels.shape[0], voxels.shape[1], voxels.shape[2])
    return Volume(voxels, even_geometry(affine, shape))


def test_volume_and_statistics_equal_those_of_numpy() -> None:
    random = np.random.default_rng(7)
    voxels = random.integers(-1000, 3000, (7, 9, 11)).astype(np.int16)
    labels = random.integers(0, 3, voxels.shape).astype(np.uint8)
    for result in measure(volume(voxels), labels, STRUCTURES[:2]):
        inside = voxels[labels == result.structure.number].astype(np.float64)
        assert result.voxel_count == inside.size
        assert result.volume_ml == pytest.approx(inside.size * 2.5 * 0.8 * 0.5 / 1000)
        assert result.intensity is not None
        assert result.intensity.mean == pytest.approx(inside.mean())
        assert result.intensity.sd == pytest.approx(inside.std())
        assert (result.intensity.minimum, result.intensity.maximum) == (inside.min(), inside.max())


def test_a_structure_has_the_voxels_of_those_that_it_includes_too() -> None:
    random = np.random.default_rng(8)
    voxels = random.integers(-1000, 3000, (7, 9, 11)).astype(np.int16)
    labels = random.integers(0, 4, voxels.shape).astype(np.uint8)
    whole = Structure(number=1, key="bone", label="whole", includes=(2, 3))
    result = measure(volume(voxels), labels, [whole])[0]
    inside = voxels[labels > 0].astype(np.float64)
    assert result.voxel_count == inside.size
    assert result.volume_ml == pytest.approx(inside.size * 2.5 * 0.8 * 0.5 / 1000)
    assert result.intensity is not None
    assert result.intensity.mean == pytest.approx(inside.mean())
    assert result.intensity.sd == pytest.approx(inside.std())
    assert (result.intensity.minimum, result.intensity.maximum) == (inside.min(), inside.max())


def test_a_structure_of_which_only_a_part_was_found_is_found() -> None:
    labels = np.full((2, 3, 4), 2, np.uint8)
    whole = Structure(number=1, key="bone", label="whole", includes=(2,))
    result = measure(volume(np.full((2, 3, 4), 7, np.int16)), labels, [whole])[0]
    assert (result.found, result.voxel_count) == (True, 24)
    assert result.intensity is not None
    assert (result.intensity.mean, result.intensity.sd, result.intensity.minimum) == (7.0, 0.0, 7.0)


def test_each_unevenly_spaced_slice_counts_half_way_to_its_neighbours() -> None:
    origins_mm = np.outer([0.0, 1.0, 4.0], [0.0, 0.0, 1.0])
    matrix = np.array([[0.0, 0, 1, 0], [0, 1, 0, 0], [2, 0, 0, 0], [0, 0, 0, 1]])
    geometry = VolumeGeometry(matrix, (3, 2, 2), (), origins_mm, None, needs=(VerdictCode.IRREGULAR_SPACING,))
    labels = np.zeros((3, 2, 2), np.uint8)
    labels[:, 0, 0] = 1
    labels[1, 1] = 2
    first, second = measure(Volume(np.zeros((3, 2, 2), np.int16), geometry), labels, STRUCTURES[:2])
    assert first.volume_ml == pytest.approx((1.0 + 2.0 + 3.0) / 1000)
    assert second.volume_ml == pytest.approx(2 * 2.0 / 1000)


def test_a_structure_that_was_not_found_is_listed_with_zero_volume_and_no_intensity() -> None:
    labels = np.zeros((2, 3, 4), np.uint8)
    results = measure(volume(np.zeros((2, 3, 4), np.int16)), labels, STRUCTURES)
    assert [result.structure.number for result in results] == [1, 2, 3]
    assert all(not result.found and result.volume_ml == 0 and result.intensity is None for result in results)


def test_a_large_offset_costs_no_precision() -> None:
    voxels = np.full((50, 4, 4), 30000, np.float32)
    voxels[::2] += 1
    result = measure(volume(voxels), np.ones(voxels.shape, np.uint8), STRUCTURES[:1])[0]
    assert result.intensity is not None
    assert result.intensity.sd == pytest.approx(0.5, abs=1e-12)


def test_a_label_map_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="the label map is"):
        measure(volume(np.zeros((2, 3, 4), np.int16)), np.zeros((2, 4, 3), np.uint8), STRUCTURES)


def test_dice_of_equal_disjoint_half_overlapping_and_empty_masks() -> None:
    a = np.array([True, True, False, False])
    assert dice(a, a) == 1.0
    assert dice(a, ~a) == 0.0
    assert dice(a, np.array([False, True, True, False])) == 0.5
    assert dice(a & ~a, a & ~a) == 1.0
