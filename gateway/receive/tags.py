"""What the gateway must know of an instance, read from its encoded data set within bounds.

Only text of the wanted attributes is taken; patient attributes and pixels are passed over.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from types import MappingProxyType

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)

from gateway.errors import Rejected
from gateway.header import FACT_KEYWORDS, InstanceHeader
from gateway.receive.elements import Element, Encoding, top_level
from gateway.receive.text import escaped, printable
from gateway.uids import is_uid

MAX_VALUE_BYTES = 1024

_IDENTITY = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_CHARACTER_SET = 0x00080005
_PYTHON_CHARACTER_SETS = {"ISO_IR 192": "utf-8", "GB18030": "gb18030", "GBK": "gb18030"}
_NUMBERS = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "FL": "f", "FD": "d", "UV": "Q", "SV": "q"}
_NOT_TEXT = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "UN", ""})
_DATA_SET_REFUSED, _DOES_NOT_MATCH = 0xC000, 0xA900


def _table(keywords: frozenset[str]) -> Mapping[int, tuple[str, str]]:
    table = {}
    for keyword in keywords:
        tag = tag_for_keyword(keyword)
        if tag is None:
            raise ValueError(f"{keyword} is not a DICOM keyword")
        table[int(tag)] = (keyword, dictionary_VR(tag))
    return MappingProxyType(table)


_WANTED = _table(FACT_KEYWORDS | frozenset(_IDENTITY))


def read_header(data: bytes | bytearray | memoryview, transfer_syntax_uid: str) -> InstanceHeader:
    """Identity and facts of an encoded data set (no preamble, no file meta information).

    Raises Rejected with the C-STORE status to answer (PS3.4 B.2.3): EMPTY_DATA_SET,
    TRUNCATED_DATA_SET, NOT_PARSEABLE, NESTED_TOO_DEEPLY, TRANSFER_SYNTAX_REFUSED (0xC000);
    IDENTITY_MISSING, UID_INVALID (0xA900).
    """
    view = memoryview(data).cast("B")
    if not view:
        raise Rejected("EMPTY_DATA_SET", "The object has no data set: 0 bytes arrived.", _DATA_SET_REFUSED)
    encoding = _encoding(transfer_syntax_uid)
    texts: dict[str, tuple[str, ...]] = {}
    character_set = "latin-1"
    for element in top_level(view, encoding):
        if element.tag == _CHARACTER_SET:
            character_set = _character_set(element.value)
        elif element.tag in _WANTED and 0 < len(element.value) <= MAX_VALUE_BYTES:
            keyword, usual_vr = _WANTED[element.tag]
            values = _values(element, usual_vr, encoding, character_set)
            if any(values):
                texts[keyword] = values
    facts = {keyword: values for keyword, values in texts.items() if keyword in FACT_KEYWORDS}
    return InstanceHeader(
        sop_class_uid=_uid(texts, "SOPClassUID"),
        sop_instance_uid=_uid(texts, "SOPInstanceUID"),
        study_instance_uid=_uid(texts, "StudyInstanceUID"),
        series_instance_uid=_uid(texts, "SeriesInstanceUID"),
        facts=facts,
    )


def _encoding(transfer_syntax_uid: str) -> Encoding:
    if transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
        raise Rejected(
            "TRANSFER_SYNTAX_REFUSED",
            "Deflated data sets are not taken: send Explicit VR Little Endian.",
            _DATA_SET_REFUSED,
        )
    if transfer_syntax_uid == ImplicitVRLittleEndian:
        return Encoding(explicit_vr=False)
    return Encoding(explicit_vr=True, big_endian=transfer_syntax_uid == ExplicitVRBigEndian)


def _character_set(value: memoryview) -> str:
    """Python's name; Latin-1 shows every byte where we do not know the set."""
    first = bytes(value[:64]).decode("latin-1").split("\\")[0].strip(" \0")
    return _PYTHON_CHARACTER_SETS.get(first, "latin-1")


def _values(element: Element, usual_vr: str, encoding: Encoding, character_set: str) -> tuple[str, ...]:
    vr = usual_vr if element.vr in _NOT_TEXT else element.vr
    if vr in _NUMBERS:
        return _numbers(element.value, _NUMBERS[vr], encoding.big_endian)
    text = bytes(element.value).decode(character_set, "replace")
    parts = text.split("\\")
    return tuple(escaped(part.strip(" \0")) for part in parts)


def _numbers(value: memoryview, code: str, big_endian: bool) -> tuple[str, ...]:
    """Whole numbers of a binary VR as text; a rest that is no whole number is not there."""
    item = struct.Struct(f"{'>' if big_endian else '<'}{code}")
    whole = value[: len(value) - len(value) % item.size]
    return tuple(str(number) for (number,) in item.iter_unpack(whole))


def _uid(texts: Mapping[str, tuple[str, ...]], keyword: str) -> str:
    values = texts.get(keyword)
    if values is None:
        raise Rejected(
            "IDENTITY_MISSING", f"The data set has no usable {keyword} (PS3.3 C.12.1).", _DOES_NOT_MATCH
        )
    if len(values) != 1 or not is_uid(values[0]):
        raise Rejected(
            "UID_INVALID",
            f"{keyword} is '{printable(values[0])}', which is not a UID (PS3.5 9.1).",
            _DOES_NOT_MATCH,
        )
    return values[0]
