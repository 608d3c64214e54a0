"""Storage commitment on the wire: the request is read within bounds, the report is written (PS3.4 J.3).

Both are small data sets with a sequence that can be long, so neither is made of objects per element.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from ai.errors import HeaderError
from ai.source.elements import Element, ElementReader, Encoding, inside
from gateway.errors import Rejected
from gateway.receive.text import printable
from gateway.uids import is_uid

MAX_REFERENCES = 100_000
"""Of one request. A study with more is asked for in several."""

MAX_REQUEST_BYTES = 32 << 20

INVALID_ARGUMENT, RESOURCE_LIMITATION = 0x0115, 0x0213
"""Status of an N-ACTION response (PS3.7 10.1.4.1.10)."""

_SOP_CLASS, _SOP_INSTANCE = 0x00081150, 0x00081155
_TRANSACTION, _FAILURE_REASON = 0x00081195, 0x00081197
_FAILED, _REFERENCED = 0x00081198, 0x00081199
_LONGEST_UID_BYTES = 64
_ITEM_HEADER = struct.Struct("<HHL")

Reference = tuple[str, str]
"""SOP Class UID and SOP Instance UID."""

FailedReference = tuple[str, str, int]
"""The same, and the Failure Reason (PS3.3 C.14.1.1)."""


@dataclass(frozen=True)
class Request:
    """What a peer asks to be committed; each instance once, in the order of the request."""

    transaction_uid: str
    references: tuple[Reference, ...]


def read_request(data: bytes | memoryview, *, explicit_vr: bool) -> Request:
    """The Action Information of an N-ACTION request, little endian (PS3.4 Table J.3-1).

    Raises Rejected, with the status for the response: REQUEST_EMPTY, TRANSACTION_UID_INVALID,
    REFERENCES_MISSING, REFERENCE_INVALID, NOT_PARSEABLE, TRUNCATED_DATA_SET, NESTED_TOO_DEEPLY,
    HEADER_TOO_LARGE (0x0115); REQUEST_TOO_LARGE, TOO_MANY_REFERENCES (0x0213).
    """
    if len(data) > MAX_REQUEST_BYTES:
        raise Rejected(
            "REQUEST_TOO_LARGE",
            f"The request has {len(data) >> 20} MiB and {MAX_REQUEST_BYTES >> 20} are taken: ask for fewer "
            "instances at a time.",
            RESOURCE_LIMITATION,
        )
    if not data:
        raise _invalid("REQUEST_EMPTY", "The request names no transaction and no instances.")
    try:
        return _read(memoryview(data), Encoding(explicit_vr))
    except HeaderError as error:
        raise _invalid(error.code, error.reason) from error


def write_report(
    transaction_uid: str,
    committed: Sequence[Reference],
    failed: Sequence[FailedReference],
    *,
    explicit_vr: bool,
) -> bytes:
    """The Event Information of an N-EVENT-REPORT request, little endian (PS3.4 Table J.3-2)."""
    parts = [_uid_element(_TRANSACTION, transaction_uid, explicit_vr)]
    if failed:
        items = [
            _item(sop_class, instance, explicit_vr) + _number_element(_FAILURE_REASON, reason, explicit_vr)
            for sop_class, instance, reason in failed
        ]
        parts.append(_sequence(_FAILED, items, explicit_vr))
    if committed:
        items = [_item(sop_class, instance, explicit_vr) for sop_class, instance in committed]
        parts.append(_sequence(_REFERENCED, items, explicit_vr))
    return b"".join(parts)


# -- reading ----------------------------------------------------------------------------------


def _read(data: memoryview, encoding: Encoding) -> Request:
    reader = ElementReader(data)
    found: dict[int, Element] = {}
    for element in reader.elements(0, len(data), encoding, (_TRANSACTION, _REFERENCED)):
        if element.tag in found:
            raise _invalid("NOT_PARSEABLE", f"Attribute {_tag_text(element.tag)} is there twice.")
        found[element.tag] = element
    transaction_uid = _uid(data, found.get(_TRANSACTION))
    if transaction_uid is None:
        raise _invalid("TRANSACTION_UID_INVALID", "Transaction UID (0008,1195) is missing or is no UID.")
    sequence = found.get(_REFERENCED)
    if sequence is None or sequence.vr not in ("SQ", "UN", ""):
        raise _invalid("REFERENCES_MISSING", "There is no Referenced SOP Sequence (0008,1199).")
    references: dict[Reference, None] = {}
    own = inside(sequence, encoding)
    for number, (start, end) in enumerate(reader.items(sequence, own), start=1):
        if number > MAX_REFERENCES:
            raise Rejected(
                "TOO_MANY_REFERENCES",
                f"The request names more than {MAX_REFERENCES} instances: ask for fewer at a time.",
                RESOURCE_LIMITATION,
            )
        references[_reference(reader, data, (start, end), own, number)] = None
    if not references:
        raise _invalid("REFERENCES_MISSING", "Referenced SOP Sequence (0008,1199) has no items.")
    return Request(transaction_uid, tuple(references))


def _reference(
    reader: ElementReader, data: memoryview, item: tuple[int, int], encoding: Encoding, number: int
) -> Reference:
    uids = {
        element.tag: _uid(data, element)
        for element in reader.elements(*item, encoding, (_SOP_CLASS, _SOP_INSTANCE))
    }
    sop_class, instance = uids.get(_SOP_CLASS), uids.get(_SOP_INSTANCE)
    if sop_class is None or instance is None:
        lacking = "Class" if sop_class is None else "Instance"
        raise _invalid(
            "REFERENCE_INVALID",
            f"Item {number} of the Referenced SOP Sequence has no valid Referenced SOP {lacking} UID.",
        )
    return sop_class, instance


def _uid(data: memoryview, element: Element | None) -> str | None:
    """The value of an element with one UID; None if it has none."""
    if element is None or element.vr not in ("UI", "UN", "") or element.length is None:
        return None
    if element.length > _LONGEST_UID_BYTES:
        return None
    text = bytes(data[element.start : element.start + element.length]).rstrip(b"\0 ")
    try:
        uid = text.decode("ascii")
    except UnicodeDecodeError:
        return None
    return uid if is_uid(uid) else None


def _invalid(name: str, reason: str) -> Rejected:
    return Rejected(name, printable(reason, 400), INVALID_ARGUMENT)


def _tag_text(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


# -- writing ----------------------------------------------------------------------------------


def _sequence(tag: int, items: Sequence[bytes], explicit_vr: bool) -> bytes:
    content = b"".join(_ITEM_HEADER.pack(0xFFFE, 0xE000, len(item)) + item for item in items)
    if explicit_vr:
        return struct.pack("<HH2sHL", tag >> 16, tag & 0xFFFF, b"SQ", 0, len(content)) + content
    return _ITEM_HEADER.pack(tag >> 16, tag & 0xFFFF, len(content)) + content


def _item(sop_class: str, instance: str, explicit_vr: bool) -> bytes:
    class_element = _uid_element(_SOP_CLASS, sop_class, explicit_vr)
    return class_element + _uid_element(_SOP_INSTANCE, instance, explicit_vr)


def _uid_element(tag: int, uid: str, explicit_vr: bool) -> bytes:
    value = uid.encode("ascii")
    return _short_element(tag, b"UI", value + b"\0" * (len(value) % 2), explicit_vr)


def _number_element(tag: int, number: int, explicit_vr: bool) -> bytes:
    return _short_element(tag, b"US", struct.pack("<H", number), explicit_vr)


def _short_element(tag: int, vr: bytes, value: bytes, explicit_vr: bool) -> bytes:
    if explicit_vr:
        return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value
    return _ITEM_HEADER.pack(tag >> 16, tag & 0xFFFF, len(value)) + value
