"""What a PACS and its readers need of the results, whatever the source has in its header."""

from __future__ import annotations

import copy
import hashlib
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from ai.errors import ModelError
from ai.geometry import Part
from ai.model import ModelSpec, Prediction, Progress, find_card
from ai.pipeline import Outcome, RunOptions, run_series
from ai.results.encode import encode
from ai.results.overview import build_overview, choose_slices
from ai.results.sr import build_sr
from ai.volume import ImageSeries, Volume
from tests import builders, odd_series
from tests.runs import CREATED_AT, build_seg, small_run, torso_run

OPTIONS = RunOptions(created_at=CREATED_AT, software_version="1.2.3")
CARD = find_card("ct-tissue")
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Answering:
    """A model that answers with what it was given, or with a box of its first structure."""

    answer: object = None
    spec: ModelSpec = CARD
    device: str = "cpu"

    def predict(self, channels: Sequence[Volume], _progress: Progress) -> Prediction:
        (volume,) = channels
        if self.answer is not None:
            return Prediction(self.answer)  # type: ignore[arg-type]
        labels = np.zeros(volume.voxels.shape, np.uint8)
        labels[1:3, 2:9, 3:8] = 1
        return Prediction(labels)


def silent(_stage: str, _done: float) -> None:
    """Progress that nobody hears."""


def results_of(folder: Path, series: list[Dataset]) -> list[Dataset]:
    return [dcmread(BytesIO(result.content)) for result in outcome_of(folder, series).results]


def outcome_of(folder: Path, series: list[Dataset], answer: object = None) -> Outcome:
    files = builders.write_series(series, folder)
    return run_series(files, Answering(answer), OPTIONS, silent)


def coded(value: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "99TEST", meaning
    return code


@pytest.mark.parametrize(
    ("character_set", "text"),
    [
        ("ISO_IR 100", "Schädel nativ"),
        ("ISO_IR 144", "Больница"),
        (["", "ISO 2022 IR 87"], "東京病院"),
        ("GB18030", "北京医院"),
        ("ISO_IR 192", "Ψυχή"),
    ],
)
def test_text_of_any_character_set_is_readable_in_every_result_in_sequences_too(
    tmp_path: Path, character_set: str | list[str], text: str
) -> None:
    series = builders.ct_series(
        SpecificCharacterSet=character_set, StudyDescription=text, InstitutionName=text, PatientName=text
    )
    for dataset in series:
        dataset.ProcedureCodeSequence = [coded("1", text)]
        dataset.ReferencedStudySequence = [Dataset()]
        dataset.ReferencedStudySequence[0].PurposeOfReferenceCodeSequence = [coded("2", text)]
    for result in results_of(tmp_path, series):
        nested = result.ReferencedStudySequence[0].PurposeOfReferenceCodeSequence[0]
        read = (result.PatientName, result.StudyDescription, result.ProcedureCodeSequence[0].CodeMeaning)
        assert [str(value) for value in (*read, nested.CodeMeaning)] == [text] * 4
        assert result.SpecificCharacterSet == "ISO_IR 192"
        if result.Modality == "SEG":
            assert result.ContributingEquipmentSequence[0].InstitutionName == text


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("BodyPartExamined", ["CHEST", "ABDOMEN"]),
        ("SliceThickness", "thick"),
        ("SliceThickness", "-1"),
        ("PatientWeight", "heavy"),
        ("StudyDate", "yesterday"),
        ("SeriesNumber", "second"),
        ("Manufacturer", ""),
        ("AcquisitionDateTime", "noon"),
        ("SpecificCharacterSet", "NONSENSE"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_attribute_that_the_results_can_do_without_may_be_malformed(
    tmp_path: Path, keyword: str, value: object
) -> None:
    series = builders.ct_series()
    for dataset in series:
        dataset[keyword] = dataset.get_item(keyword) if keyword in dataset else _empty(keyword)
        dataset[keyword]._value = value
    assert [result.Modality for result in results_of(tmp_path, series)] == ["SEG", "SR", "OT"]


def _empty(keyword: str) -> DataElement:
    holder = Dataset()
    setattr(holder, keyword, None)
    return holder[keyword]


def test_no_warning_of_a_library_reaches_a_person(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    series = builders.ct_series()
    for dataset in series:
        dataset.PatientName = "SECRET" * 20
        dataset["BodyPartExamined"]._value = "secret place"
    files = builders.write_series(series, tmp_path)
    recwarn.clear()
    run_series(files, Answering(), OPTIONS, silent)
    assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.filterwarnings("ignore:Invalid value for VR AS")
def test_a_malformed_age_and_an_empty_method_of_deidentification_do_not_make_results_invalid(
    tmp_path: Path,
) -> None:
    series = builders.ct_series(
        (4, 16, 16), PatientIdentityRemoved="YES", DeidentificationMethod="", PatientAge="0Y"
    )
    for result in results_of(tmp_path, series):
        assert "PatientAge" not in result
        assert result.DeidentificationMethod == "Not stated in the source"
    series = builders.ct_series((4, 16, 16), PatientAge="061Y", DeidentificationMethod="by hand")
    for result in results_of(tmp_path, series):
        assert (result.PatientAge, result.DeidentificationMethod) == ("061Y", "by hand")


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("Echo Time 4.6", "AI CT tissue overview rev 2, Echo Time 4.6 (RUO)"),
        ("Image Type M\\ND", "AI CT tissue overview rev 2, Image Type M/ND (RUO)"),
        ("x" * 200, f"AI CT tissue overview rev 2, {'x' * 21}~2c70 (RUO)"),
    ],
)
def test_the_description_of_a_result_says_which_part_of_the_series_it_is_of(label: str, said: str) -> None:
    run = replace(small_run(), revision=2)
    part = replace(run.series.part, key="key", label=label)
    overview, _ = build_overview(replace(run, series=with_part(run.series, part)))
    assert overview.SeriesDescription == said
    assert len(overview.SeriesDescription) <= 64


def test_parts_with_long_labels_have_descriptions_of_their_own() -> None:
    """Magnitude and phase of an echo: their labels differ only at the end."""
    run = small_run()
    said = set()
    for kind in ("M_FFE", "PHASE MAP"):
        part = replace(
            run.series.part,
            key=f"EchoTime=4.61;ImageType={kind}",
            label=f"axial plane, Echo Time 4.61 ms, Image Type {kind}",
        )
        said.add(str(build_seg(replace(run, series=with_part(run.series, part))).SeriesDescription))
    assert len(said) == 2
    assert all(text.startswith("AI CT tissue SEG, axial plane, Echo Time") for text in said)
    assert max(map(len, said)) <= 64


@pytest.mark.parametrize("is_enhanced", [False, True], ids=["single-frame", "enhanced"])
def test_noise_in_orientation_and_spacing_does_not_keep_a_series_from_its_results(
    tmp_path: Path, *, is_enhanced: bool
) -> None:
    """A SEG has one orientation and one spacing: those of the volume, the mean."""
    angle = 8e-4
    series = builders.ct_series((4, 400, 400), (3.0, 0.5, 0.5))
    for dataset in series[::2]:
        dataset.ImageOrientationPatient = [builders.ds(v) for v in (1, angle, 0, -angle, 1, 0)]
        dataset.PixelSpacing = ["0.5004", "0.5004"]
    if is_enhanced:
        series = [odd_series.enhanced(series, shared=False)]
    seg = results_of(tmp_path, series)[0]  # read back and verified by the run
    groups = seg.SharedFunctionalGroupsSequence[0]
    cosines = [float(v) for v in groups.PlaneOrientationSequence[0].ImageOrientationPatient]
    np.testing.assert_allclose(cosines, [1, angle / 2, 0, -angle / 2, 1, 0], atol=1e-6)
    np.testing.assert_allclose(groups.PixelMeasuresSequence[0].PixelSpacing, 0.5002, atol=1e-6)


def with_part(series: ImageSeries, part: Part) -> ImageSeries:
    changed = replace(series, part=part)
    changed.__dict__["datasets"] = series.datasets
    return changed


@pytest.mark.parametrize(("number", "first"), [(2, 9001), (9001, 9011), (9004, 9011), (9005, 9001)])
def test_results_do_not_take_the_series_number_of_their_source(
    tmp_path: Path, number: int, first: int
) -> None:
    numbers = [int(r.SeriesNumber) for r in results_of(tmp_path, builders.ct_series(SeriesNumber=number))]
    assert numbers == [first, first + 1, first + 2]


@pytest.mark.parametrize(
    ("stated", "written", "time"),
    [
        ("+0000", "+0000", "050607"),
        ("+0530", "+0530", "103607"),
        ("east", None, "050607"),
        (None, None, "050607"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_times_are_told_in_the_zone_that_the_source_states(
    stated: str | None, written: str | None, time: str
) -> None:
    run = torso_run(TimezoneOffsetFromUTC=stated)
    seg = build_seg(run)
    assert seg.get("TimezoneOffsetFromUTC") == written
    assert str(seg.SeriesTime).split(".")[0] == time


def test_the_picture_cites_the_slices_that_it_shows() -> None:
    run = torso_run()
    picture, _ = build_overview(run)
    cited = [str(item.ReferencedSOPInstanceUID) for item in picture.SourceImageSequence]
    shown = choose_slices(run.labels, (1,))
    assert cited == [str(run.series.datasets[k].SOPInstanceUID) for k in shown]
    purposes = {item.PurposeOfReferenceCodeSequence[0].CodeValue for item in picture.SourceImageSequence}
    assert purposes == {"121329"}


def test_a_seg_takes_over_the_same_patient_and_study_as_the_other_results() -> None:
    run = torso_run(OtherPatientNames="ELSE^SOMEONE", PatientComments="kept")
    seg, (picture, _) = build_seg(run), build_overview(run)
    assert "OtherPatientNames" not in seg
    ours = {e.keyword for e in seg if e.tag.group == 0x0010}
    assert ours == {e.keyword for e in picture if e.tag.group == 0x0010}


SHAPE = (12, 32, 40)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (np.full(SHAPE, 6, np.uint8), "number 6"),
        (np.full(SHAPE, 1, np.int64), "int64"),
        (np.ones(SHAPE, bool), "bool"),
        (np.zeros(SHAPE[::-1], np.uint8), "shape"),
        ([1, 2], "list"),
    ],
)
def test_an_answer_of_a_model_that_is_no_label_map_is_an_error_by_name(
    tmp_path: Path, answer: object, said: str
) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        outcome_of(tmp_path, builders.ct_series(SHAPE), answer)
    assert caught.value.code == "MODEL_OUTPUT_INVALID"


def test_another_process_writes_the_same_bytes() -> None:
    code = (
        "import sys; sys.path.insert(0, '.')\n"
        "from tests.unit.test_results_conformance import digests_of_a_run\n"
        "print(*digests_of_a_run())"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert tuple(run.stdout.split()) == digests_of_a_run()


def digests_of_a_run() -> tuple[str, ...]:
    """SHA-256 of SEG, SR and overview of one fixed run."""
    run = small_run()
    seg = build_seg(run)
    objects = (seg, build_sr(run, [copy.deepcopy(seg)]), build_overview(run)[0])
    return tuple(hashlib.sha256(encode(dataset, run.software_version)).hexdigest() for dataset in objects)


def test_every_dicom_code_of_a_result_is_one_of_the_standard() -> None:
    known = {code.value for name in codes.DCM.dir() for code in [getattr(codes.DCM, name)]}
    run = torso_run(without=(5,))
    seg = build_seg(run)
    written = {
        str(item.CodeValue)
        for dataset in (seg, build_sr(run, [seg]), build_overview(run)[0])
        for element in dataset.iterall()
        if element.VR == "SQ"
        for item in element.value
        if item.get("CodingSchemeDesignator") == "DCM"
    }
    assert "121052" in written
    assert written - known == set()
