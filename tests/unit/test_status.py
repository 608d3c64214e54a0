"""The report of a job that came to no end: from headers alone, whatever is wrong with the series."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage, SecondaryCaptureImageStorage

from ai.errors import SeriesRefused
from ai.model import ModelSpec, Prediction, find_card
from ai.model.card import Stage
from ai.pipeline import RunOptions, not_evaluated, report_not_run
from ai.profile import Profile
from ai.results.context import Predecessor, derive_identity
from ai.results.write import ResultFile
from tests import builders
from tests.runs import CREATED_AT
from tests.sr_tree import comments, evaluations, groups, items, named, text

OPTIONS = RunOptions(CREATED_AT, "1.2.3")
NAME, REASON = "MISSING_SLICE", "One slice of 7 is missing at z = 30.0 mm: send the whole series."
SHAPE, SPACING_MM = (6, 16, 16), (30.0, 10.0, 9.0)


@pytest.fixture
def card() -> ModelSpec:
    return find_card("ct-tissue")


def files_of(datasets: list[Dataset], folder: Path) -> list[Path]:
    return list(builders.write_series(datasets, folder))


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return files_of(list(builders.ct_series(SHAPE, SPACING_MM, "HFS")), tmp_path / "in")


def read(result: ResultFile) -> Dataset:
    return dcmread(BytesIO(result.content))


def failed(files: list[Path], card: ModelSpec, options: RunOptions = OPTIONS, name: str = NAME) -> Dataset:
    (result,) = report_not_run(files, card, name, REASON, options)
    report = read(result)
    assert (result.kind, result.profiles) == ("sr", ("",))
    assert report.SOPInstanceUID == result.sop_instance_uid
    assert report.SeriesInstanceUID == result.series_instance_uid
    assert report.SOPClassUID == result.sop_class_uid == Comprehensive3DSRStorage
    return report


def cited(report: Dataset) -> set[str]:
    """Instances of the image library."""
    return {
        str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
        for item in items(report)
        if item.ValueType == "IMAGE"
    }


def evidence(report: Dataset) -> set[str]:
    return {
        str(item.ReferencedSOPInstanceUID)
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }


def test_it_says_first_that_there_is_no_result_and_why(files: list[Path], card: ModelSpec) -> None:
    told = comments(failed(files, card))
    assert told[0] == (
        f"CT tissue 1.0.0: not completed, no result. {NAME}: {REASON} "
        "No structure was evaluated; this says nothing about whether one is there."
    )
    assert told[-1].startswith("Research use only. Not for diagnosis.")


def test_no_structure_was_evaluated(files: list[Path], card: ModelSpec) -> None:
    report = failed(files, card)
    assert [evaluations(g) for g in groups(report)] == [{"Presence of property": "Not Evaluated"}] * 5
    assert [text(g, "112039") for g in groups(report)] == [f"ct-tissue {s.label}" for s in card.structures]
    assert [i for i in items(report) if i.ValueType == "NUM"] == []


def test_it_cites_every_image_and_names_the_algorithm(files: list[Path], card: ModelSpec) -> None:
    report = failed(files, card)
    sources = {str(dcmread(path).SOPInstanceUID) for path in files}
    assert cited(report) == evidence(report) == sources
    source = dcmread(files[0])
    assert report.StudyInstanceUID == source.StudyInstanceUID
    assert (report.PatientName, report.AccessionNumber) == (source.PatientName, source.AccessionNumber)
    (equipment,) = report.ContributingEquipmentSequence
    assert text(report, "121012") == equipment.DeviceUID
    assert (report.SeriesNumber, report.SeriesDescription) == (9002, "AI CT tissue table (RUO)")


def test_its_identity_is_that_of_the_input_the_model_and_the_failure(
    files: list[Path], card: ModelSpec
) -> None:
    report, again = failed(files, card), failed(list(reversed(files)), card)
    assert report == again
    other = failed(files, card, name="QUALITY_HOLD")
    assert other.SOPInstanceUID != report.SOPInstanceUID
    assert other.SeriesInstanceUID != report.SeriesInstanceUID
    assert failed(files[1:], card).SOPInstanceUID != report.SOPInstanceUID
    digest = "0" * 64
    run = derive_identity(str(dcmread(files[0]).SeriesInstanceUID), digest, card, "1.2.3")
    assert run.device_uid == text(report, "121012")


def test_each_profile_that_wants_reports_gets_its_own(files: list[Path], card: ModelSpec) -> None:
    profiles = (Profile(), Profile(segmentation="label_map"), Profile(report=False))
    before = Predecessor("1.2", "1.2.3", Comprehensive3DSRStorage, "1.2.3.4")
    options = replace(OPTIONS, profiles=profiles, predecessors={profiles[1].key: before}, revision=3)
    results = report_not_run(files, card, NAME, REASON, options)
    assert [r.profiles for r in results] == [("",), (profiles[1].key,)]
    assert len({r.sop_instance_uid for r in results} | {r.series_instance_uid for r in results}) == 4
    first, second = (read(r) for r in results)
    assert "PredecessorDocumentsSequence" not in first
    (study,) = second.PredecessorDocumentsSequence
    document = study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert document.ReferencedSOPInstanceUID == "1.2.3.4"
    assert "Revision 3 of this series: it replaces every earlier result." in comments(second)[0]


def test_files_that_cannot_be_read_are_left_out_and_counted(files: list[Path], card: ModelSpec) -> None:
    files[1].write_bytes(b"no DICOM")
    files[2].write_bytes(b"")
    files[3].write_bytes(files[3].read_bytes()[:400])
    report = failed([*files, files[0].with_name("gone.dcm")], card)
    kept = {str(dcmread(path).SOPInstanceUID) for path in (files[0], *files[4:])}
    assert cited(report) == kept
    assert "4 files of the series could not be read and are not cited." in comments(report)


def test_without_a_readable_file_it_is_refused_by_name(tmp_path: Path, card: ModelSpec) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(b"no DICOM")
    with pytest.raises(SeriesRefused, match=r"NO_READABLE_FILE: None of the 1 files"):
        report_not_run([path], card, NAME, REASON, OPTIONS)


def test_a_series_without_place_size_or_uids_is_reported_all_the_same(
    tmp_path: Path, card: ModelSpec
) -> None:
    datasets = builders.without(
        builders.ct_series(SHAPE, SPACING_MM, "HFS"),
        "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "PixelData", "Rows",
        "FrameOfReferenceUID", "StudyInstanceUID", "PatientID", "Modality", "SeriesNumber",
    )  # fmt: skip
    report = failed(files_of(list(datasets), tmp_path / "in"), card)
    assert len(cited(report)) == 6
    assert report.StudyInstanceUID
    (procedure,) = [i for i in report.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "121058"]
    assert procedure.ConceptCodeSequence[0].CodeMeaning == "Imaging procedure"


def test_a_file_of_another_series_is_not_cited(tmp_path: Path, card: ModelSpec) -> None:
    datasets = list(builders.ct_series(SHAPE, SPACING_MM, "HFS"))
    datasets[5].SeriesInstanceUID = "1.2.3"
    report = failed(files_of(datasets, tmp_path / "in"), card, name="SEVERAL_SERIES")
    assert cited(report) == evidence(report) == {str(d.SOPInstanceUID) for d in datasets[:5]}


def test_what_is_no_image_is_evidence_and_not_in_the_image_library(tmp_path: Path, card: ModelSpec) -> None:
    datasets = list(builders.ct_series(SHAPE, SPACING_MM, "HFS"))
    for dataset in datasets:
        dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.66"  # Raw Data Storage
    report = failed(files_of(datasets, tmp_path / "in"), card, name="UNSUPPORTED_SOP_CLASS")
    assert cited(report) == set()
    assert named(report, "111028") == []
    assert len(evidence(report)) == 6


def test_a_screenshot_is_an_image(tmp_path: Path, card: ModelSpec) -> None:
    datasets = list(builders.ct_series(SHAPE, SPACING_MM, "HFS"))[:1]
    datasets[0].SOPClassUID = SecondaryCaptureImageStorage
    assert len(cited(failed(files_of(datasets, tmp_path / "in"), card))) == 1


def test_structures_of_stages_that_did_not_run_were_not_evaluated(card: ModelSpec) -> None:
    keys = [s.key for s in card.structures]
    stages = (
        Stage(name="organ", model="a", keep={"x": keys[0], "y": keys[1]}),
        Stage(name="lesion", model="b", inside="organ", keep={"z": keys[2], "w": keys[1]}),
    )
    spec = card.model_copy(update={"stages": stages})
    facts = [{"name": "organ"}, {"name": "lesion", "skipped": "the region was not found"}]
    prediction = Prediction(builders.torso_series("HFS", (4, 8, 8), SPACING_MM)[1], facts={"stages": facts})
    assert not_evaluated(spec, prediction) == {card.structures[2].number}
    assert not_evaluated(spec, replace(prediction, facts={})) == frozenset()
