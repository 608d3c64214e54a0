"""Bone on a coarse CT grid: sure bone grown to probable bone, marrow closed, enhanced blood left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ai.inference.coarse import IN_PLANE, Grid, Mask, components, pool, touching

Image = npt.NDArray[np.float32]

_SHARE = 0.5  # a block is (sure) bone when so much of it is
_SMALLEST_ML = 0.3
_SEED_ML = 0.05
_MARROW_DEPTH_MM = 15.0
_MARROW_HU = 105.0  # spongy bone with its marrow on average; muscle, disc and cord are mostly below
_FAT_HU = -10.0
_SMALL_HOLE_MM2 = 40.0  # less than a spinal canal, even a narrowed one
_LARGEST_HOLE_MM2 = 2500.0  # a femoral head
_SOFT_TISSUE_HU = (0.0, 90.0)
_ENHANCED_HU = (100.0, 700.0)
_FLAT_NOISE_RATIO = 1.5
_FLAT_SD_HU = 10.0
_FLAT_MINIMUM_ML = 2.0
_CALCIFIED_VESSEL_SHARE = 0.4
_BLOOMING_MM = 5.0
_EDGE_MM = 3.0
_SOFT_HU = 50.0
_HIGHEST_RISE_HU = 140.0  # thin bone would be lost above


@dataclass(frozen=True)
class Bone:
    """Coarse masks: ``near`` is where bone may be on the original grid, ``inner`` is bone throughout.

    ``threshold_hu`` is the local value at the edge of bone, for each coarse voxel.
    """

    near: Mask
    inner: Mask
    threshold_hu: Image


def find_bone(
    voxels: npt.NDArray[Any],
    mean_hu: Image,
    body: Mask,
    metal: Mask,
    grid: Grid,
    seed_hu: float,
    threshold_hu: float,
) -> Bone:
    """Find bone by hysteresis and close its cavities (Kang, Engelke and Kalender 2003, section II).

    Contrast-filled vessels, heart and kidneys reach the threshold as well. They are flat: their local
    spread is that of the noise, where spongy bone varies by tens of HU. Flat bright regions are cut out
    before growing, and pieces that mostly lie along one (calcified vessel wall) are dropped after.
    """
    weak = body & (pool(voxels, grid, above=threshold_hu) >= _SHARE)
    seed = body & (pool(voxels, grid, above=seed_hu) >= _SHARE) & ~grid.dilate(metal, _BLOOMING_MM)
    flat = _enhanced(mean_hu, body, grid)
    labels, _ = components((weak & ~flat) | seed)
    bone = touching(labels, seed, max(1, round(_SEED_ML / grid.voxel_ml)))
    bone = _without_specks(bone, flat, grid)
    solid = _closed(bone, mean_hu, flat, grid)
    step = max(grid.spacing_mm)
    near = (grid.dilate(bone, step) & ~flat) | solid
    edge_hu = _edge_hu(mean_hu, bone, grid, threshold_hu)
    edge_hu[solid & ~bone] = _MARROW_HU
    return Bone(near, solid & grid.erode(solid, step), edge_hu)


def _edge_hu(mean_hu: Image, bone: Mask, grid: Grid, lowest_hu: float) -> Image:
    """Half way between soft tissue and the densest bone around: the edge of a blurred step (Kang et al.)."""
    size = [2 * max(1, round(_EDGE_MM / step)) + 1 for step in grid.spacing_mm]
    dense = ndimage.maximum_filter(np.where(bone, mean_hu, _SOFT_HU), size=size, mode="nearest")
    return np.asarray(np.clip((dense + _SOFT_HU) / 2, lowest_hu, lowest_hu + _HIGHEST_RISE_HU), np.float32)


def _enhanced(mean_hu: Image, body: Mask, grid: Grid) -> Mask:
    """Bright regions as flat as noise: blood and organs with contrast medium."""
    mean = ndimage.uniform_filter(mean_hu, 3, mode="nearest")
    square = ndimage.uniform_filter(mean_hu * mean_hu, 3, mode="nearest")
    spread = np.sqrt(np.maximum(square - mean * mean, 0))
    soft = body & (mean > _SOFT_TISSUE_HU[0]) & (mean < _SOFT_TISSUE_HU[1])
    noise = float(np.percentile(spread[soft], 25)) if soft.any() else 0.0
    flat = body & (spread < max(_FLAT_SD_HU, _FLAT_NOISE_RATIO * noise))
    flat &= (mean > _ENHANCED_HU[0]) & (mean < _ENHANCED_HU[1])
    labels, kept = components(flat, _FLAT_MINIMUM_ML / grid.voxel_ml)
    return np.isin(labels, kept)


def _without_specks(bone: Mask, flat: Mask, grid: Grid) -> Mask:
    labels, kept = components(bone, _SMALLEST_ML / grid.voxel_ml)
    beside = grid.dilate(flat, 2 * max(grid.spacing_mm))
    sizes = np.bincount(labels.reshape(-1))
    along = np.bincount(labels[beside].reshape(-1), minlength=sizes.size) / np.maximum(sizes, 1)
    return np.isin(labels, [label for label in kept if along[label] < _CALCIFIED_VESSEL_SHARE])


def _closed(bone: Mask, mean_hu: Image, flat: Mask, grid: Grid) -> Mask:
    """Bone with its marrow: grown inwards in plane, axial holes filled, discs and spinal canal left open."""
    step = max(grid.spacing_mm)
    average = ndimage.uniform_filter(mean_hu, 3, mode="nearest")
    marrow = bone | ((average > _MARROW_HU) & ~grid.dilate(flat, step))
    depth = round(_MARROW_DEPTH_MM / grid.spacing_mm[1])
    solid = ndimage.binary_dilation(bone, IN_PLANE, iterations=depth, mask=marrow)
    solid = bone | (solid & grid.open(solid, step, axes=(1, 2)))
    pixel_mm2 = grid.spacing_mm[1] * grid.spacing_mm[2]
    return np.stack([_marrow_filled(plane, hu, pixel_mm2) for plane, hu in zip(solid, mean_hu, strict=True)])


def _marrow_filled(plane: Mask, hu: Image, pixel_mm2: float) -> Mask:
    holes = ndimage.binary_fill_holes(plane) & ~plane
    labels, count = ndimage.label(holes)
    if not count:
        return plane
    index = np.arange(1, count + 1)
    area = ndimage.sum_labels(holes, labels, index) * pixel_mm2
    mean = ndimage.mean(hu, labels, index)
    marrow = (mean > _MARROW_HU) | (mean < _FAT_HU) | (area < _SMALL_HOLE_MM2)
    return plane | np.isin(labels, index[marrow & (area <= _LARGEST_HOLE_MM2)])
