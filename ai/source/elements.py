"""A bounded walk over the elements of an encoded data set (PS3.5 7).

The walk never recurses, allocates nothing that a length field asks for, and stops at the pixel
data. Every length is checked against the bytes that are there.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Container, Generator, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from ai.errors import HeaderError

MAX_DEPTH = 32
MAX_ELEMENTS = 2_000_000
_MAX_NESTED_ELEMENTS = 4_000_000  # looked through for their depth only
PIXEL_DATA_TAGS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}

_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_DELIMITER_BYTES = 8
_ITEM_TAGS = {False: re.compile(rb"\xfe\xff\x00\xe0"), True: re.compile(rb"\xff\xfe\xe0\x00")}
# PS3.5 7.1.2: these VRs have a 16-bit length; every other one, known or future, has 32 bits.
_SHORT_VR_NAMES = "AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US"
_SHORT_VRS = {name.encode(): name for name in _SHORT_VR_NAMES.split(" ")}
_ORDERS = {big: ">" if big else "<" for big in (False, True)}
_EXPLICIT = {big: struct.Struct(f"{order}HH2sH").unpack_from for big, order in _ORDERS.items()}
_IMPLICIT = {big: struct.Struct(f"{order}HHL").unpack_from for big, order in _ORDERS.items()}
_LONG = {big: struct.Struct(f"{order}L").unpack_from for big, order in _ORDERS.items()}


@dataclass(frozen=True)
class Encoding:
    """How the elements of a data set are written."""

    explicit_vr: bool
    big_endian: bool = False


_UNKNOWN_VR = Encoding(explicit_vr=False)  # PS3.5 6.2.2 note: what is in UN is implicit VR little endian


class Element(NamedTuple):
    """Where an element stands; offsets count from the start of the data set.

    ``vr`` is empty in implicit VR; ``length`` is None where it is undefined; ``end`` is the offset behind
    the value and its delimiter, or the end of the data for pixel data that is not looked through.
    """

    tag: int
    vr: str
    start: int
    length: int | None
    end: int


class _Open(NamedTuple):
    """A sequence, item or fragment list that has not ended; ``end`` is None where its length is undefined."""

    kind: str  # "sequence", "item" or "fragments"
    encoding: Encoding
    start: int
    end: int | None = None


_Header = tuple[int, bytes, int, int]  # tag, VR, length field, offset of the value


class ElementReader:
    """Elements of one encoded data set; the bounds on their number hold for all calls together.

    Parameters
    ----------
    data
        The encoded data set.
    check_pixels
        False: pixel data is not looked through and may be cut off; its length is the one claimed.
    """

    def __init__(self, data: memoryview, *, check_pixels: bool = True) -> None:
        self._data = data
        self._check_pixels = check_pixels
        self._elements = 0
        self._nested_elements = 0
        self._ends: dict[int, int] = {}  # offset of a value of undefined length -> offset behind it
        self.size = len(data)

    def elements(self, start: int, end: int, encoding: Encoding, wanted: Container[int]) -> Iterator[Element]:
        """Yield the wanted elements between two offsets, up to and including pixel data.

        Raises HeaderError: TRUNCATED_DATA_SET, NOT_PARSEABLE; of a whole data set also NESTED_TOO_DEEPLY,
        HEADER_TOO_LARGE.
        """
        at = start
        is_usual = encoding.explicit_vr and not encoding.big_endian
        while at < end:
            if is_usual:
                at = yield from self._plain(at, end, wanted)
                if at == end:
                    return
            header = self._header(at, end, encoding)
            tag, vr, length, value_at = header
            is_pixel_data = tag in PIXEL_DATA_TAGS
            if tag >> 16 == 0xFFFE:
                raise HeaderError(
                    "NOT_PARSEABLE", f"A sequence delimiter stands outside of a sequence at byte {at}."
                )
            if length != _UNDEFINED:
                at = value_at + length
            elif is_pixel_data and not self._check_pixels:
                at = self.size
            else:
                at = self._end_of(_opened_by(header, encoding), end)
            if start == 0 and not is_pixel_data and self._may_be_deep(header, at, encoding):
                self._check_depth(_opened_by(header, encoding)._replace(end=at))
            if tag in wanted:
                known = None if length == _UNDEFINED else length
                yield Element(tag, vr.decode("ascii"), value_at, known, at)
            if is_pixel_data:
                return

    def _plain(self, at: int, end: int, wanted: Container[int]) -> Generator[Element, None, int]:
        """Yield the wanted ones of the plain elements that come next, and return the offset behind them.

        In explicit VR little endian most are plain: they have a short length and stand before the pixels.
        """
        data, unpack = self._data, _EXPLICIT[False]
        while at + 8 <= end and self._elements < MAX_ELEMENTS:
            group, element, vr, length = unpack(data, at)
            behind = at + 8 + length
            if vr not in _SHORT_VRS or group >= 0x7FE0 or behind > end:
                break
            self._elements += 1
            tag = group << 16 | element
            if tag in wanted:
                yield Element(tag, _SHORT_VRS[vr], at + 8, length, behind)
            at = behind
        return at

    def items(self, sequence: Element, encoding: Encoding) -> Iterator[tuple[int, int]]:
        """Yield where the content of each item of a sequence starts and ends.

        ``encoding`` is that of the content: see :func:`inside`.
        """
        at = sequence.start
        while at < sequence.end:
            tag, _, length, value_at = self._header(at, sequence.end, encoding)
            if tag == _SEQUENCE_END:
                return
            if tag != _ITEM:
                raise _no_item(value_at)
            if length == _UNDEFINED:
                at = self._end_of(_Open("item", encoding, value_at), sequence.end)
                yield value_at, at - _DELIMITER_BYTES
            else:
                at = value_at + length
                yield value_at, at

    def _header(self, at: int, end: int, encoding: Encoding) -> _Header:
        """The element header at an offset, its length checked against the data."""
        self._elements += 1
        if self._elements > MAX_ELEMENTS:
            raise HeaderError(
                "NOT_PARSEABLE", f"The data set has more than {MAX_ELEMENTS} elements to look through."
            )
        return self._decoded(at, end, encoding)

    def _decoded(self, at: int, end: int, encoding: Encoding) -> _Header:
        if at + 8 > end:
            raise self._short_of(at, 8, end)
        big_endian = encoding.big_endian
        if not encoding.explicit_vr:
            group, element, length = _IMPLICIT[big_endian](self._data, at)
            vr, value_at = b"", at + 8
        else:
            group, element, vr, length = _EXPLICIT[big_endian](self._data, at)
            value_at = at + 8
            if group == 0xFFFE:
                vr, length = b"", _LONG[big_endian](self._data, at + 4)[0]
            elif vr not in _SHORT_VRS:
                length, value_at = self._long_length(at, end, vr, big_endian), at + 12
        tag: int = group << 16 | element
        if value_at + length > end and length != _UNDEFINED and self._must_fit(tag):
            raise self._short_of(value_at, length, end, tag)
        return tag, vr, length, value_at

    def _must_fit(self, tag: int) -> bool:
        return self._check_pixels or tag not in PIXEL_DATA_TAGS

    def _long_length(self, at: int, end: int, vr: bytes, big_endian: bool) -> int:
        if not (vr.isalpha() and vr.isupper()):
            raise HeaderError(
                "NOT_PARSEABLE",
                f"At byte {at} there is no value representation: these bytes are not a data set in the "
                "transfer syntax that is named.",
            )
        if at + 12 > end:
            raise self._short_of(at, 12, end)
        length: int = _LONG[big_endian](self._data, at + 8)[0]
        return length

    def _short_of(self, at: int, count: int, end: int, tag: int | None = None) -> HeaderError:
        what = f"Element {tag >> 16:04X},{tag & 0xFFFF:04X}" if tag is not None else "An element header"
        needs = f"{what} at byte {at} needs {count} bytes and {end - at} are there"
        if end == self.size:
            return HeaderError(
                "TRUNCATED_DATA_SET", f"{needs}: the object is cut off or damaged at the sender."
            )
        return HeaderError("NOT_PARSEABLE", f"{needs} in its sequence: the object is damaged at the sender.")

    def _end_of(self, outermost: _Open, end: int) -> int:
        """The offset after something of undefined length; what is open is kept on a stack, not called."""
        known = self._ends.get(outermost.start)
        if known is not None:
            return known
        stack = [outermost]
        at = outermost.start
        while stack:
            top = stack[-1]
            header = self._header(at, end, top.encoding)
            tag, _, length, at = header
            is_item = top.kind == "item"
            if tag == (_ITEM_END if is_item else _SEQUENCE_END):
                self._ends[top.start] = at
                stack.pop()
            elif not is_item and (tag != _ITEM or (length == _UNDEFINED and top.kind == "fragments")):
                raise _no_item(at)
            elif is_item and tag >> 16 == 0xFFFE:
                raise HeaderError("NOT_PARSEABLE", f"An item has a misplaced delimiter at byte {at}.")
            elif length != _UNDEFINED:
                at += length
            elif len(stack) >= 2 * MAX_DEPTH:
                raise _too_deep()
            elif top.kind == "sequence":
                stack.append(_Open("item", top.encoding, at))
            else:
                stack.append(_opened_by(header, top.encoding))
        return at

    def _may_be_deep(self, header: _Header, end: int, encoding: Encoding) -> bool:
        """Every level has an item, and the bytes of its tag are quickly counted."""
        start = header[3]
        if end - start < MAX_DEPTH * _DELIMITER_BYTES:
            return False
        with self._data[start:end] as value:
            if not _is_sequence(header, encoding, value):
                return False
            tags = _ITEM_TAGS[encoding.big_endian].finditer(value)
            many = sum(1 for _ in islice(tags, MAX_DEPTH + 1)) > MAX_DEPTH
            del tags  # it holds the view
            return many

    def _check_depth(self, outermost: _Open) -> None:
        """Refuse what would end a reader that recurses, as pydicom does, also where lengths step over it.

        What is broken inside of a length was stepped over, and is as deep as can be read.
        """
        stack, at = [outermost], outermost.start
        while stack:
            top = stack[-1]
            if top.end is not None and at >= top.end:
                stack.pop()
                continue
            self._nested_elements += 1
            if self._nested_elements > _MAX_NESTED_ELEMENTS:
                raise HeaderError(
                    "HEADER_TOO_LARGE", f"The sequences have more than {_MAX_NESTED_ELEMENTS} elements."
                )
            try:
                header = self._decoded(at, outermost.end or self.size, top.encoding)
            except HeaderError:
                return
            tag, _, length, at = header
            end = None if length == _UNDEFINED else at + length
            if tag in (_ITEM_END, _SEQUENCE_END):
                stack.pop()
            elif top.kind == "sequence":
                if tag != _ITEM:
                    return
                stack.append(_Open("item", top.encoding, at, end))
            elif top.kind == "item" and _is_sequence(header, top.encoding, self._data[at:]):
                stack.append(_opened_by(header, top.encoding)._replace(end=end))
            elif end is None:
                stack.append(_Open("fragments", top.encoding, at))
            else:
                at = end
            if len(stack) > 2 * MAX_DEPTH:
                raise _too_deep()


def inside(sequence: Element, encoding: Encoding) -> Encoding:
    """The encoding of the items of a sequence that stands in a data set of the given encoding."""
    return _UNKNOWN_VR if sequence.vr == "UN" else encoding


def _opened_by(header: _Header, encoding: Encoding) -> _Open:
    tag, vr, _, value_at = header
    if not encoding.explicit_vr:
        return _Open("fragments" if tag in PIXEL_DATA_TAGS else "sequence", encoding, value_at)
    if vr == b"UN":
        return _Open("sequence", _UNKNOWN_VR, value_at)
    return _Open("sequence" if vr == b"SQ" else "fragments", encoding, value_at)


def _no_item(at: int) -> HeaderError:
    return HeaderError("NOT_PARSEABLE", f"A sequence has something else than an item at byte {at}.")


def _is_sequence(header: _Header, encoding: Encoding, value: memoryview) -> bool:
    """In explicit VR it says so; else its value starts with an item, or it has none (PS3.5 7.5)."""
    _, vr, length, _ = header
    if encoding.explicit_vr and vr != b"UN":
        return vr == b"SQ"
    return length == _UNDEFINED or _ITEM_TAGS[encoding.big_endian and vr != b"UN"].match(value) is not None


def _too_deep() -> HeaderError:
    return HeaderError("NESTED_TOO_DEEPLY", f"Sequences are nested more than {MAX_DEPTH} levels deep.")
