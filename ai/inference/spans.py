"""Stretches of the network's axes and the voxels of the source that lie between their voxels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ai.inference.grid import Floats

WHOLE = 1 << 30
"""As a size: all of an axis."""
_AS_MATRIX = 32  # voxels up to which a product of matrices is quicker than gathering


@dataclass(frozen=True)
class Way:
    """One axis of the (cropped) source as seen from the padded grid of the network.

    Attributes
    ----------
    first
        The first voxel of the source that has an answer.
    places
        float64: where that voxel and those after it lie on the padded grid, ascending.
    begin, end
        The part of the padded grid that is no padding.
    """

    first: int
    places: Floats
    begin: int
    end: int

    @cached_property
    def below(self) -> Floats:
        """The voxels of the grid at or below ``places``."""
        return np.floor(self.places)

    @cached_property
    def exact(self) -> bool:
        """Every voxel lies on one of the network's: nothing between them is asked for."""
        return bool(np.all(self.places == self.below))


@dataclass(frozen=True)
class Span:
    """A stretch of one axis: what is read of the grid, and which voxels of the source it decides.

    ``own`` is how many of the voxels read are this stretch's and not also the next one's. ``low``, ``high``
    and ``weight`` say for each voxel of the source between which of those read it lies.
    """

    read: slice
    own: int
    rows: slice
    low: Tensor
    high: Tensor
    weight: Tensor
    parts: tuple[Span, ...] = ()

    @property
    def count(self) -> int:
        """Voxels of the source."""
        return len(self.low)

    @cached_property
    def plain(self) -> bool:
        """Read and source are the same."""
        return self.count == self.read.stop - self.read.start and not bool(self.weight.any())

    @cached_property
    def matrix(self) -> Tensor:
        """float32 ``(count, read)``: the voxels of the source as weighted means of those read."""
        matrix = torch.zeros(self.count, self.read.stop - self.read.start, device=self.low.device)
        row = torch.arange(self.count, device=self.low.device)
        matrix[row, self.low] += 1.0 - self.weight
        matrix[row, self.high] += self.weight
        return matrix

    def of(self, outer: Span) -> tuple[slice, slice]:
        """Where its voxels lie among those that ``outer`` reads, and its rows among those of ``outer``."""
        read = slice(self.read.start - outer.read.start, self.read.stop - outer.read.start)
        return read, slice(self.rows.start - outer.rows.start, self.rows.stop - outer.rows.start)


def span(way: Way, begin: int, end: int, device: torch.device, split: int = WHOLE) -> Span:
    """The stretch of the grid from ``begin`` up to ``end``, which is not its own, in parts of ``split``."""
    below = way.below
    first, last = (int(row) for row in np.searchsorted(below, (begin, end)))
    stop = end if way.exact else min(end + 1, way.end)
    low = below[first:last].astype(np.int64) - begin
    weight = (way.places[first:last] - below[first:last]).astype(np.float32)
    high = np.minimum(low + 1, stop - begin - 1)
    begins = range(begin, end, split) if split < end - begin else ()
    parts = tuple(span(way, start, min(start + split, end), device) for start in begins)
    rows = slice(way.first + first, way.first + last)
    return Span(
        read=slice(begin, stop),
        own=end - begin,
        rows=rows,
        low=torch.from_numpy(low).to(device),
        high=torch.from_numpy(high).to(device),
        weight=torch.from_numpy(weight).to(device),
        parts=parts,
    )


Spans = tuple[Span, Span, Span]


def spans_of(way: Way, size: int, split: int, device: torch.device) -> list[Span]:
    """All stretches of an axis, each ``size`` long and in parts of ``split``."""
    begins = range(way.begin, way.end, min(size, way.end - way.begin))
    return [span(way, begin, min(begin + size, way.end), device, split) for begin in begins]


def nearest(scores: Tensor, spans: Spans) -> Tensor:
    """Labels of the network at the voxels of the source, by nearest neighbour: int64."""
    values = scores[0]
    for axis, part in enumerate(spans):
        values = values.index_select(axis, part.low)
    return values.long()


def interpolate(scores: Tensor, spans: Spans) -> Tensor:
    """Scores ``(classes, planes, rows, columns)`` at the voxels of the source, linear."""
    planes, rows, columns = spans
    if not columns.plain:
        scores = _along(scores, 3, columns)
    if not rows.plain:
        scores = _along(scores, 2, rows)
    return scores if planes.plain else _along(scores, 1, planes)


def _along(scores: Tensor, axis: int, part: Span) -> Tensor:
    """Interpolate one axis: small ones as a product of matrices, which is quicker than gathering."""
    if part.own > _AS_MATRIX:
        below, above = scores.index_select(axis, part.low), scores.index_select(axis, part.high)
        return torch.lerp(below, above, part.weight.view([-1 if n == axis else 1 for n in range(4)]))
    if axis == 3:
        return scores @ part.matrix.T
    if axis == 2:
        return part.matrix @ scores
    return (part.matrix @ scores.flatten(2)).view(len(scores), part.count, *scores.shape[2:])
