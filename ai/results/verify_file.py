"""An encoded SEG, taken apart without a copy of its pixels."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset
from pydicom.filereader import read_partial

from ai.results.verify_elements import (
    UNDEFINED_LENGTH,
    UnusualEncoding,
    Values,
    element_at,
    items,
    values_of_items,
)
from ai.results.verify_frames import FrameTable, table_of_items

_PER_FRAME_GROUPS = 0x52009230
_PIXEL_DATA = 0x7FE00010


@dataclass(frozen=True)
class SegFile:
    """One SEG as it was read.

    Attributes
    ----------
    header
        The data set up to the per-frame functional groups.
    segments, sources
        Items of the Segment Sequence and the Source Image Sequence as they are written.
    pixels
        The value of Pixel Data: voxels, or encapsulated frames.
    """

    header: Dataset
    segments: list[Values]
    sources: list[Values]
    shared: Dataset
    frames: FrameTable
    pixels: memoryview


def read_header(encoded: bytes) -> tuple[Dataset, int]:
    """The data set up to the per-frame functional groups, and where these start; raises what pydicom does."""
    stream = BytesIO(encoded)
    header = read_partial(stream, stop_when=lambda tag, _vr, _length: int(tag) >= _PER_FRAME_GROUPS)
    return header, stream.tell()


def read_seg(encoded: bytes) -> SegFile:
    """The whole of a SEG in Explicit VR Little Endian; raises what pydicom does, and ValueError."""
    try:
        return _read(encoded)
    except UnusualEncoding:
        try:
            return _read(_with_lengths(encoded))
        except UnusualEncoding as error:
            raise ValueError("its elements do not follow each other as they should") from error


def _read(encoded: bytes) -> SegFile:
    """Header, then the groups of the frames, then Pixel Data, then nothing."""
    header, groups_at = read_header(encoded)
    segments = values_of_items(header, "SegmentSequence")
    sources = values_of_items(header, "SourceImageSequence")
    shared = header.SharedFunctionalGroupsSequence[0]
    tag, vr, start, length = element_at(encoded, groups_at)
    if tag != _PER_FRAME_GROUPS or vr != b"SQ" or length == UNDEFINED_LENGTH:
        raise UnusualEncoding
    stop = start + length
    frames = table_of_items(encoded, items(encoded, start, stop), shared)
    tag, _, start, length = element_at(encoded, stop)
    if tag != _PIXEL_DATA or (length != UNDEFINED_LENGTH and start + length != len(encoded)):
        raise UnusualEncoding
    return SegFile(header, segments, sources, shared, frames, memoryview(encoded)[start:])


def _with_lengths(encoded: bytes) -> bytes:
    """The same data set with the length of every sequence and item stated."""
    whole = dcmread(BytesIO(encoded))
    _state_lengths(whole)
    stream = BytesIO()
    dcmwrite(stream, whole)
    return stream.getvalue()


def _state_lengths(dataset: Dataset) -> None:
    dataset.is_undefined_length_sequence_item = False
    for element in dataset:
        if element.VR == "SQ":
            element.is_undefined_length = False
            element.value.is_undefined_length = False
            for item in element.value:
                _state_lengths(item)
