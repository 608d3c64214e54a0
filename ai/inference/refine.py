"""From coarse masks to labels on the original grid: thresholds draw the boundary, slab by slab."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from ai.inference.coarse import Grid, Mask

_SLAB_VOXELS = 4_000_000


@dataclass(frozen=True)
class Region:
    """A structure on the coarse grid: ``inner`` belongs to it throughout, ``near`` may where HU agrees."""

    near: Mask
    inner: Mask


def shell(mask: Mask, grid: Grid) -> Region:
    """Leave the outermost coarse voxels on both sides of the boundary to the original grid."""
    step = max(grid.spacing_mm)
    return Region(near=grid.dilate(mask, step), inner=grid.erode(mask, step))


@dataclass(frozen=True)
class Criterion:
    """A label number, its region, and the half-open range of HU that decides near the boundary.

    ``low_hu`` is one value, or one for each coarse voxel.
    """

    number: int
    region: Region
    low_hu: float | npt.NDArray[np.float32]
    high_hu: float


def draw(
    voxels: npt.NDArray[Any], grid: Grid, criteria: list[Criterion]
) -> Iterator[tuple[slice, npt.NDArray[np.uint8]]]:
    """Label slabs of the canonical volume; a later criterion overrides an earlier one."""
    size = voxels.shape[1] * voxels.shape[2]
    slab = max(1, _SLAB_VOXELS // size)
    coarse = [
        tuple(_tensor(array, grid) for array in (c.region.near, c.region.inner, c.low_hu)) for c in criteria
    ]
    for start in range(0, voxels.shape[0], slab):
        where = slice(start, min(start + slab, voxels.shape[0]))
        hu = torch.from_numpy(np.ascontiguousarray(voxels[where])).to(grid.device)
        labels = torch.zeros(hu.shape, dtype=torch.uint8, device=grid.device)
        for criterion, arrays in zip(criteria, coarse, strict=True):
            near, inner, low_hu = (_enlarge(array, where, grid, hu.shape) for array in arrays)
            labels[(near & (hu >= low_hu) & (hu < criterion.high_hu)) | inner] = criterion.number
        yield where, labels.cpu().numpy()


def fill_small_holes(
    labels: npt.NDArray[np.uint8], number: int, over: int, largest_mm2: float, pixel_mm2: float
) -> None:
    """Fill, in place, the axial holes of a label up to an area, where they hold only the label ``over``."""
    for plane in labels:
        rows, columns = (np.nonzero((plane == number).any(axis))[0] for axis in (1, 0))
        if rows.size:
            _fill_plane(
                plane[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1],
                number,
                over,
                largest_mm2 / pixel_mm2,
            )


def _fill_plane(plane: npt.NDArray[np.uint8], number: int, over: int, largest_pixels: float) -> None:
    holes, count = ndimage.label(plane != number)
    small = np.bincount(holes.reshape(-1), minlength=count + 1) <= largest_pixels
    small[0] = False
    small[holes[plane != over]] = False
    plane[small[holes]] = number


def _tensor(array: npt.NDArray[Any] | float, grid: Grid) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(grid.device)


def _enlarge(coarse: torch.Tensor, where: slice, grid: Grid, shape: torch.Size) -> torch.Tensor:
    """The part of a coarse array that covers a slab, each voxel repeated over its block."""
    if coarse.numel() == 1:
        return coarse
    z, y, x = grid.factors
    planes = torch.arange(where.start, where.stop, device=coarse.device) // z
    return coarse[planes].repeat_interleave(y, 1)[:, : shape[1]].repeat_interleave(x, 2)[:, :, : shape[2]]
