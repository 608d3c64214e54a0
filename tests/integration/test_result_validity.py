"""Validators and readers of others on our results: dicom3tools, dicom-validator, DCMTK, dcmqi, highdicom.

The label maps are the truth of the synthetic torso, which is asymmetric about every axis, so that a flip, a
shift or an exchange of segments cannot hide. Real series: :mod:`tests.integration.test_result_validity_real`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread

from ai.profile import Profile
from tests import builders, result_sets
from tests import result_checks as checks
from tests.result_sets import OVERVIEW, PROFILES, SR, STRUCTURES, ResultSet, Told, results_of
from tests.validators import dciodvfy_errors, dicom_validator_errors, inconsistencies, tool

ORIENTATIONS = ("HFS", "FFS", "prone", "oblique")
METAL = 5
OVERLAPPING = ({**STRUCTURES[0], "includes": [2, 3, 4]}, *STRUCTURES[1:])
ALL = {  # every limit and overlap once
    **PROFILES,
    "SEG BINARY; split": Profile(maximum_segments=2, report=False, overview=False),
    "SEG BINARY; absent only said": Profile(absent="report", report=False, overview=False),
}
MADE = (*ORIENTATIONS, "nothing found", "segments that overlap")


@pytest.fixture(scope="module", params=MADE)
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ResultSet:
    """Results of the torso in every orientation, of nothing found, and of segments that overlap."""
    folder = tmp_path_factory.mktemp("results")
    orientation = request.param if request.param in ORIENTATIONS else "HFS"
    series, labels = builders.torso_series(orientation, (24, 64, 72), (10.0, 6.0, 5.0))
    labels[(labels == METAL) | (request.param == "nothing found")] = 0
    overlap = request.param == "segments that overlap"
    spec = result_sets.card(structures=list(OVERLAPPING)) if overlap else result_sets.card()
    files = builders.write_series(series, folder / "in")
    profiles = ALL if orientation == "HFS" else PROFILES
    return results_of(files, Told(spec, labels), folder / "out", request.param, profiles=profiles)


def test_each_case_finds_four_structures_and_no_metal_or_nothing(results: ResultSet) -> None:
    assert {m.structure.number for m in results.run.measurements if m.found} in ({1, 2, 3, 4}, set())


# -- valid, and about the same patient -------------------------------------------------------------


def test_dciodvfy_finds_no_error(results: ResultSet) -> None:
    checks.check_dciodvfy(results)


def test_dicom_validator_finds_no_error(results: ResultSet) -> None:
    checks.check_dicom_validator(results)


def test_dcentvfy_finds_patient_study_and_frame_of_reference_equal_to_the_source(results: ResultSet) -> None:
    assert inconsistencies((*results.sources, *results.paths)) == set()
    checks.check_dcentvfy(results)


def test_dcentvfy_would_have_found_the_name_of_another_patient(tmp_path: Path) -> None:
    series = builders.ct_series((3, 16, 16))
    series[0].PatientName = "Another"
    assert inconsistencies(builders.write_series(series, tmp_path))


@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        ("ISO_IR 100", "M\u00fcller^J\u00f6rg"),
        ("ISO_IR 192", "\u5c71\u7530^\u592a\u90ce"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=\u5c71\u7530^\u592a\u90ce"),
        ("", "Plain^Name"),
    ],
)
def test_a_name_in_any_character_set_is_the_same_in_every_result(
    character_set: str | list[str], name: str, tmp_path: Path
) -> None:
    series = builders.ct_series((3, 16, 16), SpecificCharacterSet=character_set, PatientName=name)
    written = results_of(
        builders.write_series(series, tmp_path / "in"), Told(result_sets.card()), tmp_path / "out"
    )
    for path in written.paths:
        assert dcmread(path, stop_before_pixels=True).PatientName == name


# -- the Segmentations -----------------------------------------------------------------------------


def test_dcmqi_gives_back_exactly_our_voxels_in_patient_space(results: ResultSet, tmp_path: Path) -> None:
    checks.check_dcmqi(results, tmp_path)


def test_highdicom_gives_back_exactly_our_voxels(results: ResultSet) -> None:
    checks.check_highdicom(results)


def test_dcmdump_lists_every_structure_as_a_segment_found_or_not(results: ResultSet) -> None:
    first = results.objects[result_sets.BINARY][0]
    lines = tool("dcmdump", "+P", "0062,0005", first).splitlines()
    assert [line.split("[")[1].split("]")[0] for line in lines] == [
        structure.label for structure in results.run.spec.structures
    ]


# -- the report ------------------------------------------------------------------------------------


def test_tid1500reader_reads_every_measurement(results: ResultSet, tmp_path: Path) -> None:
    checks.check_tid1500reader(results, tmp_path)


def test_dsrdump_says_preliminary_and_unverified(results: ResultSet) -> None:
    text = tool("dsrdump", results.path(SR))
    for flag in ("Preliminary Flag    : PRELIMINARY", "Verification Flag   : UNVERIFIED"):
        assert flag in text


def test_dsr2html_shows_summary_findings_and_numbers(results: ResultSet) -> None:
    checks.check_dsr2html(results)


# -- the overview ----------------------------------------------------------------------------------


def test_dcmtk_decodes_the_overview_to_the_same_picture(results: ResultSet, tmp_path: Path) -> None:
    picture = tmp_path / "overview.ppm"
    tool("dcm2pnm", results.path(OVERVIEW), picture)
    with Image.open(picture) as decoded:
        np.testing.assert_array_equal(np.asarray(decoded), dcmread(results.path(OVERVIEW)).pixel_array)


# -- the documentation, and that the offline tables of dicom-validator see faults ------------------------


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> ResultSet:
    folder = tmp_path_factory.mktemp("sound")
    series, labels = builders.torso_series("HFS", (6, 32, 36), (40.0, 12.0, 10.0))
    files = builders.write_series(series, folder / "in")
    return results_of(files, Told(result_sets.card(), labels), folder / "out")


def test_the_documentation_says_what_the_validators_find_of_each_object(sound: ResultSet) -> None:
    """Each kind of object has a row, and each message that the rows count is heard."""
    rows = checks.objects_and_results()
    assert set(rows) == set(sound.objects)
    found = {"dciodvfy": dciodvfy_errors, "dicom-validator": dicom_validator_errors}
    for name, paths in sound.objects.items():
        for cell, (program, errors) in zip(rows[name], found.items(), strict=False):
            counted = len(checks.known(program, name))
            assert cell == (f"{counted} known" if counted else "0 errors")
            assert len(errors(paths[0])) == counted, (name, program)


def test_every_known_message_is_of_an_object_that_is_named_and_has_a_reason() -> None:
    for program, name, _message, why in checks.table("Known messages"):
        assert program in ("dciodvfy", "dcentvfy", "dsr2html")
        assert name == "all" or set(name.split("; ")) <= set(checks.objects_and_results())
        assert why


@pytest.mark.parametrize(
    ("name", "path", "says"),
    [
        (result_sets.BINARY, "StudyInstanceUID", "TagMissing"),
        (result_sets.BINARY, "SharedFunctionalGroupsSequence/PixelMeasuresSequence", "TagMissing"),
        (result_sets.LABEL_MAP, "PerFrameFunctionalGroupsSequence/PlanePositionSequence", "TagMissing"),
        (result_sets.LABEL_MAP, "SegmentSequence/SegmentLabel", "TagMissing"),
        (
            result_sets.FRACTIONAL,
            "PerFrameFunctionalGroupsSequence/SegmentIdentificationSequence",
            "TagMissing",
        ),
        (result_sets.SR, "ContentSequence/ValueType", "TagMissing"),
        (result_sets.SR, "ContentSequence/RelationshipType", "TagMissing"),
        (result_sets.OVERVIEW, "ConversionType", "TagMissing"),
        (result_sets.RTSTRUCT, "StructureSetROISequence/ROIGenerationAlgorithm", "TagMissing"),
        (result_sets.RTSTRUCT, "ROIContourSequence/ContourSequence/ContourGeometricType", "TagMissing"),
    ],
)
def test_dicom_validator_would_have_found_what_is_missing(
    sound: ResultSet, name: str, path: str, says: str, tmp_path: Path
) -> None:
    dataset = dcmread(sound.path(name))
    *parents, keyword = path.split("/")
    item = dataset
    for parent in parents:
        item = item[parent].value[0]
    del item[keyword]
    if parents[:1] == ["PerFrameFunctionalGroupsSequence"]:
        for other in dataset.PerFrameFunctionalGroupsSequence[1:]:
            del other[keyword]
    dataset.save_as(tmp_path / "broken.dcm")
    assert any(f"{keyword}: {says}" in error for error in dicom_validator_errors(tmp_path / "broken.dcm"))


def test_dicom_validator_would_have_found_what_does_not_belong(sound: ResultSet, tmp_path: Path) -> None:
    dataset = dcmread(sound.path(SR))
    dataset.ContentSequence[0].TextValue = "a text in an item that is a code"
    dataset.SegmentationType = "BINARY"
    dataset.save_as(tmp_path / "broken.dcm")
    found = dicom_validator_errors(tmp_path / "broken.dcm")
    assert any("TextValue: TagNotAllowed" in error for error in found)
    assert any("SegmentationType: TagUnexpected" in error for error in found)
