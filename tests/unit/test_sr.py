"""The report of a run: Comprehensive 3D SR by TID 1500."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage

from ai.errors import ResultMismatch
from ai.geometry import Note, NoteCode
from ai.measure import measure
from ai.profile import Profile
from ai.quality import Finding, Verdict
from ai.results.context import Predecessor, ResultContext
from ai.results.encode import encode
from ai.results.seg import build_segs
from ai.results.sr import build_sr
from ai.results.sr_items import decimal_string
from ai.results.sr_measurements import NOT_FOUND
from ai.results.summary import RESEARCH_USE, summary
from tests.runs import torso_run
from tests.sr_tree import comments, evaluations, groups, items, name, named, numbers, text

METAL = 5
SMALL = {"shape": (6, 32, 40), "spacing_mm": (30, 10, 9)}


def headers(run: ResultContext) -> list[Dataset]:
    return [seg.header for seg in build_segs(run)]


def report_of(run: ResultContext) -> Dataset:
    """The report as a reader gets it."""
    return dcmread(BytesIO(encode(build_sr(run, headers(run)), run.software_version)))


@pytest.fixture(scope="module")
def run() -> ResultContext:
    return torso_run(without=(METAL,))


@pytest.fixture(scope="module")
def seg(run: ResultContext) -> Dataset:
    return headers(run)[0]


@pytest.fixture(scope="module")
def report(run: ResultContext) -> Dataset:
    return report_of(run)


@pytest.fixture(scope="module")
def small() -> ResultContext:
    return torso_run(**SMALL, without=(METAL,))  # type: ignore[arg-type]


def test_each_group_refers_to_the_segment_that_tracks_the_same_thing(seg: Dataset, report: Dataset) -> None:
    segments = {int(s.SegmentNumber): s for s in seg.SegmentSequence}
    for group in groups(report)[:4]:
        (reference,) = named(group, "121191")
        referenced = reference.ReferencedSOPSequence[0]
        assert referenced.ReferencedSOPInstanceUID == seg.SOPInstanceUID
        segment = segments[int(referenced.ReferencedSegmentNumber)]
        assert text(group, "112039") == segment.TrackingID
        assert text(group, "112040") == segment.TrackingUID


@pytest.mark.parametrize("segmentation", ["binary", "label_map"])
def test_structures_refer_to_whichever_object_has_them(small: ResultContext, segmentation: str) -> None:
    run = replace(small, profile=Profile(segmentation=segmentation, maximum_segments=2))  # type: ignore[arg-type]
    segs = headers(run)
    report = build_sr(run, segs)
    by_uid = {seg.SOPInstanceUID: seg for seg in segs}
    cited = []
    for group in groups(report)[:4]:
        reference = named(group, "121191")[0].ReferencedSOPSequence[0]
        seg = by_uid[reference.ReferencedSOPInstanceUID]
        assert reference.ReferencedSOPClassUID == seg.SOPClassUID
        (segment,) = [s for s in seg.SegmentSequence if s.SegmentNumber == reference.ReferencedSegmentNumber]
        assert segment.TrackingUID == text(group, "112040")
        cited.append(seg.SOPInstanceUID)
    assert set(cited) <= set(by_uid)
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[-1]
    assert [i.ReferencedSOPInstanceUID for i in evidence.ReferencedSOPSequence] == list(by_uid)


def test_a_structure_not_found_is_said_to_be_absent_and_has_no_measurement(report: Dataset) -> None:
    metal = groups(report)[4]
    assert evaluations(metal) == {"Presence of property": "Absent"}
    assert [i for i in items(metal) if i.ValueType in ("NUM", "IMAGE")] == []


def test_what_was_not_found_is_no_pass_and_may_lie_elsewhere(small: ResultContext) -> None:
    """Else "Left lung: Absent, PASS" is read as if somebody had made sure."""
    passed = Finding(
        ("metal_implant",), "volume_ml", Verdict.PASS, "Metal implant: 0 mL; expected at most 9."
    )
    metal = groups(report_of(replace(small, quality=(passed,))))[4]
    assert evaluations(metal) == {"Presence of property": "Absent"}
    assert [i.TextValue for i in named(metal, "121106")] == [NOT_FOUND]
    missed = Finding(("metal_implant",), "coverage", Verdict.SUSPECT, "Metal implant: not found.")
    metal = groups(report_of(replace(small, quality=(missed,))))[4]
    assert evaluations(metal) == {"Presence of property": "Absent", "Quality Assessment": "SUSPECT"}
    assert [i.TextValue for i in named(metal, "121106")] == ["Metal implant: not found.", NOT_FOUND]


def test_a_structure_without_an_empty_segment_is_absent_all_the_same(small: ResultContext) -> None:
    run = replace(small, profile=Profile(absent="report"))
    assert len(headers(run)[0].SegmentSequence) == 4
    metal = groups(report_of(run))[4]
    assert evaluations(metal) == {"Presence of property": "Absent"}
    assert text(metal, "112039") == "ct-tissue Metal implant"


def test_a_structure_that_nobody_looked_for_is_not_evaluated(small: ResultContext) -> None:
    report = report_of(replace(small, not_evaluated=frozenset({METAL})))
    assert evaluations(groups(report)[4]) == {"Presence of property": "Not Evaluated"}
    assert "Not evaluated: Metal implant." in comments(report)[0]
    assert "Looked for and not found" not in comments(report)[0]


def test_a_structure_at_the_edge_of_the_field_of_view_is_incomplete_and_partial(small: ResultContext) -> None:
    reason = "Left lung: touches the superior border of the field of view; 9 mL is a lower bound."
    findings = (
        Finding(("body",), "complete", Verdict.PASS, "Body: within the field of view."),
        Finding(("left_lung",), "complete", Verdict.PARTIAL, reason),
        Finding(("left_lung", "right_lung"), "left_right", Verdict.SUSPECT, "The lungs differ."),
    )
    report = report_of(replace(small, quality=findings))
    body, left, right, bone, metal, pair = groups(report)
    assert evaluations(body) == {"Presence of property": "Present", "Quality Assessment": "PASS"}
    assert evaluations(left) == {
        "Presence of property": "Present",
        "Quality Finding": "Anatomy coverage incomplete",
        "Quality Assessment": "SUSPECT",
    }
    assert [str(i.TextValue) for i in named(left, "121106")] == ["The lungs differ.", reason]
    assert evaluations(right)["Quality Assessment"] == "SUSPECT"
    assert evaluations(bone) == {"Presence of property": "Present"}  # nothing was asked of it
    assert evaluations(metal) == {"Presence of property": "Absent"}
    assert evaluations(pair) == {"Quality Finding": "Anatomy coverage incomplete"}
    assert text(pair, "121106").endswith("Left lung touches the edge of the field of view.")
    told = comments(report)[1:4]
    assert told == [
        "Quality SUSPECT. The lungs differ.",
        f"Quality PARTIAL. {reason}",
        "Quality checks passed: 1 of 3.",
    ]


def test_many_structures_that_are_cut_are_one_sentence_behind_what_is_wrong(small: ResultContext) -> None:
    first = small.spec.structures[:4]
    cut = [Finding((s.key,), "complete", Verdict.PARTIAL, f"{s.label}: cut.") for s in first]
    wrong = Finding(("bone",), "mean_value", Verdict.SUSPECT, "Bone: too soft.")
    told = summary(replace(small, quality=(*cut, wrong)))
    assert told[1:3] == (
        "Quality SUSPECT. Bone: too soft.",
        "Quality PARTIAL. 4 structures touch the border of the field of view, so their sizes are lower "
        "bounds: Body, Left lung, Right lung, Bone.",
    )
    few = summary(replace(small, quality=(*cut[:3], wrong)))
    assert few[2:5] == tuple(f"Quality PARTIAL. {finding.reason}" for finding in cut[:3])


def test_numbers_are_those_that_were_measured_with_units_and_modifiers(
    run: ResultContext, report: Dataset
) -> None:
    left = run.measurements[1]
    assert left.intensity is not None
    assert left.reach is not None
    right_left, anterior_posterior, superior_inferior = left.reach.extents_mm
    expected = {
        ("Volume", "Sum of segmented voxel method for volume"): (left.volume_ml, "mL"),
        ("Attenuation Coefficient", "Mean"): (left.intensity.mean, "[hnsf'U]"),
        ("Attenuation Coefficient", "Standard Deviation"): (left.intensity.sd, "[hnsf'U]"),
        ("Attenuation Coefficient", "Minimum"): (left.intensity.minimum, "[hnsf'U]"),
        ("Attenuation Coefficient", "Maximum"): (left.intensity.maximum, "[hnsf'U]"),
        ("Diameter", "Outline in one axial plane", "Maximum"): (left.reach.longest_axial_diameter_mm, "mm"),
        ("Width", "Bounding box, patient axis right to left"): (right_left, "mm"),
        ("Depth", "Bounding box, patient axis anterior to posterior"): (anterior_posterior, "mm"),
        ("Height", "Bounding box, patient axis superior to inferior"): (superior_inferior, "mm"),
    }
    found = numbers(groups(report)[1])
    assert list(found) == list(expected)
    for key, (value, unit) in expected.items():
        assert found[key] == (pytest.approx(value, abs=1e-6), unit)


def test_attenuation_is_told_of_hounsfield_units_only(small: ResultContext) -> None:
    volume = replace(small.series.volume, unit="")
    series = replace(small.series, volume=volume)
    for key in ("datasets", "input_digest"):
        series.__dict__[key] = small.series.__dict__[key]
    found = numbers(groups(report_of(replace(small, series=series)))[1])
    assert [key[0] for key in found] == ["Volume", "Diameter", "Width", "Depth", "Height"]


def test_a_pair_has_difference_and_ratio_of_left_and_right(run: ResultContext, report: Dataset) -> None:
    pair = groups(report)[5]
    left, right = (run.measurements[i].volume_ml for i in (1, 2))
    assert numbers(pair) == {
        ("Volume, left minus right",): (pytest.approx(left - right, abs=1e-6), "mL"),
        ("Ratio", "Left divided by right"): (pytest.approx(left / right, abs=1e-6), "{ratio}"),
    }
    (site,) = named(pair, "363698007")
    assert site.ConceptCodeSequence[0].CodeMeaning == "Lung"
    assert site.ContentSequence[0].ConceptCodeSequence[0].CodeMeaning == "Bilateral"
    assert text(pair, "112040") not in run.identity.tracking_uids.values()
    assert text(pair, "121106").startswith(f"Left lung {left:.1f} mL, Right lung {right:.1f} mL: left minus")


def test_a_structure_is_measured_with_those_that_it_includes(small: ResultContext) -> None:
    structures = list(small.spec.structures)
    structures[0] = structures[0].model_copy(update={"includes": (2, 3)})
    spec = small.spec.model_copy(update={"structures": tuple(structures)})
    measured = measure(small.series.volume, small.labels, spec.structures)
    run = replace(small, spec=spec, measurements=measured)
    voxels = int(np.isin(small.labels, (1, 2, 3)).sum())
    volume = numbers(groups(report_of(run))[0])[("Volume", "Sum of segmented voxel method for volume")]
    assert volume[0] == pytest.approx(voxels * 30 * 10 * 9 / 1000)


@pytest.mark.parametrize("absent", ["segment", "report"])
def test_a_run_that_found_nothing_says_so_first(small: ResultContext, absent: str) -> None:
    labels = np.zeros_like(small.labels)
    measured = measure(small.series.volume, labels, small.spec.structures)
    profile = Profile(absent=absent)  # type: ignore[arg-type]
    report = report_of(replace(small, labels=labels, measurements=measured, profile=profile))
    assert comments(report)[0].startswith(
        "CT tissue 1.0.0: completed, nothing found. None of the structures was found."
    )
    assert [evaluations(g) for g in groups(report)] == [{"Presence of property": "Absent"}] * 5


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
    assert "PredecessorDocumentsSequence" not in report


def test_a_report_names_the_one_that_it_replaces_for_its_own_profile(small: ResultContext) -> None:
    before = Predecessor("1.2", "1.2.3", Comprehensive3DSRStorage, "1.2.3.4")
    report = report_of(replace(small, revision=2, predecessors={"": before}))
    (study,) = report.PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    (document,) = series.ReferencedSOPSequence
    assert (study.StudyInstanceUID, series.SeriesInstanceUID) == ("1.2", "1.2.3")
    assert document.ReferencedSOPClassUID == Comprehensive3DSRStorage
    assert document.ReferencedSOPInstanceUID == "1.2.3.4"
    other = report_of(replace(small, profile=Profile(absent="report"), predecessors={"": before}))
    assert "PredecessorDocumentsSequence" not in other


def test_the_text_comes_before_the_measurements_and_ends_with_the_intended_use() -> None:
    notes = (Note(NoteCode.IDENTITY_DERIVED, "The patient identity was derived."),)
    run = torso_run(shape=(6, 32, 40), spacing_mm=(30, 10, 9), without=(METAL,), notes=notes)
    report = report_of(run)
    told = comments(report)
    assert told == [*summary(run)]
    assert told[0].startswith("CT tissue 1.0.0: completed, 4 of 5 structures found. Found: Body ")
    assert told[0].endswith("Looked for and not found: Metal implant.")
    assert told[1].startswith("Geometry of the source: ACCEPTED. One regular volume: 6 slices of 32 × 40")
    assert told[1].endswith("The patient identity was derived.")
    assert told[2].startswith("Body: Everything inside the skin that is none of the other segments.")
    assert told[3].startswith("Limits of CT tissue 1.0.0: Dense disease of the lung")
    assert told[4:] == [f"{RESEARCH_USE} Intended use: {run.spec.intended_use}"]
    order = [name(i).CodeMeaning for i in report.ContentSequence]
    assert order[8] == "Summary"  # after language, observer and procedure, which are no CONTAINS
    assert order.index("Comment") < order.index("Image Library") < order.index("Imaging Measurements")


def test_whom_the_terms_ask_to_name_is_named(small: ResultContext) -> None:
    licence = small.spec.licence.model_copy(update={"attribution": "Data by A. Doe, CC BY 4.0"})
    spec = small.spec.model_copy(update={"licence": licence, "limits": (), "intended_use": ""})
    assert summary(replace(small, spec=spec))[-2:] == (
        "Attribution: Data by A. Doe, CC BY 4.0",
        RESEARCH_USE,
    )


def test_of_many_structures_the_summary_lists_a_few(small: ResultContext) -> None:
    many = tuple(m for m in small.measurements if m.found) * 6
    assert summary(replace(small, measurements=many))[0].endswith(" and 12 more.")


def test_a_source_with_missing_and_odd_patient_attributes_still_gets_a_report(small: ResultContext) -> None:
    run = torso_run(**SMALL, AccessionNumber=None, StudyID=None, PatientSex="X")  # type: ignore[arg-type]
    report = build_sr(run, headers(small))
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


def test_a_later_revision_says_that_it_replaces_earlier_results(small: ResultContext) -> None:
    run = replace(small, revision=2)
    assert report_of(run).SeriesDescription == "AI CT tissue table rev 2 (RUO)"
    assert "Revision 2 of this series, with 6 images: it replaces every earlier result." in summary(run)[0]
