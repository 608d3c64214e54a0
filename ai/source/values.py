"""Values of elements as text, and the table of the attributes that are wanted."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

from pydicom.datadict import dictionary_VR, tag_for_keyword

from ai.source.elements import Element, Encoding
from ai.source.text import escaped

MAX_VALUE_BYTES = 1024

Facts = Mapping[str, tuple[str, ...]]
"""Keyword → values as text; an absent or empty attribute has no key."""

_PYTHON_CHARACTER_SETS = {"ISO_IR 192": "utf-8", "GB18030": "gb18030", "GBK": "gb18030"}
_NUMBERS = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "FL": "f", "FD": "d", "UV": "Q", "SV": "q"}
_NOT_TEXT = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "UN", ""})


_SHORT_BYTES = 64  # values worth remembering: identifiers, vectors, spacings


class Attribute(NamedTuple):
    """A wanted attribute: its keyword, and the VR that PS3.6 gives it."""

    keyword: str
    vr: str


@lru_cache(maxsize=32)
def table(keywords: frozenset[str]) -> Mapping[int, Attribute]:
    """Tag → attribute. Raises ValueError for what is no DICOM keyword."""
    found = {}
    for keyword in keywords:
        tag = tag_for_keyword(keyword)
        if tag is None:
            raise ValueError(f"{keyword} is not a DICOM keyword")
        found[int(tag)] = Attribute(keyword, dictionary_VR(tag))
    return MappingProxyType(found)


class ValueReader:
    """Turns the bytes of elements of one data set into text; equal short values are one object.

    Attributes
    ----------
    character_set
        Python's name of the encoding of text.
    signed
        Whether an attribute of VR "US or SS" is signed: Pixel Representation (PS3.3 C.7.6.3.1).
    """

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self.character_set = "latin-1"
        self.signed = False

    def use_character_set(self, element: Element) -> None:
        """Take over Specific Character Set; Latin-1 shows every byte where we do not know the set."""
        first = self._bytes(element)[:64].decode("latin-1").split("\\")[0].strip(" \0")
        self.character_set = _PYTHON_CHARACTER_SETS.get(first, "latin-1")

    def values(self, element: Element, usual_vr: str, encoding: Encoding) -> tuple[str, ...]:
        """The values as text; () for an empty value, one over 1024 bytes or one of undefined length.

        Numbers of a binary VR are whole numbers or floats in Python's notation, tags eight hexadecimal
        digits. A sequence that has items is ``("present",)``.
        """
        if usual_vr == "SQ":
            delimiter = 8 if element.length is None else 0
            return ("present",) if element.end - element.start > delimiter else ()
        if not element.length or element.length > MAX_VALUE_BYTES:
            return ()
        vr = element.vr if element.vr not in _NOT_TEXT else self._vr(usual_vr)
        raw = self._bytes(element)
        decode = _decoded_before if len(raw) <= _SHORT_BYTES else _decoded
        values = decode(raw, vr, self.character_set, encoding.big_endian)
        return values if any(values) else ()

    def _bytes(self, element: Element) -> bytes:
        return bytes(self._data[element.start : element.start + (element.length or 0)])

    def _vr(self, usual_vr: str) -> str:
        """Where the header does not say one."""
        if usual_vr == "US or SS":
            return "SS" if self.signed else "US"
        return usual_vr


def _decoded(raw: bytes, vr: str, character_set: str, big_endian: bool) -> tuple[str, ...]:
    if vr in _NUMBERS:
        return _numbers(raw, _NUMBERS[vr], big_endian)
    if vr == "AT":
        pairs = _numbers(raw, "HH", big_endian)
        return tuple(f"{int(g):04X}{int(e):04X}" for g, e in zip(pairs[::2], pairs[1::2], strict=True))
    parts = raw.decode(character_set, "replace").split("\\")
    return tuple(escaped(part.strip(" \0")) for part in parts)


_decoded_before = lru_cache(maxsize=4096)(
    _decoded
)  # the images of a series, and its frames, have most in common


def _numbers(raw: bytes, code: str, big_endian: bool) -> tuple[str, ...]:
    """Whole numbers of a binary VR as text; a rest that is no whole number is not there."""
    item = struct.Struct(f"{'>' if big_endian else '<'}{code}")
    whole = raw[: len(raw) - len(raw) % item.size]
    return tuple(str(number) for numbers in item.iter_unpack(whole) for number in numbers)
