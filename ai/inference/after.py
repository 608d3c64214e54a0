"""Last changes of a label map on the source grid: largest piece, specks, holes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ai.model.recipe import Keep
from ai.volume import LabelArray

Mask = npt.NDArray[np.bool_]


def finish(labels: LabelArray, operations: Sequence[Keep], voxel_ml: float) -> LabelArray:
    """Apply operations in order, in place.

    Parameters
    ----------
    labels
        uint8 ``(slices, rows, columns)``.
    """
    for operation in operations:
        numbers = operation.structures or tuple(int(n) for n in np.unique(labels) if n)
        for number in numbers:
            _apply(labels, operation, number, voxel_ml)
    return labels


def _apply(labels: LabelArray, operation: Keep, number: int, voxel_ml: float) -> None:
    boxes = ndimage.find_objects((labels == number).astype(np.uint8))
    if not boxes:
        return
    part = labels[boxes[0]]
    mask = part == number
    if operation.op == "fill_holes":
        part[ndimage.binary_fill_holes(mask) & (part == 0)] = number
        return
    pieces, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    sizes: npt.NDArray[Any] = np.bincount(pieces.reshape(-1), minlength=count + 1)
    sizes[0] = 0
    if operation.op == "largest":
        dropped = np.arange(count + 1) != sizes.argmax()
    else:
        dropped = sizes * voxel_ml < operation.volume_ml
    dropped[0] = False
    part[dropped[pieces]] = 0
