"""From stored values to modality units: what a header says, checked (PS3.3 C.11.1, C.8.2.1, C.8.9.1)."""

from __future__ import annotations

from typing import NamedTuple

from ai.errors import SeriesRefused
from ai.source import Facts

_HOUNSFIELD_TYPES = ("", "HU", "US")  # PS3.3 C.11.1.1.2; "unspecified" is what converters write
LARGEST_FACTOR = 1e9  # beyond this a slope or an intercept is no measurement, and float32 overflows
# Modality → what its values cannot be told without, and the unit that would be unknown.
_NEEDED = {
    "CT": (("RescaleSlope", "RescaleIntercept"), "in Hounsfield units"),
    "PT": (("RescaleSlope",), "as activity"),
}
_NAMES = {"RescaleSlope": "Rescale Slope", "RescaleIntercept": "Rescale Intercept"}


class Rescale(NamedTuple):
    """value = stored value × slope + intercept."""

    slope: float = 1.0
    intercept: float = 0.0

    def scaled(self, factor: float) -> Rescale:
        """The same, each value times a factor."""
        return Rescale(self.slope * factor, self.intercept * factor)


def rescale_of(facts: Facts, name: str) -> Rescale:
    """Slope and intercept of one frame, whose facts are those of the image under its own.

    Refuses what would give wrong numbers without a word. Raises SeriesRefused: UNSUPPORTED_RESCALE,
    RESCALE_INVALID, NOT_HOUNSFIELD.
    """
    if facts.get("ModalityLUTSequence"):
        raise SeriesRefused(
            "UNSUPPORTED_RESCALE",
            f"{name} maps its values by a Modality LUT; only Rescale Slope and Intercept are read.",
        )
    modality = first(facts, "Modality")
    needed, unit = _NEEDED.get(modality, ((), ""))
    for keyword, words in _NAMES.items():
        value = number(facts, keyword)
        if value is None and keyword in needed:
            wrong = f"has no {words}, so its values cannot be told {unit}"
        elif value is not None and not abs(value) <= LARGEST_FACTOR:  # also true for NaN
            wrong = f"has a {words} that is no usable number"
        elif value == 0.0 and keyword == "RescaleSlope":
            wrong = "has a Rescale Slope of 0, which makes every value the same"
        else:
            continue
        raise SeriesRefused("RESCALE_INVALID", f"{name} {wrong}.")
    rescale_type = first(facts, "RescaleType").upper()
    if modality == "CT" and rescale_type not in _HOUNSFIELD_TYPES:
        raise SeriesRefused(
            "NOT_HOUNSFIELD",
            f"{name} is a CT image in {rescale_type[:16]!r} (Rescale Type), not in Hounsfield units.",
        )
    slope, intercept = number(facts, "RescaleSlope"), number(facts, "RescaleIntercept")
    return Rescale(1.0 if slope is None else slope, intercept or 0.0)


def first(facts: Facts, keyword: str) -> str:
    """First value of an attribute, empty if there is none."""
    return next(iter(facts.get(keyword, ())), "")


def number(facts: Facts, keyword: str) -> float | None:
    """The single value of an attribute; None when absent, NaN when malformed."""
    values = facts.get(keyword, ())
    if not values:
        return None
    try:
        (value,) = values
        return float(value)
    except ValueError:
        return float("nan")
