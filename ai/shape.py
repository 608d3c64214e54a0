"""Where a labelled structure lies in the field of view, and in how many pieces: what quality rules ask."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ai.geometry import VolumeGeometry
from ai.model import Structure
from ai.sides import nearest_axes
from ai.volume import LabelArray

FloatArray = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Box = tuple[slice, ...]

_SIDES = (("right", "left"), ("anterior", "posterior"), ("inferior", "superior"))
"""Towards minus and plus of the LPS axes."""
_TOUCHING = np.ones((3, 3, 3), np.bool_)


@dataclass(frozen=True)
class Shape:
    """One structure that was found.

    Attributes
    ----------
    sides
        At which sides of the field of view it touches the outermost voxels: ``left``, ``superior`` …
    centroid_mm
        LPS millimetres, of a radiograph as if it were a coronal slice. None: not asked for.
    pieces
        Connected pieces; voxels that share a face, edge or corner belong together. None: not counted.
    largest_share
        Part of its voxels that is in the largest piece, 0..1.
    """

    sides: tuple[str, ...]
    centroid_mm: tuple[float, float, float] | None = None
    pieces: int | None = None
    largest_share: float | None = None


def describe_shapes(
    labels: LabelArray,
    geometry: VolumeGeometry,
    structures: Sequence[Structure],
    placed: Collection[int] = (),
    counted: Collection[int] = (),
) -> Mapping[int, Shape]:
    """Describe structures by number, each with what it includes; those without a voxel are left out.

    Only the box around each structure is looked at.

    Parameters
    ----------
    labels
        uint8 ``(slices, rows, columns)`` on the grid of ``geometry``.
    placed, counted
        Numbers of those whose centroid is computed, and of those whose pieces are counted.
    """
    from scipy import ndimage  # a core installation has none, and judges nothing

    directions = _upright(geometry)
    boxes = dict(enumerate(ndimage.find_objects(labels), start=1))
    found = {}
    for structure in structures:
        number = structure.number
        box = _around([boxes[each] for each in structure.numbers if boxes.get(each) is not None])
        if box is None:
            continue
        sides = _sides(box, labels.shape, directions)
        if number not in placed and number not in counted:
            found[number] = Shape(sides)
            continue
        mask = _mask(labels[box], structure.numbers)
        pieces, share = _pieces(mask) if number in counted else (None, None)
        centre = _centroid_mm(mask, box, geometry) if number in placed else None
        found[number] = Shape(sides, centre, pieces, share)
    return found


def _around(boxes: Sequence[Box]) -> Box | None:
    """The box around boxes."""
    if not boxes:
        return None
    return tuple(
        slice(min(side.start for side in sides), max(side.stop for side in sides))
        for sides in zip(*boxes, strict=True)
    )


def _mask(labels: LabelArray, numbers: tuple[int, ...]) -> Mask:
    return labels == numbers[0] if len(numbers) == 1 else np.isin(labels, numbers)


def _pieces(mask: Mask) -> tuple[int, float]:
    from scipy import ndimage

    pieces, count = ndimage.label(mask, structure=_TOUCHING)
    sizes = np.bincount(pieces.reshape(-1))[1:]
    return int(count), float(sizes.max() / sizes.sum())


def _centroid_mm(mask: Mask, box: Box, geometry: VolumeGeometry) -> tuple[float, float, float]:
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


def _sides(box: Box, shape: tuple[int, ...], directions: FloatArray) -> tuple[str, ...]:
    """Sides of the patient at the outer faces that the box touches; a single slice has no faces."""
    sides = []
    axes = nearest_axes(directions)
    for part, length, (along, upwards) in zip(box, shape, axes, strict=True):
        minus, plus = _SIDES[along] if upwards else _SIDES[along][::-1]
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
