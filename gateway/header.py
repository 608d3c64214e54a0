"""The frozen facts of instances and series that rules and geometry may see; no pixels.

Facts are text, as they stood in the header, keyed by the DICOM keyword. Patient attributes are
not among them: they stay in the stored file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

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

GEOMETRY_KEYWORDS: frozenset[str] = frozenset(
    {
        "Rows",
        "Columns",
        "NumberOfFrames",
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "FrameOfReferenceUID",
        "ImageType",
        "SliceThickness",
        "InstanceNumber",
        "DeviceUID",
    }
)

FACT_KEYWORDS: frozenset[str] = RULE_KEYWORDS | GEOMETRY_KEYWORDS
"""Attributes that are read at admission and kept in the journal."""

Facts = Mapping[str, tuple[str, ...]]
"""Keyword → values as text; an absent or empty attribute has no key."""


@dataclass(frozen=True)
class InstanceHeader:
    """What admission reads of one instance, by a reader with bounds."""

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    facts: Facts


@dataclass(frozen=True)
class SeriesFacts:
    """What rules may see of a series.

    Attributes
    ----------
    values
        Keyword → the distinct values found among the instances, each a tuple (one per
        multiplicity), in order of appearance. A condition must hold for every one of them.
    missing_in
        Keyword → number of instances that lack it, for keywords that some have and some lack.
    instances
        Number of instances.
    source
        Name of the configured peer that sent them.
    """

    values: Mapping[str, tuple[tuple[str, ...], ...]]
    missing_in: Mapping[str, int]
    instances: int
    source: str


def series_facts(headers: Iterable[Facts], source: str) -> SeriesFacts:
    """Gather the facts of a series from those of its instances."""
    values: dict[str, dict[tuple[str, ...], None]] = {}
    counts: dict[str, int] = {}
    total = 0
    for facts in headers:
        total += 1
        for keyword, value in facts.items():
            values.setdefault(keyword, {})[value] = None
            counts[keyword] = counts.get(keyword, 0) + 1
    return SeriesFacts(
        values={keyword: tuple(found) for keyword, found in values.items()},
        missing_in={k: total - n for k, n in counts.items() if n < total},
        instances=total,
        source=source,
    )
