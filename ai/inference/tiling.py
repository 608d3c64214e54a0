"""Where tiles start and how their answers are weighted: the rules of nnU-Net and of MONAI, bit for bit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from ai.model.recipe import Tiles

Shape = tuple[int, int, int]

_LEAST_WEIGHT = 1e-3  # of MONAI's importance map
_NNUNET_PEAK = 10.0  # of nnU-Net's, so that small weights survive float16


def starts(length: int, tile: int, tiles: Tiles) -> list[int]:
    """First voxels of the tiles along an axis that is at least one tile long."""
    if tiles.rule == "nnunet":  # compute_steps_for_sliding_window
        last = length - tile
        count = int(np.ceil(last / (tile * tiles.step))) + 1
        return [int(np.round(last / (count - 1) * index)) for index in range(count)] if count > 1 else [0]
    interval = tile if length == tile else max(1, int(tile * tiles.step))  # dense_patch_slices
    count = next(n for n in range(math.ceil(length / interval)) if n * interval + tile >= length) + 1
    return [min(n * interval, length - tile) for n in range(count)]


@lru_cache(maxsize=4)
def importance(tile: Shape, tiles: Tiles) -> Tensor:
    """float32 weights of a tile's voxels, all above 0; a 2D tile ``(1, rows, columns)`` likewise."""
    size = tile[1:] if tile[0] == 1 else tile
    if tiles.weighting == "constant":
        weights = torch.ones(size)
    elif tiles.rule == "nnunet":
        weights = _nnunet_gaussian(size, tiles.gaussian_sigma)
    else:
        weights = _monai_gaussian(size, tiles.gaussian_sigma)
    return weights.view(tile)


def _nnunet_gaussian(size: Sequence[int], sigma: float) -> Tensor:
    """``compute_gaussian(size, sigma, value_scaling_factor=10)`` in its float16."""
    point = np.zeros(size)
    point[tuple(length // 2 for length in size)] = 1.0
    smooth = ndimage.gaussian_filter(point, [length * sigma for length in size], 0, mode="constant", cval=0)
    smooth /= np.max(smooth) / _NNUNET_PEAK
    weights = torch.from_numpy(smooth).half()
    weights[weights == 0] = weights[weights != 0].min()
    return weights.float()


def _monai_gaussian(size: Sequence[int], sigma: float) -> Tensor:
    """``compute_importance_map(size, "gaussian", sigma)``."""
    weights = torch.ones(())
    for length in size:
        far = (length - 1) / 2.0
        x = torch.arange(-far, far + 1, dtype=torch.float)
        weights = weights.unsqueeze(-1) * torch.exp(x**2 / (-2 * (length * sigma) ** 2))
    return weights.clamp_(min=max(float(weights.min()), _LEAST_WEIGHT))


@dataclass(frozen=True)
class Plan:
    """All tiles of a grid, in batches that advance along one axis.

    Attributes
    ----------
    shape
        The padded grid: at least one tile long everywhere.
    before
        Voxels of padding before the grid, for each axis.
    ring
        The axis along which the work advances: planes behind it are finished.
    batches
        First voxels of the tiles that go through the network together.
    depth
        How many planes along ``ring`` must be in memory at once: those of a batch, and the one before.
    """

    shape: Shape
    before: Shape
    tile: Shape
    ring: int
    batches: tuple[tuple[Shape, ...], ...]
    depth: int

    @property
    def tiles(self) -> int:
        """How many there are."""
        return sum(len(batch) for batch in self.batches)


def plan(grid: Shape, tiles: Tiles, batch: int, flat: bool = False) -> Plan:
    """Lay tiles over a grid.

    Parameters
    ----------
    flat
        The network is one of images: tiles are single planes of the first axis.
    """
    tile = tiles.size or _whole(grid, tiles.multiple_of, flat)
    shape = tuple(max(have, need) for have, need in zip(grid, tile, strict=True))
    before = tuple((padded - have) // 2 for padded, have in zip(shape, grid, strict=True))
    ring = 0 if flat else max(range(3), key=lambda axis: (shape[axis] / tile[axis], -axis))
    along = [starts(length, size, tiles) for length, size in zip(shape, tile, strict=True)]
    if flat:  # each slice once, whatever the step of the tiles within it
        along[0] = list(range(shape[0]))
    ordered = sorted(product(along[0], along[1], along[2]), key=lambda place: place[ring])
    batches = tuple(tuple(ordered[i : i + batch]) for i in range(0, len(ordered), batch))
    spans = [group[-1][ring] - group[0][ring] + tile[ring] for group in batches]
    return Plan(_three(shape), _three(before), tile, ring, batches, min(max(spans) + 1, shape[ring]))


def _whole(grid: Shape, multiple: int, flat: bool) -> Shape:
    rounded = [math.ceil(length / multiple) * multiple for length in grid]
    return (1 if flat else rounded[0], rounded[1], rounded[2])


def _three(values: Sequence[int]) -> Shape:
    return (values[0], values[1], values[2])
