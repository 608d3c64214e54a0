"""Measurements on a label map: volumes or areas, intensity statistics, overlap with a reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ai.model import Structure
from ai.volume import LabelArray, Volume

_NUMBERS = 256  # a label map is uint8


@dataclass(frozen=True)
class Statistics:
    """Intensity inside a structure, in the unit of the volume (HU for CT); sd is the population SD."""

    mean: float
    sd: float
    minimum: float
    maximum: float


@dataclass(frozen=True)
class Measurement:
    """What was measured of one structure.

    Attributes
    ----------
    volume_ml
        0 in a projection image, which has no depth.
    intensity
        None when nothing was found.
    area_mm2
        In the plane of the detector, of a projection image; None of a volume.
    """

    structure: Structure
    voxel_count: int
    volume_ml: float
    intensity: Statistics | None
    area_mm2: float | None = None

    @property
    def found(self) -> bool:
        """Whether any voxel carries the structure's number."""
        return self.voxel_count > 0


def measure(volume: Volume, labels: LabelArray, structures: Sequence[Structure]) -> tuple[Measurement, ...]:
    """Measure every structure of the card, found or not, in the card's order.

    Volume is the number of voxels times the volume of one (IBSI YEKZ, "approximate volume"), which differs
    from slice to slice where slices are unevenly spaced. Of a projection image it is the area that is
    measured, the number of pixels times the area of one. The volume is passed through once, slice by slice,
    in float64; squares are taken about each slice's mean and merged (Chan, Golub and LeVeque 1979), so a
    large offset costs no precision.

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
    voxels_ml = volume.geometry.voxel_volumes_ml
    tally = _Tally()
    for plane, numbers, voxel_ml in zip(volume.voxels, labels, voxels_ml, strict=True):
        tally.add(plane, numbers, voxel_ml / voxels_ml[0])
    measured = tuple(tally.measurement(structure, voxels_ml[0]) for structure in structures)
    if not volume.geometry.is_projection:
        return measured
    pixel_mm2 = volume.geometry.pixel_area_mm2
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
        n = structure.number
        count = int(self.count[n])
        if count == 0:
            return Measurement(structure, 0, 0.0, None)
        statistics = Statistics(
            mean=float(self.mean[n]),
            sd=float(np.sqrt(self.squares[n] / count)),
            minimum=float(self.minimum[n]),
            maximum=float(self.maximum[n]),
        )
        return Measurement(structure, count, float(self.extent[n]) * float(voxel_ml), statistics)
