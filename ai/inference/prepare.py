"""From the channels of a source to the padded grid of the network, and the way back for each axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor

from ai.errors import ModelError
from ai.inference import grid as grids
from ai.inference.crop import Box, find_box
from ai.inference.grid import Line, Orientation, orientation
from ai.inference.intensity import change
from ai.inference.masks import exclusive_masks
from ai.inference.spans import Way
from ai.inference.tiling import Plan, Shape, plan
from ai.model.recipe import Operation, Recipe, Standardise
from ai.volume import Volume

Lines = tuple[Line, Line, Line]

_MOST_VOXELS = 1 << 33  # of the network's grid: 32 GiB as float32


@dataclass(frozen=True)
class Prepared:
    """What the network sees, and how to come back.

    Attributes
    ----------
    image
        float32 ``(channels, *plan.shape)``.
    grid
        Size of the network's grid without padding to tiles.
    box
        What was kept of the source, along the network's axes.
    ways
        Each axis of the box as seen from the padded grid.
    """

    image: Tensor
    grid: Shape
    plan: Plan
    box: Box
    orientation: Orientation
    ways: tuple[Way, Way, Way]


@dataclass(frozen=True)
class Fit:
    """One axis brought to an exact size: voxels of padding before, or voxels cut off there (negative)."""

    length: int
    shift: int


def prepare(channels: Sequence[Volume], recipe: Recipe, device: str, batch: int) -> Prepared:
    """Reorient, crop, resample, change values, fit and pad; see :class:`ai.model.recipe.Grid`."""
    geometry = channels[0].geometry
    turned = orientation(geometry.index_to_lps, recipe.grid.axes)
    spacing_mm = turned.spacing(geometry.spacing_mm)
    views = [turned.apply(volume.voxels) for volume in channels]
    images = len(views) - recipe.grid.masks
    box = find_box(views[:images], recipe.grid, spacing_mm, channels[0].unit)
    axes = grids.lines(recipe.grid, box_shape(box), spacing_mm)
    fits = fit(axes, recipe)
    size = (fits[0].length, fits[1].length, fits[2].length)
    _refuse_too_large((axes[0].length, axes[1].length, axes[2].length), recipe)
    tiles = plan(size, recipe.tiles, batch, flat=recipe.dimensions == 2)
    _refuse_too_large(tiles.shape, recipe)
    image = torch.empty((len(views), *tiles.shape), device=device)
    foreground = _foreground([view[box] for view in views[:images]], recipe)
    chosen = None if foreground is None else torch.from_numpy(foreground).to(device)
    for index, view in enumerate(views[:images]):
        seen = _channel(view[box], axes, recipe, _operations(recipe, index), device, chosen)
        _place(image[index], seen, fits, tiles, recipe)
    if foreground is not None and recipe.grid.masks:
        masks = exclusive_masks([view[box] for view in views[images:]], foreground, axes, device)
        for index, mask in enumerate(masks, start=images):
            _place(image[index], mask, fits, tiles, recipe)
    whole = [
        _way(line, part, before, recipe) for line, part, before in zip(axes, fits, tiles.before, strict=True)
    ]
    return Prepared(image, size, tiles, box, turned, (whole[0], whole[1], whole[2]))


def _refuse_too_large(shape: Shape, recipe: Recipe) -> None:
    if math.prod(shape) > _MOST_VOXELS:
        size = " × ".join(str(length) for length in shape)
        raise ModelError(
            "GRID_TOO_LARGE",
            f"The grid of the network would have {size} voxels for this image, more than {_MOST_VOXELS}; "
            f"check the recipe: spacing_mm {recipe.grid.spacing_mm}, tiles.size {recipe.tiles.size}.",
        )


def box_shape(box: Box) -> Shape:
    """Voxels of a box."""
    return (box[0].stop - box[0].start, box[1].stop - box[1].start, box[2].stop - box[2].start)


def fit(axes: Lines, recipe: Recipe) -> tuple[Fit, Fit, Fit]:
    """Centred padding and cutting to ``grid.size``: MONAI ``SpatialPad`` and ``CenterSpatialCrop``."""
    made = []
    for line, wanted in zip(axes, recipe.grid.size or (None, None, None), strict=True):
        have = line.length
        want = have if wanted is None else wanted
        made.append(Fit(want, (want - have) // 2 if want >= have else want // 2 - have // 2))
    return (made[0], made[1], made[2])


def _operations(recipe: Recipe, channel: int) -> tuple[Operation, ...]:
    return recipe.channel_intensity[channel] if recipe.channel_intensity else recipe.intensity


def _foreground(views: Sequence[npt.NDArray[Any]], recipe: Recipe) -> npt.NDArray[np.bool_] | None:
    """What is not 0 in any image, and the holes in it, where something asks for it."""
    confined = any(isinstance(each, Standardise) and each.foreground for each in recipe.operations)
    if not confined and not recipe.grid.masks:
        return None
    found = np.logical_or.reduce([view != 0 for view in views])
    return np.asarray(ndimage.binary_fill_holes(found), np.bool_)


def _channel(
    view: npt.NDArray[Any],
    axes: Lines,
    recipe: Recipe,
    operations: Sequence[Operation],
    device: str,
    foreground: Tensor | None,
) -> Tensor:
    """One channel on the network's grid, float32."""
    source = torch.from_numpy(np.ascontiguousarray(view)).to(device)
    if recipe.grid.intensity == "before":
        return grids.resample(change(_own_float(source), operations, foreground), recipe.grid, axes)
    return change(_own_float(grids.resample(source, recipe.grid, axes), source), operations)


def _own_float(image: Tensor, source: Tensor | None = None) -> Tensor:
    """A float32 copy that may be changed in place, where it is not one already."""
    changed = image.float()
    shared = source if source is not None else image
    return changed.clone() if changed.data_ptr() == shared.data_ptr() else changed


def _place(into: Tensor, seen: Tensor, fits: Sequence[Fit], tiles: Plan, recipe: Recipe) -> None:
    """Write a channel into the padded grid, and fill the padding."""
    source, target = [], []
    for length, part, before in zip(seen.shape, fits, tiles.before, strict=True):
        shift = part.shift + before
        first, last = max(0, -part.shift), min(length, part.length - part.shift)
        source.append(slice(first, last))
        target.append(slice(first + shift, last + shift))
    kept = seen[tuple(source)]
    if recipe.tiles.pad == "edge":
        into.copy_(_edge(kept, target, into.shape))
        return
    value = float(seen.min()) if recipe.tiles.pad == "minimum" else float(recipe.tiles.pad)
    if kept.shape != into.shape:
        into.fill_(value)
    into[tuple(target)] = kept


def _edge(kept: Tensor, target: Sequence[slice], shape: Sequence[int]) -> Tensor:
    """Repeat the outermost voxels up to a shape."""
    for axis, (part, length) in enumerate(zip(target, shape, strict=True)):
        index = (torch.arange(length, device=kept.device) - part.start).clamp(0, kept.shape[axis] - 1)
        kept = kept.index_select(axis, index)
    return kept


def _way(line: Line, part: Fit, before: int, recipe: Recipe) -> Way:
    """The way back of one axis: what was cut off by an exact size has no answer."""
    begin, end = max(0, -part.shift), min(line.length, part.length - part.shift)
    places = line.back()
    if line.scores == "nearest" or recipe.output.upsample == "labels" or recipe.output.kind == "labels":
        places = np.floor(places + 0.5)
    inside = np.ones(len(places), np.bool_)
    if begin > 0:
        inside &= np.floor(places + 0.5) >= begin
    if end < line.length:
        inside &= np.floor(places + 0.5) < end
    kept = np.flatnonzero(inside)
    shift = part.shift + before
    clamped = np.clip(places[kept], begin, end - 1)
    return Way(int(kept[0]) if len(kept) else 0, clamped + shift, begin + shift, end + shift)
