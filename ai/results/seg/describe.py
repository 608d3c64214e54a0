"""The segments of a Segmentation: what each is, in codes, colour and words (PS3.3 C.8.20.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import highdicom as hd
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence

from ai.model import ModelSpec, Structure
from ai.results.coding import concept
from ai.results.context import ResultContext
from ai.results.equipment import algorithm_family

_CODE_STRING = 16  # PS3.5 6.2, VR CS


def content_label(title: str) -> str:
    """A Content Label (CS) from a title: ``CT tissue`` becomes ``CT_TISSUE``."""
    kept = "".join(c if c.isascii() and c.isalnum() else "_" for c in title.upper())
    return kept[:_CODE_STRING].strip("_") or "SEGMENTATION"


def tracking_id(spec: ModelSpec, structure: Structure) -> str:
    """The Tracking ID (UT) of a structure; in reports too, with a segment or without."""
    return f"{spec.id} {structure.label}"


def segments(context: ResultContext, structures: Sequence[Structure]) -> list[Any]:
    """Items of the Segment Sequence, numbered from 1 in the order of the structures."""
    return [_segment(context, structure, number) for number, structure in enumerate(structures, start=1)]


def background_last(header: Dataset) -> None:
    """Put the item of number 0 behind the others: OHIF finds the colour of a segment by its position."""
    items = header.SegmentSequence
    header.SegmentSequence = DicomSequence(
        [*(item for item in items if item.SegmentNumber), *(item for item in items if not item.SegmentNumber)]
    )


def _segment(context: ResultContext, structure: Structure, number: int) -> Any:
    spec = context.spec
    terms = structure.coded
    item = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=structure.label,
        segmented_property_category=concept(terms.category),
        segmented_property_type=concept(terms.type),
        algorithm_type="AUTOMATIC",
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=spec.title,
            family=concept(algorithm_family(spec)),
            version=spec.version,
            source=spec.manufacturer,
        ),
        tracking_uid=context.identity.tracking_uids[structure.number],
        tracking_id=tracking_id(spec, structure),
        display_color=hd.color.CIELabColor.from_rgb(*terms.rgb),
        anatomic_regions=[concept(terms.region)] if terms.region is not None else None,
    )
    if structure.description:
        item.SegmentDescription = structure.description
    if terms.modifier is not None:  # the writer has no argument for the side
        kind = item.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = DicomSequence([concept(terms.modifier)])
    return item
