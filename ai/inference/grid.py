"""The grid that a network sees, and the exact way back from it.

Source axes are only exchanged and reversed (as MONAI ``Orientation`` and nnU-Net do with an oblique volume),
so the network's axes and those of the source are parallel, and every resampling is one of single axes.
Where a voxel of one grid lies on the other is one straight line for each axis; back is its inverse.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from nibabel import orientations as _untyped
from scipy import ndimage
from torch import Tensor

from ai.model.recipe import Grid

Floats = npt.NDArray[np.float64]
Three = tuple[float, float, float]
Shape = tuple[int, int, int]
Kind = Literal["nearest", "linear", "cubic", "area"]

orientations: Any = _untyped
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_SAME = 1e-4  # voxels: nothing to interpolate
_DECIMALS = 6  # of a spacing in millimetres; what is below is the noise of cosines


@dataclass(frozen=True)
class Orientation:
    """Which array axis of the source becomes which axis of the network, and which of those are reversed."""

    axes: tuple[int, int, int]
    reversed: tuple[bool, bool, bool]

    def apply(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """View of ``(slices, rows, columns)`` with the network's axes."""
        return array.transpose(self.axes)[self._steps()]

    def back(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """View of an array with the network's axes as ``(slices, rows, columns)``."""
        order = np.argsort(self.axes)
        return array[self._steps()].transpose(tuple(int(axis) for axis in order))

    def spacing(self, spacing_mm: Three) -> Three:
        """Spacing along the network's axes, from that along the source's."""
        first, second, third = (round(float(spacing_mm[axis]), _DECIMALS) for axis in self.axes)
        return (first, second, third)

    def _steps(self) -> tuple[slice, ...]:
        return tuple(slice(None, None, -1 if backwards else 1) for backwards in self.reversed)


def orientation(index_to_lps: Floats, axes: str | None) -> Orientation:
    """From the axes of a source to those of a recipe, such as ``RAS``; None: as they are."""
    if axes is None:
        return Orientation((0, 1, 2), (False, False, False))
    matrix = index_to_lps.copy()
    if not np.any(matrix[:3, 0]):  # a single image has no step to the next
        matrix[:3, 0] = np.cross(matrix[:3, 1], matrix[:3, 2])
    change = _change(_LPS_TO_RAS @ matrix, axes)
    old = [int(np.flatnonzero(change[:, 0] == new)[0]) for new in range(3)]
    backwards = [bool(change[axis, 1] < 0) for axis in old]
    return Orientation((old[0], old[1], old[2]), (backwards[0], backwards[1], backwards[2]))


def _change(affine: Floats, axes: str) -> Floats:
    """``(3, 2)``: to which axis each axis of a RAS affine goes, and 1, or −1 where it is reversed."""
    have, want = orientations.io_orientation(affine), orientations.axcodes2ornt(axes)
    return np.asarray(orientations.ornt_transform(have, want), np.float64)


@dataclass(frozen=True)
class Line:
    """One axis of the network's grid on the same axis of the source.

    Attributes
    ----------
    source, length
        Voxels of the source (what is left of it after cropping) and of the network's grid.
    scale, offset
        Index ``j`` of the network lies at ``scale × j + offset`` of the source.
    image, scores
        How the image is interpolated, and how scores are on the way back.
    """

    source: int
    length: int
    scale: float
    offset: float
    image: Kind
    scores: Kind

    @property
    def same(self) -> bool:
        """Nothing changes along this axis."""
        drift = abs(self.scale - 1.0) * self.source + abs(self.offset)
        return self.source == self.length and drift < _SAME

    def places(self) -> Floats:
        """float64 ``(length,)``: where the network's voxels lie on the source, kept within it."""
        return np.clip(np.arange(self.length) * self.scale + self.offset, 0.0, self.source - 1.0)

    def back(self) -> Floats:
        """float64 ``(source,)``: where the voxels of the source lie on the network's grid, unbounded."""
        if self.same:
            return np.arange(self.source, dtype=np.float64)
        return np.asarray((np.arange(self.source) - self.offset) / self.scale, np.float64)


def lines(grid: Grid, shape: Shape, spacing_mm: Three) -> tuple[Line, Line, Line]:
    """The network's grid for a (cropped) source of that shape and spacing, along the network's axes."""
    wanted = grid.spacing_mm or (None, None, None)
    target = tuple(have if want is None else want for want, have in zip(wanted, spacing_mm, strict=True))
    stretched = grid.resize or (None, None, None)
    apart = _separate_axis(grid, spacing_mm, target)
    made = []
    for axis, (voxels, have, want) in enumerate(zip(shape, spacing_mm, target, strict=True)):
        count = stretched[axis]
        step_mm = want if count is None else have * voxels / count
        length, scale, offset = _ALIGN[grid.alignment](voxels, have, step_mm)
        grows = grid.interpolation == "area" and scale <= 1.0
        image: Kind = "linear" if grows else grid.interpolation
        kinds: tuple[Kind, Kind] = ("nearest", "nearest") if axis == apart else (image, "linear")
        made.append(Line(voxels, length, scale, offset, *kinds))
    return (made[0], made[1], made[2])


def resample(image: Tensor, grid: Grid, axes: tuple[Line, Line, Line]) -> Tensor:
    """``(x, y, z)`` of any type onto the network's grid, as float32.

    Linear is that of ``scipy.ndimage`` and ``torch.nn.functional.interpolate``; cubic is the spline of
    ``scipy.ndimage``, for ``edges`` kept within the values of the image as ``skimage.transform.resize`` does.
    """
    order = sorted(range(3), key=lambda axis: axes[axis].length / axes[axis].source)  # shrink first
    flat = next((axis for axis in range(3) if axes[axis].image == "nearest"), None)
    bounds = _bounds(image, axes, flat) if grid.alignment == "edges" else None
    planes = [axis for axis in order if axis != flat] + ([] if flat is None else [flat])
    for axis in planes:
        if axis == flat and bounds is not None:
            image, bounds = image.clamp(*bounds), None
        if not axes[axis].same:
            image = _along(image, axis, axes[axis])
    image = image.float()
    if bounds is not None:
        image = image.clamp(*bounds)
    return image.trunc() if grid.truncate else image


def _bounds(image: Tensor, axes: tuple[Line, ...], flat: int | None) -> tuple[Tensor, Tensor] | None:
    """Lowest and highest value, of the image or of each of its planes, where a spline may go beyond them."""
    if not any(line.image == "cubic" and not line.same for line in axes):
        return None
    over = tuple(axis for axis in range(3) if axis != flat)
    return image.amin(over, keepdim=True).float(), image.amax(over, keepdim=True).float()


def _along(image: Tensor, axis: int, line: Line) -> Tensor:
    """Resample one axis."""
    places = line.places()
    if line.image == "nearest":
        nearest = np.floor(places + 0.5).astype(np.int64)
        return image.index_select(axis, torch.from_numpy(nearest).to(image.device))
    if line.image == "cubic":
        return _product(image.float(), axis, _cubic(line).to(image.device))
    if line.image == "area":
        return _product(image.float(), axis, _area(line).to(image.device))
    low = np.floor(places).astype(np.int64)
    high = np.minimum(low + 1, line.source - 1)
    below = image.index_select(axis, torch.from_numpy(low).to(image.device)).float()
    above = image.index_select(axis, torch.from_numpy(high).to(image.device)).float()
    weight = torch.from_numpy((places - low).astype(np.float32)).to(image.device)
    return torch.lerp(below, above, weight.view([-1 if other == axis else 1 for other in range(3)]))


def _product(image: Tensor, axis: int, matrix: Tensor) -> Tensor:
    """Multiply one axis of ``(x, y, z)`` by a matrix ``(new, old)``."""
    if axis == 0:
        return (matrix @ image.reshape(image.shape[0], -1)).view(-1, *image.shape[1:])
    return matrix @ image if axis == 1 else image @ matrix.T


@lru_cache(maxsize=32)
def _cubic(line: Line) -> Tensor:
    """float32 ``(length, source)``: the cubic spline through the source as weights of its voxels.

    Interpolation is linear in the voxels, so the answers to single ones are the columns.
    """
    places = (np.arange(line.length) * line.scale + line.offset)[None]  # the spline goes on beyond the edge
    matrix = np.empty((line.length, line.source))
    single = np.zeros(line.source)
    for column in range(line.source):
        single[column] = 1.0
        matrix[:, column] = ndimage.map_coordinates(single, places, order=3, mode="nearest")
        single[column] = 0.0
    return torch.from_numpy(matrix.astype(np.float32))


@lru_cache(maxsize=32)
def _area(line: Line) -> Tensor:
    """float32 ``(length, source)``: the share of each voxel of the source in what a new one covers."""
    middle = np.arange(line.length)[:, None] * line.scale + line.offset
    voxel = np.arange(line.source)[None]
    high = np.minimum(middle + line.scale / 2.0, voxel + 0.5)
    low = np.maximum(middle - line.scale / 2.0, voxel - 0.5)
    shares = np.maximum(high - low, 0.0)
    return torch.from_numpy((shares / shares.sum(1, keepdims=True)).astype(np.float32))


def _edges(voxels: int, have_mm: float, want_mm: float) -> tuple[int, float, float]:
    length = max(1, round(have_mm / want_mm * voxels))
    return length, voxels / length, 0.5 * voxels / length - 0.5


def _first_voxel(voxels: int, have_mm: float, want_mm: float) -> tuple[int, float, float]:
    return max(1, round((voxels - 1) * have_mm / want_mm + 1.0)), want_mm / have_mm, 0.0


def _centres(voxels: int, have_mm: float, want_mm: float) -> tuple[int, float, float]:
    length = max(1, round(voxels * (have_mm / want_mm)))
    return length, ((voxels - 1) / (length - 1) if min(length, voxels) > 1 else 1.0), 0.0


_ALIGN = {"edges": _edges, "first_voxel": _first_voxel, "centres": _centres}


def _separate_axis(grid: Grid, have: Three, want: tuple[float, ...]) -> int | None:
    """The axis that is resampled on its own, as nnU-Net decides it: the coarsest, if there is one such."""
    if grid.separate_z_above is None:
        return None
    for spacing in (have, want):
        if max(spacing) / min(spacing) > grid.separate_z_above:
            coarsest = [axis for axis in range(3) if spacing[axis] == max(spacing)]
            return coarsest[0] if len(coarsest) == 1 else None
    return None
