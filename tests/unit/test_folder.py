"""Files of a folder, series by series: nothing is passed over in silence."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.fileset import FileSet
from pydicom.uid import DeflatedExplicitVRLittleEndian

from ai.errors import SeriesRefused
from ai.folder import find_series, survey_folder
from ai.quiet import quiet
from tests.builders import ct_series, without, write_series

SHAPE = (4, 8, 8)


def small(seed: int = 1) -> list:
    return ct_series(SHAPE, seed=seed)


@pytest.fixture
def medium(tmp_path: Path) -> Path:
    """A folder with a DICOMDIR, as PS3.10 says, that names one series of four images."""
    folder = tmp_path / "medium"
    files = FileSet()
    for dataset in small():
        files.add(dataset)
    files.write(folder)
    return folder


def images_of(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "DICOMDIR")


def test_files_are_grouped_by_series_whatever_the_folders(tmp_path: Path) -> None:
    first, second = small(1), small(2)
    write_series(first[:2] + second[:1], tmp_path / "a")
    write_series(second[1:] + first[2:], tmp_path / "b" / "c")
    found = find_series(tmp_path)
    counts = {uid: len(files) for uid, files in found.items()}
    assert counts == {first[0].SeriesInstanceUID: 4, second[0].SeriesInstanceUID: 4}


def test_other_and_hidden_files_are_passed_over_and_counted(tmp_path: Path) -> None:
    files = write_series(small(), tmp_path)
    (tmp_path / "notes.txt").write_text("no image")
    shutil.copy(files[0], tmp_path / ".hidden.dcm")
    found = survey_folder(tmp_path)
    assert [list(paths) for paths in found.series.values()] == [files]
    assert (found.others, found.damaged, found.missing) == (1, (), ())


def test_files_without_a_series_uid_are_one_series(tmp_path: Path) -> None:
    write_series(without(small(), "SeriesInstanceUID"), tmp_path)
    assert list(find_series(tmp_path)) == [""]


def test_a_folder_without_dicom_files_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(SeriesRefused) as refused:
        find_series(tmp_path)
    assert refused.value.code == "NOT_DICOM"
    assert survey_folder(tmp_path).series == {}


@pytest.mark.parametrize("code", ["EMPTY_FILE", "TRUNCATED_FILE", "DEFLATED_FILE"])
def test_a_damaged_file_is_collected_with_its_place_and_refuses_the_series_for_a_run(
    tmp_path: Path, code: str
) -> None:
    series = small()
    files = write_series(series, tmp_path / "ct")
    if code == "EMPTY_FILE":
        files[1].write_bytes(b"")
    elif code == "TRUNCATED_FILE":
        whole = files[1].read_bytes()
        files[1].write_bytes(whole[: whole.index(series[1].SeriesInstanceUID.encode()) + 10])
    else:
        series[1].file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        series[1].save_as(files[1], enforce_file_format=True)
    found = survey_folder(tmp_path)
    assert [(each.name, each.error.code) for each in found.damaged] == [("ct/0001.dcm", code)]
    assert [len(paths) for paths in found.series.values()] == [3]
    with pytest.raises(SeriesRefused) as refused:
        find_series(tmp_path)
    assert refused.value.code == code


def test_a_single_file_is_a_series_of_one(tmp_path: Path) -> None:
    files = write_series(small(), tmp_path)
    found = survey_folder(files[2])
    assert [list(paths) for paths in found.series.values()] == [[files[2]]]


def test_a_dicomdir_gives_the_files_that_it_names_and_no_others(medium: Path) -> None:
    named = images_of(medium)
    write_series(small(2), medium / "beside")
    found = survey_folder(medium / "DICOMDIR")
    assert [sorted(paths) for paths in found.series.values()] == [named]
    assert (found.damaged, found.missing) == ((), ())


def test_files_that_a_dicomdir_names_in_vain_are_missing_by_name(medium: Path) -> None:
    gone = images_of(medium)[1]
    gone.unlink()
    name = gone.relative_to(medium).as_posix()
    assert survey_folder(medium / "DICOMDIR").missing == (name,)
    assert survey_folder(medium).missing == (name,)
    assert [len(paths) for paths in survey_folder(medium).series.values()] == [3]


def test_a_folder_with_a_dicomdir_gives_every_file_below_it(medium: Path) -> None:
    write_series(small(2), medium / "beside")
    found = survey_folder(medium)
    assert sorted(len(paths) for paths in found.series.values()) == [4, 4]
    assert (found.others, found.damaged, found.missing) == (0, (), ())


def test_names_in_a_dicomdir_count_without_regard_to_case(medium: Path) -> None:
    for path in images_of(medium):
        path.rename(path.with_name(path.name.lower()))
    found = survey_folder(medium / "DICOMDIR")
    assert ([len(paths) for paths in found.series.values()], found.missing) == ([4], ())


def test_a_name_in_a_dicomdir_does_not_lead_out_of_its_folder(medium: Path) -> None:
    shutil.copy(images_of(medium)[0], medium.parent / "OUTSIDE")
    directory = dcmread(medium / "DICOMDIR")
    record = next(r for r in directory.DirectoryRecordSequence if "ReferencedFileID" in r)
    with quiet():
        record.ReferencedFileID = ["..", "OUTSIDE"]
        directory.save_as(medium / "DICOMDIR")
    found = survey_folder(medium / "DICOMDIR")
    assert found.missing == ("../OUTSIDE",)
    assert [len(paths) for paths in found.series.values()] == [3]


def test_a_cut_dicomdir_is_a_damaged_file_and_hides_no_image(medium: Path) -> None:
    whole = (medium / "DICOMDIR").read_bytes()
    (medium / "DICOMDIR").write_bytes(whole[: len(whole) * 2 // 3])
    found = survey_folder(medium)
    assert [(each.name, each.error.code) for each in found.damaged] == [("DICOMDIR", "TRUNCATED_FILE")]
    assert [len(paths) for paths in found.series.values()] == [4]
