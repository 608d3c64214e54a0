"""Where the values of encoded items lie: Explicit VR Little Endian with stated lengths (PS3.5 7.1.2, 7.5).

A segmentation has thousands of per-frame items that differ in a few values. To decode each of them takes
seconds; to find where the values lie in one, and that the others have the very same bytes around them, does
not.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

Path = tuple[int, ...]
"""Tags of the sequences around an element, then its own, each as ``0xGGGGEEEE``."""

Values = dict[Path, list[bytes]]

UNDEFINED_LENGTH = 0xFFFFFFFF
_ITEM = 0xE000FFFE  # (FFFE,E000) as one number, little endian
_ITEM_HEADER, _SHORT, _LENGTH = struct.Struct("<II"), struct.Struct("<HH2sH"), struct.Struct("<I")
_LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
_DEEPEST = 8  # sequences in each other


class UnusualEncoding(Exception):
    """Something that may be legal and needs a full parser: an undefined length, or one out of bounds."""


class Element(NamedTuple):
    """Where the value of an element that is no sequence starts, and the byte after it."""

    path: Path
    start: int
    stop: int


def path(*keywords: str) -> Path:
    """The path of an element by the keywords of PS3.6."""
    tags = [tag_for_keyword(keyword) for keyword in keywords]
    return tuple(int(tag) for tag in tags if tag is not None)


def element_at(data: bytes, offset: int) -> tuple[int, bytes, int, int]:
    """Tag, VR, first byte of the value and its length, which may be undefined."""
    try:
        group, element, vr, length = _SHORT.unpack_from(data, offset)
        if vr in _LONG:
            (length,) = _LENGTH.unpack_from(data, offset + 8)
            return group << 16 | element, vr, offset + 12, length
    except struct.error as error:
        raise UnusualEncoding from error
    return group << 16 | element, vr, offset + 8, length


def items(data: bytes, start: int, stop: int) -> list[tuple[int, int]]:
    """First byte of the content of every item of a sequence, and the byte after it."""
    found = []
    try:
        while start < stop:
            tag, length = _ITEM_HEADER.unpack_from(data, start)
            first, start = start + 8, start + 8 + length
            if tag != _ITEM or start > stop:  # an undefined length is beyond every end
                raise UnusualEncoding
            found.append((first, start))
    except struct.error as error:
        raise UnusualEncoding from error
    return found


def elements(data: bytes, start: int, stop: int) -> list[Element]:
    """Every element of a data set that is no sequence, those within sequences too."""
    found: list[Element] = []
    _collect(found, data, start, stop, ())
    return found


def values(data: bytes, start: int, stop: int) -> Values:
    """The values of all elements of a data set by their path; those of the items of a sequence in order."""
    found: Values = {}
    for path, first, last in elements(data, start, stop):
        found.setdefault(path, []).append(data[first:last])
    return found


def values_of_items(dataset: Dataset, keyword: str) -> list[Values]:
    """The values in each item of a sequence of a data set that was read and not yet decoded."""
    if keyword not in dataset:
        raise KeyError(f"there is no {keyword}")
    sequence: object = dataset.get_item(keyword)
    if not isinstance(sequence, RawDataElement) or sequence.value is None:
        raise UnusualEncoding
    data = sequence.value
    return [values(data, first, last) for first, last in items(data, 0, len(data))]


def text(value: bytes) -> str:
    """A value as text without its padding (PS3.5 6.2); results are in UTF-8."""
    return value.decode().strip(" \0")


def _collect(found: list[Element], data: bytes, start: int, stop: int, path: Path) -> None:
    if len(path) > _DEEPEST:
        raise UnusualEncoding
    while start < stop:
        tag, vr, first, length = element_at(data, start)
        start = first + length
        if start > stop or not vr.isalpha():  # an undefined length is beyond every end
            raise UnusualEncoding
        if vr == b"SQ":
            for a, b in items(data, first, start):
                _collect(found, data, a, b, (*path, tag))
        else:
            found.append(Element((*path, tag), first, start))
