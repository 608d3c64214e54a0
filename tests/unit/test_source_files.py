"""The header of a DICOM file: refusals by name, and agreement with pydicom on real files."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from ai.errors import SeriesRefused
from ai.source import ALL, read_file
from ai.source.functional_groups import ALIASES
from tests.builders import ct_series, write_series

SHARED = Path(__file__).parents[3] / "shared" / "data" / "fixture"
PREAMBLE = bytes(128) + b"DICM"


def refusal(path: Path) -> SeriesRefused:
    with pytest.raises(SeriesRefused) as caught:
        read_file(path)
    return caught.value


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_series(ct_series((1, 8, 8)), tmp_path)[0]


def test_the_file_says_where_its_data_set_and_its_pixels_start(path: Path) -> None:
    file = read_file(path)
    raw = path.read_bytes()
    dataset = pydicom.dcmread(path)
    assert file.size_bytes == len(raw)
    assert file.transfer_syntax_uid == ExplicitVRLittleEndian
    assert file.header.pixel_data is not None
    start = file.data_set_offset + file.header.pixel_data.offset
    assert raw[start : start + 128] == dataset.PixelData
    assert file.header.facts["SOPInstanceUID"] == (dataset.SOPInstanceUID,)


def test_an_empty_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "empty.dcm").touch()
    assert refusal(tmp_path / "empty.dcm").code == "EMPTY_FILE"


@pytest.mark.parametrize("content", [b"x", b"GIF89a" * 100, bytes(200)])
def test_what_is_no_dicom_file_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "other").write_bytes(content)
    assert refusal(tmp_path / "other").code == "NOT_DICOM"


def code_of(path: Path) -> str:
    try:
        read_file(path)
    except SeriesRefused as error:
        return error.code
    return "READ"


def test_every_cut_of_a_header_is_truncated_or_no_dicom_file(path: Path, tmp_path: Path) -> None:
    raw, cut = path.read_bytes(), tmp_path / "cut.dcm"
    codes = []
    for end in range(1, len(raw) - 128):
        cut.write_bytes(raw[:end])
        codes.append(code_of(cut))
    assert set(codes[:131]) == {"NOT_DICOM"}
    assert set(codes[131:]) == {"TRUNCATED_FILE", "READ"}  # a cut between two elements leaves no trace
    assert codes.count("READ") < 150


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(132, 900), st.integers(0, 255)), min_size=1, max_size=6))
def test_a_damaged_file_is_read_or_refused_and_nothing_else(changes: list[tuple[int, int]]) -> None:
    with TemporaryDirectory() as folder:
        path = write_series(ct_series((1, 8, 8)), Path(folder))[0]
        data = bytearray(path.read_bytes())
        for at, value in changes:
            data[at] = value
        path.write_bytes(data)
        assert code_of(path).isupper()


def test_pixel_data_that_is_cut_off_is_left_to_the_decoder(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-50])
    file = read_file(path)
    assert file.header.pixel_data is not None
    assert file.header.pixel_data.length == 128
    assert file.size_bytes - file.data_set_offset - file.header.pixel_data.offset == 78


def test_a_deflated_file_is_refused_without_inflating_it(tmp_path: Path) -> None:
    dataset = ct_series((1, 8, 8))[0]
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(tmp_path / "deflated.dcm", enforce_file_format=True)
    assert refusal(tmp_path / "deflated.dcm").code == "DEFLATED_FILE"


def test_uids_that_the_data_set_lacks_come_from_the_file_meta_information(path: Path) -> None:
    dataset = pydicom.dcmread(path)
    uid = str(dataset.SOPInstanceUID)
    del dataset.SOPInstanceUID
    dataset.SOPClassUID = ""
    dataset.save_as(path)
    facts = read_file(path).header.facts
    assert facts["SOPInstanceUID"] == (uid,)
    assert facts["SOPClassUID"] == ("1.2.840.10008.5.1.4.1.1.2",)
    assert "SOPInstanceUID" not in read_file(path, frozenset({"Rows"})).header.facts


def test_a_file_that_names_the_wrong_vr_encoding_is_read_as_it_is_written(path: Path) -> None:
    dataset = pydicom.dcmread(path)
    for said, written in (
        (ExplicitVRLittleEndian, ImplicitVRLittleEndian),
        (ImplicitVRLittleEndian, ExplicitVRLittleEndian),
    ):
        implicit_vr = written == ImplicitVRLittleEndian
        dataset.file_meta.TransferSyntaxUID = written
        dataset.save_as(path, implicit_vr=implicit_vr, little_endian=True)
        raw = path.read_bytes()
        meta_end = read_file(path).data_set_offset
        dataset.file_meta.TransferSyntaxUID = said
        dataset.save_as(path, implicit_vr=said == ImplicitVRLittleEndian, little_endian=True)
        path.write_bytes(path.read_bytes()[: read_file(path).data_set_offset] + raw[meta_end:])
        file = read_file(path)
        assert file.transfer_syntax_uid == said
        assert file.header.facts["Rows"] == ("8",)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_a_file_without_transfer_syntax_is_read_by_the_look_of_its_first_element(
    tmp_path: Path, syntax: str
) -> None:
    dataset = ct_series((1, 8, 8))[0]
    path = tmp_path / "image.dcm"
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path, enforce_file_format=True)
    data_set = path.read_bytes()[read_file(path).data_set_offset :]
    version = struct.pack("<HH2sHL", 2, 1, b"OB", 0, 2) + b"\0\1"
    path.write_bytes(PREAMBLE + version + data_set)
    file = read_file(path)
    assert file.transfer_syntax_uid == syntax
    assert file.header.facts["Rows"] == ("8",)


def test_a_wrong_group_length_of_the_file_meta_information_does_no_harm(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    assert raw[132:138] == b"\x02\x00\x00\x00UL"
    raw[140:144] = b"\x07\x00\x00\x00"
    path.write_bytes(raw)
    assert read_file(path).header.facts["Rows"] == ("8",)


def test_a_header_nested_too_deeply_is_refused_by_name(tmp_path: Path) -> None:
    level = struct.pack("<HH2sHL", 0x0040, 0xA730, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    syntax = ExplicitVRLittleEndian.encode() + b"\0"
    meta = struct.pack("<HH2sH", 2, 0x10, b"UI", len(syntax)) + syntax
    (tmp_path / "deep.dcm").write_bytes(PREAMBLE + meta + level * 100)
    assert refusal(tmp_path / "deep.dcm").code == "NESTED_TOO_DEEPLY"


def test_a_file_that_is_not_there_is_no_refusal(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "gone.dcm")


def test_four_hundred_headers_are_read_in_a_fraction_of_a_second(tmp_path: Path) -> None:
    files = write_series(ct_series((20, 8, 8)), tmp_path) * 20
    read_file(files[0])
    started = time.monotonic()
    for path in files:
        read_file(path)
    assert time.monotonic() - started < 1.0  # 0.08 s on a quiet machine


# -- agreement with pydicom -------------------------------------------------------------------

# From a sequence or, where there is no public one, from private elements; and a part of a date and time.
NOT_PLAIN = frozenset({"DimensionIndexPointer", "DiffusionBValue", "DiffusionGradientOrientation"})


def texts(element: Any) -> tuple[str, ...]:
    """The values of an element of pydicom as they stood in the header."""
    if element.VR == "SQ":
        return ("present",) if element.value else ()
    value = element.value
    many = value if isinstance(value, (list, tuple, MultiValue)) else [value]
    found = tuple("" if v is None else str(getattr(v, "original_string", v)).strip(" \0") for v in many)
    return found if any(found) else ()


def plain_facts(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    found = {k: texts(dataset[k]) for k in ALL - NOT_PLAIN if k in dataset}
    meta = dataset.file_meta
    for keyword, source in (
        ("SOPClassUID", "MediaStorageSOPClassUID"),
        ("SOPInstanceUID", "MediaStorageSOPInstanceUID"),
    ):
        found[keyword] = found.get(keyword) or texts(meta[source])
    return {keyword: values for keyword, values in found.items() if values}


def frame_facts(groups: Dataset) -> dict[str, tuple[str, ...]]:
    """Wanted attributes anywhere in an item of functional groups, by the names of single-frame images."""
    found = {}
    for macro in groups:
        if macro.VR != "SQ" or macro.tag.is_private or not macro.value:
            continue
        for element in macro.value[0].iterall():
            if element.keyword in ALL | ALIASES.keys() and element.VR != "SQ" and texts(element):
                found[element.keyword] = texts(element)
    for name, usual in ALIASES.items():
        values = found.pop(name, None)
        if values and usual != "AcquisitionTime":
            found.setdefault(usual, values)
    return found


def real_files() -> Iterator[Path]:
    if not SHARED.is_dir():
        pytest.skip("../shared/data is not there")
    for path in sorted(p for p in SHARED.rglob("*") if p.is_file()):
        with path.open("rb") as file:
            if file.read(132)[128:] == b"DICM":
                yield path


def test_facts_and_pixels_agree_with_pydicom_on_every_real_file() -> None:
    compared = 0
    for path in real_files():
        file, dataset = read_file(path), pydicom.dcmread(path)
        plain = {keyword: values for keyword, values in file.header.facts.items() if keyword not in NOT_PLAIN}
        assert plain == plain_facts(dataset), path.name
        pixel_data = file.header.pixel_data
        assert (pixel_data is not None) == ("PixelData" in dataset), path.name
        if pixel_data is not None and pixel_data.length is not None:
            start = file.data_set_offset + pixel_data.offset
            assert path.read_bytes()[start : start + pixel_data.length] == dataset.PixelData, path.name
        compared += 1
    assert compared > 800


def test_frames_agree_with_pydicom_on_every_enhanced_file() -> None:
    compared = set()
    for path in real_files():
        file = read_file(path)
        if not file.header.frames:
            continue
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        groups = dataset.PerFrameFunctionalGroupsSequence
        assert len(file.header.frames) == len(groups) == dataset.NumberOfFrames
        shared: Any = dataset.get("SharedFunctionalGroupsSequence") or [Dataset()]
        for frame, own in zip(file.header.frames, groups, strict=True):
            found = {k: v for k, v in frame.items() if k != "AcquisitionTime"}
            assert found == {**frame_facts(shared[0]), **frame_facts(own)}, path.name
        pointers = [
            f"{int(d.DimensionIndexPointer):08X}" for d in dataset.get("DimensionIndexSequence") or ()
        ]
        assert list(file.header.facts.get("DimensionIndexPointer", ())) == pointers
        compared.add(path.name)
    assert {"BRMULTI", "BRTUM003", "T1_tfl_series5.dcm", "eCT_Supplemental.dcm"} <= compared
    assert len(compared) >= 14
