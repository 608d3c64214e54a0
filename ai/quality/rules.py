"""The kinds of rules; :mod:`ai.quality` says what each asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from ai.measure import Measurement
from ai.model import Rule, Structure
from ai.model.rule import Axis
from ai.quality.findings import Finding, Verdict

if TYPE_CHECKING:
    from ai.shape import Shape

_AXES = {"right_left": (0, 1.0), "anterior_posterior": (1, 1.0), "superior_inferior": (2, -1.0)}
"""LPS axis, and the sign in which it grows in the order that the name says."""
_ENDS = {
    "right_left": ("right", "left"),
    "anterior_posterior": ("anterior", "posterior"),
    "superior_inferior": ("superior", "inferior"),
}
_SIDES = {"7771000": "left", "24028007": "right"}  # SCT, CID 244 "Laterality"


@dataclass(frozen=True)
class Evidence:
    """What the rules are held against, by structure number; a shape only where something was found.

    ``extent_mm`` is that of the image along the patient axes, see :func:`ai.model.check.extent_lps_mm`; None
    of a radiograph.
    """

    structures: Mapping[str, Structure]
    measurements: Mapping[int, Measurement]
    shapes: Mapping[int, Shape]
    confidence: Mapping[int, float]
    unit: str
    extent_mm: tuple[float, float, float] | None

    def found(self, key: str) -> bool:
        """Whether the structure has a voxel."""
        return self.measurements[self.number(key)].found

    def size(self, key: str) -> tuple[float, str]:
        """Volume in millilitres, or the area in a radiograph in square millimetres; with its unit."""
        measurement = self.measurements[self.number(key)]
        if measurement.area_mm2 is not None:
            return measurement.area_mm2, "mm²"
        return measurement.volume_ml, "mL"

    def number(self, key: str) -> int:
        """Number of a structure."""
        return self.structures[key].number

    def place_mm(self, key: str, axis: int) -> float:
        """Coordinate of the centroid of a structure that was found, LPS."""
        centroid_mm = self.shapes[self.number(key)].centroid_mm
        if centroid_mm is None:
            raise ValueError(f"no centroid of {key} was computed")
        return centroid_mm[axis]

    def label(self, key: str) -> str:
        """Name of a structure for people."""
        return self.structures[key].label


def _bounded(rule: Rule, key: str, name: str, value: float, text: Callable[[float], str]) -> Finding:
    """A number between the bounds of its rule."""
    low, high = rule.minimum, rule.maximum
    reason = f"{name} {text(value)}"
    within = (low is None or value >= low) and (high is None or value <= high)
    if low is not None and high is not None:
        bound = f"{text(low)} to {text(high)}"
    else:
        bound = (
            f"at least {text(low)}"
            if low is not None
            else f"at most {text(high)}"
            if high is not None
            else ""
        )
    told = f"{reason}; expected {bound}." if bound else f"{reason}."
    return Finding((key,), rule.kind, Verdict.PASS if within else Verdict(rule.verdict), told, value)


def _volume(rule: Rule, evidence: Evidence) -> Iterator[Finding]:
    for key in rule.structures:
        measurement = evidence.measurements[evidence.number(key)]
        if measurement.area_mm2 is None:  # a radiograph has no volume
            name = f"{evidence.label(key)}:"
            yield _bounded(rule, key, name, measurement.volume_ml, lambda value: _size(value, "mL"))


def _largest_share(rule: Rule, evidence: Evidence) -> Iterator[Finding]:
    for key in filter(evidence.found, rule.structures):
        share = evidence.shapes[evidence.number(key)].largest_share
        if share is not None:
            name = f"{evidence.label(key)}: share of the largest piece"
            yield _bounded(rule, key, name, share, lambda value: f"{100 * value:.3g} %")


def _pieces(rule: Rule, evidence: Evidence) -> Iterator[Finding]:
    for key in filter(evidence.found, rule.structures):
        pieces = evidence.shapes[evidence.number(key)].pieces
        if pieces is not None:
            yield _bounded(rule, key, f"{evidence.label(key)}: pieces", pieces, lambda value: f"{value:g}")


def _mean_value(rule: Rule, evidence: Evidence) -> Iterator[Finding]:
    unit = f" {evidence.unit}" if evidence.unit else ""
    for key in filter(evidence.found, rule.structures):
        intensity = evidence.measurements[evidence.number(key)].intensity
        if intensity is not None:
            name = f"{evidence.label(key)}: mean value"
            yield _bounded(rule, key, name, intensity.mean, lambda value: f"{value:.4g}{unit}")


def _confidence(rule: Rule, evidence: Evidence) -> Iterator[Finding]:
    for key in filter(evidence.found, rule.structures):
        margin = evidence.confidence.get(evidence.number(key))
        if margin is not None:
            name = f"{evidence.label(key)}: confidence"
            yield _bounded(rule, key, name, margin, lambda value: f"{value:.3g}")


def _complete(rule: Rule, evidence: Evidence) -> Iterator[Finding]:
    verdict = Verdict(rule.verdict) if "verdict" in rule.model_fields_set else Verdict.PARTIAL
    if verdict is Verdict.PASS:  # it always goes on beyond the image
        return
    for key in filter(evidence.found, rule.structures):
        asked = _ENDS[rule.axis] if rule.axis else tuple(end for pair in _ENDS.values() for end in pair)
        sides = [side for side in evidence.shapes[evidence.number(key)].sides if side in asked]
        label = evidence.label(key)
        if not sides:
            yield Finding((key,), rule.kind, Verdict.PASS, f"{label}: within the field of view.")
            continue
        text = f"{label}: touches the {' and '.join(sides)} border of the field of view; "
        yield Finding((key,), rule.kind, verdict, f"{text}{_size(*evidence.size(key))} is a lower bound.")


def _left_right(rule: Rule, evidence: Evidence) -> Iterator[Finding]:
    keys = rule.structures
    for pair in zip(keys[::2], keys[1::2], strict=True):
        missing = [evidence.label(key) for key in pair if not evidence.found(key)]
        if len(missing) == 2:
            continue
        left, right = _sided(pair, evidence)
        if missing:
            there = next(evidence.label(key) for key in pair if evidence.found(key))
            told = f"{missing[0]} was not found, {there} was."
            yield Finding((left, right), rule.kind, Verdict(rule.verdict), told)
            continue
        yield _sides_of(left, right, rule, evidence)
        if rule.maximum is not None:
            yield _difference(left, right, rule, rule.maximum, evidence)


def _sided(pair: tuple[str, str], evidence: Evidence) -> tuple[str, str]:
    """The pair as (left, right)."""
    first, second = (laterality(evidence.structures[key]) for key in pair)
    swapped = first == "right" or (second == "left" and first != "left")
    return (pair[1], pair[0]) if swapped else pair


def laterality(structure: Structure) -> str:
    """``left``, ``right`` or empty: what its code says, or its key."""
    modifier = structure.coded.modifier
    if modifier is not None and modifier.value in _SIDES:
        return _SIDES[modifier.value]
    words = structure.key.split("_")
    return next((side for side in ("left", "right") if side in words), "")


def _sides_of(left: str, right: str, rule: Rule, evidence: Evidence) -> Finding:
    """The left one must lie left in the patient: LPS x grows to the left."""
    apart_mm = evidence.place_mm(left, 0) - evidence.place_mm(right, 0)
    text = f"{evidence.label(left)} lies {abs(apart_mm):.0f} mm {'left' if apart_mm > 0 else 'right'} of "
    verdict = Verdict.PASS if apart_mm > 0 else Verdict(rule.verdict)
    return Finding((left, right), rule.kind, verdict, f"{text}{evidence.label(right)}.", apart_mm)


def _difference(left: str, right: str, rule: Rule, most: float, evidence: Evidence) -> Finding:
    (one, unit), (other, _) = evidence.size(left), evidence.size(right)
    percent = 100.0 * abs(one - other) / ((one + other) / 2.0)
    text = f"{evidence.label(left)} {_size(one, unit)}, {evidence.label(right)} {_size(other, unit)}: "
    text += f"{percent:.3g} % apart; expected at most {most:g} %."
    verdict = Verdict.PASS if percent <= most else Verdict(rule.verdict)
    return Finding((left, right), rule.kind, verdict, text, percent)


def _order(rule: Rule, evidence: Evidence) -> Iterator[Finding]:
    along = rule.axis or "superior_inferior"
    placed = [key for key in rule.structures if evidence.found(key)]
    if len(placed) < 2:
        return
    wrong = [*_gaps(rule.structures, placed, evidence), *_out_of_order(placed, along, evidence)]
    before = f"From {' to '.join(_ENDS[along])}: "
    for keys, text in wrong:
        yield Finding(keys, rule.kind, Verdict(rule.verdict), f"{before}{text}.")
    if not wrong:
        told = f"{before}{len(placed)} structures follow each other."
        yield Finding(tuple(placed), rule.kind, Verdict.PASS, told)


_Wrong = tuple[tuple[str, ...], str]
"""Keys that it concerns, and what is wrong with them."""


def _gaps(listed: Sequence[str], placed: Sequence[str], evidence: Evidence) -> Iterator[_Wrong]:
    """Each run of structures that are missing between two that were found."""
    for one, other in pairwise(placed):
        between = listed[listed.index(one) + 1 : listed.index(other)]
        if between:
            ends = f"{evidence.label(one)} and {evidence.label(other)}"
            names = ", ".join(evidence.label(key) for key in between)
            yield (one, *between, other), f"not found between {ends}: {names}"


def _out_of_order(placed: Sequence[str], along: Axis, evidence: Evidence) -> Iterator[_Wrong]:
    """Each two neighbours whose centroids do not follow each other."""
    axis, sign = _AXES[along]
    for one, other in pairwise(placed):
        step_mm = sign * (evidence.place_mm(other, axis) - evidence.place_mm(one, axis))
        if step_mm <= 0:
            names = evidence.label(other), evidence.label(one)
            yield (one, other), f"{names[0]} lies {-step_mm:.0f} mm {_ENDS[along][0]} of {names[1]}"


def _coverage(rule: Rule, evidence: Evidence) -> Iterator[Finding]:
    axis = rule.axis or "superior_inferior"
    reasons = []
    if rule.minimum is not None:
        extent_mm = evidence.extent_mm[_AXES[axis][0]] if evidence.extent_mm else 0.0
        if extent_mm < rule.minimum:
            return
        reasons.append(f"the image spans {extent_mm:.0f} mm {axis.replace('_', '-')}")
    if not all(evidence.found(key) for key in rule.given):
        return
    if rule.given:
        names = " and ".join(evidence.label(key) for key in rule.given)
        reasons.append(f"{names} {'was' if len(rule.given) == 1 else 'were'} found")
    why = f", and {' and '.join(reasons)}" if reasons else ""
    for key in rule.structures:
        if evidence.found(key):
            yield Finding((key,), rule.kind, Verdict.PASS, f"{evidence.label(key)}: found, as expected.")
        else:
            told = f"{evidence.label(key)}: not found{why}."
            yield Finding((key,), rule.kind, Verdict(rule.verdict), told)


def _size(value: float, unit: str) -> str:
    digits = 0 if unit == "mm²" else 1
    return f"{value:.{digits}f} {unit}" if value >= 10.0 else f"{value:.3g} {unit}"


RULES: Mapping[str, Callable[[Rule, Evidence], Iterator[Finding]]] = {
    "volume_ml": _volume,
    "largest_share": _largest_share,
    "pieces": _pieces,
    "complete": _complete,
    "left_right": _left_right,
    "order": _order,
    "mean_value": _mean_value,
    "coverage": _coverage,
    "confidence": _confidence,
}
"""What each kind of rule does."""
