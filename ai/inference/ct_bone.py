"""Bone on a coarse CT grid: sure bone grown to probable bone, marrow closed in, enhanced blood left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ai.inference.coarse import Grid, Mask, components, pool, touching
from ai.inference.enclosure import enclosure

Image = npt.NDArray[np.float32]

_ALL_NEIGHBOURS = np.ones((3, 3, 3), np.bool_)  # thin bone is oblique to the grid
_SHARE = 0.5  # a block is (sure) bone when so much of it is
_REACH_MM = 12.0  # from sure bone; cartilage and vessels go on farther
_SMALLEST_ML = 0.3
_SEED_ML = 0.05
_ENCLOSED = 0.75  # of the directions around a place of marrow that end on bone
_FATTEST_HU = -150.0  # darker holds air
_BONY_RIM_SHARE = 0.3  # of what surrounds something flat; then it is marrow and no vessel
_SOFT_TISSUE_HU = (0.0, 90.0)
_ENHANCED_HU = (100.0, 700.0)
_FLAT_NOISE_RATIO = 1.5
_FLAT_SD_HU = 10.0
_FLAT_MINIMUM_ML = 2.0
_CALCIFIED_VESSEL_SHARE = 0.4
_BLOOMING_MM = 5.0
_EDGE_MM = 3.0
_BACKGROUND_HU = (-100.0, 50.0)  # from fat, as which lung and air count here, to muscle
_LOWEST_EDGE_HU = 130.0
_HIGHEST_EDGE_HU = 300.0  # thin bone would be lost above


@dataclass(frozen=True)
class BoneRule:
    """The card's numbers for bone: HU thresholds, and how far apart walls may be that enclose marrow."""

    seed_hu: float
    threshold_hu: float
    marrow_hu: float
    widest_mm: float


@dataclass(frozen=True)
class Bone:
    """Coarse masks: ``near`` is where bone may be on the original grid, ``inner`` is bone throughout.

    ``threshold_hu`` is the local value at the edge of bone, for each coarse voxel.
    """

    near: Mask
    inner: Mask
    threshold_hu: Image


def find_bone(
    voxels: npt.NDArray[Any], mean_hu: Image, body: Mask, metal: Mask, grid: Grid, rule: BoneRule
) -> Bone:
    """Find bone by hysteresis and take in its marrow (Kang, Engelke and Kalender 2003, section II).

    Contrast-filled vessels, heart and kidneys reach the threshold as well. They are flat: their local
    spread is that of the noise, where spongy bone varies by tens of HU. Flat bright regions are cut out
    before growing, and pieces that mostly lie along one (calcified vessel wall) are dropped after.
    """
    weak = body & (pool(voxels, grid, above=rule.threshold_hu) >= _SHARE)
    seed = body & (pool(voxels, grid, above=rule.seed_hu) >= _SHARE) & ~grid.dilate(metal, _BLOOMING_MM)
    step = max(grid.spacing_mm)
    # One block more than what is flat, because its spread is measured with its neighbours.
    flat = grid.dilate(_enhanced(mean_hu, body, seed, grid), step) & ~seed
    probable = weak & ~flat & grid.dilate(seed, _REACH_MM)
    labels, _ = ndimage.label(probable | seed, structure=_ALL_NEIGHBOURS)
    bone = touching(labels, seed, max(1, round(_SEED_ML / grid.voxel_ml)))
    bone = _without_specks(bone, flat, grid)
    marrow = _marrow(bone, mean_hu, body, grid, rule)
    solid = bone | marrow
    near = (grid.dilate(bone, step) & body & ~flat) | solid
    edge_hu = _edge_hu(mean_hu, bone, solid, grid)
    edge_hu[marrow] = rule.marrow_hu
    return Bone(near, solid & grid.erode(solid, step), edge_hu)


def _marrow(bone: Mask, mean_hu: Image, body: Mask, grid: Grid, rule: BoneRule) -> Mask:
    """What bone closes in on all sides, and what it mostly encloses and is denser than muscle.

    A second pass takes the marrow found by the first as wall, which mends the gaps of a thin cortex.
    """
    others = ~bone & body
    local_hu = _local_mean(mean_hu, others, 3)
    share = enclosure(bone, rule.widest_mm, grid)
    dense = others & (local_hu >= rule.marrow_hu)
    spongy = dense & (share >= _ENCLOSED)
    fatty = others & (share == 1) & (local_hu > _FATTEST_HU)
    mended = enclosure(bone | spongy, rule.widest_mm, grid)
    return np.asarray(spongy | fatty | (dense & (mended >= _ENCLOSED)), np.bool_)


def _edge_hu(mean_hu: Image, bone: Mask, solid: Mask, grid: Grid) -> Image:
    """Half way between what is around and the densest bone nearby: the edge of a blurred step (Kang)."""
    size = [2 * max(1, round(_EDGE_MM / step)) + 1 for step in grid.spacing_mm]
    dense = ndimage.maximum_filter(np.where(bone, mean_hu, _BACKGROUND_HU[1]), size=size, mode="nearest")
    around = _local_mean(np.clip(mean_hu, *_BACKGROUND_HU), ~solid, size)
    return np.asarray(np.clip((dense + around) / 2, _LOWEST_EDGE_HU, _HIGHEST_EDGE_HU), np.float32)


def _local_mean(values: Image, where: Mask, size: int | list[int]) -> Image:
    """Mean over the voxels of a mask within a box; zero far from it."""
    weight = ndimage.uniform_filter(where.astype(np.float32), size, mode="nearest")
    total = ndimage.uniform_filter(np.where(where, values, np.float32(0)), size, mode="nearest")
    return np.asarray(np.where(weight > 1e-3, total / np.maximum(weight, 1e-3), 0.0), np.float32)


def _enhanced(mean_hu: Image, body: Mask, seed: Mask, grid: Grid) -> Mask:
    """Bright regions as flat as noise without a rim of sure bone: blood and organs with contrast medium."""
    mean = ndimage.uniform_filter(mean_hu, 3, mode="nearest")
    square = ndimage.uniform_filter(mean_hu * mean_hu, 3, mode="nearest")
    spread = np.sqrt(np.maximum(square - mean * mean, 0))
    soft = body & (mean > _SOFT_TISSUE_HU[0]) & (mean < _SOFT_TISSUE_HU[1])
    noise = float(np.percentile(spread[soft], 25)) if soft.any() else 0.0
    flat = body & (spread < max(_FLAT_SD_HU, _FLAT_NOISE_RATIO * noise))
    flat &= (mean > _ENHANCED_HU[0]) & (mean < _ENHANCED_HU[1])
    labels, kept = components(flat, _FLAT_MINIMUM_ML / grid.voxel_ml)
    rim = ndimage.maximum_filter(np.where(np.isin(labels, kept), labels, 0), size=5)
    rim[flat] = 0
    size = int(labels.max()) + 1
    bony = np.bincount(rim[seed], minlength=size) / np.maximum(
        np.bincount(rim.reshape(-1), minlength=size), 1
    )
    return np.isin(labels, [label for label in kept if bony[label] < _BONY_RIM_SHARE])


def _without_specks(bone: Mask, flat: Mask, grid: Grid) -> Mask:
    labels, kept = components(bone, _SMALLEST_ML / grid.voxel_ml, _ALL_NEIGHBOURS)
    beside = grid.dilate(flat, 2 * max(grid.spacing_mm))
    sizes = np.bincount(labels.reshape(-1))
    along = np.bincount(labels[beside].reshape(-1), minlength=sizes.size) / np.maximum(sizes, 1)
    return np.isin(labels, [label for label in kept if along[label] < _CALCIFIED_VESSEL_SHARE])
