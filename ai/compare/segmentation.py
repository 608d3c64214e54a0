"""One side of a comparison: labels on a grid, and those labels on the grid of the other side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ai.errors import AiError, ModelError

Mask = npt.NDArray[np.bool_]
Labels = npt.NDArray[Any]
Affine = npt.NDArray[np.float64]
Index = tuple[int, int, int]
Box = tuple[Index, Index]
"""First index, and one beyond the last."""

HIGHEST_LABEL = 65535
_SAME_GRID_VOXELS = 1e-2  # voxel centres nearer than this are the same
_MOST_VOXELS = 1 << 31


@dataclass(frozen=True)
class Segmentation:
    """Named structures on one grid; they may overlap.

    Attributes
    ----------
    layers
        Label maps ``(slices, rows, columns)`` of unsigned integers, 0 background; what overlaps lies in
        different layers.
    index_to_lps
        4 × 4, ``(slice, row, column, 1)`` to LPS millimetres.
    names
        Label numbers with their names, None where the file has no names.
    parts
        Labels that belong to another one as well, whose own voxels are what they leave of it.
    is_image_grid
        The grid is that of an image, so nothing was looked at beyond it. A SEG and contours only store the
        planes that have something.
    warnings
        What was left out in reading.
    """

    layers: tuple[Labels, ...]
    index_to_lps: Affine
    names: Mapping[int, str | None]
    is_image_grid: bool = True
    frame_of_reference_uid: str | None = None
    warnings: tuple[str, ...] = ()
    parts: Mapping[int, Sequence[int]] = field(default_factory=dict)

    def whole(self, numbers: Sequence[int]) -> tuple[int, ...]:
        """Labels with those that belong to them."""
        return tuple(dict.fromkeys(each for n in numbers for each in (n, *self.parts.get(n, ()))))

    @property
    def shape(self) -> Index:
        """``(slices, rows, columns)``."""
        slices, rows, columns = self.layers[0].shape
        return slices, rows, columns

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel."""
        return float(abs(np.linalg.det(self.index_to_lps[:3, :3]))) / 1000.0

    def name(self, number: int) -> str:
        """The name of a label, or its number as text."""
        return self.names.get(number) or str(number)

    @cached_property
    def own(self) -> Placed:
        """On its own grid."""
        return Placed(self.layers, (0, 0, 0), exact=True)

    def voxel_count(self, numbers: Sequence[int]) -> int:
        """How many voxels carry one of the labels, or one that belongs to them."""
        numbers = self.whole(numbers)
        box = self.own.box(numbers)
        return int(np.count_nonzero(self.own.cut(numbers, box))) if box else 0


@dataclass(frozen=True)
class Placed:
    """Labels on a lattice of voxels that goes on beyond every grid.

    Attributes
    ----------
    corner
        Index on the lattice of the first voxel of the layers.
    exact
        Every voxel centre was one of the lattice.
    """

    layers: tuple[Labels, ...]
    corner: Index
    exact: bool

    @cached_property
    def boxes(self) -> Mapping[int, Box]:
        """Bounding box of each label on the lattice; raises ModelError INFERENCE_NOT_INSTALLED."""
        try:
            from scipy import ndimage
        except ImportError as error:
            reason = f"Comparing needs the package {error.name}; install dicom-ai-gateway[inference]."
            raise ModelError("INFERENCE_NOT_INSTALLED", reason) from error
        found: dict[int, Box] = {}
        for layer in self.layers:
            for number, slices in enumerate(ndimage.find_objects(layer), start=1):
                if slices is not None:
                    low = _moved(tuple(s.start for s in slices), self.corner)
                    high = _moved(tuple(s.stop for s in slices), self.corner)
                    found[number] = union(found.get(number), (low, high))
        return found

    def box(self, numbers: Sequence[int] | None = None) -> Box | None:
        """Bounding box of several labels together, or of all; None where there is no voxel of them."""
        whole: Box | None = None
        for number in self.boxes if numbers is None else numbers:
            if number in self.boxes:
                whole = union(whole, self.boxes[number])
        return whole

    def cut(self, numbers: Sequence[int], box: Box) -> Mask:
        """Union of the labels in a box of the lattice, which may reach beyond the layers."""
        low, high = box
        result = np.zeros([b - a for a, b in zip(low, high, strict=True)], np.bool_)
        shape = self.layers[0].shape
        inner = [(max(a, c), min(b, c + n)) for a, b, c, n in zip(low, high, self.corner, shape, strict=True)]
        if any(a >= b for a, b in inner):
            return result
        target = tuple(slice(a - x, b - x) for (a, b), x in zip(inner, low, strict=True))
        source = tuple(slice(a - c, b - c) for (a, b), c in zip(inner, self.corner, strict=True))
        for layer in self.layers:
            part = layer[source]
            result[target] |= part == numbers[0] if len(numbers) == 1 else np.isin(part, list(numbers))
        return result


def place(segmentation: Segmentation, lattice: Affine) -> Placed:
    """Bring a segmentation onto the lattice of another grid; see :mod:`ai.compare`.

    Raises AiError GRID_TOO_LARGE where its structures would fill more than 2³¹ voxels of the lattice.
    """
    affine = np.asarray(np.linalg.solve(lattice, segmentation.index_to_lps), np.float64)
    order = _exact_order(affine, segmentation.shape)
    if order is None:
        return _nearest(segmentation, affine)
    layers, corner = [], (0, 0, 0)
    steps = np.rint(affine[:3, :3]).astype(int)
    for layer in segmentation.layers:
        first = np.rint(affine[:3, 3]).astype(int)
        turned = layer.transpose(order)
        for axis, source in enumerate(order):
            if steps[axis, source] < 0:
                turned = np.flip(turned, axis)
                first[axis] -= layer.shape[source] - 1
        layers.append(turned)
        corner = (int(first[0]), int(first[1]), int(first[2]))
    return Placed(tuple(layers), corner, exact=True)


def overlaps(one: Segmentation, other: Segmentation) -> bool:
    """Whether the two grids meet in patient space (by their boxes on the grid of the first)."""
    affine = np.asarray(np.linalg.solve(one.index_to_lps, other.index_to_lps), np.float64)
    low, high = _reach(affine, ((0, 0, 0), other.shape))
    return bool((high > -0.5).all() and (low < np.asarray(one.shape) - 0.5).all())


def outside_ml(segmentation: Segmentation, other: Segmentation) -> float:
    """Volume of everything labelled that lies beyond the grid of the other side, in millilitres."""
    affine = np.asarray(np.linalg.solve(other.index_to_lps, segmentation.index_to_lps), np.float64)
    box = segmentation.own.box()
    size = np.asarray(other.shape)
    if box is None:
        return 0.0
    low, high = _reach(affine, box)
    if (low >= -0.5 - _SAME_GRID_VOXELS).all() and (high <= size - 0.5 + _SAME_GRID_VOXELS).all():
        return 0.0
    count = 0
    for i in range(box[0][0], box[1][0]):
        labelled = np.logical_or.reduce([layer[i] > 0 for layer in segmentation.layers])
        row, column = np.nonzero(labelled)
        reached = affine[:3, 0:1] * i + affine[:3, 1:2] * row + affine[:3, 2:3] * column + affine[:3, 3:4]
        inside = (reached >= -0.5) & (reached < size[:, None] - 0.5)
        count += int(np.count_nonzero(~inside.all(axis=0)))
    return count * segmentation.voxel_ml


def union(one: Box | None, other: Box) -> Box:
    """The box around both."""
    if one is None:
        return other
    low = tuple(min(a, b) for a, b in zip(one[0], other[0], strict=True))
    high = tuple(max(a, b) for a, b in zip(one[1], other[1], strict=True))
    return _index(low), _index(high)


def pack(masks: Iterator[tuple[int, Mask]], shape: Index) -> tuple[Labels, ...]:
    """Numbered masks as few label maps: each goes into the first one where it meets no other."""
    layers: list[npt.NDArray[np.uint16]] = [np.zeros(shape, np.uint16)]
    for number, mask in masks:
        free = next((layer for layer in layers if not layer[mask].any()), None)
        if free is None:
            free = np.zeros(shape, np.uint16)
            layers.append(free)
        free[mask] = number
    return tuple(layers)


def _exact_order(affine: Affine, shape: Index) -> tuple[int, int, int] | None:
    """For each axis of the lattice the axis of the grid along it; None where voxel centres differ."""
    corners = _corners(((0, 0, 0), (shape[0] - 1, shape[1] - 1, shape[2] - 1)))
    reached = affine[:3] @ corners
    turns = np.abs(np.rint(affine[:3, :3]))
    if not ((turns.sum(0) == 1).all() and (turns.sum(1) == 1).all()):
        return None
    if float(np.abs(reached - np.rint(reached)).max()) >= _SAME_GRID_VOXELS:
        return None
    first, second, third = (int(axis) for axis in turns.argmax(axis=1))
    return first, second, third


def _nearest(segmentation: Segmentation, affine: Affine) -> Placed:
    """Nearest neighbour, in the box of what is labelled."""
    back = np.asarray(np.linalg.inv(affine), np.float64)
    labelled = segmentation.own.box()
    low, high = _reach(affine, labelled or ((0, 0, 0), (1, 1, 1)))
    corner, stop = np.floor(low).astype(int), np.ceil(high).astype(int) + 1
    size = stop - corner
    if float(np.prod(size.astype(np.float64))) > _MOST_VOXELS:
        text = " × ".join(str(n) for n in size)
        reason = (
            f"The truth would fill {text} voxels of the mask's grid; at most {_MOST_VOXELS} are compared."
        )
        raise AiError("GRID_TOO_LARGE", reason)
    layers = [np.zeros(size, layer.dtype) for layer in segmentation.layers]
    rows, columns = np.indices((int(size[1]), int(size[2]))) + corner[1:, None, None]
    for i in range(int(size[0])):
        index = [
            np.floor(a[0] * (i + corner[0]) + a[1] * rows + a[2] * columns + a[3] + 0.5).astype(np.intp)
            for a in back[:3]
        ]
        inside = np.logical_and.reduce(
            [(axis >= 0) & (axis < n) for axis, n in zip(index, segmentation.shape, strict=True)]
        )
        chosen = tuple(axis[inside] for axis in index)
        for layer, source in zip(layers, segmentation.layers, strict=True):
            layer[i][inside] = source[chosen]
    return Placed(tuple(layers), (int(corner[0]), int(corner[1]), int(corner[2])), exact=False)


def _reach(affine: Affine, box: Box) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Lowest and highest coordinates that the outer edges of a box of voxels have on another grid."""
    edges = np.array([[a - 0.5, b - 0.5] for a, b in zip(*box, strict=True)], np.float64)
    corners = np.array(np.meshgrid(*edges, [1.0])).reshape(4, -1)
    reached = affine[:3] @ corners
    return reached.min(axis=1), reached.max(axis=1)


def _corners(box: Box) -> npt.NDArray[np.float64]:
    return np.array(np.meshgrid(*zip(*box, strict=True), [1.0])).reshape(4, -1)


def _moved(index: tuple[int, ...], by: Index) -> Index:
    return _index(tuple(a + b for a, b in zip(index, by, strict=True)))


def _index(values: tuple[int, ...]) -> Index:
    first, second, third = values
    return first, second, third
