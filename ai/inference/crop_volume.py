"""A box of a volume as a volume of its own, and what lies within some millimetres of a region in it.

Pure functions on arrays of ``(slices, rows, columns)``. A box is three slices of whole numbers; nothing is
resampled, so that what is found in a box has its place in the whole by index alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ai.geometry import Vector
from ai.volume import Volume

Box = tuple[slice, slice, slice]
Mask = npt.NDArray[np.bool_]

_ROUNDING_MM = 1e-6
_SLAB = 32  # slices whose distances are computed at once


def whole_box(shape: tuple[int, int, int]) -> Box:
    """The box of a whole volume."""
    slices, rows, columns = shape
    return slice(0, slices), slice(0, rows), slice(0, columns)


def box_of(mask: Mask) -> Box | None:
    """The smallest box that holds every true voxel; None where there is none.

    >>> box_of(np.eye(3, dtype=bool)[None, :2])
    (slice(0, 1, None), slice(0, 2, None), slice(0, 2, None))
    """
    ends = []
    for axis in range(3):
        found = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        if not found.size:
            return None
        ends.append(slice(int(found[0]), int(found[-1]) + 1))
    return ends[0], ends[1], ends[2]


def grown_box(box: Box, margin_mm: float, spacing_mm: Vector, shape: tuple[int, int, int]) -> Box:
    """A box with at least ``margin_mm`` more on each side, within a volume of that shape and spacing."""
    grown = []
    for side, step_mm, length in zip(box, spacing_mm, shape, strict=True):
        more = int(np.ceil(margin_mm / step_mm - _ROUNDING_MM))
        grown.append(slice(max(0, side.start - more), min(length, side.stop + more)))
    return grown[0], grown[1], grown[2]


def within_box(box: Box, offset: Box) -> Box:
    """A box of a crop as a box of the whole: ``offset`` is the box that was cropped.

    >>> within_box((slice(1, 2), slice(0, 3), slice(2, 4)), (slice(10, 20), slice(5, 9), slice(0, 8)))
    (slice(11, 12, None), slice(5, 8, None), slice(2, 4, None))
    """
    z, y, x = (
        slice(outer.start + inner.start, outer.start + inner.stop)
        for inner, outer in zip(box, offset, strict=True)
    )
    return z, y, x


def crop_volume(volume: Volume, box: Box) -> Volume:
    """The part of a volume in a box: a view of its voxels, each with the place in the patient that it had.

    The frames are those of the slices kept, where each slice has one.
    """
    geometry = volume.geometry
    starts = np.array([side.start for side in box], np.float64)
    matrix = geometry.index_to_lps.copy()
    matrix[:3, 3] += matrix[:3, :3] @ starts
    voxels = volume.voxels[box]
    one_each = len(geometry.frames) == geometry.shape[0]
    slices, rows, columns = voxels.shape
    kept = replace(
        geometry,
        index_to_lps=matrix,
        shape=(slices, rows, columns),
        frames=geometry.frames[box[0]] if one_each else geometry.frames,
        origins_mm=geometry.origins_mm[box[0]] + geometry.index_to_lps[:3, 1:3] @ starts[1:],
    )
    return Volume(voxels, kept, volume.unit)


def near(region: Mask, distance_mm: float, spacing_mm: Vector) -> Iterator[tuple[slice, Mask]]:
    """Slab by slab, which voxels have their centre within a distance of the centre of one of a region.

    Exact (Euclidean distance transform); no more than a slab and its surroundings is computed at once.

    Yields
    ------
    The slices of a slab, and the mask ``(slices of the slab, rows, columns)``.
    """
    reach = int(np.ceil(distance_mm / spacing_mm[0]))
    for start in range(0, len(region), _SLAB):
        slab = slice(start, min(start + _SLAB, len(region)))
        around = slice(max(0, slab.start - reach), slab.stop + reach)
        inside = region[around]
        if distance_mm <= 0.0 or not inside.any():
            yield slab, region[slab]
            continue
        distances = ndimage.distance_transform_edt(~inside, sampling=spacing_mm)
        own = slice(slab.start - around.start, slab.stop - around.start)
        yield slab, np.asarray(distances[own] <= distance_mm + _ROUNDING_MM)
