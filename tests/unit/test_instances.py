"""The files of a series as instances: one series, each instance once, a complete identity, one digest."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from ai.errors import SeriesRefused
from ai.geometry import NoteCode
from ai.instances import input_digest, read_dataset, read_instances
from tests import builders


def written(folder: Path, series: list[Dataset]) -> list[Path]:
    return builders.write_series(series, folder)


def refusal(files: list[Path]) -> SeriesRefused:
    with pytest.raises(SeriesRefused) as caught:
        read_instances(files)
    return caught.value


def data_set(file: Path) -> bytes:
    """Everything behind the file meta information."""
    content = file.read_bytes()
    return content[144 + int.from_bytes(content[140:144], "little") :]


def test_a_complete_series_needs_no_note(tmp_path: Path) -> None:
    series = builders.ct_series()
    instances, notes = read_instances(written(tmp_path, series))
    assert [i.sop_instance_uid for i in instances] == [d.SOPInstanceUID for d in series]
    assert notes == ()


def test_an_empty_file_is_refused_by_name(tmp_path: Path) -> None:
    files = written(tmp_path, builders.ct_series())
    files[3].write_bytes(b"")
    assert refusal(files).code == "EMPTY_FILE"


def test_a_file_that_is_not_dicom_is_refused_by_name(tmp_path: Path) -> None:
    files = written(tmp_path, builders.ct_series())
    files[3].write_text("not a picture")
    assert refusal(files).code == "NOT_DICOM"


def test_two_series_are_refused_by_name(tmp_path: Path) -> None:
    one = written(tmp_path / "a", builders.ct_series())
    other = written(tmp_path / "b", builders.ct_series(seed=2))
    assert refusal(one + other).code == "SEVERAL_SERIES"


@pytest.mark.parametrize(
    ("keyword", "value", "code"),
    [
        ("StudyInstanceUID", "2.25.1", "SEVERAL_STUDIES"),
        ("PatientID", "ANOTHER-7", "SEVERAL_PATIENTS"),
        ("Modality", "PT", "SEVERAL_MODALITIES"),
    ],
)
def test_a_mixed_series_is_refused_with_the_numbers_and_without_the_values(
    tmp_path: Path, keyword: str, value: str, code: str
) -> None:
    series = builders.ct_series()
    setattr(series[5], keyword, value)
    error = refusal(written(tmp_path, series))
    assert error.code == code
    assert "11, 1 images" in error.reason
    assert value not in error.reason


def test_copies_of_an_instance_count_once(tmp_path: Path) -> None:
    files = written(tmp_path, builders.ct_series())
    copy = tmp_path / "copy.dcm"
    copy.write_bytes(files[3].read_bytes())
    instances, _ = read_instances([*files, copy])
    assert [i.path for i in instances] == files


def test_a_copy_with_other_file_meta_counts_once(tmp_path: Path) -> None:
    series = builders.ct_series()
    files = written(tmp_path / "sent", series)
    series[3].file_meta.SourceApplicationEntityTitle = "SCANNER"
    copies = written(tmp_path / "stored", series[3:4])
    instances, _ = read_instances(files + copies)
    assert len(instances) == 12


def test_another_instance_with_the_same_uid_is_refused_by_name(tmp_path: Path) -> None:
    series = builders.ct_series()
    other = builders.with_attributes(series[3:4], SliceThickness="9")
    files = written(tmp_path, series) + written(tmp_path / "other", other)
    assert refusal(files).code == "DUPLICATE_SOP_INSTANCE"


def test_one_pixel_of_difference_is_another_instance(tmp_path: Path) -> None:
    series = builders.ct_series()
    files = written(tmp_path / "a", series)
    other = builders.with_attributes(series[3:4], PixelData=b"\1" + series[3].PixelData[1:])
    assert refusal(files + written(tmp_path / "b", other)).code == "DUPLICATE_SOP_INSTANCE"


def test_the_input_digest_is_made_of_the_data_sets_alone(tmp_path: Path) -> None:
    files = written(tmp_path, builders.ct_series())
    instances, _ = read_instances(files)
    lines = sorted(
        f"{dcmread(file).SOPInstanceUID} {hashlib.sha256(data_set(file)).hexdigest()}\n" for file in files
    )
    assert input_digest(instances) == hashlib.sha256("".join(lines).encode()).hexdigest()
    assert input_digest(instances[::-1]) == input_digest(instances)


def test_the_input_digest_is_the_same_for_a_stored_copy_with_other_file_meta(tmp_path: Path) -> None:
    sent = written(tmp_path / "sent", builders.ct_series())
    stored_series = builders.ct_series()
    for dataset in stored_series:
        dataset.file_meta.SourceApplicationEntityTitle = "SCANNER"
        dataset.file_meta.ImplementationVersionName = "GATEWAY_1"
    stored = written(tmp_path / "stored", stored_series)
    assert sent[0].read_bytes() != stored[0].read_bytes()
    assert input_digest(read_instances(stored)[0]) == input_digest(read_instances(sent)[0])


def test_uids_that_are_missing_are_the_same_at_every_reading_and_said(tmp_path: Path) -> None:
    series = builders.without(builders.ct_series(), "StudyInstanceUID", "SeriesInstanceUID")
    files = written(tmp_path, series)
    (one, notes), (other, _) = read_instances(files), read_instances(files[::-1])
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID"):
        values = {instance.fact(keyword) for instance in (*one, *other)}
        assert len(values) == 1
        assert values.pop().startswith("2.25.")
        assert keyword in notes[0].text
    assert [note.code for note in notes] == [NoteCode.IDENTITY_DERIVED]


def test_an_instance_uid_that_only_the_file_meta_has_is_taken_from_there(tmp_path: Path) -> None:
    uids = [d.SOPInstanceUID for d in builders.ct_series()]
    files = write_as_they_are(builders.without(builders.ct_series(), "SOPInstanceUID"), tmp_path)
    instances, _ = read_instances(files)
    assert [i.sop_instance_uid for i in instances] == uids


def test_an_instance_without_any_uid_gets_one_from_its_bytes(tmp_path: Path) -> None:
    series = builders.without(builders.ct_series(), "SOPInstanceUID")
    for dataset in series:
        del dataset.file_meta.MediaStorageSOPInstanceUID
    files = write_as_they_are(series, tmp_path)
    uids = [i.sop_instance_uid for i in read_instances(files)[0]]
    assert len(set(uids)) == 12
    assert [i.sop_instance_uid for i in read_instances(files[::-1])[0]] == uids[::-1]


def write_as_they_are(series: list[Dataset], folder: Path) -> list[Path]:
    """Write without the file format checks, which complete UIDs."""
    files = [folder / f"{i:04d}.dcm" for i in range(len(series))]
    for dataset, file in zip(series, files, strict=True):
        dataset.preamble = bytes(128)
        dataset.save_as(file, enforce_file_format=False)
    return files


def test_headers_for_results_have_what_results_copy_and_no_pixels(tmp_path: Path) -> None:
    series = builders.without(
        builders.ct_series(), "StudyInstanceUID", "PatientID", "AccessionNumber", "SeriesNumber"
    )
    instances, notes = read_instances(written(tmp_path, series))
    header = read_dataset(instances[0])
    assert header.StudyInstanceUID == instances[0].fact("StudyInstanceUID")
    assert (header.PatientID, header.AccessionNumber, header.KVP) == ("", "", 120)
    assert "PixelData" not in header
    assert all(keyword in notes[0].text for keyword in ("PatientID", "SeriesNumber", "StudyInstanceUID"))
