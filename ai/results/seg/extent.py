"""Where the numbers of a label map are: the slices and rows that frames are cut to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ai.volume import LabelArray

_NUMBERS = 256  # a label map is uint8
_Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Extent:
    """The rows of each slice in which each number occurs.

    Attributes
    ----------
    first, stop
        int64 ``(slices, 256)``: index of the first row, and one past the last; the number of rows and 0 where
        the number does not occur.
    """

    first: _Rows
    stop: _Rows

    def rows(self, numbers: Iterable[int]) -> tuple[_Rows, _Rows]:
        """First row and stop of any of these numbers, each ``(slices,)``; stop is 0 where there is none."""
        chosen = list(numbers)
        return self.first[:, chosen].min(axis=1), self.stop[:, chosen].max(axis=1)

    def slices(self, numbers: Iterable[int]) -> npt.NDArray[np.bool_]:
        """Whether any of these numbers occurs on a slice, ``(slices,)``."""
        found: npt.NDArray[np.bool_] = np.any(self.stop[:, list(numbers)] > 0, axis=1)
        return found

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers that occur anywhere, without 0."""
        found = np.flatnonzero(self.stop.any(axis=0))
        return tuple(int(number) for number in found if number)


def find_extent(labels: LabelArray) -> Extent:
    """Find slices and rows of every number.

    Only where a voxel differs from the one before it a number begins, so that each slice is compared with
    itself once, and only the beginnings of runs are looked at.

    Parameters
    ----------
    labels
        uint8 ``(slices, rows, columns)``.
    """
    slices, rows, columns = labels.shape
    first = np.full((slices, _NUMBERS), rows, np.int64)
    stop = np.zeros((slices, _NUMBERS), np.int64)
    for index, plane in enumerate(labels):
        flat = plane.reshape(-1)
        starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
        ends = np.append(starts[1:], flat.size)
        numbers = flat[starts]
        np.minimum.at(first[index], numbers, starts // columns)
        np.maximum.at(stop[index], numbers, (ends - 1) // columns + 1)
    return Extent(first, stop)
