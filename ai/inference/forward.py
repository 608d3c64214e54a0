"""Tiles through the networks: batch, mirrors, folds; with a rest after each, and within what takes long.

A network that has a method ``pieces`` besides being called answers piece by piece: a generator that yields
between pieces of work and returns the scores. Nothing global is held while it rests, for another model may
run then.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import combinations

import torch
from torch import Tensor

from ai.errors import ModelError
from ai.inference.precision import Numerics
from ai.inference.tiling import Shape
from ai.model.recipe import Recipe

_LABELS = 256  # of a label map of bytes

Pieces = Generator[None, None, Tensor]
"""Yields where the work may rest; returns scores."""


def answer(
    forwards: Sequence[Callable[[Tensor], Tensor]],
    image: Tensor,
    places: Sequence[Shape],
    tile: Shape,
    recipe: Recipe,
    numerics: Numerics,
) -> Pieces:
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
    for forward in forwards:
        for dims in mirrors:
            if total is not None:
                yield
            scores = yield from _asked(forward, given.flip(dims) if dims else given, numerics)
            scores = scores.flip(dims) if dims else scores
            if many:
                scores = scores.float()
            total = scores if total is None else total.add_(scores)
    if total is None:
        raise ModelError("MODEL_CLOSED", "The model was closed; load it again.")
    if many and recipe.output.kind != "labels":
        total /= len(mirrors) * len(forwards)
    return _checked(total.unsqueeze(2) if flat and total.ndim == 4 else total, len(places), tile, recipe)


def _asked(forward: Callable[[Tensor], Tensor], given: Tensor, numerics: Numerics) -> Pieces:
    """One network's answer, in pieces if it has them."""
    begin = getattr(forward, "pieces", None)
    if begin is None:
        with numerics.active():
            return forward(given)
    work: Pieces = begin(given)
    while True:
        try:
            with numerics.active():
                next(work)
        except StopIteration as end:
            scores: Tensor = end.value
            return scores
        yield


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
    if output.kind == "labels":
        _refuse_other_labels(scores, len(output.channels or range(_LABELS)))
    return scores


def _refuse_other_labels(scores: Tensor, count: int) -> None:
    """Labels that have no number, which as bytes would be those of something else."""
    low, high = (float(end) for end in torch.aminmax(scores.float()))
    if not (low > -0.5 and high < count - 0.5):  # so that what is no number is refused as well
        raise ModelError(
            "NETWORK_OUTPUT_INVALID",
            f"The network answered with labels from {low:g} to {high:g}; the recipe knows 0 to {count - 1}.",
        )
