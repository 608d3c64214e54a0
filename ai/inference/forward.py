"""Tiles through the networks: batch, mirrors, folds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations

import torch
from torch import Tensor

from ai.errors import ModelError
from ai.inference.precision import Numerics
from ai.inference.tiling import Shape
from ai.model.recipe import Recipe


def answer(
    forwards: Sequence[Callable[[Tensor], Tensor]],
    image: Tensor,
    places: Sequence[Shape],
    tile: Shape,
    recipe: Recipe,
    numerics: Numerics,
) -> Tensor:
    """The answers of the networks to some tiles, averaged over folds and mirrors.

    Parameters
    ----------
    image
        ``(channels, x, y, z)``, padded.

    Returns
    -------
    ``(tiles, classes, *tile)``; ``(tiles, numbers)`` where the network answers with numbers.
    """
    given = torch.stack([image[(slice(None), *_box(place, tile))] for place in places])
    flat = recipe.dimensions == 2
    given = (given.squeeze(2) if flat else given).to(numerics.input)
    first = 1 if flat else 2  # dimension of the grid's first axis
    mirrors = [()] if recipe.output.kind in ("labels", "scalar") else list(_mirrors(recipe, first))
    many = len(mirrors) * len(forwards) > 1
    total: Tensor | None = None
    with numerics.active():
        for forward in forwards:
            for dims in mirrors:
                scores = forward(given.flip(dims)).flip(dims) if dims else forward(given)
                if many:
                    scores = scores.float()
                total = scores if total is None else total.add_(scores)
    if total is None:
        raise ModelError("MODEL_CLOSED", "The model was closed; load it again.")
    if many and recipe.output.kind != "labels":
        total /= len(mirrors) * len(forwards)
    return _checked(total.unsqueeze(2) if flat and total.ndim == 4 else total, len(places), tile, recipe)


def _box(place: Shape, tile: Shape) -> tuple[slice, ...]:
    return tuple(slice(start, start + length) for start, length in zip(place, tile, strict=True))


def _mirrors(recipe: Recipe, first: int) -> Iterator[tuple[int, ...]]:
    axes = [axis + first for axis in recipe.tiles.mirror_axes if axis + first > 1]
    for count in range(len(axes) + 1):
        yield from combinations(axes, count)


def _checked(scores: Tensor, tiles: int, tile: Shape, recipe: Recipe) -> Tensor:
    """Refuse answers that are not what the recipe says."""
    output = recipe.output
    if output.kind == "scalar":
        fits, expected = scores[0].numel() == len(output.scalars), f"{len(output.scalars)} numbers"
    else:
        named = {"labels": 1}.get(output.kind) or (output.channels and len(output.channels))
        classes = named or (scores.shape[1] if scores.ndim == 5 else 0)
        fits, expected = scores.shape == (tiles, classes, *tile), f"({tiles}, {classes}, {tile})"
    if not fits:
        raise ModelError(
            "NETWORK_OUTPUT_INVALID",
            f"The network answered with the shape {tuple(scores.shape)}; the recipe says {expected}.",
        )
    return scores
