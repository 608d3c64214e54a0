"""A bounded walk over the top-level elements of an encoded data set (PS3.5 7).

The walk never recurses, allocates nothing that a length field asks for, and stops at the pixel
data. Every length is checked against the bytes that are there.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from gateway.errors import Rejected

MAX_DEPTH = 32
MAX_ELEMENTS = 2_000_000
PIXEL_DATA_TAGS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})

_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
# PS3.5 7.1.2: these VRs have a 16-bit length; every other one, known or future, has 32 bits.
_SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())


@dataclass(frozen=True)
class Encoding:
    """How the elements of a data set are written."""

    explicit_vr: bool
    big_endian: bool = False


@dataclass(frozen=True)
class Element:
    """A top-level element with a defined length; ``vr`` is empty in implicit VR."""

    tag: int
    vr: str
    value: memoryview


@dataclass(frozen=True)
class _Header:
    tag: int
    vr: bytes
    length: int
    value_at: int


@dataclass(frozen=True)
class _Open:
    """A sequence, item or fragment list of undefined length that has not ended."""

    kind: str  # "sequence", "item" or "fragments"
    explicit_vr: bool


class _Reader:
    def __init__(self, data: memoryview, big_endian: bool) -> None:
        order = ">" if big_endian else "<"
        self._data = data
        self._tag = struct.Struct(f"{order}HH")
        self._short = struct.Struct(f"{order}H")
        self._long = struct.Struct(f"{order}L")
        self._elements = 0
        self.size = len(data)

    def header(self, at: int, explicit_vr: bool) -> _Header:
        """The element header at an offset, its length checked against the data."""
        self._elements += 1
        if self._elements > MAX_ELEMENTS:
            raise Rejected(
                "NOT_PARSEABLE", f"The data set has more than {MAX_ELEMENTS} elements to look through."
            )
        self._need(at, 8)
        group, element = self._tag.unpack_from(self._data, at)
        tag = group << 16 | element
        vr, length, value_at = b"", 0, at + 8
        if not explicit_vr or group == 0xFFFE:
            length = self._long.unpack_from(self._data, at + 4)[0]
        else:
            vr = bytes(self._data[at + 4 : at + 6])
            if not (vr.isalpha() and vr.isupper()):
                raise Rejected(
                    "NOT_PARSEABLE",
                    f"At byte {at} there is no value representation: these bytes are not a data set in the "
                    "transfer syntax that was negotiated.",
                )
            if vr in _SHORT_VRS:
                length = self._short.unpack_from(self._data, at + 6)[0]
            else:
                self._need(at, 12)
                length, value_at = self._long.unpack_from(self._data, at + 8)[0], at + 12
        if length != _UNDEFINED:
            self._need(value_at, length, tag)
        return _Header(tag, vr, length, value_at)

    def value(self, header: _Header) -> memoryview:
        return self._data[header.value_at : header.value_at + header.length]

    def _need(self, at: int, count: int, tag: int | None = None) -> None:
        if at + count > self.size:
            what = f"Element {tag >> 16:04X},{tag & 0xFFFF:04X}" if tag is not None else "An element header"
            raise Rejected(
                "TRUNCATED_DATA_SET",
                f"{what} at byte {at} needs {count} bytes and {self.size - at} are there: the object is cut "
                "off or damaged at the sender.",
            )


def top_level(data: memoryview, encoding: Encoding) -> Iterator[Element]:
    """Yield the elements before the pixel data; sequences are checked and skipped.

    Raises Rejected: TRUNCATED_DATA_SET, NOT_PARSEABLE, NESTED_TOO_DEEPLY.
    """
    reader = _Reader(data, encoding.big_endian)
    at = 0
    while at < reader.size:
        header = reader.header(at, encoding.explicit_vr)
        if header.tag >> 16 == 0xFFFE:
            raise Rejected(
                "NOT_PARSEABLE", f"A sequence delimiter stands outside of a sequence at byte {at}."
            )
        if header.length == _UNDEFINED:
            at = _skip(reader, header, encoding.explicit_vr)
        else:
            at = header.value_at + header.length
            if header.tag not in PIXEL_DATA_TAGS:
                yield Element(header.tag, header.vr.decode("ascii"), reader.value(header))
        if header.tag in PIXEL_DATA_TAGS:
            return


def _skip(reader: _Reader, header: _Header, explicit_vr: bool) -> int:
    """The offset after an element of undefined length; what is open is kept on a stack, not called."""
    stack = [_opened_by(header, explicit_vr)]
    at = header.value_at
    while stack:
        top = stack[-1]
        inner = reader.header(at, top.explicit_vr)
        at = inner.value_at
        if inner.tag == (_ITEM_END if top.kind == "item" else _SEQUENCE_END):
            stack.pop()
        elif top.kind != "item" and (
            inner.tag != _ITEM or (inner.length == _UNDEFINED and top.kind == "fragments")
        ):
            raise Rejected("NOT_PARSEABLE", f"A sequence has something else than an item at byte {at}.")
        elif top.kind == "item" and inner.tag >> 16 == 0xFFFE:
            raise Rejected("NOT_PARSEABLE", f"An item has a misplaced delimiter at byte {at}.")
        elif inner.length != _UNDEFINED:
            at += inner.length
        elif len(stack) >= 2 * MAX_DEPTH:
            raise Rejected("NESTED_TOO_DEEPLY", f"Sequences are nested more than {MAX_DEPTH} levels deep.")
        else:
            item = _Open("item", top.explicit_vr)
            stack.append(item if top.kind == "sequence" else _opened_by(inner, top.explicit_vr))
    return at


def _opened_by(header: _Header, explicit_vr: bool) -> _Open:
    if not explicit_vr:
        fragments = header.tag in PIXEL_DATA_TAGS
        return _Open("fragments" if fragments else "sequence", explicit_vr=False)
    if header.vr == b"UN":  # PS3.5 6.2.2 note: a sequence in implicit VR little endian
        return _Open("sequence", explicit_vr=False)
    return _Open("sequence" if header.vr == b"SQ" else "fragments", explicit_vr=True)
