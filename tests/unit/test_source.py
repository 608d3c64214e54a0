"""The bounded header reader: elements, values and where the pixels are."""

from __future__ import annotations

import struct
from io import BytesIO

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
)

from ai.errors import HeaderError
from ai.source import ALL, read_header
from ai.source.elements import Element, Encoding
from ai.source.values import ValueReader
from tests.builders import compressed, ct_series

SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)


def encoded(dataset: Dataset, syntax: UID = ExplicitVRLittleEndian) -> bytes:
    """The data set without preamble and file meta information."""
    buffer = DicomBytesIO()
    buffer.is_implicit_VR = syntax == ImplicitVRLittleEndian
    buffer.is_little_endian = syntax != ExplicitVRBigEndian
    write_dataset(buffer, dataset)
    return buffer.getvalue()


def image() -> Dataset:
    return ct_series((1, 4, 4))[0]


def refusal(data: bytes, syntax: UID = ExplicitVRLittleEndian) -> HeaderError:
    with pytest.raises(HeaderError) as caught:
        read_header(data, syntax, ALL)
    return caught.value


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_the_same_facts_are_read_in_every_byte_order_and_with_or_without_vr(syntax: UID) -> None:
    dataset = image()
    dataset.PixelPaddingValue = -2000
    dataset["PixelPaddingValue"].VR = "SS"
    dataset.DiffusionGradientOrientation = [0.0, 0.5, -1.0]
    header = read_header(encoded(dataset, syntax), syntax, ALL)
    assert header.facts["Rows"] == ("4",)
    assert header.facts["ImagePositionPatient"] == tuple(
        v.original_string for v in dataset.ImagePositionPatient
    )
    assert header.facts["DiffusionGradientOrientation"] == ("0.0", "0.5", "-1.0")
    assert header.facts["SOPInstanceUID"] == (dataset.SOPInstanceUID,)
    assert header.facts["PixelPaddingValue"] == ("-2000",)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_the_pixel_data_is_found_and_not_read(syntax: UID) -> None:
    dataset = image()
    data = encoded(dataset, syntax)
    pixel_data = read_header(data, syntax, ALL).pixel_data
    assert pixel_data is not None
    assert (pixel_data.keyword, pixel_data.length) == ("PixelData", 32)
    assert len(data[pixel_data.offset :]) == 32


def test_encapsulated_pixel_data_has_no_length_and_starts_at_the_offset_table() -> None:
    data = encoded(compressed(ct_series((1, 64, 64)), JPEG2000Lossless)[0])
    pixel_data = read_header(data, JPEG2000Lossless, ALL).pixel_data
    assert pixel_data is not None
    assert pixel_data.length is None
    assert data[pixel_data.offset :][:4] == b"\xfe\xff\x00\xe0"


def test_a_padding_value_in_implicit_vr_is_signed_only_if_the_pixels_are() -> None:
    dataset = image()
    dataset.PixelPaddingValue = 63536
    dataset["PixelPaddingValue"].VR = "US"
    for representation, text in ((0, "63536"), (1, "-2000")):
        dataset.PixelRepresentation = representation
        header = read_header(encoded(dataset, ImplicitVRLittleEndian), ImplicitVRLittleEndian, ALL)
        assert header.facts["PixelPaddingValue"] == (text,)


@pytest.mark.parametrize("undefined", [True, False])
def test_a_wanted_sequence_is_present_only_if_it_has_an_item(undefined: bool) -> None:
    dataset = image()
    dataset.ModalityLUTSequence = [Dataset()]
    dataset["ModalityLUTSequence"].is_undefined_length = undefined
    facts = read_header(encoded(dataset), ExplicitVRLittleEndian, ALL).facts
    assert facts["ModalityLUTSequence"] == ("present",)
    dataset.ModalityLUTSequence = []
    dataset["ModalityLUTSequence"].is_undefined_length = undefined
    assert "ModalityLUTSequence" not in read_header(encoded(dataset), ExplicitVRLittleEndian, ALL).facts


def test_pixel_data_that_is_cut_off_is_refused_only_where_the_pixels_are_checked() -> None:
    data = encoded(image())[:-10]
    assert refusal(data).code == "TRUNCATED_DATA_SET"
    pixel_data = read_header(data, ExplicitVRLittleEndian, ALL, check_pixels=False).pixel_data
    assert pixel_data is not None
    assert pixel_data.length == 32


def test_only_what_is_wanted_is_read() -> None:
    header = read_header(encoded(image()), ExplicitVRLittleEndian, frozenset({"Rows"}))
    assert dict(header.facts) == {"Rows": ("4",)}


def test_a_name_that_is_no_dicom_keyword_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match="NoSuchThing"):
        read_header(encoded(image()), ExplicitVRLittleEndian, frozenset({"NoSuchThing"}))


@pytest.mark.parametrize("form", [bytes, bytearray, memoryview])
def test_any_buffer_may_be_read_and_is_free_afterwards(form: type) -> None:
    data = bytearray(encoded(image()))
    assert read_header(form(data), ExplicitVRLittleEndian, ALL).facts["Columns"] == ("4",)
    data.clear()  # BufferError if a view of it were still held


PRIVATE_B_VALUES = [
    (0x0043, "GEMS_PARM_01", 0x39, "IS", ["1000000800", "8", "0", "0"], "800"),
    (0x0043, "GEMS_PARM_01", 0x39, "IS", ["50", "8", "0", "0"], "50"),
    (0x0019, "SIEMENS MR HEADER", 0x0C, "IS", "1000", "1000"),
    (0x2001, "Philips Imaging DD 001", 0x03, "FL", 600.0, "600.0"),
]


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize(("group", "creator", "element", "vr", "value", "text"), PRIVATE_B_VALUES)
def test_the_b_value_is_found_where_its_vendor_hides_it(
    group: int, creator: str, element: int, vr: str, value: object, text: str, syntax: UID
) -> None:
    dataset = image()
    dataset.private_block(group, "SOMEBODY ELSE", create=True)
    dataset.private_block(group, creator, create=True).add_new(element, vr, value)
    assert read_header(encoded(dataset, syntax), syntax, ALL).facts["DiffusionBValue"] == (text,)
    dataset.DiffusionBValue = 700.0
    assert read_header(encoded(dataset, syntax), syntax, ALL).facts["DiffusionBValue"] == ("700.0",)


def test_a_private_element_of_another_vendor_is_no_b_value() -> None:
    dataset = image()
    dataset.private_block(0x0043, "SOMEBODY ELSE", create=True).add_new(0x39, "IS", "800")
    assert "DiffusionBValue" not in read_header(encoded(dataset), ExplicitVRLittleEndian, ALL).facts


def test_the_gradient_direction_is_found_in_private_elements() -> None:
    ge, siemens = image(), image()
    block = ge.private_block(0x0019, "GEMS_ACQU_01", create=True)
    for element, value in ((0xBB, "0.6"), (0xBC, "-0.8"), (0xBD, "0")):
        block.add_new(element, "DS", value)
    siemens.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0E, "FD", [0.6, -0.8, 0.0])
    found = [
        read_header(encoded(d), ExplicitVRLittleEndian, ALL).facts["DiffusionGradientOrientation"]
        for d in (ge, siemens)
    ]
    assert found == [("0.6", "-0.8", "0"), ("0.6", "-0.8", "0.0")]


def test_a_sequence_in_vr_un_is_passed_over_as_implicit_vr_in_every_byte_order() -> None:
    inner = encoded(image(), ImplicitVRLittleEndian)
    item = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF) + inner
    ends = struct.pack("<HHLHHL", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    for syntax, order in ((ExplicitVRLittleEndian, "<"), (ExplicitVRBigEndian, ">")):
        unknown = struct.pack(f"{order}HH2sHL", 0x0009, 0x1001, b"UN", 0, 0xFFFFFFFF) + item + ends
        header = read_header(unknown + encoded(image(), syntax), syntax, ALL)
        assert header.facts["Rows"] == ("4",)


def test_every_cut_of_a_header_is_a_shorter_header_or_refused_by_name() -> None:
    dataset = image()
    dataset.ReferencedImageSequence = [Dataset(), Dataset()]
    for syntax in SYNTAXES:
        data = encoded(dataset, syntax)
        whole = read_header(data, syntax, ALL)
        for end in range(1, len(data)):
            try:
                header = read_header(data[:end], syntax, ALL)
            except HeaderError as error:
                assert error.code == "TRUNCATED_DATA_SET"  # noqa: PT017 - either outcome is right
            else:
                assert header.facts.items() <= whole.facts.items()


def test_pydicom_reads_the_facts_of_what_we_wrote_in_the_same_way() -> None:
    dataset = image()
    read = pydicom.dcmread(BytesIO(encoded(dataset)), force=True)
    facts = read_header(encoded(dataset), ExplicitVRLittleEndian, ALL).facts
    assert facts["ImageType"] == tuple(read.ImageType)
    assert [float(v) for v in facts["PixelSpacing"]] == [float(v) for v in read.PixelSpacing]
    assert int(facts["BitsStored"][0]) == read.BitsStored


def test_equal_bytes_of_either_byte_order_are_told_apart() -> None:
    values = ValueReader(memoryview(b"\x01\x00"))
    element = Element(0x00280010, "US", 0, 2, 2)
    for _ in range(2):
        assert values.values(element, "US", Encoding(explicit_vr=True)) == ("1",)
        assert values.values(element, "US", Encoding(explicit_vr=True, big_endian=True)) == ("256",)
