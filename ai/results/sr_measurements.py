"""The measurement groups of a report: one for each structure of the card, found or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import highdicom as hd
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset

from ai import terminology
from ai.errors import ResultMismatch
from ai.measure import Measurement
from ai.model import ModelSpec
from ai.results.coding import concept
from ai.results.context import ResultContext
from ai.results.equipment import algorithm_family

Group = (
    hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations
    | hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations
    | hd.sr.MeasurementsAndQualitativeEvaluations
)

_ANATOMICAL_STRUCTURE = "91723000"
_SIDES = ("7771000", "24028007", "51440002", "66459002")  # PS3.16 CID 244
_AREA = CodedConcept("42798000", "SCT", "Area")
_SQUARE_MILLIMETRE = CodedConcept("mm2", "UCUM", "square millimeter")
_VOLUME = CodedConcept("118565006", "SCT", "Volume")
_MILLILITRE = CodedConcept("mL", "UCUM", "milliliter")
_ATTENUATION = CodedConcept("112031", "DCM", "Attenuation Coefficient")
_HOUNSFIELD = CodedConcept("[hnsf'U]", "UCUM", "Hounsfield unit")
_PRESENCE = CodedConcept("121052", "DCM", "Presence of property")
_ABSENT = CodedConcept("272519000", "SCT", "Absent")
_DERIVATIONS = {
    "mean": CodedConcept("373098007", "SCT", "Mean"),
    "sd": CodedConcept("386136009", "SCT", "Standard Deviation"),
    "minimum": CodedConcept("255605001", "SCT", "Minimum"),
    "maximum": CodedConcept("56851009", "SCT", "Maximum"),
}


def measurement_group(context: ResultContext, segs: Sequence[Dataset], measurement: Measurement) -> Group:
    """TID 1411 for a structure that was found (TID 1410 on a radiograph), TID 1501 "absent" for another.

    Raises
    ------
    ResultMismatch
        ``SEGMENT_MISSING`` when no SEG has a segment for a structure that was found.
    """
    structure = measurement.structure
    codes = structure.coded
    seg, segment = _segment(context, segs, structure.number)
    tracking = hd.sr.TrackingIdentifier(
        uid=context.identity.tracking_uids[structure.number],
        identifier=structure.label if segment is None else segment.get("TrackingID", structure.label),
    )
    algorithm = _algorithm(context.spec)
    if not measurement.found:
        return hd.sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=tracking,
            finding_category=concept(codes.category),
            finding_type=concept(codes.type),
            algorithm_id=algorithm,
            finding_sites=_sites(codes),
            qualitative_evaluations=[hd.sr.QualitativeEvaluation(_PRESENCE, _ABSENT)],
        )
    if seg is None or segment is None:
        raise ResultMismatch(
            "SEGMENT_MISSING",
            f"{structure.label} has {measurement.voxel_count} voxels in the label map, but no SEG "
            "has a segment for it; the report cannot refer to it.",
        )
    shared: dict[str, Any] = {
        "tracking_identifier": tracking,
        "finding_category": concept(codes.category),
        "finding_type": concept(codes.type),
        "algorithm_id": algorithm,
        "finding_sites": _sites(codes),
        "measurements": _measurements(context, measurement),
    }
    if measurement.area_mm2 is not None:
        return hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
            referenced_segment=_frame_of(context, seg, structure.number), **shared
        )
    return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        referenced_segment=hd.sr.ReferencedSegment(
            sop_class_uid=seg.SOPClassUID,
            sop_instance_uid=seg.SOPInstanceUID,
            segment_number=int(segment.SegmentNumber),
            source_series=hd.sr.SourceSeriesForSegmentation(context.series.datasets[0].SeriesInstanceUID),
        ),
        **shared,
    )


def _frame_of(context: ResultContext, seg: Dataset, number: int) -> hd.sr.ReferencedSegmentationFrame:
    """The one frame of a segment of a radiograph, and the radiograph."""
    frames = [
        position
        for position, groups in enumerate(seg.PerFrameFunctionalGroupsSequence, start=1)
        if groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber == number
    ]
    image = context.series.datasets[0]
    found = hd.sr.ReferencedSegmentationFrame(
        sop_class_uid=seg.SOPClassUID,
        sop_instance_uid=seg.SOPInstanceUID,
        frame_number=frames[0],
        segment_number=number,
        source_image=hd.sr.SourceImageForSegmentation(image.SOPClassUID, image.SOPInstanceUID),
    )
    for item in found[0].ReferencedSOPSequence:  # of frame and segment only one may be cited (PS3.3 10.3)
        del item.ReferencedSegmentNumber
    return found


def _segment(
    context: ResultContext, segs: Sequence[Dataset], number: int
) -> tuple[Dataset, Dataset] | tuple[None, None]:
    """The segment that tracks the same thing, and its SEG."""
    uid = context.identity.tracking_uids[number]
    pairs = ((seg, item) for seg in segs for item in seg.SegmentSequence if item.get("TrackingUID") == uid)
    return next(pairs, (None, None))


def _algorithm(spec: ModelSpec) -> hd.sr.AlgorithmIdentification:
    """TID 4019 with the values that the SEG has, which IHE AIR wants to be equal."""
    return hd.sr.AlgorithmIdentification(
        name=spec.title, version=spec.version, family=concept(algorithm_family(spec))
    )


def _sites(codes: terminology.CodedStructure) -> list[hd.sr.FindingSite] | None:
    """The organ with its side or its part; of what is found in many places, where this one lies."""
    place = codes.type if codes.category.value == _ANATOMICAL_STRUCTURE else codes.region
    if place is None:  # a tissue or an implant is a finding at no one site
        return None
    modifier = concept(codes.modifier) if codes.modifier else None
    is_side = codes.modifier is not None and codes.modifier.value in _SIDES
    return [
        hd.sr.FindingSite(
            anatomic_location=concept(place),
            laterality=modifier if is_side else None,
            topographical_modifier=None if is_side else modifier,
        )
    ]


def _measurements(context: ResultContext, measurement: Measurement) -> list[hd.sr.Measurement]:
    if measurement.area_mm2 is not None:
        return [_number(_AREA, measurement.area_mm2, _SQUARE_MILLIMETRE, None)]
    numbers = [_number(_VOLUME, measurement.volume_ml, _MILLILITRE, None)]
    if measurement.intensity is not None and context.series.volume.unit == "HU":
        for name, derivation in _DERIVATIONS.items():
            value = getattr(measurement.intensity, name)
            numbers.append(_number(_ATTENUATION, value, _HOUNSFIELD, derivation))
    return numbers


def _number(
    name: CodedConcept, value: float, unit: CodedConcept, derivation: CodedConcept | None
) -> hd.sr.Measurement:
    """One NUM item; its Numeric Value is a plain decimal of at most 16 characters, no exponent."""
    measurement = hd.sr.Measurement(name=name, value=float(value), unit=unit, derivation=derivation)
    measured = measurement[0].MeasuredValueSequence[0]
    measured.NumericValue = decimal_string(value)
    return measurement


def decimal_string(value: float) -> str:
    """A plain DS (PS3.5 6.2): at most 16 characters, six places, no exponent.

    >>> decimal_string(0.000064), decimal_string(-850.25), decimal_string(0.0)
    ('0.000064', '-850.25', '0')
    """
    text = f"{value:.6f}"[:16].rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text
