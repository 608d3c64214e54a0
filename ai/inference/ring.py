"""Sums of the tiles' answers, for those planes only that are still being worked on.

Tiles advance along one axis, the ring axis. Planes behind them are finished, are read as scores, and give
their room to the next ones: memory is that of one row of tiles, whatever the length of the volume.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from ai.inference.tiling import Plan, Shape


class ScoresNotFinite(Exception):
    """Sums went beyond the range of their type; float32 has room."""


class Sums(Protocol):
    """Answers of tiles, put together; indices are those of the padded grid, its ring axis first."""

    def add(self, place: Shape, answer: Tensor) -> None:
        """Take the answer ``(classes, *tile)`` of the tile that starts at ``place`` (axes of the grid)."""
        ...

    def read(self, planes: slice, rows: slice, columns: slice) -> Tensor:
        """float32 ``(classes, planes, rows, columns)``, ring axis first."""
        ...

    def advance(self, first: int) -> None:
        """Planes before ``first`` are not needed any more."""
        ...


class _Ring:
    """Where a plane lies in memory; shared by both kinds of sums."""

    def __init__(self, plan: Plan, importance: Tensor, device: str) -> None:
        self._ring = plan.ring
        self._tile = plan.tile
        self._shape = tuple(plan.depth if axis == plan.ring else n for axis, n in enumerate(plan.shape))
        self._importance = importance.to(device)
        self._weights = torch.zeros(self._shape, device=device)
        self._first = 0

    def _where(self, place: Shape) -> tuple[slice, ...]:
        """Where in memory the tile that starts at ``place`` lies."""
        begins = [start - self._first if axis == self._ring else start for axis, start in enumerate(place)]
        return tuple(slice(begin, begin + n) for begin, n in zip(begins, self._tile, strict=True))

    def _window(self, array: Tensor, planes: slice, rows: slice, columns: slice) -> Tensor:
        """Part of ``(..., x, y, z)`` with the ring axis before the two others."""
        moved = array.movedim(array.ndim - 3 + self._ring, array.ndim - 3)
        return moved[..., planes.start - self._first : planes.stop - self._first, rows, columns]

    def _move(self, array: Tensor, step: int) -> None:
        """Bring the planes from ``step`` on to the front; empty ones follow."""
        axis = array.ndim - 3 + self._ring
        kept = array.shape[axis] - step
        for done in range(0, max(kept, 0), step):  # in pieces that do not overlap
            count = min(step, kept - done)
            array.narrow(axis, done, count).copy_(array.narrow(axis, done + step, count))
        array.narrow(axis, max(kept, 0), min(step, array.shape[axis])).zero_()


class WeightedSums(_Ring):
    """Weighted mean of scores. Sums are float16 or float32, never bfloat16, which has too few digits."""

    def __init__(self, plan: Plan, importance: Tensor, classes: int, dtype: torch.dtype, device: str) -> None:
        super().__init__(plan, importance, device)
        self._sums = torch.zeros((classes, *self._shape), dtype=dtype, device=device)

    def add(self, place: Shape, answer: Tensor) -> None:
        """See :class:`Sums`."""
        where = self._where(place)
        into = self._sums[(slice(None), *where)]
        for start in range(0, len(into), _AT_A_TIME):
            group = slice(start, start + _AT_A_TIME)
            into[group] += answer[group].to(self._importance.device).float() * self._importance
        self._weights[where] += self._importance

    def read(self, planes: slice, rows: slice, columns: slice) -> Tensor:
        """See :class:`Sums`; raises ScoresNotFinite."""
        weights = self._window(self._weights, planes, rows, columns)
        scores = self._window(self._sums, planes, rows, columns).float() / weights
        if not bool(torch.isfinite(scores.sum())) and not bool(torch.isfinite(scores).all()):
            raise ScoresNotFinite
        return scores

    def advance(self, first: int) -> None:
        """See :class:`Sums`."""
        if first > self._first:
            self._move(self._sums, first - self._first)
            self._move(self._weights, first - self._first)
            self._first = first


class NearestLabels(_Ring):
    """For networks that answer with labels: each voxel takes that of the tile whose centre is nearest."""

    def __init__(self, plan: Plan, importance: Tensor, device: str) -> None:
        super().__init__(plan, importance, device)
        self._labels = torch.zeros((1, *self._shape), dtype=torch.uint8, device=device)

    def add(self, place: Shape, answer: Tensor) -> None:
        """See :class:`Sums`; ``answer`` is ``(1, *tile)``."""
        where = self._where(place)
        better = self._importance > self._weights[where]
        into = self._labels[(slice(None), *where)]
        into.copy_(torch.where(better, answer.to(self._importance.device).round().to(torch.uint8), into))
        self._weights[where] = torch.maximum(self._weights[where], self._importance)

    def read(self, planes: slice, rows: slice, columns: slice) -> Tensor:
        """See :class:`Sums`."""
        return self._window(self._labels, planes, rows, columns).float()

    def advance(self, first: int) -> None:
        """See :class:`Sums`."""
        if first > self._first:
            self._move(self._labels, first - self._first)
            self._move(self._weights, first - self._first)
            self._first = first


_AT_A_TIME = 8  # classes, so that weighted copies stay small
