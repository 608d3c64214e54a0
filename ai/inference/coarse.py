"""Coarse grid of about isotropic voxels: pooling, morphology in millimetres, components.

Topology (what belongs together, what encloses what) is decided here, where it is quick; the boundary is
then drawn on the original grid. Arrays are canonical ``(z, y, x)``, see :mod:`ai.inference.canonical`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy import ndimage

Mask = npt.NDArray[np.bool_]
Spacing = tuple[float, float, float]

IN_PLANE = np.zeros((3, 3, 3), np.bool_)
"""Structuring element: face neighbours in the axial plane."""
IN_PLANE[1] = ndimage.generate_binary_structure(2, 1)

_SLAB_VOXELS = 8_000_000


@dataclass(frozen=True)
class Grid:
    """A coarse grid: each voxel is a block of ``factors`` voxels of the original one."""

    factors: tuple[int, int, int]
    spacing_mm: Spacing
    device: str

    @property
    def voxel_ml(self) -> float:
        """Volume of one coarse voxel, millilitres."""
        return float(np.prod(self.spacing_mm)) / 1000.0

    def dilate(self, mask: Mask, radius_mm: float, axes: tuple[int, ...] = (0, 1, 2)) -> Mask:
        """Dilate by a box of the given half width; an axis with larger voxels is left alone."""
        grown = torch.from_numpy(np.ascontiguousarray(mask)).to(self.device)
        for axis in axes:
            grown = _dilate_along(grown, axis, round(radius_mm / self.spacing_mm[axis]))
        return np.asarray(grown.cpu().numpy(), np.bool_)

    def erode(self, mask: Mask, radius_mm: float, axes: tuple[int, ...] = (0, 1, 2)) -> Mask:
        """Erode by a box; what lies beyond the scan counts as inside, so that a cut organ keeps its end."""
        return ~self.dilate(~mask, radius_mm, axes)

    def open(self, mask: Mask, radius_mm: float, axes: tuple[int, ...] = (0, 1, 2)) -> Mask:
        """Remove what is thinner than twice the radius."""
        return self.dilate(self.erode(mask, radius_mm, axes), radius_mm, axes)

    def close(self, mask: Mask, radius_mm: float, axes: tuple[int, ...] = (0, 1, 2)) -> Mask:
        """Fill gaps narrower than twice the radius."""
        return self.erode(self.dilate(mask, radius_mm, axes), radius_mm, axes)


def make_grid(spacing_mm: Spacing, target_mm: float, device: str) -> Grid:
    """The grid of whole blocks that comes nearest to ``target_mm`` on each axis."""
    z, y, x = (max(1, round(target_mm / step)) for step in spacing_mm)
    return Grid((z, y, x), (spacing_mm[0] * z, spacing_mm[1] * y, spacing_mm[2] * x), device)


def pool(voxels: npt.NDArray[Any], grid: Grid, above: float | None = None) -> npt.NDArray[np.float32]:
    """Mean of each block, or the share 0..1 of its voxels that are at or above a value."""
    depth = grid.factors[0]
    slab = depth * max(1, _SLAB_VOXELS // (depth * voxels.shape[1] * voxels.shape[2]))
    parts = []
    for start in range(0, voxels.shape[0], slab):
        block = torch.from_numpy(np.ascontiguousarray(voxels[start : start + slab])).to(grid.device)
        block = block.float() if above is None else (block >= above).float()
        pooled = F.avg_pool3d(block[None], grid.factors, ceil_mode=True, count_include_pad=False)
        parts.append(pooled[0].cpu().numpy())
    return np.concatenate(parts)


def components(
    mask: Mask, minimum_voxels: float = 1, structure: Mask | None = None
) -> tuple[npt.NDArray[np.int32], list[int]]:
    """Components (face-connected by default): label array, and labels of at least the size, largest first."""
    labels, _ = ndimage.label(mask, structure=structure)
    sizes = np.bincount(labels.reshape(-1))
    sizes[0] = 0
    order = np.argsort(-sizes, kind="stable")
    return labels, [int(label) for label in order if sizes[label] >= max(1.0, minimum_voxels)]


def fill_slices(mask: Mask) -> Mask:
    """Fill the holes of each axial slice."""
    return np.stack([np.asarray(ndimage.binary_fill_holes(plane), np.bool_) for plane in mask])


def touching(labels: npt.NDArray[np.int32], seeds: Mask, minimum_seeds: int = 1) -> Mask:
    """The components that hold at least so many seed voxels."""
    counts = np.bincount(labels[seeds].reshape(-1), minlength=int(labels.max()) + 1)
    keep = counts >= minimum_seeds
    keep[0] = False
    return np.asarray(keep[labels], np.bool_)


def _dilate_along(mask: torch.Tensor, axis: int, reach: int) -> torch.Tensor:
    grown = mask.clone()
    length = mask.shape[axis]
    for step in range(1, min(reach, length - 1) + 1):
        kept = length - step
        grown.narrow(axis, step, kept).logical_or_(mask.narrow(axis, 0, kept))
        grown.narrow(axis, 0, kept).logical_or_(mask.narrow(axis, step, kept))
    return grown
