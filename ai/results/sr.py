"""The measurements of a run as a Comprehensive 3D SR: TID 1500, "Imaging Measurement Report" (PS3.16).

What a reader finds, in this order: the observer (the algorithm as a device, TID 1004), the procedure, a
comment that says in plain text what was found, notes and the intended use, the image library (TID 1600),
then one group for every structure found, which refers to its segment (TID 1411; on a radiograph to its one
frame, TID 1410), and one TID 1501 group for every structure that was looked for and not found. The comment
is an addition that the template allows (TID 1500 is extensible); it comes early because viewers show the
tree from the top.

The report is complete, preliminary and unverified: no person has looked at it.
"""

from __future__ import annotations

from collections.abc import Sequence

import highdicom as hd
import numpy as np
from highdicom.sr import CodedConcept, RelationshipTypeValues
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from ai.results.coding import identify_private_scheme
from ai.results.context import ResultContext
from ai.results.equipment import (
    MANUFACTURER,
    add_equipment,
    device_serial_number,
    series_attributes,
    set_series,
)
from ai.results.planes import references, source_planes
from ai.results.source import copy_patient_and_study
from ai.results.sr_measurements import measurement_group
from ai.results.summary import summary

_CONTAINS = RelationshipTypeValues.CONTAINS
_COMMENT = CodedConcept("121106", "DCM", "Comment")
_DEVICE = CodedConcept("121007", "DCM", "Device")
# CID 100 "Quantitative Diagnostic Imaging Procedure": the imaging that was analysed.
_PROCEDURES = {
    "CT": CodedConcept("25045-6", "LN", "CT unspecified body region"),
    "MR": CodedConcept("25056-3", "LN", "MRI unspecified body region"),
    "PT": CodedConcept("44136-0", "LN", "PET unspecified body region"),
    **dict.fromkeys(("CR", "DX", "RG"), CodedConcept("168537006", "SCT", "Plain radiography")),
}
_ANY_PROCEDURE = CodedConcept("363679005", "SCT", "Imaging procedure")
# CID 29 "Acquisition Modality"
_MODALITIES = {
    "CT": CodedConcept("CT", "DCM", "Computed Tomography"),
    "MR": CodedConcept("MR", "DCM", "Magnetic Resonance"),
    "PT": CodedConcept("PT", "DCM", "Positron emission tomography"),
    "CR": CodedConcept("CR", "DCM", "Computed Radiography"),
    "DX": CodedConcept("DX", "DCM", "Digital Radiography"),
    "MG": CodedConcept("MG", "DCM", "Mammography"),
    "RG": CodedConcept("RG", "DCM", "Radiographic imaging"),
}


def build_sr(context: ResultContext, segs: Sequence[Dataset]) -> Dataset:
    """Build the report of one run.

    Volumes are in millilitres, areas on the detector of a radiograph in square millimetres. Attenuation
    (mean, SD, minimum, maximum) is given when the volume is in HU. The same context and SEG give the same
    data set.

    Parameters
    ----------
    segs
        The SEGs of the same run: their segments are referred to by number, and their tracking and algorithm
        identification are repeated. Pixels are not needed; frames only of a radiograph.

    Raises
    ------
    ResultMismatch
        ``SEGMENT_MISSING`` when the SEG has no segment for a structure that was found.
    """
    sources = {dataset.SOPInstanceUID: dataset for dataset in context.series.datasets}
    first = context.series.datasets[0]
    content = hd.sr.MeasurementReport(
        observation_context=_observer(context),
        procedure_reported=_PROCEDURES.get(first.Modality, _ANY_PROCEDURE),
        imaging_measurements=[measurement_group(context, segs, m) for m in context.measurements],
        title=CodedConcept("126000", "DCM", "Imaging Measurement Report"),
    )
    _insert_after_procedure(content[0], [_comment(text) for text in summary(context)], _library(context))
    series = series_attributes(context, "sr")
    report = hd.sr.Comprehensive3DSR(
        evidence=[*(_evidence(dataset) for dataset in sources.values()), *segs],
        content=content[0],
        series_instance_uid=context.series_uid("sr"),
        series_number=series.number,
        sop_instance_uid=context.instance_uid("sr"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=True,
        is_final=False,
        is_verified=False,
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    report.SpecificCharacterSet = "ISO_IR 192"
    copy_patient_and_study(report, first)
    set_series(report, context, "sr")
    add_equipment(report, context)
    identify_private_scheme(report, context.spec)
    return report


def _evidence(source: Dataset) -> Dataset:
    """What the evidence list needs of a source. Its patient is copied later, odd values and all."""
    dataset = Dataset()
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        setattr(dataset, keyword, source[keyword].value)
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex"):
        setattr(dataset, keyword, "")
    for keyword in ("StudyID", "StudyDate", "StudyTime", "AccessionNumber"):
        setattr(dataset, keyword, "")
    return dataset


def _observer(context: ResultContext) -> hd.sr.ObservationContext:
    """The algorithm as the observing device, with the values of the contributing equipment."""
    spec = context.spec
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=context.identity.device_uid,
        name=f"{spec.title} {spec.version}",
        manufacturer_name=spec.manufacturer,
        model_name=spec.title,
        serial_number=device_serial_number(context),
    )
    return hd.sr.ObservationContext(observer_device_context=hd.sr.ObserverContext(_DEVICE, device))


def _comment(text: str) -> hd.sr.TextContentItem:
    return hd.sr.TextContentItem(name=_COMMENT, value=text, relationship_type=_CONTAINS)


def _insert_after_procedure(
    root: Dataset, comments: list[hd.sr.TextContentItem], library: hd.sr.ContainerContentItem
) -> None:
    """Put comments and library before the measurements, which are the last item of the tree."""
    items = list(root.ContentSequence)
    root.ContentSequence = hd.sr.ContentSequence([*items[:-1], *comments, library, items[-1]])


def _library(context: ResultContext) -> hd.sr.ContainerContentItem:
    """Every source image once, with the frames that were used where that is not all of them.

    What they share is said once for the group (TID 1600, 1602).
    """
    first = context.series.datasets[0]
    shared: list[hd.sr.ContentItem] = []
    if first.Modality in _MODALITIES:
        shared.append(
            hd.sr.CodeContentItem(
                name=CodedConcept("121139", "DCM", "Modality"),
                value=_MODALITIES[first.Modality],
                relationship_type=RelationshipTypeValues.HAS_ACQ_CONTEXT,
            )
        )
    if first.get("FrameOfReferenceUID"):
        shared.append(
            hd.sr.UIDRefContentItem(
                name=CodedConcept("112227", "DCM", "Frame of Reference UID"),
                value=first.FrameOfReferenceUID,
                relationship_type=RelationshipTypeValues.HAS_ACQ_CONTEXT,
            )
        )
    images = [
        hd.sr.ImageContentItem(
            name=CodedConcept("260753009", "SCT", "Source"),
            referenced_sop_class_uid=cited.ReferencedSOPClassUID,
            referenced_sop_instance_uid=cited.ReferencedSOPInstanceUID,
            referenced_frame_numbers=_frames(cited),
            relationship_type=_CONTAINS,
        )
        for cited in references(source_planes(context.series))
    ]
    group = _container(CodedConcept("126200", "DCM", "Image Library Group"), [*shared, *images])
    return _container(CodedConcept("111028", "DCM", "Image Library"), [group])


def _frames(cited: Dataset) -> list[int] | None:
    """Frames of a reference; None when it is to the whole image."""
    if "ReferencedFrameNumber" not in cited:
        return None
    return [int(number) for number in np.atleast_1d(cited.ReferencedFrameNumber)]


def _container(name: CodedConcept, items: list[hd.sr.ContentItem]) -> hd.sr.ContainerContentItem:
    container = hd.sr.ContainerContentItem(name=name, relationship_type=_CONTAINS)
    container.ContentSequence = hd.sr.ContentSequence(items)
    return container
