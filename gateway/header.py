"""The frozen facts of instances and series that rules and geometry may see; no pixels.

Facts are text, as they stood in the header, keyed by the DICOM keyword. Patient attributes are
not among them: they stay in the stored file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ai.source.keywords import GEOMETRY_KEYWORDS, SPLIT_KEYWORDS
from ai.source.values import Facts

__all__ = ["FACT_KEYWORDS", "RULE_KEYWORDS", "Facts", "InstanceHeader", "SeriesFacts", "series_facts"]

RULE_KEYWORDS: frozenset[str] = frozenset(
    {
        "AcquisitionNumber",
        "BodyPartExamined",
        "Columns",
        "ContrastBolusAgent",
        "ConvolutionKernel",
        "GantryDetectorTilt",
        "ImageOrientationPatient",
        "ImageType",
        "KVP",
        "Laterality",
        "Manufacturer",
        "ManufacturerModelName",
        "Modality",
        "NumberOfFrames",
        "PatientPosition",
        "PhotometricInterpretation",
        "PixelSpacing",
        "ProtocolName",
        "Rows",
        "ScanOptions",
        "SequenceName",
        "SeriesDescription",
        "SeriesNumber",
        "SliceThickness",
        "SpacingBetweenSlices",
        "StationName",
        "StudyDescription",
        "ViewPosition",
    }
)
"""Attributes that a route may name in ``when``."""

FACT_KEYWORDS: frozenset[str] = RULE_KEYWORDS | GEOMETRY_KEYWORDS | SPLIT_KEYWORDS
"""Attributes that are read at admission and kept in the journal."""


@dataclass(frozen=True)
class InstanceHeader:
    """What admission reads of one instance, by a reader with bounds.

    ``frames`` has the facts of each frame of an enhanced multi-frame image, in frame order; it is empty
    for every other instance.
    """

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    facts: Facts
    frames: tuple[Facts, ...] = ()


@dataclass(frozen=True)
class SeriesFacts:
    """What rules may see of a series.

    Attributes
    ----------
    values
        Keyword → the distinct values found among the image planes, each a tuple (one per
        multiplicity), in order of appearance. A condition must hold for every one of them.
    missing_in
        Keyword → number of image planes that lack it, for keywords that some have and some lack.
    images
        Number of image planes: instances, or frames of multi-frame ones.
    source
        Name of the configured peer that sent them.
    """

    values: Mapping[str, tuple[tuple[str, ...], ...]]
    missing_in: Mapping[str, int]
    images: int
    source: str


def series_facts(headers: Iterable[Facts], source: str) -> SeriesFacts:
    """Gather what rules may see from the facts of each image plane."""
    values: dict[str, dict[tuple[str, ...], None]] = {}
    counts: dict[str, int] = {}
    total = 0
    for facts in headers:
        total += 1
        for keyword in RULE_KEYWORDS & facts.keys():
            value = facts[keyword]
            values.setdefault(keyword, {})[value] = None
            counts[keyword] = counts.get(keyword, 0) + 1
    return SeriesFacts(
        values={keyword: tuple(found) for keyword, found in values.items()},
        missing_in={k: total - n for k, n in counts.items() if n < total},
        images=total,
        source=source,
    )
