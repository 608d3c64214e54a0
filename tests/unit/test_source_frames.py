"""Functional groups of enhanced multi-frame images, read frame by frame."""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from ai.errors import HeaderError
from ai.source import ALL, Facts, Header, read_header, slice_headers
from tests.builders import ct_series

SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)


def encoded(dataset: Dataset, syntax: UID = ExplicitVRLittleEndian) -> bytes:
    """The data set without preamble and file meta information."""
    buffer = DicomBytesIO()
    buffer.is_implicit_VR = syntax == ImplicitVRLittleEndian
    buffer.is_little_endian = syntax != ExplicitVRBigEndian
    write_dataset(buffer, dataset)
    return buffer.getvalue()


def item(**attributes: object) -> Dataset:
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def group(**macros: Dataset) -> Dataset:
    """An item of a functional groups sequence: each macro with its one item."""
    return item(**{keyword: [content] for keyword, content in macros.items()})


def multi_frame(per_frame: Sequence[Dataset], shared: Dataset | None = None) -> Dataset:
    dataset = ct_series((1, 4, 4))[0]
    del dataset.ImagePositionPatient
    dataset.NumberOfFrames = len(per_frame)
    if shared is not None:
        dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = list(per_frame)
    return dataset


def at(z_mm: float, **macros: Dataset) -> Dataset:
    return group(PlanePositionSequence=item(ImagePositionPatient=[1.0, 2.0, z_mm]), **macros)


def frames(dataset: Dataset, syntax: UID = ExplicitVRLittleEndian) -> tuple[Facts, ...]:
    return read_header(encoded(dataset, syntax), syntax, ALL).frames


MEASURES = item(PixelSpacing=[0.5, 0.7], SliceThickness=3.0)


def with_undefined_lengths(dataset: Dataset) -> Dataset:
    for element in dataset:
        if element.VR == "SQ":
            element.is_undefined_length = True
            for each in element.value:
                each.is_undefined_length_sequence_item = True
                with_undefined_lengths(each)
    return dataset


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("undefined", [False, True])
def test_each_frame_has_its_own_groups_over_the_shared_ones(syntax: UID, undefined: bool) -> None:
    other = item(PixelSpacing=[0.9, 0.9])
    dataset = multi_frame(
        [at(0.0), at(1.5, PixelMeasuresSequence=other)], group(PixelMeasuresSequence=MEASURES)
    )
    if undefined:
        with_undefined_lengths(dataset)
    first, second = frames(dataset, syntax)
    assert first["ImagePositionPatient"] == ("1.0", "2.0", "0.0")
    assert first["PixelSpacing"] == ("0.5", "0.7")
    assert second["ImagePositionPatient"] == ("1.0", "2.0", "1.5")
    assert second["PixelSpacing"] == ("0.9", "0.9")
    assert second["SliceThickness"] == ("3.0",)


def test_attributes_of_frames_have_the_names_of_single_frame_images() -> None:
    dataset = multi_frame(
        [
            at(
                0.0,
                MREchoSequence=item(EffectiveEchoTime=4.6),
                MRModifierSequence=item(InversionTimes=[900.0]),
                FrameContentSequence=item(
                    FrameAcquisitionNumber=7, FrameAcquisitionDateTime="20240131235958.25+0100"
                ),
                CardiacSynchronizationSequence=item(NominalCardiacTriggerDelayTime=120.0),
            )
        ]
    )
    frame = frames(dataset)[0]
    assert frame["EchoTime"] == ("4.6",)
    assert frame["InversionTime"] == ("900.0",)
    assert frame["AcquisitionNumber"] == ("7",)
    assert frame["AcquisitionTime"] == ("235958.25",)
    assert frame["TriggerTime"] == ("120.0",)
    assert not {"EffectiveEchoTime", "FrameAcquisitionDateTime"} & frame.keys()


def test_the_gradient_direction_is_read_from_the_sequence_inside_the_diffusion_macro() -> None:
    direction = item(DiffusionGradientOrientation=[0.0, 0.6, 0.8])
    diffusion = item(DiffusionBValue=1000.0, DiffusionGradientDirectionSequence=[direction])
    frame = frames(multi_frame([at(0.0, MRDiffusionSequence=diffusion)]))[0]
    assert frame["DiffusionBValue"] == ("1000.0",)
    assert frame["DiffusionGradientOrientation"] == ("0.0", "0.6", "0.8")


def test_legacy_converted_attributes_stand_under_those_of_functional_groups() -> None:
    unassigned = item(EchoTime=9.0, PixelSpacing=[5.0, 5.0], ConvolutionKernel="B30f")
    frame = frames(
        multi_frame(
            [
                at(
                    0.0,
                    PixelMeasuresSequence=MEASURES,
                    UnassignedPerFrameConvertedAttributesSequence=unassigned,
                )
            ]
        )
    )[0]
    assert frame["EchoTime"] == ("9.0",)
    assert frame["ConvolutionKernel"] == ("B30f",)
    assert frame["PixelSpacing"] == ("0.5", "0.7")


def test_other_and_private_groups_are_not_opened() -> None:
    private = at(0.0, DerivationImageSequence=item(EchoTime=99.0))
    private.private_block(0x2005, "Philips MR Imaging DD 005", create=True).add_new(
        0x0F, "SQ", [item(EchoTime=99.0, RescaleSlope=7.0)]
    )
    assert set(frames(multi_frame([private]))[0]) == {"ImagePositionPatient"}


def test_only_the_first_item_of_a_macro_counts() -> None:
    frame = at(0.0)
    frame.PixelMeasuresSequence = [MEASURES, item(PixelSpacing=[9.0, 9.0])]
    assert frames(multi_frame([frame]))[0]["PixelSpacing"] == ("0.5", "0.7")


def test_groups_that_a_peer_passed_on_as_unknown_are_read_as_implicit_vr() -> None:
    dataset = multi_frame([at(0.0), at(1.0)])
    groups = encoded(
        item(PerFrameFunctionalGroupsSequence=dataset.PerFrameFunctionalGroupsSequence),
        ImplicitVRLittleEndian,
    )[8:]
    del dataset.PerFrameFunctionalGroupsSequence
    unknown = struct.pack("<HH2sHL", 0x5200, 0x9230, b"UN", 0, len(groups)) + groups
    data = encoded(dataset)
    pixels_at = data.index(b"\xe0\x7f\x10\x00")
    header = read_header(data[:pixels_at] + unknown + data[pixels_at:], ExplicitVRLittleEndian, ALL)
    assert [frame["ImagePositionPatient"][2] for frame in header.frames] == ["0.0", "1.0"]
    assert header.pixel_data is not None


def test_shared_groups_alone_describe_the_one_frame_of_an_image() -> None:
    dataset = multi_frame([], at(3.0, PixelMeasuresSequence=MEASURES))
    dataset.NumberOfFrames = 1
    del dataset.PerFrameFunctionalGroupsSequence
    header = read_header(encoded(dataset), ExplicitVRLittleEndian, ALL)
    assert len(header.frames) == 1
    assert [s.position_mm for s in slice_headers(header)] == [(1.0, 2.0, 3.0)]


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_the_dimensions_are_named_by_their_tags(syntax: UID) -> None:
    dataset = multi_frame([at(0.0, FrameContentSequence=item(DimensionIndexValues=[1, 2, 3]))])
    dataset.DimensionIndexSequence = [
        item(DimensionIndexPointer=0x00209056, FunctionalGroupPointer=0x00209111),
        item(FunctionalGroupPointer=0x00209111),
        item(DimensionIndexPointer=0x00209057),
    ]
    header = read_header(encoded(dataset, syntax), syntax, ALL)
    assert header.facts["DimensionIndexPointer"] == ("00209056", "", "00209057")
    assert header.frames[0]["DimensionIndexValues"] == ("1", "2", "3")


def repeated_item(content: bytes, count: int) -> bytes:
    """A data set of Per-frame Functional Groups with the same item again and again."""
    items = (struct.pack("<HHL", 0xFFFE, 0xE000, len(content)) + content) * count
    return struct.pack("<HH2sHL", 0x5200, 0x9230, b"SQ", 0, len(items)) + items


def refusal(data: bytes) -> HeaderError:
    with pytest.raises(HeaderError) as caught:
        read_header(data, ExplicitVRLittleEndian, ALL)
    return caught.value


def test_fifty_thousand_frames_are_read_and_no_more() -> None:
    content = encoded(at(0.0))
    started = time.monotonic()
    header = read_header(repeated_item(content, 50_000), ExplicitVRLittleEndian, ALL)
    assert len(header.frames) == 50_000
    assert refusal(repeated_item(content, 50_001)).code == "HEADER_TOO_LARGE"
    assert refusal(repeated_item(b"", 3_000_000)).code == "HEADER_TOO_LARGE"
    assert time.monotonic() - started < 30


def test_the_facts_of_all_frames_take_at_most_32_mib() -> None:
    content = encoded(group(CTImageFrameTypeSequence=item(FrameType="\\".join(["X" * 15] * 64))))
    assert len(read_header(repeated_item(content, 34_000), ExplicitVRLittleEndian, ALL).frames) == 34_000
    assert refusal(repeated_item(content, 35_500)).code == "HEADER_TOO_LARGE"


def test_a_macro_that_holds_itself_without_end_is_not_followed() -> None:
    data = b""
    for _ in range(5000):
        one = struct.pack("<HHL", 0xFFFE, 0xE000, len(data)) + data
        data = struct.pack("<HH2sHL", 0x0018, 0x9076, b"SQ", 0, len(one)) + one
    content = struct.pack("<HHL", 0xFFFE, 0xE000, len(data)) + data
    macro = struct.pack("<HH2sHL", 0x0018, 0x9117, b"SQ", 0, len(content)) + content
    assert refusal(repeated_item(macro, 1)).code == "NESTED_TOO_DEEPLY"


VALID = encoded(
    with_undefined_lengths(
        multi_frame(
            [at(0.0, FrameContentSequence=item(StackID="1", DimensionIndexValues=[1, 1])), at(1.0)],
            group(PixelMeasuresSequence=MEASURES),
        )
    )
)
GROUPS_AT = VALID.index(b"\x00\x52\x29\x92")


def outcome(data: bytes | bytearray) -> Header | HeaderError:
    try:
        header = read_header(data, ExplicitVRLittleEndian, ALL)
    except HeaderError as error:
        return error
    assert slice_headers(header)
    return header


def test_every_cut_of_functional_groups_is_refused_as_truncated() -> None:
    assert isinstance(outcome(VALID), Header)
    pixels_at = VALID.index(b"\xe0\x7f\x10\x00")
    per_frame_at = VALID.index(b"\x00\x52\x30\x92")
    for end in range(GROUPS_AT + 1, pixels_at):
        found = outcome(VALID[:end])
        if end != per_frame_at:
            assert isinstance(found, HeaderError)
            assert found.code == "TRUNCATED_DATA_SET"


@settings(max_examples=500)
@example([(GROUPS_AT + 8, 0)], 0)
@given(
    st.lists(st.tuples(st.integers(GROUPS_AT, len(VALID) - 1), st.integers(0, 255)), max_size=6),
    st.integers(0, 60),
)
def test_damaged_functional_groups_are_read_or_refused_and_nothing_else(
    changes: list[tuple[int, int]], cut: int
) -> None:
    data = bytearray(VALID)
    for where, value in changes:
        data[where] = value
    assert isinstance(outcome(data[: len(data) - cut]), Header | HeaderError)
