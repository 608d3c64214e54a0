"""Measurements on a label map: sizes, intensity statistics, overlap with a reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ai.measure.extents import Outlines, Reach
from ai.measure.pairs import Pair, found_pairs
from ai.measure.sizes import Measurement, Statistics
from ai.model import Structure
from ai.volume import LabelArray, Volume

__all__ = ["Measurement", "Pair", "Reach", "Statistics", "dice", "found_pairs", "measure"]

_NUMBERS = 256  # a label map is uint8


def measure(volume: Volume, labels: LabelArray, structures: Sequence[Structure]) -> tuple[Measurement, ...]:
    """Measure every structure of the card, found or not, in the card's order.

    A structure is every voxel with its own number, or with one that it includes. Volume is the number of
    voxels times the volume of one (IBSI YEKZ, "approximate volume"), which differs from slice to slice where
    slices are unevenly spaced. Of a projection image it is the area that is measured, the number of pixels
    times the area of one. The volume is passed through once, slice by slice, in float64; squares are taken
    about each slice's mean and merged (Chan, Golub and LeVeque 1979), so a large offset costs no precision.
    Diameter and extents: see :mod:`ai.measure.extents`.

    Parameters
    ----------
    labels
        uint8 ``(slices, rows, columns)`` on the grid of ``volume``.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    if labels.shape != volume.voxels.shape:
        raise ValueError(f"the label map is {labels.shape}, the volume {volume.voxels.shape}")
    geometry = volume.geometry
    voxels_ml = geometry.voxel_volumes_ml
    tally, outlines = _Tally(), Outlines(geometry)
    for index, (plane, numbers) in enumerate(zip(volume.voxels, labels, strict=True)):
        tally.add(plane, numbers, voxels_ml[index] / voxels_ml[0])
        if not geometry.is_projection:
            outlines.add(index, numbers)
    reaches = outlines.reaches([structure.numbers for structure in structures])
    measured = tuple(
        replace(tally.measurement(structure, voxels_ml[0]), reach=reach)
        for structure, reach in zip(structures, reaches, strict=True)
    )
    if not geometry.is_projection:
        return measured
    pixel_mm2 = geometry.pixel_area_mm2
    return tuple(replace(m, volume_ml=0.0, area_mm2=m.voxel_count * pixel_mm2) for m in measured)


def dice(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> float:
    """Dice coefficient 2|A∩B| / (|A|+|B|) of two masks of one shape (Dice 1945); 1.0 if both are empty."""
    if a.shape != b.shape:
        raise ValueError(f"the masks differ in shape: {a.shape} and {b.shape}")
    total = int(np.count_nonzero(a)) + int(np.count_nonzero(b))
    return 1.0 if total == 0 else 2.0 * int(np.count_nonzero(a & b)) / total


class _Tally:
    """Running count, extent, mean, sum of squared deviations and extremes for every label number.

    The extent counts a voxel as often as it is larger than those of the first slice.
    """

    def __init__(self) -> None:
        self.count = np.zeros(_NUMBERS, np.int64)
        self.extent = np.zeros(_NUMBERS, np.float64)
        self.mean = np.zeros(_NUMBERS, np.float64)
        self.squares = np.zeros(_NUMBERS, np.float64)
        self.minimum = np.full(_NUMBERS, np.inf)
        self.maximum = np.full(_NUMBERS, -np.inf)

    def add(
        self, plane: npt.NDArray[np.int16] | npt.NDArray[np.float32], numbers: LabelArray, size: float
    ) -> None:
        """Take in one slice, whose voxels are ``size`` times as large as those of the first."""
        kept = np.flatnonzero(numbers)
        if kept.size == 0:
            return
        number = numbers.reshape(-1)[kept]
        value = plane.reshape(-1)[kept].astype(np.float64)
        count = np.bincount(number, minlength=_NUMBERS)
        mean = np.bincount(number, value, _NUMBERS) / np.maximum(count, 1)
        squares = np.bincount(number, (value - mean[number]) ** 2, _NUMBERS)
        total = np.maximum(self.count + count, 1)
        step = mean - self.mean
        self.squares += squares + step**2 * (self.count * count / total)
        self.mean += step * (count / total)
        self.count += count
        self.extent += size * count
        for present in np.flatnonzero(count):
            inside = value[number == present]
            self.minimum[present] = min(self.minimum[present], inside.min())
            self.maximum[present] = max(self.maximum[present], inside.max())

    def measurement(self, structure: Structure, voxel_ml: float) -> Measurement:
        """The result for one structure; ``voxel_ml`` is the volume of a voxel of the first slice."""
        numbers = list(dict.fromkeys(structure.numbers))
        each = self.count[numbers]
        count = int(each.sum())
        if count == 0:
            return Measurement(structure, 0, 0.0, None)
        mean = float(each @ self.mean[numbers]) / count
        apart = self.mean[numbers] - mean
        squares = float(self.squares[numbers].sum() + each @ apart**2)
        statistics = Statistics(
            mean=mean,
            sd=float(np.sqrt(squares / count)),
            minimum=float(self.minimum[numbers].min()),
            maximum=float(self.maximum[numbers].max()),
        )
        volume_ml = float(self.extent[numbers].sum()) * float(voxel_ml)
        return Measurement(structure, count, volume_ml, statistics)
