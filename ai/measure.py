"""Measurements on a label map: volumes, intensity statistics, overlap with a reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ai.model import Structure
from ai.volume import LabelArray, Volume


@dataclass(frozen=True)
class Statistics:
    """Intensity inside a structure, in the unit of the volume (HU for CT); sd is the population SD."""

    mean: float
    sd: float
    minimum: float
    maximum: float


@dataclass(frozen=True)
class Measurement:
    """What was measured of one structure. ``intensity`` is None when nothing was found."""

    structure: Structure
    voxel_count: int
    volume_ml: float
    intensity: Statistics | None

    @property
    def found(self) -> bool:
        return self.voxel_count > 0


def measure(volume: Volume, labels: LabelArray, structures: Sequence[Structure]) -> tuple[Measurement, ...]:
    """Measure every structure of the card, found or not, in the card's order."""
    raise NotImplementedError
