"""The measurement groups of a report: one for each structure of the card, one for each pair.

Items come in the order of the template's rows: tracking (TID 4108), finding, referenced segment and its
source (TID 1411, on a radiograph TID 1410), site, algorithm (TID 4019), measurements (TID 1419), qualitative
evaluations, comments. Groups without a segment are TID 1501.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.dataset import Dataset

from ai.errors import ResultMismatch
from ai.measure import Measurement, Pair
from ai.model import ModelSpec, Structure
from ai.quality import Finding, Verdict, segment_verdicts
from ai.results import sr_codes as c
from ai.results.context import ResultContext
from ai.results.equipment import algorithm_family
from ai.results.seg import tracking_id
from ai.results.sr_items import CONCEPT_MOD, CONTAINS, OBS_CONTEXT, code, container, image, number, text
from ai.results.sr_items import uid_reference as uid
from ai.terminology import Code, CodedStructure

_ANATOMICAL_STRUCTURE = "91723000"
_STATISTICS = {
    "mean": c.MEAN,
    "sd": c.STANDARD_DEVIATION,
    "minimum": c.MINIMUM,
    "maximum": c.MAXIMUM,
}
_EXTENTS = (
    (c.WIDTH, c.RIGHT_LEFT),
    (c.DEPTH, c.ANTERIOR_POSTERIOR),
    (c.HEIGHT, c.SUPERIOR_INFERIOR),
)
_TEXT_OF_IDENTIFIER = 1024
NOT_FOUND = "Looked for and not found. It may lie outside these images, or have been missed."
"""Said of what was not found, for Absent alone reads as if the patient had none."""


def structure_groups(context: ResultContext, segs: Sequence[Dataset]) -> list[Dataset]:
    """A group for every structure of the card, in its order.

    Raises
    ------
    ResultMismatch
        ``SEGMENT_MISSING`` when no SEG has a segment for a structure that was found.
    """
    segments = {item.get("TrackingUID"): (seg, item) for seg in segs for item in seg.SegmentSequence}
    evaluations = _evaluations(context)
    return [
        _structure_group(context, m, segments.get(_tracking_uid(context, m)), evaluations[m.structure.key])
        for m in context.measurements
    ]


def not_evaluated_group(spec: ModelSpec, structure: Structure, tracking_uid: str) -> Dataset:
    """A group that says that nobody looked for a structure."""
    return _group(
        "1501",
        _tracking(tracking_id(spec, structure), tracking_uid),
        _finding(structure.coded),
        [],
        sites(structure.coded),
        algorithm(spec),
        [code(c.PRESENCE, c.NOT_EVALUATED, CONTAINS)],
    )


def pair_group(context: ResultContext, pair: Pair) -> Dataset:
    """Difference and ratio of a left and a right structure."""
    left, right = pair.left.structure, pair.right.structure
    unit = c.SQUARE_MILLIMETRE if pair.of_areas else c.MILLILITRE
    name = c.AREA_DIFFERENCE if pair.of_areas else c.VOLUME_DIFFERENCE
    partial = [m.structure.label for m in (pair.left, pair.right) if _is_cut(context, m.structure)]
    evaluations = [code(c.QUALITY_FINDING, c.INCOMPLETE, CONTAINS)] if partial else []
    identifier = f"{left.label} and {right.label}"[:_TEXT_OF_IDENTIFIER]
    return _group(
        "1501",
        _tracking(identifier, context.identity.uid(f"tracking-pair-{left.number}-{right.number}")),
        _finding(left.coded),
        [],
        sites(left.coded, c.BILATERAL),
        algorithm(context.spec),
        [
            number(name, pair.difference, unit),
            number(c.RATIO, pair.ratio, c.RATIO_UNIT, [code(c.METHOD, c.LEFT_BY_RIGHT, CONCEPT_MOD)]),
            *evaluations,
            text(c.COMMENT, _pair_sentence(pair, partial)),
        ],
    )


def algorithm(spec: ModelSpec) -> list[Dataset]:
    """TID 4019 with the values that the SEG has, which IHE AIR wants to be equal."""
    return [
        text(c.ALGORITHM_NAME, spec.title, CONCEPT_MOD),
        text(c.ALGORITHM_VERSION, spec.version, CONCEPT_MOD),
        code(c.ALGORITHM_FAMILY, algorithm_family(spec), CONCEPT_MOD),
    ]


def sites(codes: CodedStructure, laterality: Code | None = None) -> list[Dataset]:
    """The organ with its side or its part; of what is found in many places, where this one lies."""
    place = codes.type if codes.category.value == _ANATOMICAL_STRUCTURE else codes.region
    if place is None:  # a tissue or an implant is a finding at no one site
        return []
    modifier = laterality or codes.modifier
    if modifier is None:
        return [code(c.FINDING_SITE, place, CONCEPT_MOD)]
    name = c.LATERALITY if modifier.value in c.SIDES else c.TOPOGRAPHICAL_MODIFIER
    return [code(c.FINDING_SITE, place, CONCEPT_MOD, [code(name, modifier, CONCEPT_MOD)])]


def _structure_group(
    context: ResultContext,
    measurement: Measurement,
    cited: tuple[Dataset, Dataset] | None,
    evaluations: list[Dataset],
) -> Dataset:
    structure = measurement.structure
    tracking = _tracking(tracking_id(context.spec, structure), _tracking_uid(context, measurement))
    finding, placed = _finding(structure.coded), sites(structure.coded)
    if not measurement.found:
        return _group("1501", tracking, finding, [], placed, algorithm(context.spec), evaluations)
    if cited is None:
        raise ResultMismatch(
            "SEGMENT_MISSING",
            f"{structure.label} has {measurement.voxel_count} voxels in the label map, but no SEG "
            "has a segment for it; the report cannot refer to it.",
        )
    on_detector = measurement.area_mm2 is not None
    references = _frame_of(context, *cited) if on_detector else _segment_of(context, *cited)
    rest = [*_numbers(context, measurement), *evaluations]
    template = "1410" if on_detector else "1411"
    return _group(template, tracking, finding, references, placed, algorithm(context.spec), rest)


def _group(template: str, *parts: Sequence[Dataset]) -> Dataset:
    return container(c.GROUP, [item for part in parts for item in part], template)


def _tracking_uid(context: ResultContext, measurement: Measurement) -> str:
    return context.identity.tracking_uids[measurement.structure.number]


def _tracking(identifier: str, tracking_uid: str) -> list[Dataset]:
    return [
        text(c.TRACKING_IDENTIFIER, identifier, OBS_CONTEXT),
        uid(c.TRACKING_UID, tracking_uid, OBS_CONTEXT),
    ]


def _finding(codes: CodedStructure) -> list[Dataset]:
    return [code(c.FINDING_CATEGORY, codes.category, CONTAINS), code(c.FINDING, codes.type, CONTAINS)]


def _segment_of(context: ResultContext, seg: Dataset, segment: Dataset) -> list[Dataset]:
    cited = _citation(seg)
    cited.ReferencedSegmentNumber = int(segment.SegmentNumber)
    source = str(context.series.datasets[0].SeriesInstanceUID)
    return [image(c.SEGMENT, cited), uid(c.SOURCE_SERIES, source, CONTAINS)]


def _frame_of(context: ResultContext, seg: Dataset, segment: Dataset) -> list[Dataset]:
    """The one frame of a radiograph, and the radiograph; of frame and segment only one may be cited."""
    cited = _citation(seg)
    cited.ReferencedFrameNumber = _frame_number(seg, int(segment.SegmentNumber))
    return [image(c.SEGMENTATION_FRAME, cited), image(c.SOURCE_IMAGE, _citation(context.series.datasets[0]))]


def _frame_number(seg: Dataset, segment_number: int) -> int:
    """The frame of a segment; a label map has one frame for all."""
    for position, groups in enumerate(seg.PerFrameFunctionalGroupsSequence, start=1):
        named = groups.get("SegmentIdentificationSequence")
        if not named or named[0].ReferencedSegmentNumber == segment_number:
            return position
    raise ResultMismatch(
        "SEGMENT_MISSING", f"Segment {segment_number} was found, but no frame of the SEG shows it."
    )


def _citation(instance: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = str(instance.SOPClassUID)
    item.ReferencedSOPInstanceUID = str(instance.SOPInstanceUID)
    return item


def _numbers(context: ResultContext, measurement: Measurement) -> list[Dataset]:
    """What was measured: TID 1419, with derivation and method where the template has context groups."""
    if measurement.area_mm2 is not None:
        return [number(c.AREA, measurement.area_mm2, c.SQUARE_MILLIMETRE)]
    how = [code(c.METHOD, c.VOXEL_SUM, CONCEPT_MOD)]
    numbers = [number(c.VOLUME, measurement.volume_ml, c.MILLILITRE, how)]
    if measurement.intensity is not None and context.series.volume.unit == "HU":
        for statistic, derivation in _STATISTICS.items():
            value = getattr(measurement.intensity, statistic)
            derived = [code(c.DERIVATION, derivation, CONCEPT_MOD)]
            numbers.append(number(c.ATTENUATION, value, c.HOUNSFIELD, derived))
    reach = measurement.reach
    if reach is not None:
        longest = [
            code(c.METHOD, c.AXIAL_PLANE, CONCEPT_MOD),
            code(c.DERIVATION, c.MAXIMUM, CONCEPT_MOD),
        ]
        numbers.append(number(c.DIAMETER, reach.longest_axial_diameter_mm, c.MILLIMETRE, longest))
        for extent_mm, (name, axis) in zip(reach.extents_mm, _EXTENTS, strict=True):
            numbers.append(number(name, extent_mm, c.MILLIMETRE, [code(c.METHOD, axis, CONCEPT_MOD)]))
    return numbers


def _evaluations(context: ResultContext) -> dict[str, list[Dataset]]:
    """What is said of each structure by its key: its presence, whether it is cut, the quality and why.

    What was not found has no quality that could be a PASS: it is judged only where it should be there.
    """
    verdicts = segment_verdicts(context.spec, context.quality)
    judged = {key for finding in context.quality for key in finding.structures}
    return {
        m.structure.key: [
            code(c.PRESENCE, _presence(context, m), CONTAINS),
            *([code(c.QUALITY_FINDING, c.INCOMPLETE, CONTAINS)] if _is_cut(context, m.structure) else []),
            *(
                _quality(*verdicts[m.structure.key])
                if m.structure.key in judged and (m.found or verdicts[m.structure.key][0] is not Verdict.PASS)
                else []
            ),
            *([text(c.COMMENT, NOT_FOUND)] if _presence(context, m) is c.ABSENT else []),
        ]
        for m in context.measurements
    }


def _presence(context: ResultContext, measurement: Measurement) -> Code:
    if measurement.found:
        return c.PRESENT
    return c.NOT_EVALUATED if measurement.structure.number in context.not_evaluated else c.ABSENT


def _quality(verdict: Verdict, reasons: Sequence[str]) -> list[Dataset]:
    comments = [text(c.COMMENT, reason) for reason in reasons]
    return [code(c.QUALITY, c.VERDICTS[verdict], CONTAINS), *comments]


def _is_cut(context: ResultContext, structure: Structure) -> bool:
    """Whether it goes on, or may, beyond the field of view."""
    return any(structure.key in finding.structures for finding in cut_findings(context.quality))


def cut_findings(quality: Sequence[Finding]) -> list[Finding]:
    """The findings that a structure touches the edge of the field of view."""
    return [f for f in quality if f.rule == "complete" and f.verdict is not Verdict.PASS]


def _pair_sentence(pair: Pair, partial: Sequence[str]) -> str:
    unit = "mm²" if pair.of_areas else "mL"
    sentence = (
        f"{pair.left.structure.label} {pair.left.size:.1f} {unit}, "
        f"{pair.right.structure.label} {pair.right.size:.1f} {unit}: left minus right "
        f"{pair.difference:+.1f} {unit}, left divided by right {pair.ratio:.2f}."
    )
    cut = f" {' and '.join(partial)} touch{'es' if len(partial) == 1 else ''} the edge of the field of view."
    return sentence + (cut if partial else "")
