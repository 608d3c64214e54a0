"""What of a volume the network has to see: a box, outside which nothing is looked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ai.model.recipe import Grid

Array = npt.NDArray[Any]
Box = tuple[slice, slice, slice]
Three = tuple[float, float, float]

_AIR_HU = -500.0
_COARSE_MM = 4.0
_LOW_SHARE = 0.1  # of the range of an image without units: below is air
_PIECE_SHARE = 0.05  # of the largest piece: an arm or a leg, where a rest of the table is less
_BODY_MARGIN_MM = 8.0  # two coarse voxels: what opening and sampling may have missed


def whole(shape: Sequence[int]) -> Box:
    """The box of everything."""
    return (slice(0, shape[0]), slice(0, shape[1]), slice(0, shape[2]))


def find_box(channels: Sequence[Array], grid: Grid, spacing_mm: Three, unit: str) -> Box:
    """The box that ``grid.crop`` asks for, grown by its margin; everything where nothing is found.

    Parameters
    ----------
    channels
        Images ``(x, y, z)`` on one grid.
    unit
        Of the first channel; HU have a threshold of their own.
    """
    shape = channels[0].shape
    if grid.crop == "none":
        return whole(shape)
    margin_mm = grid.crop_margin_mm
    if grid.crop == "body":
        margin_mm += _BODY_MARGIN_MM
        found = _body(channels[0], spacing_mm, unit)
    else:
        found = _extent(channels, _nonzero if grid.crop == "nonzero" else _positive)
    if found is None:
        return whole(shape)
    margins = [math.ceil(margin_mm / step - 1e-6) for step in spacing_mm]
    first, second, third = (
        slice(max(part.start - margin, 0), min(part.stop + margin, length))
        for part, margin, length in zip(found, margins, shape, strict=True)
    )
    return (first, second, third)


def _nonzero(values: Array) -> Array:
    return np.asarray(values != 0)


def _positive(values: Array) -> Array:
    return np.asarray(values > 0)


def _extent(channels: Sequence[Array], chosen: Callable[[Array], Array]) -> Box | None:
    """The box of the voxels that are chosen in any channel, plane by plane to save memory."""
    shape = channels[0].shape
    hits = [np.zeros(length, np.bool_) for length in shape]
    for channel in channels:
        for index, plane in enumerate(channel):
            inside = chosen(plane)
            hits[0][index] |= bool(inside.any())
            hits[1] |= inside.any(axis=1)
            hits[2] |= inside.any(axis=0)
    return _box_of(hits)


def _box_of(hits: Sequence[Array]) -> Box | None:
    found = [np.flatnonzero(hit) for hit in hits]
    if not all(len(indices) for indices in found):
        return None
    first, second, third = (slice(int(indices[0]), int(indices[-1]) + 1) for indices in found)
    return (first, second, third)


def _body(image: Array, spacing_mm: Three, unit: str) -> Box | None:
    """The box of what is not air, without the table: large pieces on a coarse grid after an opening."""
    steps = [max(1, round(_COARSE_MM / step)) for step in spacing_mm]
    coarse = image[:: steps[0], :: steps[1], :: steps[2]]
    if unit == "HU":
        threshold = _AIR_HU
    else:
        low, high = np.percentile(coarse, (1, 99))
        threshold = float(low + _LOW_SHARE * (high - low))
    solid = coarse > threshold
    opened = ndimage.binary_opening(np.pad(solid, 1, mode="edge"))[1:-1, 1:-1, 1:-1]  # ends of the scan stay
    labels, count = ndimage.label(opened)
    if not count:
        return None
    sizes = np.bincount(labels.reshape(-1))
    sizes[0] = 0
    body = (sizes >= _PIECE_SHARE * sizes.max())[labels]
    hits = [body.any(axis=tuple(other for other in range(3) if other != axis)) for axis in range(3)]
    found = _box_of(hits)
    if found is None:
        return None
    first, second, third = (
        slice(part.start * step, min((part.stop - 1) * step + 1, length))
        for part, step, length in zip(found, steps, image.shape, strict=True)
    )
    return (first, second, third)
