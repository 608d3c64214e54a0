"""Plausibility of a result without a truth: the quality rules of a card, held against what was found.

Each rule gives a finding for every structure (or pair, or order) that it names:

``volume_ml``
    Millilitres, between minimum and maximum. A structure that was not found has 0 mL.
``largest_share``
    Part of the voxels in the largest connected piece, 0..1; ``pieces``: how many pieces there are.
``complete``
    The structure does not touch the border of the field of view; with ``axis`` only its two ends. Otherwise
    it may go on beyond, and its size is a lower bound: PARTIAL, unless the rule says otherwise.
``left_right``
    Structures in pairs: the sizes differ by at most ``maximum`` percent of their mean, and the left one lies
    left of the right one in the patient. Which one is left its code says, or its key, else the first.
``order``
    From right to left, anterior to posterior, or superior to inferior (the usual): centroids follow each
    other as listed, and none is missing between two that were found.
``mean_value``
    Mean of the image inside, in its unit: HU for CT.
``confidence``
    Mean margin between the best and second best class, 0..1, where the model measured it.

A rule about a structure that was not found says nothing, but for ``volume_ml`` and ``order``, and
``left_right`` where only one of the two was found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ai.measure import Measurement
from ai.model import ModelSpec
from ai.quality.findings import Finding, Verdict, reasons, worst
from ai.quality.rules import RULES, Evidence

if TYPE_CHECKING:
    from ai.shape import Shape

__all__ = ["Finding", "Verdict", "check_quality", "reasons", "shape_needs", "worst"]


def check_quality(
    spec: ModelSpec,
    measurements: Sequence[Measurement],
    shapes: Mapping[int, Shape],
    confidence: Mapping[int, float],
    unit: str = "",
) -> tuple[Finding, ...]:
    """Hold every rule of the card against a result, in the card's order.

    Parameters
    ----------
    shapes
        Of every structure that a rule names and that was found; see :func:`shape_needs`.
    unit
        Of the image's values.

    Raises
    ------
    ModelError
        ``MODEL_CARD_INVALID``: left_right with an odd number of structures.
    """
    evidence = Evidence(
        structures={structure.key: structure for structure in spec.structures},
        measurements={m.structure.number: m for m in measurements},
        shapes=shapes,
        confidence=confidence,
        unit=unit,
    )
    return tuple(finding for rule in spec.quality for finding in RULES[rule.kind](rule, evidence))


def shape_needs(spec: ModelSpec) -> tuple[frozenset[int], frozenset[int]]:
    """Numbers of the structures whose shape the rules ask for, and of those whose pieces they ask for."""
    numbers = spec.numbers()
    shaped = ("complete", "left_right", "order", "largest_share", "pieces")
    return (
        frozenset(numbers[key] for rule in spec.quality if rule.kind in shaped for key in rule.structures),
        frozenset(
            numbers[key] for rule in spec.quality if rule.kind in shaped[3:] for key in rule.structures
        ),
    )
