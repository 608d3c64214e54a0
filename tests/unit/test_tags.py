from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from itertools import accumulate
from pathlib import Path

import pydicom
import pydicom.data
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
)

from gateway.errors import Rejected
from gateway.header import FACT_KEYWORDS, InstanceHeader
from gateway.receive.tags import read_header
from tests.builders import compressed, ct_series
from tests.peers import encoded

SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)
SHARED = Path(__file__).parents[3] / "shared" / "data" / "fixture"


def rejection(data: bytes, syntax: str = ExplicitVRLittleEndian) -> Rejected:
    with pytest.raises(Rejected) as caught:
        read_header(data, syntax)
    return caught.value


def bytes_and_syntax(path: Path) -> tuple[bytes, UID]:
    """The data set of a Part 10 file as it stands there."""
    raw = path.read_bytes()
    dataset = pydicom.dcmread(path, specific_tags=["SOPInstanceUID"], stop_before_pixels=True)
    start = 132 + 12 + int(dataset.file_meta.FileMetaInformationGroupLength)
    return raw[start:], UID(dataset.file_meta.TransferSyntaxUID)


# Read from a sequence or, where there is no public one, from private elements: tests/unit/test_source.py.
NOT_PLAIN = {"DimensionIndexPointer", "DiffusionBValue", "DiffusionGradientOrientation"}


def expected_facts(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    """What pydicom reads, as the text that stood in the header."""
    facts = {}
    for keyword in FACT_KEYWORDS - NOT_PLAIN:
        element = dataset.get_item(keyword)
        if element is None or not element.value or len(element.value) > 1024:
            continue
        value = dataset[keyword].value
        many = value if isinstance(value, (list, tuple, pydicom.multival.MultiValue)) else [value]
        texts = tuple(str(getattr(v, "original_string", v)).strip(" \0") for v in many)
        if any(texts):
            facts[keyword] = texts
    return facts


def test_facts_and_uids_agree_with_pydicom_on_a_built_series() -> None:
    for dataset in ct_series((3, 8, 8), SeriesDescription="Thorax 3.0 \u00e4", ContrastBolusAgent=""):
        header = read_header(encoded(dataset), ExplicitVRLittleEndian)
        assert header == read_header(encoded(dataset, implicit_vr=True), ImplicitVRLittleEndian)
        assert header.facts == expected_facts(pydicom.dcmread(BytesIO(encoded(dataset)), force=True))
        assert header.sop_class_uid == dataset.SOPClassUID
        assert header.sop_instance_uid == dataset.SOPInstanceUID
        assert header.study_instance_uid == dataset.StudyInstanceUID
        assert header.series_instance_uid == dataset.SeriesInstanceUID
        assert header.facts["Rows"] == ("8",)
        assert len(header.facts["ImagePositionPatient"]) == 3


def real_files() -> Iterator[Path]:
    yield from sorted((Path(pydicom.data.__file__).parent / "test_files").glob("*.dcm"))
    folders = ("awkward_dicom2nifti", "compressed_nema_wg04", "compressed_htj2k_and_enhanced_ct")
    for folder in (*folders, "ct3_liver_seg_dcmqi", "mr_enhanced_nema_multiframe"):
        files = sorted(p for p in (SHARED / folder).rglob("*") if p.is_file())
        yield from files[:: max(1, len(files) // 20)]


# Test files of pydicom that are broken on purpose or are no composite instances.
NOT_ADMITTED = {"TRUNCATED_DATA_SET", "NOT_PARSEABLE", "IDENTITY_MISSING", "UID_INVALID"}


def test_facts_agree_with_pydicom_on_real_files() -> None:
    agreed, refused = 0, []
    for path in real_files():
        try:
            data, syntax = bytes_and_syntax(path)
            dataset = pydicom.dcmread(path, stop_before_pixels=True)
        except Exception:  # noqa: BLE001,S112 - not a Part 10 file with a group length
            continue
        if syntax == DeflatedExplicitVRLittleEndian:
            assert rejection(data, syntax).name == "TRANSFER_SYNTAX_REFUSED"
            continue
        try:
            header = read_header(data, syntax)
        except Rejected as error:
            refused.append((path.name, error.name))
            continue
        agreed += 1
        assert header.sop_instance_uid == dataset.SOPInstanceUID
        plain = {keyword: values for keyword, values in header.facts.items() if keyword not in NOT_PLAIN}
        assert plain == expected_facts(dataset), path.name
    assert {name for _, name in refused} <= NOT_ADMITTED
    assert agreed > 50
    assert len(refused) < agreed / 4, refused


def test_a_native_pixel_data_that_is_shorter_than_rows_times_columns_is_still_read() -> None:
    dataset = ct_series((1, 8, 8))[0]
    dataset.PixelData = dataset.PixelData[:20]
    assert read_header(encoded(dataset), ExplicitVRLittleEndian).facts["Rows"] == ("8",)


def test_no_bytes_are_an_empty_data_set() -> None:
    assert (rejection(b"").name, rejection(b"").dimse_status) == ("EMPTY_DATA_SET", 0xC000)


@pytest.mark.parametrize("syntax", SYNTAXES[:2])
def test_a_data_set_cut_off_inside_an_element_is_truncated(syntax: UID) -> None:
    implicit_vr = syntax == ImplicitVRLittleEndian
    dataset = ct_series((1, 4, 4))[0]
    data = encoded(dataset, implicit_vr=implicit_vr)
    lengths = [len(encoded(Dataset({e.tag: e}), implicit_vr=implicit_vr)) for e in dataset if e.tag.group > 2]
    boundaries = set(accumulate(lengths))
    assert max(boundaries) == len(data)
    for end in range(1, len(data)):
        if end not in boundaries:
            error = rejection(data[:end], syntax)
            assert (error.name, error.dimse_status) == ("TRUNCATED_DATA_SET", 0xC000)


def test_compressed_pixel_data_that_is_cut_off_is_truncated() -> None:
    dataset = compressed(ct_series((1, 64, 64)), JPEG2000Lossless)[0]
    data = encoded(dataset)
    assert read_header(data, JPEG2000Lossless).sop_instance_uid == dataset.SOPInstanceUID
    assert rejection(data[:-20], JPEG2000Lossless).name == "TRUNCATED_DATA_SET"
    assert rejection(data[:-8], JPEG2000Lossless).name == "TRUNCATED_DATA_SET"


def test_a_length_of_four_gigabytes_with_three_bytes_is_truncated_at_once() -> None:
    data = struct.pack("<HH2sHL", 0x7FE0, 0x10, b"OW", 0, 0xFFFFFF00) + b"abc"
    assert rejection(data).name == "TRUNCATED_DATA_SET"


def nested(levels: int) -> bytes:
    sequence = struct.pack("<HH2sHL", 0x0040, 0xA730, b"SQ", 0, 0xFFFFFFFF)
    item = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
    ends = struct.pack("<HHLHHL", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    return (sequence + item) * levels + ends * levels


def nested_with_lengths(levels: int, vr: bytes = b"SQ") -> bytes:
    value = b""
    for _ in range(levels):
        item = struct.pack("<HHL", 0xFFFE, 0xE000, len(value)) + value
        value = struct.pack("<HH2sHL", 0x0040, 0xA730, vr, 0, len(item)) + item
    return value


def nested_without_vr(levels: int) -> bytes:
    value = b""
    for _ in range(levels):
        item = struct.pack("<HHL", 0xFFFE, 0xE000, len(value)) + value
        value = struct.pack("<HHL", 0x0040, 0xA730, len(item)) + item
    return value


def nested_in_turn(levels: int) -> bytes:
    """Levels with a length around levels without one."""
    value, ends = b"", struct.pack("<HHLHHL", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    for level in range(levels):
        item = struct.pack("<HHL", 0xFFFE, 0xE000, len(value)) + value
        header = struct.pack("<HH2sHL", 0x0040, 0xA730, b"SQ", 0, len(item) if level % 2 else 0xFFFFFFFF)
        value = header + item + (b"" if level % 2 else ends[8:])
    return value


@pytest.mark.parametrize(
    ("nest", "syntax"),
    [
        (nested, ExplicitVRLittleEndian),
        (nested_with_lengths, ExplicitVRLittleEndian),
        (nested_in_turn, ExplicitVRLittleEndian),
        (nested_without_vr, ImplicitVRLittleEndian),
    ],
)
def test_sequences_may_be_nested_32_levels_deep_and_no_deeper(
    nest: Callable[[int], bytes], syntax: UID
) -> None:
    data = encoded(ct_series((1, 4, 4))[0], implicit_vr=syntax == ImplicitVRLittleEndian)
    before = data.index(b"\xe0\x7f\x10\x00")

    def with_sequence(levels: int) -> bytes:
        return data[:before] + nest(levels) + data[before:]

    assert read_header(with_sequence(32), syntax).facts["Columns"] == ("4",)
    for levels in (33, 200, 2_000):
        assert rejection(with_sequence(levels), syntax).name == "NESTED_TOO_DEEPLY"


def test_what_is_unknown_may_hold_a_sequence_and_may_not() -> None:
    """PS3.5 6.2.2: a sequence in UN is implicit VR little endian; most of what is UN is none."""
    data = encoded(ct_series((1, 4, 4))[0])
    before = data.index(b"\xe0\x7f\x10\x00")

    def unknown(value: bytes) -> bytes:
        return (
            data[:before]
            + struct.pack("<HH2sHL", 0x7FDF, 0x1010, b"UN", 0, len(value))
            + value
            + data[before:]
        )

    deep = nested_without_vr(33)[8:]
    assert rejection(unknown(deep)).name == "NESTED_TOO_DEEPLY"
    item = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFF)
    for opaque in (item * 1_000, b"\0" * 8 + deep, item[:4] * 1_000):
        assert read_header(unknown(opaque), ExplicitVRLittleEndian).facts["Columns"] == ("4",)


def test_looking_through_many_sequences_has_an_end() -> None:
    """All of them together have it: a data set of 2 GB may have any number of them."""
    data = encoded(ct_series((1, 4, 4))[0])
    before = data.index(b"\xe0\x7f\x10\x00")
    items = struct.pack("<HHL", 0xFFFE, 0xE000, 0) * 1_500_000
    sequences = b"".join(
        struct.pack("<HH2sHL", 0x7FDF, 0x1010 + number, b"SQ", 0, len(items)) + items for number in range(3)
    )
    assert rejection(data[:before] + sequences + data[before:]).name == "HEADER_TOO_LARGE"


def test_a_sequence_of_many_items_is_not_deep() -> None:
    dataset = ct_series((1, 4, 4))[0]
    dataset.ReferencedImageSequence = [Dataset() for _ in range(1_000)]
    for item in dataset.ReferencedImageSequence:
        item.ReferencedSOPInstanceUID = "1.2.3"
    for undefined in (True, False):
        dataset["ReferencedImageSequence"].is_undefined_length = undefined
        assert read_header(encoded(dataset), ExplicitVRLittleEndian).facts["Columns"] == ("4",)


def test_values_inside_sequences_are_not_facts() -> None:
    inner = Dataset()
    inner.Modality = "MR"
    inner.SOPInstanceUID = "1.2.3"
    dataset = ct_series((1, 4, 4))[0]
    dataset.ReferencedImageSequence = [inner]
    for undefined in (True, False):
        dataset["ReferencedImageSequence"].is_undefined_length = undefined
        header = read_header(encoded(dataset), ExplicitVRLittleEndian)
        assert header.facts["Modality"] == ("CT",)
        assert header.sop_instance_uid == dataset.SOPInstanceUID


@pytest.mark.parametrize("bad", ["../../../etc/x", "1.2.3/../4", "1." + "2" * 64, "x", "1.02", "1.2.3\\4.5"])
def test_a_uid_that_is_none_is_refused_with_a900(bad: str) -> None:
    data = encoded(ct_series((1, 4, 4))[0])
    at = data.index(b"\x20\x00\x0e\x00UI")
    length = struct.unpack_from("<H", data, at + 6)[0]
    value = bad.encode() + b"\0" * (len(bad) % 2)
    changed = data[: at + 6] + struct.pack("<H", len(value)) + value + data[at + 8 + length :]
    assert (rejection(changed).name, rejection(changed).dimse_status) == ("UID_INVALID", 0xA900)


@pytest.mark.parametrize(
    "keyword", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"]
)
def test_an_instance_without_identity_is_refused_by_name(keyword: str) -> None:
    dataset = ct_series((1, 4, 4))[0]
    del dataset[keyword]
    error = rejection(encoded(dataset))
    assert (error.name, error.dimse_status) == ("IDENTITY_MISSING", 0xA900)
    assert keyword in error.reason


@pytest.mark.parametrize("group", [0x0000, 0x0002, 0x0004, 0x0006, 0x0007])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_data_set_that_begins_below_group_0008_is_not_parseable(syntax: UID, group: int) -> None:
    """Of group 0002, readers of the stored file would take another transfer syntax than the received one."""
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    value = b"1.2.840.10008.1.2.4.50"
    length = struct.pack(f"{order}2sH", b"UI", len(value))
    if syntax == ImplicitVRLittleEndian:
        length = struct.pack("<L", len(value))
    buffer = DicomBytesIO()
    buffer.is_little_endian = syntax != ExplicitVRBigEndian
    buffer.is_implicit_VR = syntax == ImplicitVRLittleEndian
    (dataset,) = ct_series((1, 8, 8))
    write_dataset(buffer, Dataset({e.tag: e for e in dataset if e.tag.group > 2}))
    data = buffer.getvalue()
    assert read_header(data, syntax).facts["Rows"] == ("8",)
    found = rejection(struct.pack(f"{order}HH", group, 0x0010) + length + value + data, syntax)
    assert (found.name, found.dimse_status) == ("NOT_PARSEABLE", 0xC000)
    assert f"begins with group {group:04X}" in found.reason


def test_a_deflated_data_set_is_refused_without_inflating_it() -> None:
    assert rejection(b"\x78\x9c", DeflatedExplicitVRLittleEndian).name == "TRANSFER_SYNTAX_REFUSED"


def test_text_is_read_in_its_character_set_and_control_characters_are_escaped() -> None:
    dataset = ct_series((1, 4, 4))[0]
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SeriesDescription = "胸部 CT"
    assert read_header(encoded(dataset), ExplicitVRLittleEndian).facts["SeriesDescription"] == ("胸部 CT",)
    data = encoded(dataset).replace("胸部 CT".encode(), b"\x1b[2J\n%s T".ljust(9))
    assert read_header(data, ExplicitVRLittleEndian).facts["SeriesDescription"] == ("\\x1b[2J\\n%s T",)


def test_a_value_over_1024_bytes_is_no_fact() -> None:
    dataset = ct_series((1, 4, 4))[0]
    dataset.SeriesDescription = "x" * 1025
    assert "SeriesDescription" not in read_header(encoded(dataset), ExplicitVRLittleEndian).facts


def test_patient_attributes_are_not_read() -> None:
    dataset = ct_series((1, 4, 4), PatientName="Gone^Soon", PatientID="P-77")[0]
    assert "Gone" not in repr(read_header(encoded(dataset), ExplicitVRLittleEndian))


def test_a_million_elements_are_bounded_in_time() -> None:
    flood = struct.pack("<HH2sH", 0x0009, 0x1001, b"LO", 0) * 2_100_000
    started = time.monotonic()
    assert rejection(flood).name == "NOT_PARSEABLE"
    assert time.monotonic() - started < 20


@settings(max_examples=300)
@given(st.binary(max_size=400), st.sampled_from(SYNTAXES))
def test_random_bytes_are_rejected_by_name(data: bytes, syntax: UID) -> None:
    with pytest.raises(Rejected):
        read_header(data, syntax)


VALID = encoded(ct_series((1, 4, 4))[0])


@settings(max_examples=300)
@given(
    st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), max_size=6), st.integers(0, 60)
)
def test_a_damaged_data_set_is_read_or_rejected_and_nothing_else(
    changes: list[tuple[int, int]], cut: int
) -> None:
    data = bytearray(VALID)
    for at, value in changes:
        data[at] = value
    try:
        outcome: object = read_header(data[: len(data) - cut], ExplicitVRLittleEndian)
    except Rejected as error:
        outcome = error
    assert isinstance(outcome, (InstanceHeader, Rejected))


def test_the_walk_stops_at_the_pixel_data() -> None:
    assert read_header(VALID + b"garbage", ExplicitVRLittleEndian) == read_header(
        VALID, ExplicitVRLittleEndian
    )


def multi_frame(frames: int) -> Dataset:
    """A data set with per-frame functional groups: a position and a stack each."""
    dataset = ct_series((1, 4, 4))[0]
    dataset.NumberOfFrames = frames
    items = []
    for number in range(frames):
        position, content, item = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [0.0, 0.0, float(number)]
        content.StackID = "A"
        item.PlanePositionSequence = [position]
        item.FrameContentSequence = [content]
        items.append(item)
    dataset.PerFrameFunctionalGroupsSequence = items
    return dataset


def test_the_frames_of_an_enhanced_image_are_read_at_admission() -> None:
    header = read_header(encoded(multi_frame(3)), ExplicitVRLittleEndian)
    assert [frame["ImagePositionPatient"] for frame in header.frames] == [
        ("0.0", "0.0", "0.0"),
        ("0.0", "0.0", "1.0"),
        ("0.0", "0.0", "2.0"),
    ]
    assert header.facts["NumberOfFrames"] == ("3",)


def test_more_than_fifty_thousand_frames_are_rejected_by_name() -> None:
    items = struct.pack("<HHL", 0xFFFE, 0xE000, 0) * 50_001
    error = rejection(struct.pack("<HH2sHL", 0x5200, 0x9230, b"SQ", 0, len(items)) + items)
    assert (error.name, error.dimse_status) == ("HEADER_TOO_LARGE", 0xC000)


def test_an_element_that_is_longer_than_its_functional_group_is_rejected() -> None:
    data = encoded(multi_frame(2))
    at = data.index(b"\x20\x00\x56\x90SH")
    error = rejection(data[: at + 6] + struct.pack("<H", 5000) + data[at + 8 :])
    assert (error.name, error.dimse_status) == ("NOT_PARSEABLE", 0xC000)
