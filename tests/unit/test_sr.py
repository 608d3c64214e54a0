"""The report of a run: Comprehensive 3D SR by TID 1500."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage

from ai.errors import ResultMismatch
from ai.geometry import Note, NoteCode
from ai.results.context import ResultContext
from ai.results.encode import encode
from ai.results.seg import build_seg
from ai.results.sr import build_sr
from ai.results.sr_measurements import decimal_string
from ai.results.summary import RESEARCH_USE, summary
from tests.runs import torso_run

METAL = 5


@pytest.fixture(scope="module")
def run() -> ResultContext:
    return torso_run(without=(METAL,))


@pytest.fixture(scope="module")
def seg(run: ResultContext) -> Dataset:
    return build_seg(run)


@pytest.fixture(scope="module")
def report(run: ResultContext, seg: Dataset) -> Dataset:
    return dcmread(BytesIO(encode(build_sr(run, [seg]), run.software_version)))


def items(node: Dataset) -> Iterator[Dataset]:
    """Every content item below a node, in the order of reading."""
    for item in node.get("ContentSequence", ()):
        yield item
        yield from items(item)


def named(node: Dataset, value: str) -> list[Dataset]:
    """The items whose concept name has this code value."""
    return [i for i in items(node) if "ConceptNameCodeSequence" in i and _name(i).get("CodeValue") == value]


def groups(report: Dataset) -> list[Dataset]:
    return named(report, "125007")


def text(node: Dataset, value: str) -> str:
    (item,) = named(node, value)
    return str(item.get("TextValue") or item.get("UID"))


def _name(item: Dataset) -> Dataset:
    name = item.ConceptNameCodeSequence[0]
    assert isinstance(name, Dataset)
    return name


def test_each_group_refers_to_the_segment_that_tracks_the_same_thing(seg: Dataset, report: Dataset) -> None:
    segments = {int(s.SegmentNumber): s for s in seg.SegmentSequence}
    for group in groups(report)[:4]:
        (reference,) = named(group, "121191")
        referenced = reference.ReferencedSOPSequence[0]
        assert referenced.ReferencedSOPInstanceUID == seg.SOPInstanceUID
        segment = segments[int(referenced.ReferencedSegmentNumber)]
        assert text(group, "112039") == segment.TrackingID
        assert text(group, "112040") == segment.TrackingUID


def test_a_structure_not_found_is_said_to_be_absent_and_has_no_measurement(report: Dataset) -> None:
    assert len(groups(report)) == 5
    metal = groups(report)[4]
    assert [i.ConceptCodeSequence[0].CodeValue for i in named(metal, "121052")] == ["272519000"]
    assert [i for i in items(metal) if i.ValueType in ("NUM", "IMAGE")] == []


def test_a_run_that_found_nothing_still_has_a_report_that_says_so(run: ResultContext, seg: Dataset) -> None:
    measurements = tuple(replace(m, voxel_count=0, volume_ml=0, intensity=None) for m in run.measurements)
    report = build_sr(replace(run, measurements=measurements), [seg])
    assert len(named(report, "121052")) == 5
    assert "None of the structures was found." in str(named(report, "121106")[0].TextValue)


def test_both_lungs_have_their_side(report: Dataset) -> None:
    sides = [
        named(g, "363698007")[0].ContentSequence[0].ConceptCodeSequence[0].CodeMeaning
        for g in groups(report)[1:3]
    ]
    assert sides == ["Left", "Right"]


def test_algorithm_and_observer_equal_the_segmentation_and_the_contributing_equipment(
    run: ResultContext, seg: Dataset, report: Dataset
) -> None:
    algorithm = seg.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    for group in groups(report):
        assert text(group, "111001") == algorithm.AlgorithmName
        assert text(group, "111003") == algorithm.AlgorithmVersion
    (equipment,) = report.ContributingEquipmentSequence
    assert text(report, "121012") == equipment.DeviceUID == run.identity.device_uid
    assert text(report, "121014") == equipment.Manufacturer
    assert text(report, "121015") == equipment.ManufacturerModelName


def test_the_evidence_is_every_source_image_and_the_segmentation(
    run: ResultContext, seg: Dataset, report: Dataset
) -> None:
    cited = {
        item.ReferencedSOPInstanceUID
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    assert cited == {d.SOPInstanceUID for d in run.series.datasets} | {seg.SOPInstanceUID}


def test_identity_time_and_state_are_those_of_the_run(run: ResultContext, report: Dataset) -> None:
    assert report.SOPClassUID == Comprehensive3DSRStorage
    assert report.SOPInstanceUID == run.instance_uid("sr")
    assert report.SeriesInstanceUID == run.series_uid("sr")
    assert (report.SeriesNumber, report.SeriesDescription) == (9002, "AI CT tissue table (RUO)")
    assert report.Manufacturer == "DICOM AI Gateway"
    assert (report.CompletionFlag, report.PreliminaryFlag) == ("COMPLETE", "PRELIMINARY")
    assert report.VerificationFlag == "UNVERIFIED"
    assert report.ContentDate == report.SeriesDate == report.InstanceCreationDate == "20260304"
    assert (report.PatientName, report.AccessionNumber) == ("TEST^SERIES1", "ACC1")


def test_the_text_comes_before_the_measurements_and_ends_with_the_intended_use() -> None:
    notes = (Note(NoteCode.IDENTITY_DERIVED, "The patient identity was derived."),)
    run = torso_run(shape=(6, 32, 40), spacing_mm=(30, 10, 9), without=(METAL,), notes=notes)
    report = build_sr(run, [build_seg(run)])
    comments = [str(i.TextValue) for i in named(report, "121106")]
    assert comments == [*summary(run)]
    assert comments[0].startswith("CT tissue 1.0.0. Found: Body ")
    assert comments[0].endswith("Looked for and not found: Metal implant.")
    assert comments[1].startswith("Geometry of the source: ACCEPTED. One regular volume: 6 slices of 32 × 40")
    assert comments[1].endswith("The patient identity was derived.")
    assert comments[2].startswith("Body: Everything inside the skin that is none of the other segments.")
    assert comments[3:] == [RESEARCH_USE]
    order = [_name(i).CodeMeaning for i in report.ContentSequence]
    assert order.index("Comment") < order.index("Image Library") < order.index("Imaging Measurements")


def test_a_source_with_missing_and_odd_patient_attributes_still_gets_a_report() -> None:
    run = torso_run(
        shape=(6, 32, 40), spacing_mm=(30, 10, 9), AccessionNumber=None, StudyID=None, PatientSex="X"
    )
    report = build_sr(run, [build_seg(torso_run(shape=(6, 32, 40), spacing_mm=(30, 10, 9)))])
    assert (report.AccessionNumber, report.PatientSex) == (None, "X")


def test_a_found_structure_without_a_segment_is_refused_by_name(run: ResultContext, seg: Dataset) -> None:
    shorter = Dataset()
    shorter.update(seg)
    shorter.SegmentSequence = seg.SegmentSequence[:2]
    with pytest.raises(ResultMismatch, match=r"SEGMENT_MISSING: Right lung has \d+ voxels"):
        build_sr(run, [shorter])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.000064, "0.000064"),
        (1e-9, "0"),
        (-1e-9, "0"),
        (100.0, "100"),
        (-850.25, "-850.25"),
        (1234567.1234567, "1234567.123457"),
        (123456789012.123456, "123456789012.123"),
    ],
)
def test_numbers_are_plain_decimals_of_at_most_16_characters(value: float, expected: str) -> None:
    assert decimal_string(value) == expected
    assert len(expected) <= 16


def test_a_later_revision_says_that_it_replaces_earlier_results() -> None:
    run = replace(torso_run(shape=(6, 32, 40), spacing_mm=(30, 10, 9)), revision=2)
    report = build_sr(run, [build_seg(run)])
    assert report.SeriesDescription == "AI CT tissue table rev 2 (RUO)"
    assert "Revision 2 of this series, with 6 images: it replaces every earlier result." in summary(run)[0]
