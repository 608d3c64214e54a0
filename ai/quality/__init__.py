"""Plausibility of a result without a truth: what is usual, and the quality rules of a card.

Before a model runs, :func:`ai.model.check_input` holds the series against the card, which is the first check.
The others come after it, and each gives a finding for every structure (or pair, or order) that it names:

``complete``
    The structure does not touch the border of the field of view; with ``axis`` only its two ends. Otherwise
    it may go on beyond, and its size is a lower bound: PARTIAL, unless the rule says otherwise. Asked of
    every structure; a rule about a structure takes the place of what is usual.
``largest_share``
    Part of the voxels in the largest connected piece, 0..1; ``pieces``: how many pieces there are.
``left_right``
    Structures in pairs: the sizes differ by at most ``maximum`` percent of their mean, and the left one lies
    left of the right one in the patient. Which one is left its code says, or its key, else the first. That
    the two lie on their sides is asked of every pair whose codes differ by the side only.
``order``
    From right to left, anterior to posterior, or superior to inferior (the usual): centroids follow each
    other as listed, and none is missing between two that were found. Each place that is wrong is a finding
    of its own. Asked of vertebrae without a rule.
``volume_ml``
    Millilitres, between minimum and maximum. A structure that was not found has 0 mL.
``mean_value``
    Mean of the image inside, in its unit: HU for CT.
``coverage``
    The structures were found, where all of ``given`` were found and the image spans at least ``minimum`` mm
    along ``axis``.
``confidence``
    Mean margin between the best and second best class, 0..1, where the model measured it, in the voxels that
    have the structure's own number.

A rule about a structure that was not found says nothing, but for ``volume_ml``, ``coverage`` and ``order``,
and ``left_right`` where only one of the two was found. A structure has its own voxels and those of the
structures that it includes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ai.measure import Measurement
from ai.model import ModelSpec
from ai.quality.findings import Finding, Verdict, reasons, worst
from ai.quality.rules import RULES, Evidence
from ai.quality.segments import segment_verdicts
from ai.quality.usual import usual_rules

if TYPE_CHECKING:
    from ai.shape import Shape

__all__ = ["Finding", "Verdict", "check_quality", "reasons", "segment_verdicts", "shape_needs", "worst"]


def check_quality(
    spec: ModelSpec,
    measurements: Sequence[Measurement],
    shapes: Mapping[int, Shape],
    confidence: Mapping[int, float],
    unit: str = "",
    extent_mm: tuple[float, float, float] | None = None,
) -> tuple[Finding, ...]:
    """Hold every rule of the card in its order, then what is usual, against a result.

    Parameters
    ----------
    shapes
        Of every structure that was found; see :func:`shape_needs`.
    unit
        Of the image's values.
    extent_mm
        Of the image along the patient axes (right-left, anterior-posterior, superior-inferior); None of a
        radiograph.
    """
    evidence = Evidence(
        structures={structure.key: structure for structure in spec.structures},
        measurements={m.structure.number: m for m in measurements},
        shapes=shapes,
        confidence=confidence,
        unit=unit,
        extent_mm=extent_mm,
    )
    usual = [
        rule
        for rule, only_if_found in usual_rules(spec)
        if not only_if_found or all(evidence.found(key) for key in rule.structures)
    ]
    return tuple(finding for rule in (*spec.quality, *usual) for finding in RULES[rule.kind](rule, evidence))


def shape_needs(spec: ModelSpec) -> tuple[frozenset[int], frozenset[int]]:
    """Numbers of the structures whose centroid is asked for, and of those whose pieces are."""
    numbers = spec.numbers()
    rules = (*(rule for rule, _ in usual_rules(spec)), *spec.quality)

    def asked(*kinds: str) -> frozenset[int]:
        return frozenset(numbers[key] for rule in rules if rule.kind in kinds for key in rule.structures)

    return asked("left_right", "order"), asked("largest_share", "pieces")
