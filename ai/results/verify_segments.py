"""The segments of a SEG that was read back, against the structures of the card."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import numpy as np
from pydicom.dataset import Dataset

from ai.errors import ResultMismatch
from ai.model import Structure
from ai.results.context import ResultContext
from ai.terminology import Code


def mismatch(what: str) -> NoReturn:
    """Stop a SEG that differs from its label map: raises ResultMismatch."""
    raise ResultMismatch("SEG_ROUND_TRIP_MISMATCH", f"The encoded SEG differs from the label map: {what}.")


def expect(what: str, found: object, expected: object) -> None:
    """Compare one value of a SEG with what it must be; raises ResultMismatch."""
    if found != expected:
        mismatch(f"{what} is {found!r}, expected {expected!r}")


def check_segments(seg: Dataset, context: ResultContext) -> None:
    """Compare the description of every segment with the card's; raises ResultMismatch."""
    structures = context.spec.structures
    numbers = [int(item.SegmentNumber) for item in seg.SegmentSequence]
    expect("the list of segment numbers", numbers, [s.number for s in structures])
    for item, structure in zip(seg.SegmentSequence, structures, strict=True):
        _check_segment(item, structure, context)


def _check_segment(item: Dataset, structure: Structure, context: ResultContext) -> None:
    terms = structure.coded
    name = f"segment {structure.number}"
    tracking_uid = context.identity.tracking_uids[structure.number]
    expect(f"the label of {name}", item.SegmentLabel, structure.label)
    expect(f"the algorithm type of {name}", item.SegmentAlgorithmType, "AUTOMATIC")
    expect(f"the tracking UID of {name}", item.TrackingUID, tracking_uid)
    if not item.TrackingID:
        mismatch(f"{name} has no tracking ID")
    expect(f"the colour of {name}", _rgb(item.RecommendedDisplayCIELabValue), terms.rgb)
    algorithm = item.SegmentationAlgorithmIdentificationSequence[0]
    expect(f"the algorithm version of {name}", algorithm.AlgorithmVersion, context.spec.version)
    (category,) = item.SegmentedPropertyCategoryCodeSequence
    (kind,) = item.SegmentedPropertyTypeCodeSequence
    expect(f"the category of {name}", _code(category), _pair(terms.category))
    expect(f"the type of {name}", _code(kind), _pair(terms.type))
    modifiers = [_code(m) for m in kind.get("SegmentedPropertyTypeModifierCodeSequence", ())]
    expect(f"the modifiers of {name}", modifiers, [_pair(terms.modifier)] if terms.modifier else [])
    regions = [_code(region) for region in item.get("AnatomicRegionSequence", ())]
    expect(f"the region of {name}", regions, [_pair(terms.region)] if terms.region else [])


def _code(item: Dataset) -> tuple[str, str]:
    return str(item.CodeValue), str(item.CodingSchemeDesignator)


def _pair(code: Code) -> tuple[str, str]:
    return code.value, code.scheme


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
