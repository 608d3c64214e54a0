"""What is measured of one structure."""

from __future__ import annotations

from dataclasses import dataclass

from ai.measure.extents import Reach
from ai.model import Structure


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
    reach
        Longest axial diameter and extents; None of a projection image, or when nothing was found.
    """

    structure: Structure
    voxel_count: int
    volume_ml: float
    intensity: Statistics | None
    area_mm2: float | None = None
    reach: Reach | None = None

    @property
    def found(self) -> bool:
        """Whether any voxel belongs to the structure."""
        return self.voxel_count > 0

    @property
    def size(self) -> float:
        """Millilitres, or square millimetres on the detector of a radiograph."""
        return self.volume_ml if self.area_mm2 is None else self.area_mm2
