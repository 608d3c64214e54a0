"""Where a labelled structure lies in the field of view, and in how many pieces: what quality rules ask."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ai.geometry import VolumeGeometry
from ai.volume import LabelArray

FloatArray = npt.NDArray[np.float64]

_SIDES = (("right", "left"), ("anterior", "posterior"), ("inferior", "superior"))
"""Towards minus and plus of the LPS axes."""
_TOUCHING = np.ones((3, 3, 3), np.bool_)


@dataclass(frozen=True)
class Shape:
    """One structure that was found.

    Attributes
    ----------
    centroid_mm
        LPS millimetres, of a radiograph as if it were a coronal slice.
    sides
        At which sides of the field of view it touches the outermost voxels: ``left``, ``superior`` …
    pieces
        Connected pieces; voxels that share a face, edge or corner belong together. None: not counted.
    largest_share
        Part of its voxels that is in the largest piece, 0..1.
    """

    centroid_mm: tuple[float, float, float]
    sides: tuple[str, ...]
    pieces: int | None = None
    largest_share: float | None = None


def describe_shapes(
    labels: LabelArray, geometry: VolumeGeometry, numbers: Collection[int], counted: Collection[int] = ()
) -> Mapping[int, Shape]:
    """Describe structures by number; those without a voxel are left out.

    Only the box around each structure is looked at.

    Parameters
    ----------
    labels
        uint8 ``(slices, rows, columns)`` on the grid of ``geometry``.
    counted
        Those whose pieces are counted.
    """
    from scipy import ndimage  # a core installation has none, and judges nothing

    directions = _upright(geometry)
    found = {}
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None or number not in numbers:
            continue
        mask = labels[box] == number
        pieces, share = _pieces(mask) if number in counted else (None, None)
        found[number] = Shape(
            centroid_mm=_centroid_mm(mask, box, geometry),
            sides=_sides(box, labels.shape, directions),
            pieces=pieces,
            largest_share=share,
        )
    return found


def _pieces(mask: npt.NDArray[np.bool_]) -> tuple[int, float]:
    from scipy import ndimage

    pieces, count = ndimage.label(mask, structure=_TOUCHING)
    sizes = np.bincount(pieces.reshape(-1))[1:]
    return int(count), float(sizes.max() / sizes.sum())


def _centroid_mm(
    mask: npt.NDArray[np.bool_], box: tuple[slice, ...], geometry: VolumeGeometry
) -> tuple[float, float, float]:
    """Mean of the voxel centres; slices count where they lie, be they even or not."""
    matrix = geometry.index_to_lps
    slices = mask.sum(axis=(1, 2)).astype(np.float64)
    total = slices.sum()
    place = slices @ geometry.origins_mm[box[0]] / total
    for axis, others in ((1, (0, 2)), (2, (0, 1))):
        along = mask.sum(axis=others).astype(np.float64)
        mean = along @ np.arange(box[axis].start, box[axis].stop) / total
        place = place + mean * matrix[:3, axis]
    x, y, z = (float(value) for value in _turned(geometry, place))
    return x, y, z


def _sides(box: tuple[slice, ...], shape: tuple[int, ...], directions: FloatArray) -> tuple[str, ...]:
    """Sides of the patient at the outer faces that the box touches; a single slice has no faces."""
    sides = []
    for axis, (part, length) in enumerate(zip(box, shape, strict=True)):
        along = int(np.abs(directions[:, axis]).argmax())
        minus, plus = _SIDES[along] if directions[along, axis] > 0 else _SIDES[along][::-1]
        if length > 1 and part.start == 0:
            sides.append(minus)
        if length > 1 and part.stop == length:
            sides.append(plus)
    return tuple(sides)


def _upright(geometry: VolumeGeometry) -> FloatArray:
    """Directions of the array's axes in the patient, columns of unit length."""
    steps = geometry.index_to_lps[:3, :3]
    return np.asarray(_turned(geometry, steps / np.linalg.norm(steps, axis=0)), np.float64)


def _turned(geometry: VolumeGeometry, places: FloatArray) -> FloatArray:
    """Of a radiograph, whose y runs down the image, the places as those of a coronal slice."""
    if not geometry.is_projection:
        return places
    return np.stack([places[0], places[2], -places[1]])
