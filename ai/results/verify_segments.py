"""The segments of a SEG that was read back, against the structures of the card."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence
from typing import NoReturn

import numpy as np

from ai.errors import ResultMismatch
from ai.model import Structure
from ai.results.context import ResultContext
from ai.results.seg.plan import SegPlan
from ai.results.verify_elements import Values, path, text
from ai.results.verify_file import SegFile
from ai.results.verify_voxels import inside

_NUMBER = path("SegmentNumber")
_LABEL = path("SegmentLabel")
_DESCRIPTION = path("SegmentDescription")
_ALGORITHM_TYPE = path("SegmentAlgorithmType")
_ALGORITHM_NAME = path("SegmentAlgorithmName")
_ALGORITHM_VERSION = path("SegmentationAlgorithmIdentificationSequence", "AlgorithmVersion")
_TRACKING_ID = path("TrackingID")
_TRACKING_UID = path("TrackingUID")
_COLOUR = path("RecommendedDisplayCIELabValue")
_CATEGORY = ("SegmentedPropertyCategoryCodeSequence",)
_TYPE = ("SegmentedPropertyTypeCodeSequence",)
_MODIFIER = (*_TYPE, "SegmentedPropertyTypeModifierCodeSequence")
_REGION = ("AnatomicRegionSequence",)
_BACKGROUND = ("125040", "DCM", "Background")  # CID 7151


def mismatch(what: str) -> NoReturn:
    """Stop a SEG that differs from its label map: raises ResultMismatch."""
    raise ResultMismatch("SEG_ROUND_TRIP_MISMATCH", f"The encoded SEG differs from the label map: {what}.")


def expect(what: str, found: object, expected: object) -> None:
    """Compare one value of a SEG with what it must be; raises ResultMismatch."""
    if found != expected:
        mismatch(f"{what} is {found!r}, expected {expected!r}")


def check_segments(seg: SegFile, plan: SegPlan, context: ResultContext) -> None:
    """Compare the description of every segment with the card's; raises ResultMismatch.

    Segment n describes the n-th structure of the plan. In a label map the item of the background, number 0,
    comes last, for viewers take colours by the place of an item and not by its number.
    """
    wanted = list(range(1, len(plan.structures) + 1))
    if plan.kind == "label_map":
        wanted.append(0)
    numbers = [int.from_bytes(item[_NUMBER][0], "little") for item in seg.segments]
    expect("the list of segment numbers", numbers, wanted)
    for number, structure in enumerate(plan.structures, start=1):
        _check_segment(seg.segments[number - 1], f"segment {number}", structure, context)
    if plan.kind == "label_map":
        expect("the type of segment 0", _codes(seg.segments[-1], *_TYPE), [_BACKGROUND])
    holders = Counter(value for structure in plan.structures for value in structure.numbers)
    shared = [value for value, count in holders.items() if count > 1]
    overlap = any(inside(plane, shared).any() for plane in context.labels) if shared else False
    expect("SegmentsOverlap", seg.header.get("SegmentsOverlap"), "YES" if overlap else "NO")


def _check_segment(item: Values, name: str, structure: Structure, context: ResultContext) -> None:
    terms = structure.coded
    for what, element, expected in (
        ("label", _LABEL, structure.label),
        ("description", _DESCRIPTION, structure.description),
        ("algorithm type", _ALGORITHM_TYPE, "AUTOMATIC"),
        ("tracking UID", _TRACKING_UID, context.identity.tracking_uids[structure.number]),
        ("algorithm name", _ALGORITHM_NAME, context.spec.title),
        ("algorithm version", _ALGORITHM_VERSION, context.spec.version),
    ):
        wanted = [expected.strip(" \0")] if expected else []
        expect(f"the {what} of {name}", [text(v) for v in item.get(element, ())], wanted)
    if not any(text(value) for value in item.get(_TRACKING_ID, ())):
        mismatch(f"{name} has no tracking ID")
    colours = [_rgb(struct.unpack("<3H", value)) for value in item.get(_COLOUR, ())]
    expect(f"the colour of {name}", colours, [terms.rgb])
    for what, sequences, code in (
        ("category", _CATEGORY, terms.category),
        ("type", _TYPE, terms.type),
        ("modifiers", _MODIFIER, terms.modifier),
        ("region", _REGION, terms.region),
    ):
        codes = [(code.value, code.scheme, code.meaning.strip())] if code else []
        expect(f"the {what} of {name}", _codes(item, *sequences), codes)


def _codes(item: Values, *sequences: str) -> list[tuple[str, ...]]:
    """Code Value, Coding Scheme Designator and Code Meaning, which viewers show, of a code sequence."""
    keywords = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")
    columns = [item.get(path(*sequences, keyword), []) for keyword in keywords]
    return [tuple(map(text, values)) for values in zip(*columns, strict=True)]


def _rgb(cielab: Sequence[int]) -> tuple[int, ...]:
    """The sRGB colour 0..255 of a display value (PS3.3 C.10.7.1.1), with white D65, as viewers read it."""
    light, a, b = (float(v) / 65535 for v in cielab)
    y = (light * 100 + 16) / 116
    f = np.array([y + (a * 255 - 128) / 500, y, y - (b * 255 - 128) / 200])
    xyz = np.array([0.95047, 1.0, 1.08883]) * np.where(f > 6 / 29, f**3, (f - 4 / 29) * 108 / 841)
    linear = np.clip(_XYZ_TO_SRGB @ xyz, 0, 1)
    encoded = np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)
    return tuple(int(v) for v in np.rint(encoded * 255))


_XYZ_TO_SRGB = np.array([[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]])
