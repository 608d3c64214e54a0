"""What a run will take, before it starts: counted, not guessed, where the network can be looked into."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ai.inference.grid import lines
from ai.inference.precision import MUCH_BYTES
from ai.inference.prepare import fit
from ai.inference.tiling import plan
from ai.model.recipe import Recipe

_LAYERS = 64  # values alive for each voxel of a tile, where a network cannot be looked into
_SCRATCH = 1.5  # libraries of convolutions keep rearranged copies of what they read and write


def estimate_bytes(
    recipe: Recipe,
    forward: Callable[[Tensor], Tensor],
    channels: int,
    classes: int,
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
) -> int:
    """Memory of a run above the weights, without cropping and in float32: an upper estimate.

    Parameters
    ----------
    shape, spacing_mm
        Of the source, ``(slices, rows, columns)``; the network's axes are taken to be in that order.
    """
    axes = lines(recipe.grid, shape, spacing_mm)
    fits = fit(axes, recipe)
    size = (fits[0].length, fits[1].length, fits[2].length)
    tiles = plan(size, recipe.tiles, recipe.tiles.batch, flat=recipe.dimensions == 2)
    batch = max(len(group) for group in tiles.batches)
    tile = tiles.tile[1:] if recipe.dimensions == 2 else tiles.tile
    network = network_bytes(forward, (batch, channels, *tile))
    if network is None:
        network = math.prod(tile) * batch * 4 * (_LAYERS + classes)
    planes = math.prod(tiles.shape) // tiles.shape[tiles.ring] * tiles.depth
    exact = planes * classes * 4
    sums = planes * 4 + (exact if recipe.precision == "float32" and exact <= MUCH_BYTES else exact // 2)
    image = channels * math.prod(tiles.shape) * 4
    resampling = math.prod(shape) * 2 + (0 if all(line.same for line in axes) else math.prod(shape) * 4)
    labels = math.prod(shape) * 2
    return image + labels + max(resampling, sums + network)


def network_bytes(forward: Callable[[Tensor], Tensor], shape: Sequence[int]) -> int | None:
    """What lives at most while a network works on an input of that shape, float32.

    The network runs on tensors without content, which costs milliseconds; None where it cannot (ONNX …).
    """
    live = _Live()
    try:
        with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True), live:
            forward(torch.empty(tuple(shape)))
    except (RuntimeError, TypeError, ValueError, AttributeError, NotImplementedError, KeyError):
        return None
    return int(live.most * _SCRATCH)


class _Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the tensors that are alive."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most = 0
        self._now = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, _types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._see(tensor)
        return result

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = id(storage)
        if key not in self._known:
            self._known.add(key)
            self._now += storage.nbytes()
            self.most = max(self.most, self._now)
            weakref.finalize(storage, self._gone, key, storage.nbytes())

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._now -= size
