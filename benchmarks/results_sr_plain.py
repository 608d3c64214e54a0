"""The report of a run as one writes it with highdicom: its classes for the templates, its SOP class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import highdicom as hd
from highdicom.sr import CodedConcept, RelationshipTypeValues
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from ai.measure import Measurement, Pair, found_pairs
from ai.quality import segment_verdicts
from ai.results import sr_codes as c
from ai.results.context import ResultContext
from ai.results.equipment import MANUFACTURER, algorithm_family, device_serial_number
from ai.results.sr_measurements import NOT_FOUND
from ai.results.summary import summary
from ai.terminology import Code

_STATISTICS = (
    ("mean", c.MEAN),
    ("sd", c.STANDARD_DEVIATION),
    ("minimum", c.MINIMUM),
    ("maximum", c.MAXIMUM),
)
_EXTENTS = ((c.WIDTH, c.RIGHT_LEFT), (c.DEPTH, c.ANTERIOR_POSTERIOR), (c.HEIGHT, c.SUPERIOR_INFERIOR))


def plain_report(context: ResultContext, segs: Sequence[Dataset]) -> Dataset:
    """The report of a CT run in which something was found, with plain highdicom."""
    measured = [_group(context, segs, m) for m in context.measurements]
    pairs = [_pair(context, pair) for pair in found_pairs(context.measurements)]
    content = hd.sr.MeasurementReport(
        observation_context=_observer(context),
        procedure_reported=_concept(c.PROCEDURES["CT"]),
        imaging_measurements=[*measured, *pairs],
        title=_concept(c.TITLE),
    )
    root = content[0]
    items = list(root.ContentSequence)
    first, *others = summary(context)
    texts = [_text(c.SUMMARY, first), *(_text(c.COMMENT, words) for words in others)]
    root.ContentSequence = hd.sr.ContentSequence([*items[:-1], *texts, _library(context), items[-1]])
    return hd.sr.Comprehensive3DSR(
        evidence=[*context.series.datasets, *segs],
        content=root,
        series_instance_uid=context.series_uid("sr"),
        series_number=context.series_number_base + 2,
        sop_instance_uid=context.instance_uid("sr"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=True,
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )


def _concept(code: Code) -> Any:
    return CodedConcept(code.value, code.scheme, code.meaning)


def _text(name: Code, words: str) -> Any:
    return hd.sr.TextContentItem(_concept(name), words, RelationshipTypeValues.CONTAINS)


def _observer(context: ResultContext) -> Any:
    spec = context.spec
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=context.identity.device_uid,
        name=f"{spec.title} {spec.version}",
        manufacturer_name=spec.manufacturer,
        model_name=spec.title,
        serial_number=device_serial_number(context),
    )
    return hd.sr.ObservationContext(observer_device_context=hd.sr.ObserverContext(_concept(c.DEVICE), device))


def _library(context: ResultContext) -> Any:
    first = context.series.datasets[0]
    acquired = RelationshipTypeValues.HAS_ACQ_CONTEXT
    items = [
        hd.sr.CodeContentItem(_concept(c.MODALITY), _concept(c.MODALITIES[first.Modality]), acquired),
        hd.sr.UIDRefContentItem(_concept(c.FRAME_OF_REFERENCE), first.FrameOfReferenceUID, acquired),
        *(
            hd.sr.ImageContentItem(
                _concept(c.SOURCE),
                source.SOPClassUID,
                source.SOPInstanceUID,
                relationship_type=RelationshipTypeValues.CONTAINS,
            )
            for source in context.series.datasets
        ),
    ]
    return _container(c.LIBRARY, [_container(c.LIBRARY_GROUP, items)])


def _container(name: Code, items: Sequence[Any]) -> Any:
    item = hd.sr.ContainerContentItem(_concept(name), relationship_type=RelationshipTypeValues.CONTAINS)
    item.ContentSequence = hd.sr.ContentSequence(items)
    return item


def _shared(context: ResultContext, measurement: Measurement, identifier: str, uid: str) -> dict[str, Any]:
    codes, spec = measurement.structure.coded, context.spec
    return {
        "tracking_identifier": hd.sr.TrackingIdentifier(uid=uid, identifier=identifier),
        "finding_category": _concept(codes.category),
        "finding_type": _concept(codes.type),
        "algorithm_id": hd.sr.AlgorithmIdentification(
            name=spec.title, version=spec.version, family=_concept(algorithm_family(spec))
        ),
    }


def _group(context: ResultContext, segs: Sequence[Dataset], measurement: Measurement) -> Any:
    structure = measurement.structure
    uid = context.identity.tracking_uids[structure.number]
    cited = ((seg, item) for seg in segs for item in seg.SegmentSequence if item.get("TrackingUID") == uid)
    seg, segment = next(cited, (Dataset(), Dataset()))
    side = structure.coded.modifier
    shared = _shared(context, measurement, f"{context.spec.id} {structure.label}", uid)
    shared["finding_sites"] = [
        hd.sr.FindingSite(_concept(structure.coded.type), _concept(side) if side else None)
    ]
    if not measurement.found:
        absent = [hd.sr.QualitativeEvaluation(_concept(c.PRESENCE), _concept(c.ABSENT))]
        group = hd.sr.MeasurementsAndQualitativeEvaluations(**shared, qualitative_evaluations=absent)
        group[0].ContentSequence.append(_text(c.COMMENT, NOT_FOUND))
        return group
    evaluations, reasons = _evaluations(context, measurement)
    group = hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        referenced_segment=hd.sr.ReferencedSegment(
            sop_class_uid=seg.SOPClassUID,
            sop_instance_uid=seg.SOPInstanceUID,
            segment_number=int(segment.SegmentNumber),
            source_series=hd.sr.SourceSeriesForSegmentation(context.series.datasets[0].SeriesInstanceUID),
        ),
        measurements=_measurements(measurement),
        qualitative_evaluations=evaluations,
        **shared,
    )
    group[0].ContentSequence.extend([_text(c.COMMENT, reason) for reason in reasons])
    return group


def _evaluations(context: ResultContext, measurement: Measurement) -> tuple[list[Any], Sequence[str]]:
    verdict, reasons = segment_verdicts(context.spec, context.quality)[measurement.structure.key]
    pairs = [(c.PRESENCE, c.PRESENT)]
    if reasons:
        pairs.append((c.QUALITY_FINDING, c.INCOMPLETE))
    pairs.append((c.QUALITY, c.VERDICTS[verdict]))
    told = [hd.sr.QualitativeEvaluation(_concept(name), _concept(value)) for name, value in pairs]
    return told, reasons


def _measurements(measurement: Measurement) -> list[Any]:
    intensity, reach = measurement.intensity, measurement.reach
    assert intensity is not None
    assert reach is not None
    return [
        _number(c.VOLUME, measurement.volume_ml, c.MILLILITRE, method=c.VOXEL_SUM),
        *(
            _number(c.ATTENUATION, getattr(intensity, name), c.HOUNSFIELD, derivation=derivation)
            for name, derivation in _STATISTICS
        ),
        _number(
            c.DIAMETER,
            reach.longest_axial_diameter_mm,
            c.MILLIMETRE,
            method=c.AXIAL_PLANE,
            derivation=c.MAXIMUM,
        ),
        *(
            _number(name, extent_mm, c.MILLIMETRE, method=axis)
            for extent_mm, (name, axis) in zip(reach.extents_mm, _EXTENTS, strict=True)
        ),
    ]


def _number(
    name: Code, value: float, unit: Code, method: Code | None = None, derivation: Code | None = None
) -> Any:
    return hd.sr.Measurement(
        name=_concept(name),
        value=float(value),
        unit=_concept(unit),
        method=_concept(method) if method else None,
        derivation=_concept(derivation) if derivation else None,
    )


def _pair(context: ResultContext, pair: Pair) -> Any:
    left, right = pair.left.structure, pair.right.structure
    uid = context.identity.uid(f"tracking-pair-{left.number}-{right.number}")
    shared = _shared(context, pair.left, f"{left.label} and {right.label}", uid)
    site = hd.sr.FindingSite(_concept(left.coded.type), _concept(c.BILATERAL))
    cut = {key for finding in context.quality if finding.verdict != "PASS" for key in finding.structures}
    partial = [s.label for s in (left, right) if s.key in cut]
    incomplete = hd.sr.QualitativeEvaluation(_concept(c.QUALITY_FINDING), _concept(c.INCOMPLETE))
    group = hd.sr.MeasurementsAndQualitativeEvaluations(
        **shared,
        finding_sites=[site],
        measurements=[
            _number(c.VOLUME_DIFFERENCE, pair.difference, c.MILLILITRE),
            _number(c.RATIO, pair.ratio, c.RATIO_UNIT, method=c.LEFT_BY_RIGHT),
        ],
        qualitative_evaluations=[incomplete] if partial else [],
    )
    words = (
        f"{left.label} {pair.left.size:.1f} mL, {right.label} {pair.right.size:.1f} mL: left minus right "
        f"{pair.difference:+.1f} mL, left divided by right {pair.ratio:.2f}."
    )
    if partial:
        verb = "touches" if len(partial) == 1 else "touch"
        words += f" {' and '.join(partial)} {verb} the edge of the field of view."
    group[0].ContentSequence.append(_text(c.COMMENT, words))
    return group
