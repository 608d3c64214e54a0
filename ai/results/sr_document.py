"""What every report has, that of a finished run and that of one which came to no end: its frame."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import Comprehensive3DSRStorage

from ai.results import sr_codes as c
from ai.results.coding import private_scheme
from ai.results.context import Origin, Predecessor
from ai.results.equipment import add_equipment, device_serial_number, set_series
from ai.results.source import copy_patient_and_study
from ai.results.sr_items import (
    ACQ_CONTEXT,
    CONCEPT_MOD,
    OBS_CONTEXT,
    code,
    container,
    image,
    text,
    uid_reference,
)


def report(
    origin: Origin,
    comments: Sequence[str],
    sources: Sequence[Dataset],
    groups: Sequence[Dataset],
    evidence: Iterable[Dataset],
) -> Dataset:
    """A report without identity of its own: TID 1500 with everything that is said in it.

    Parameters
    ----------
    comments
        Sentences for people, the summary first.
    sources
        Image SOP Instance References of the image library.
    evidence
        Data sets that the report is about, each once: sources and segmentations.
    """
    first = origin.series.datasets[0]
    summary, *others = comments
    content = [
        code(c.LANGUAGE, c.ENGLISH, CONCEPT_MOD),
        *_observer(origin),
        code(c.PROCEDURE_REPORTED, c.PROCEDURES.get(first.get("Modality"), c.ANY_PROCEDURE), CONCEPT_MOD),
        text(c.SUMMARY, summary),
        *(text(c.COMMENT, comment) for comment in others),
        *_library(first, sources),
        container(c.MEASUREMENTS, groups),
    ]
    dataset = container(c.TITLE, content, "1500", relation=None)
    dataset.SOPClassUID = Comprehensive3DSRStorage
    dataset.Modality = "SR"
    dataset.InstanceNumber = 1
    dataset.CompletionFlag = "COMPLETE"
    dataset.VerificationFlag = "UNVERIFIED"
    dataset.PreliminaryFlag = "PRELIMINARY"
    dataset.CurrentRequestedProcedureEvidenceSequence = _evidence(evidence)
    dataset.PerformedProcedureCodeSequence = DicomSequence()
    dataset.ReferencedPerformedProcedureStepSequence = DicomSequence()
    before = (origin.predecessors or {}).get(origin.profile.key)
    if before is not None:
        dataset.PredecessorDocumentsSequence = _predecessor(before)
    copy_patient_and_study(dataset, first)
    set_series(dataset, origin, "sr")
    add_equipment(dataset, origin)
    dataset.CodingSchemeIdentificationSequence = private_scheme()
    return dataset


def citation(source: Dataset) -> Dataset:
    """Image SOP Instance Reference (PS3.3 10.3) to the whole of an instance."""
    item = Dataset()
    item.ReferencedSOPClassUID = source.SOPClassUID
    item.ReferencedSOPInstanceUID = source.SOPInstanceUID
    return item


def _observer(origin: Origin) -> list[Dataset]:
    """The algorithm as the observing device (TID 1004), with the values of the contributing equipment."""
    spec = origin.spec
    return [
        code(c.OBSERVER_TYPE, c.DEVICE, OBS_CONTEXT),
        uid_reference(c.OBSERVER_UID, origin.identity.device_uid, OBS_CONTEXT),
        text(c.OBSERVER_NAME, f"{spec.title} {spec.version}", OBS_CONTEXT),
        text(c.OBSERVER_MANUFACTURER, spec.manufacturer, OBS_CONTEXT),
        text(c.OBSERVER_MODEL, spec.title, OBS_CONTEXT),
        text(c.OBSERVER_SERIAL_NUMBER, device_serial_number(origin), OBS_CONTEXT),
    ]


def _library(first: Dataset, sources: Sequence[Dataset]) -> list[Dataset]:
    """Every source image once; what they share is said once for the group (TID 1600, 1602)."""
    if not sources:
        return []
    shared = []
    if first.get("Modality") in c.MODALITIES:
        shared.append(code(c.MODALITY, c.MODALITIES[first.Modality], ACQ_CONTEXT))
    if first.get("FrameOfReferenceUID"):
        frame = str(first.FrameOfReferenceUID)
        shared.append(uid_reference(c.FRAME_OF_REFERENCE, frame, ACQ_CONTEXT))
    group = container(c.LIBRARY_GROUP, [*shared, *(image(c.SOURCE, cited) for cited in sources)])
    return [container(c.LIBRARY, [group])]


def _evidence(instances: Iterable[Dataset]) -> DicomSequence:
    """Hierarchical SOP Instance References (PS3.3 C.17.2.1), which are all of the source's study."""
    studies: dict[str, dict[str, dict[str, Dataset]]] = {}
    for instance in instances:
        of_series = studies.setdefault(str(instance.StudyInstanceUID), {})
        cited = of_series.setdefault(str(instance.SeriesInstanceUID), {})
        cited.setdefault(str(instance.SOPInstanceUID), citation(instance))
    return DicomSequence(
        _study(uid, {series: list(cited.values()) for series, cited in of_series.items()})
        for uid, of_series in studies.items()
    )


def _study(uid: str, cited: dict[str, list[Dataset]]) -> Dataset:
    study = Dataset()
    study.StudyInstanceUID = uid
    items = []
    for series_uid, instances in cited.items():
        series = Dataset()
        series.SeriesInstanceUID = series_uid
        series.ReferencedSOPSequence = DicomSequence(instances)
        items.append(series)
    study.ReferencedSeriesSequence = DicomSequence(items)
    return study


def _predecessor(before: Predecessor) -> DicomSequence:
    cited = Dataset()
    cited.ReferencedSOPClassUID = before.sop_class_uid
    cited.ReferencedSOPInstanceUID = before.sop_instance_uid
    return DicomSequence([_study(before.study_instance_uid, {before.series_instance_uid: [cited]})])
