"""Which Segmentation objects a run gives: the kind of each, and the structures in it."""

from __future__ import annotations

from dataclasses import dataclass

from ai.model import Structure
from ai.profile import SegmentationKind
from ai.results.context import ResultContext


@dataclass(frozen=True)
class SegPlan:
    """One Segmentation object.

    Attributes
    ----------
    number
        Its Instance Number in the series of the run's segmentations, from 1.
    structures
        In the order of their segment numbers, which are 1 to n in every object.
    """

    number: int
    kind: SegmentationKind
    structures: tuple[Structure, ...]


def plan_segs(context: ResultContext) -> tuple[SegPlan, ...]:
    """Distribute the structures of a card over objects, as the profile of the destination wants."""
    return (SegPlan(1, "binary", context.spec.structures),)
