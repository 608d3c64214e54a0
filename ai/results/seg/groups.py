"""Per-Frame Functional Groups (PS3.3 C.7.6.16), encoded once for each slice and not for each frame.

The groups of two frames on one slice differ in two numbers of fixed length: the dimension index values and
the number of the segment. So the item of a slice is encoded once, and these are written into copies of it.
The items of two slices differ in place and source image; all their other elements are encoded once.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.valuerep import DS

from ai.results.planes import SourcePlane, reference
from ai.results.seg.frames import Frame

_ITEM = struct.Struct("<HHL")  # of a sequence, with its length (PS3.5 7.5)
_LONG = struct.Struct("<HH2sHL")  # explicit VR, little endian (PS3.5 7.1.2)
_SHORT = struct.Struct("<HH2sH")
_ITEM_TAG = 0xFFFEE000
_PER_FRAME = 0x52009230
_DERIVATION_IMAGE, _SOURCE_IMAGE = 0x00089124, 0x00082112
_SOP_CLASS, _SOP_INSTANCE, _FRAME_NUMBER = 0x00081150, 0x00081155, 0x00081160
_PLANE_POSITION, _IMAGE_POSITION = 0x00209113, 0x00200032
_INDEX_VALUES = b"\x20\x00\x57\x91UL"  # Dimension Index Values (0020,9157)
_SEGMENT_NUMBER = b"\x62\x00\x0b\x00US"  # Referenced Segment Number (0062,000B)
_LENGTH = 2  # bytes of the length of a short value

_Elements = dict[int, bytes]


@dataclass(frozen=True)
class _Item:
    """The encoded item of a slice, and where its numbers stand in it; None where it has none."""

    content: bytes
    index_values_at: int
    segment_number_at: int | None


def encode_groups(groups: Dataset, planes: Sequence[SourcePlane], frames: Sequence[Frame]) -> bytes:
    """The whole element Per-Frame Functional Groups Sequence, in Explicit VR Little Endian.

    Parameters
    ----------
    groups
        Those of one frame, as highdicom wrote it: of any slice, and of segment 1.
    planes
        The source slices in the order of the volume.
    """
    template = _Template(groups)
    items = {index: template.item(planes[index]) for index in {frame.index for frame in frames}}
    body = b"".join(_numbered(items, frames, template))
    return _LONG.pack(*_numbers(_PER_FRAME), b"SQ", 0, len(body)) + body


def _numbered(items: dict[int, _Item], frames: Iterable[Frame], template: _Template) -> Iterable[bytearray]:
    """The item of each frame: a copy of that of its slice, with its own numbers."""
    for frame in frames:
        item = items[frame.index]
        content = bytearray(item.content)
        values = [frame.segment or 1] * template.is_by_segment + [frame.rank] * template.is_by_place
        struct.pack_into(f"<{len(values)}L", content, item.index_values_at, *values)
        if item.segment_number_at is not None:
            struct.pack_into("<H", content, item.segment_number_at, frame.segment)
        yield content


class _Template:
    """The functional groups of a frame, element by element, to be filled in for a slice.

    Attributes
    ----------
    is_by_place, is_by_segment
        Whether the dimension index values count the places, and before them the segments.
    """

    def __init__(self, groups: Dataset) -> None:
        derivation = groups.DerivationImageSequence[0]
        self.groups = _elements(groups)
        self.derivation = _elements(derivation)
        self.image = _elements(derivation.SourceImageSequence[0])
        self.is_by_place = "PlanePositionSequence" in groups
        count = groups.FrameContentSequence[0]["DimensionIndexValues"].VM
        self.is_by_segment = count > int(self.is_by_place)

    def item(self, plane: SourcePlane) -> _Item:
        """The encoded item of a slice."""
        cited = reference(plane)
        image = {key: value for key, value in self.image.items() if key != _FRAME_NUMBER}
        image[_SOP_CLASS] = _text(_SOP_CLASS, b"UI", cited.ReferencedSOPClassUID, b"\0")
        image[_SOP_INSTANCE] = _text(_SOP_INSTANCE, b"UI", cited.ReferencedSOPInstanceUID, b"\0")
        if "ReferencedFrameNumber" in cited:
            image[_FRAME_NUMBER] = _text(_FRAME_NUMBER, b"IS", str(cited.ReferencedFrameNumber), b" ")
        derivation = self.derivation | {_SOURCE_IMAGE: _sequence(_SOURCE_IMAGE, image)}
        groups = self.groups | {_DERIVATION_IMAGE: _sequence(_DERIVATION_IMAGE, derivation)}
        if self.is_by_place:
            numbers = [DS(value, auto_format=True) for value in plane.position.ImagePositionPatient]
            position = _text(_IMAGE_POSITION, b"DS", "\\".join(_digits(n) for n in numbers), b" ")
            groups[_PLANE_POSITION] = _sequence(_PLANE_POSITION, {_IMAGE_POSITION: position})
        content = _item(groups)
        index_values_at = _value_at(content, _INDEX_VALUES)
        if index_values_at is None:
            raise ValueError("the functional groups of a frame have no dimension index values")
        return _Item(content, index_values_at, _value_at(content, _SEGMENT_NUMBER))


def _elements(dataset: Dataset) -> _Elements:
    """The encoded elements of a data set, by tag."""
    found = {}
    for element in dataset:
        alone = Dataset()
        alone.add(element)
        buffer = DicomBytesIO()
        buffer.is_little_endian, buffer.is_implicit_VR = True, False
        write_dataset(buffer, alone)
        found[int(element.tag)] = buffer.getvalue()
    return found


def _text(tag: int, vr: bytes, value: str, padding: bytes) -> bytes:
    coded = value.encode("ascii")
    coded += padding * (len(coded) % 2)
    return _SHORT.pack(*_numbers(tag), vr, len(coded)) + coded


def _digits(number: object) -> str:
    """A decimal string as it is written: in the digits of the source, where these fit."""
    return str(getattr(number, "original_string", number))


def _sequence(tag: int, elements: _Elements) -> bytes:
    item = _item(elements)
    return _LONG.pack(*_numbers(tag), b"SQ", 0, len(item)) + item


def _item(elements: _Elements) -> bytes:
    body = b"".join(elements[tag] for tag in sorted(elements))
    return _ITEM.pack(*_numbers(_ITEM_TAG), len(body)) + body


def _numbers(tag: int) -> tuple[int, int]:
    """Group and element number."""
    return tag >> 16, tag & 0xFFFF


def _value_at(content: bytes, element: bytes) -> int | None:
    """Where the value of an element starts; text cannot look like its tag, which has bytes above 127 or 0."""
    found = content.count(element)
    if found > 1:
        raise ValueError(f"the functional groups of a frame have {element!r} {found} times")
    return content.index(element) + len(element) + _LENGTH if found else None
