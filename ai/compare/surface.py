"""Overlap and surface distances of two masks. The definitions are in :mod:`ai.compare`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]

_PERCENTILE = 95.0
_SAME_MM = 1e-6  # a nanometre: distances that differ by less are equal


@dataclass(frozen=True)
class Agreement:
    """How far two masks agree; see :mod:`ai.compare` for what is None, and when."""

    dice: float | None
    jaccard: float | None
    hausdorff95_mm: float | None
    surface_dice: float | None


def agreement(one: Mask, other: Mask, steps_mm: FloatArray, tolerance_mm: float) -> Agreement:
    """Compare two masks of one shape ``(slices, rows, columns)``.

    Memory beyond the masks goes with their surfaces, not with the volume: distances are looked up in a tree
    of surface points.

    Parameters
    ----------
    steps_mm
        3 × 3; its columns are the steps along the three axes, millimetres.
    """
    if one.shape != other.shape:
        raise ValueError(f"the masks differ in shape: {one.shape} and {other.shape}")
    count, other_count = int(np.count_nonzero(one)), int(np.count_nonzero(other))
    if not count and not other_count:
        return Agreement(None, None, None, None)
    if not count or not other_count:
        return Agreement(0.0, 0.0, None, 0.0)
    common = int(np.count_nonzero(one & other))
    there, back = _distances(surface(one), surface(other), steps_mm)
    near = sum(int(np.count_nonzero(d <= tolerance_mm + _SAME_MM)) for d in (there, back))
    return Agreement(
        dice=2.0 * common / (count + other_count),
        jaccard=common / (count + other_count - common),
        hausdorff95_mm=float(max(np.percentile(d, _PERCENTILE) for d in (there, back))),
        surface_dice=near / (there.size + back.size),
    )


def surface(mask: Mask) -> Mask:
    """Voxels of a mask with a face neighbour that is not in it; an axis of one voxel has no neighbours."""
    inner = mask.copy()
    for axis in range(3):
        if mask.shape[axis] == 1:
            continue
        ahead, behind = np.swapaxes(inner, 0, axis), np.swapaxes(mask, 0, axis)
        ahead[:-1] &= behind[1:]
        ahead[1:] &= behind[:-1]
        ahead[0] = False
        ahead[-1] = False
    return np.asarray(mask & ~inner)


def _distances(one: Mask, other: Mask, steps_mm: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Of every surface voxel the distance to the other surface, both ways, millimetres."""
    return _nearest_mm(one, other, steps_mm), _nearest_mm(other, one, steps_mm)


def _nearest_mm(start: Mask, target: Mask, steps_mm: FloatArray) -> FloatArray:
    """Distances from each voxel of ``start``; those that both have are zero without a search."""
    from scipy.spatial import KDTree

    distances = np.zeros(int(np.count_nonzero(start)))
    apart = np.argwhere(start & ~target) @ steps_mm.T
    if len(apart):
        tree = KDTree(np.argwhere(target) @ steps_mm.T, balanced_tree=False)
        distances[: len(apart)] = tree.query(apart)[0]
    return distances
