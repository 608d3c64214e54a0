"""Boxes of a volume: the place in the patient stays, distances are true."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ai.geometry import FrameRef
from ai.inference.crop_volume import box_of, crop_volume, grown_box, near, whole_box, within_box
from ai.volume import Volume
from tests import builders, small_models

SHAPE, SPACING_MM = (9, 11, 13), (3.0, 0.8, 0.7)
BOX = (slice(2, 7), slice(1, 8), slice(4, 12))


def volume(orientation: str = "HFS") -> Volume:
    geometry = small_models.grid(builders.affine(SHAPE, SPACING_MM, orientation), SHAPE)
    frames = tuple(FrameRef(f"1.2.{k}") for k in range(SHAPE[0]))
    return Volume(builders.counting_voxels(SHAPE), replace(geometry, frames=frames))


@pytest.mark.parametrize("orientation", builders.ORIENTATIONS)
def test_every_voxel_of_a_crop_has_the_value_and_the_place_that_it_had(orientation: str) -> None:
    whole = volume(orientation)
    crop = crop_volume(whole, BOX)
    assert crop.geometry.shape == crop.voxels.shape == (5, 7, 8)
    index = np.array([4, 6, 7, 1])
    in_whole = index + np.array([2, 1, 4, 0])
    place = crop.geometry.index_to_lps @ index
    np.testing.assert_allclose(place, whole.geometry.index_to_lps @ in_whole)
    assert crop.voxels[tuple(index[:3])] == whole.voxels[tuple(in_whole[:3])]
    own = crop.geometry.origins_mm
    np.testing.assert_allclose(own, [(crop.geometry.index_to_lps @ [k, 0, 0, 1])[:3] for k in range(5)])
    assert crop.geometry.spacing_mm == pytest.approx(SPACING_MM)
    assert crop.geometry.frames == whole.geometry.frames[2:7]
    assert np.shares_memory(crop.voxels, whole.voxels)


def test_frames_that_are_not_one_for_each_slice_stay_together() -> None:
    whole = volume()
    few = Volume(whole.voxels, replace(whole.geometry, frames=whole.geometry.frames[:4]))
    assert crop_volume(few, BOX).geometry.frames == few.geometry.frames


def test_the_box_of_a_mask_is_tight_and_of_nothing_there_is_none() -> None:
    mask = np.zeros(SHAPE, np.bool_)
    assert box_of(mask) is None
    mask[3, 2, 5] = mask[5, 6, 4] = True
    assert box_of(mask) == (slice(3, 6), slice(2, 7), slice(4, 6))


def test_a_margin_is_at_least_so_many_millimetres_and_ends_at_the_border() -> None:
    box = (slice(4, 5), slice(4, 6), slice(5, 6))
    assert grown_box(box, 1.6, SPACING_MM, SHAPE) == (slice(3, 6), slice(2, 8), slice(2, 9))
    assert grown_box(box, 0.0, SPACING_MM, SHAPE) == box
    assert grown_box(box, 1e6, SPACING_MM, SHAPE) == whole_box(SHAPE)


def test_a_box_in_a_crop_is_told_in_the_whole() -> None:
    inner = (slice(0, 2), slice(3, 4), slice(1, 3))
    np.testing.assert_array_equal(
        volume().voxels[within_box(inner, BOX)], crop_volume(volume(), BOX).voxels[inner]
    )


@pytest.mark.parametrize("distance_mm", [0.0, 0.75, 2.0, 7.0])
@pytest.mark.parametrize("slices", [3, 70])
def test_near_is_what_the_distance_to_every_voxel_says(distance_mm: float, slices: int) -> None:
    rng = np.random.default_rng(3)
    region = rng.random((slices, 6, 7)) > 0.96
    assert region.any()
    found = np.zeros_like(region)
    for slab, mask in near(region, distance_mm, SPACING_MM):
        found[slab] = mask
    points = np.argwhere(region) * SPACING_MM
    every = np.argwhere(np.ones_like(region)) * SPACING_MM
    distances = np.sqrt(((every[:, None] - points[None]) ** 2).sum(-1)).min(1).reshape(region.shape)
    np.testing.assert_array_equal(found, distances <= distance_mm + 1e-9)


def test_nothing_is_near_to_nothing() -> None:
    for _, mask in near(np.zeros((40, 4, 4), np.bool_), 5.0, SPACING_MM):
        assert not mask.any()
