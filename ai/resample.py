"""Put a tilted or unevenly spaced stack on an upright, even grid, and bring a label map back.

Each slice keeps its plane. What a tilt of the gantry does to a stack is a shear: slices creep sideways as
they rise along their normal. The upright grid has the same rows, columns and normal; it is so much larger
that every slice lies in it, and each slice is shifted within its plane to where it lies in the patient
(linear interpolation). Uneven slices are then interpolated along the normal, on planes as near to each
other as the nearest two slices were. Beside the slices there is air, or the lowest value of other images.

A label map comes back by nearest neighbour: each voxel of a source slice takes the label at its own place.
Results thus lie on the slices that the scanner made, and nothing that a reader sees was resampled.

A radiograph is not resampled. Where its header says that it is stored mirrored or head down, a model sees it
as it hangs on a wall: the patient's left on the right, head up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ai.errors import NotAVolumeError
from ai.geometry import NotAVolume, VerdictCode, VolumeGeometry
from ai.volume import LabelArray, Volume

Voxels = npt.NDArray[np.int16] | npt.NDArray[np.float32]
Plane = npt.NDArray[np.float32]

_AIR_HU = -1024
_MOST_GROWTH = 8  # times the voxels of the source; a shear or a gap that asks for more is no scan
_MOST_VOXELS = 1 << 30
_SAME = 1e-3  # pixels or slices: nothing to interpolate


@dataclass(frozen=True)
class _Grid:
    """An upright grid, and where each source slice lies on it.

    Attributes
    ----------
    places
        float64 ``(slices, 3)``: index on the upright grid of the first voxel of each source slice.
    """

    geometry: VolumeGeometry
    places: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Upright:
    """A volume as a model sees it: on a regular grid whose slices lie straight above each other.

    Attributes
    ----------
    volume
        The upright volume; the source itself when there is nothing to repair.
    """

    volume: Volume
    _source_shape: tuple[int, int, int]
    _corners: npt.NDArray[np.intp] | None = None
    _mirrored: tuple[int, ...] = ()

    def to_source(self, labels: LabelArray) -> LabelArray:
        """Labels of the upright volume on the slices of the source, nearest neighbour.

        Parameters
        ----------
        labels
            uint8, of the shape of ``volume``.

        Returns
        -------
        uint8 ``(source slices, rows, columns)``; the array given when there was nothing to repair.
        """
        if labels.shape != self.volume.voxels.shape:
            raise ValueError(
                f"the label map is {labels.shape}, the upright volume {self.volume.voxels.shape}"
            )
        if self._mirrored:
            return np.ascontiguousarray(np.flip(labels, self._mirrored))
        if self._corners is None:
            return labels
        source = np.empty(self._source_shape, np.uint8)
        _, rows, columns = self._source_shape
        for plane, (k, i, j) in zip(source, self._corners, strict=True):
            plane[:] = labels[k, i : i + rows, j : j + columns]
        return source


def upright(volume: Volume) -> Upright:
    """Resample what ``volume.geometry.needs`` names; a volume that needs nothing is not copied.

    Integers stay integers (rounded). No more memory is used than the result and a few slices.

    Raises
    ------
    NotAVolumeError
        GANTRY_TILT or IRREGULAR_SPACING when the upright grid would be out of all proportion.
    """
    shape = volume.geometry.shape
    if not volume.geometry.needs:
        return Upright(volume, shape)
    grid = _grid(volume.geometry)
    voxels = _resample(volume, grid)
    corners = np.rint(grid.places).astype(np.intp)
    return Upright(Volume(voxels, grid.geometry, volume.unit), shape, corners)


def as_models_see(volume: Volume) -> Upright:
    """A volume :func:`upright`; a radiograph as it hangs, by the directions of its geometry.

    Raises NotAVolumeError: as :func:`upright`.
    """
    geometry = volume.geometry
    steps = geometry.index_to_lps[:3, :3]
    mirrored = tuple(axis for axis, along in ((1, steps[1, 1]), (2, steps[0, 2])) if along < 0.0)
    if not geometry.is_projection or not mirrored:
        return upright(volume)
    matrix = geometry.index_to_lps.copy()
    for axis in mirrored:
        matrix[:3, 3] += (geometry.shape[axis] - 1) * matrix[:3, axis]
        matrix[:3, axis] *= -1.0
    matrix[:3, 0] = np.cross(matrix[:3, 2], matrix[:3, 1]) / geometry.pixel_area_mm2
    hanging = replace(geometry, index_to_lps=matrix, origins_mm=matrix[None, :3, 3])
    voxels: Voxels = np.ascontiguousarray(np.flip(volume.voxels, mirrored))  # type: ignore[assignment]
    return Upright(Volume(voxels, hanging, volume.unit), geometry.shape, _mirrored=mirrored)


def upright_geometry(geometry: VolumeGeometry) -> VolumeGeometry:
    """The grid of :func:`upright`, without its voxels; the geometry itself when it needs nothing.

    Its ``frames`` are the source planes, of which there may be fewer than slices.

    Raises
    ------
    NotAVolumeError
        As :func:`upright`.
    """
    return _grid(geometry).geometry if geometry.needs else geometry


def _grid(geometry: VolumeGeometry) -> _Grid:
    """The smallest upright grid that holds every slice, with one of them at whole pixels."""
    matrix, origins = geometry.index_to_lps, geometry.origins_mm
    basis = np.column_stack([geometry.normal, matrix[:3, 1], matrix[:3, 2]])
    places = np.linalg.solve(basis, (origins - origins[0]).T).T  # millimetres, rows, columns
    heights_mm = places[:, 0].copy()
    count = _even_count(geometry, heights_mm)
    step_mm = (heights_mm[-1] - heights_mm[0]) / (count - 1)
    if VerdictCode.IRREGULAR_SPACING in geometry.needs:
        places[:, 0] = (heights_mm - heights_mm[0]) / step_mm
    else:
        places[:, 0] = np.arange(count)
    step = geometry.normal * step_mm
    if VerdictCode.GANTRY_TILT not in geometry.needs:  # what creep there is stays in the affine
        step = (origins[-1] - origins[0]) / (count - 1)
        places[:, 1:] = 0.0
    low = places[:, 1:].min(axis=0)
    places[:, 1:] -= low
    grown = np.ceil(places[:, 1:].max(axis=0) - _SAME).astype(int)
    _, rows, columns = geometry.shape
    shape = (count, rows + int(grown[0]), columns + int(grown[1]))
    _refuse_out_of_proportion(geometry, shape)
    upright_matrix = matrix.copy()
    upright_matrix[:3, 0] = step
    upright_matrix[:3, 3] = origins[0] + matrix[:3, 1:3] @ low
    regular = replace(
        geometry,
        index_to_lps=upright_matrix,
        shape=shape,
        origins_mm=upright_matrix[:3, 3] + np.arange(count)[:, None] * step,
        needs=(),
    )
    return _Grid(regular, places)


def _even_count(geometry: VolumeGeometry, heights_mm: npt.NDArray[np.float64]) -> int:
    """How many planes the even grid has: none of its gaps is wider than the smallest of the source."""
    slices = len(heights_mm)
    if VerdictCode.IRREGULAR_SPACING not in geometry.needs:
        return slices
    smallest_mm = float(np.diff(heights_mm).min())
    extent_mm = float(heights_mm[-1] - heights_mm[0])
    if extent_mm > _MOST_GROWTH * slices * smallest_mm:
        reason = (
            f"The gaps between the {slices} slices go down to {smallest_mm:.3f} mm over {extent_mm:.1f} mm: "
            f"an even grid would have more than {_MOST_GROWTH} times as many. Send the series without the "
            "slices that are so near to others."
        )
        numbers = {"smallest_gap_mm": round(smallest_mm, 4), "extent_mm": round(extent_mm, 4)}
        raise NotAVolumeError(NotAVolume(VerdictCode.IRREGULAR_SPACING, reason, numbers))
    return int(np.ceil(extent_mm / smallest_mm - _SAME)) + 1


def _refuse_out_of_proportion(geometry: VolumeGeometry, shape: tuple[int, int, int]) -> None:
    voxels = math.prod(shape)
    if voxels <= min(_MOST_GROWTH * math.prod(geometry.shape), _MOST_VOXELS):
        return
    was, would_be = (" × ".join(str(n) for n in size) for size in (geometry.shape, shape))
    reason = (
        f"An upright grid that holds the stack of {was} voxels would have {would_be}; at most "
        f"{_MOST_GROWTH} times as many, and {_MOST_VOXELS} in all, are resampled."
    )
    raise NotAVolumeError(NotAVolume(geometry.needs[0], reason, {"voxels": voxels}))


def _resample(volume: Volume, grid: _Grid) -> Voxels:
    """The voxels on the upright grid, plane by plane."""
    fill = _AIR_HU if volume.unit == "HU" else float(volume.voxels.min())
    heights = grid.places[:, 0]
    resampled = np.empty(grid.geometry.shape, volume.voxels.dtype)
    shifted: dict[int, Plane] = {}
    for k, plane in enumerate(resampled):
        below = min(int(np.searchsorted(heights, k + _SAME, side="right")) - 1, len(heights) - 2)
        weight = float((k - heights[below]) / (heights[below + 1] - heights[below]))
        needed = [i for i, part in ((below, 1.0 - weight), (below + 1, weight)) if part > _SAME]
        shifted = {
            i: shifted[i] if i in shifted else _shifted(volume.voxels[i], grid, i, fill) for i in needed
        }
        value = shifted[needed[0]]
        if len(needed) == 2:
            value = value + np.float32(weight) * (shifted[needed[1]] - value)
        plane[:] = np.rint(value) if plane.dtype.kind == "i" else value
    return resampled


def _shifted(plane: npt.NDArray[Any], grid: _Grid, index: int, fill: float) -> Plane:
    """A source slice where it lies within its plane of the upright grid, linear between pixels."""
    moved = np.full(grid.geometry.shape[1:], fill, np.float32)
    row, column = grid.places[index, 1:]
    part = plane.astype(np.float32)
    for axis, place in ((0, row), (1, column)):
        part = _between(part, place - np.floor(place + _SAME), axis, fill)
    i, j = int(np.floor(row + _SAME)), int(np.floor(column + _SAME))
    moved[i : i + part.shape[0], j : j + part.shape[1]] = part
    return moved


def _between(plane: Plane, fraction: float, axis: int, fill: float) -> Plane:
    """A plane shifted by a fraction of a pixel towards higher indices, one pixel longer for it."""
    if fraction <= _SAME:
        return plane
    border = [(1, 1) if a == axis else (0, 0) for a in range(2)]
    padded = np.pad(plane, border, constant_values=fill)
    before, after = (padded[:-1], padded[1:]) if axis == 0 else (padded[:, :-1], padded[:, 1:])
    return np.asarray(after + np.float32(fraction) * (before - after))
