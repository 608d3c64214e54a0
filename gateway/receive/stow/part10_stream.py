"""Reads a DICOM file (PS3.10 7) as it arrives: its file meta information, then its data set byte for byte.

The preamble is read over and kept nowhere: it can carry a program (CVE-2019-11687).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from gateway.errors import Rejected
from gateway.uids import is_uid

MAX_META_BYTES = 65536
"""Of group 0002."""

_PREAMBLE_BYTES = 128
_PREFIX = b"DICM"
_META_GROUP = struct.pack("<H", 0x0002)
_GROUP_LENGTH = struct.pack("<HH2sH", 0x0002, 0x0000, b"UL", 4)
IDENTITY_BYTES = 4096
"""The beginning of a data set in which its identity is looked for."""

_LITTLE, _BIG = "<", ">"
_GROUP_AT = _PREAMBLE_BYTES + len(_PREFIX)
_LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_SHORT = frozenset(
    {
        b"AE",
        b"AS",
        b"AT",
        b"CS",
        b"DA",
        b"DS",
        b"DT",
        b"FD",
        b"FL",
        b"IS",
        b"LO",
        b"LT",
        b"PN",
        b"SH",
        b"SL",
        b"SS",
    }
    | {b"ST", b"TM", b"UI", b"UL", b"US"}
)
_SOP_CLASS, _SOP_INSTANCE, _TRANSFER_SYNTAX = 0x0002, 0x0003, 0x0010


@dataclass(frozen=True)
class FileMeta:
    """What the file meta information says of its data set (PS3.10 Table 7.1-1)."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str


class Part10Reader:
    """Reads one file.

    Every method raises Rejected (0xC000): NOT_PART_10, FILE_META_MALFORMED, FILE_META_TOO_LONG.
    """

    def __init__(self) -> None:
        self._head = bytearray()
        self._begin = self._at = _GROUP_AT
        self.meta: FileMeta | None = None
        """Known once the data set begins."""

    def feed(self, data: memoryview | bytes) -> memoryview | bytes:
        """Those of the bytes that belong to the data set."""
        if self.meta is not None:
            return data
        self._head += data
        end = self._end()
        if end is None:
            return b""
        self.meta = _file_meta(bytes(self._head[self._begin : end]))
        rest = bytes(self._head[end:])
        self._head.clear()
        return rest

    def finish(self) -> FileMeta:
        """The file is complete. Raises Rejected if it ends before its data set begins."""
        if self.meta is None and len(self._head) == self._at > _GROUP_AT:
            self.meta = _file_meta(bytes(self._head[self._begin :]))
        if self.meta is None:
            raise _not_part_10(f"ends after {len(self._head)} bytes, before its data set")
        return self.meta

    def _end(self) -> int | None:
        """Where the data set begins; None if more bytes are needed."""
        head = self._head
        if len(head) < _GROUP_AT + len(_GROUP_LENGTH) + 4:
            return None
        if head[_PREAMBLE_BYTES:_GROUP_AT] != _PREFIX:
            raise _not_part_10("has no DICM after its preamble of 128 bytes")
        if not head.startswith(_GROUP_LENGTH, _GROUP_AT):
            return self._walked()
        self._begin = _GROUP_AT + len(_GROUP_LENGTH) + 4
        end = self._begin + int(struct.unpack_from("<L", head, self._begin - 4)[0])
        _check_length(end)
        self._at = max(self._at, end)
        return self._walked()

    def _walked(self) -> int | None:
        """Where group 0002 ends; what the group length counts has been stepped over.

        pydicom writes none unless it is asked to be strict, and some add elements and leave it as it was.
        """
        head = self._head
        while group := bytes(head[self._at : self._at + 2]):
            if not _META_GROUP.startswith(group):
                return self._at
            if len(head) < self._at + 8:
                return None
            vr, length = struct.unpack_from("<2sH", head, self._at + 4)
            value_at = self._at + 8
            if vr in _LONG:
                if len(head) < value_at + 4:
                    return None
                length = struct.unpack_from("<L", head, value_at)[0]
                value_at += 4
            _check_length(value_at + length)
            self._at = value_at + length
        return None


def _check_length(end: int) -> None:
    if end - _GROUP_AT > MAX_META_BYTES:
        raise Rejected(
            "FILE_META_TOO_LONG",
            f"The file meta information has {end - _GROUP_AT} bytes; {MAX_META_BYTES} are allowed.",
        )


def _file_meta(group: bytes) -> FileMeta:
    """Read group 0002 in full: each element once, in ascending order, exactly to the end (PS3.5 7.1)."""
    found: dict[int, bytes] = {}
    last = 0
    for element, value in _elements(group):
        if element <= last:
            raise _malformed("has elements twice, or not in ascending order")
        found[element] = value
        last = element
    return FileMeta(_uid(found, _SOP_CLASS), _uid(found, _SOP_INSTANCE), _uid(found, _TRANSFER_SYNTAX))


def _elements(group: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(group):
        if len(group) - at < 8:
            raise _malformed("ends inside an element")
        number, element, vr, length = struct.unpack_from("<HH2sH", group, at)
        at += 8
        if number != 0x0002:
            raise _malformed("has an element of another group: its group length is wrong")
        if vr in _LONG:
            if len(group) - at < 4:
                raise _malformed("ends inside an element")
            length = struct.unpack_from("<L", group, at)[0]
            at += 4
        elif vr not in _SHORT:
            raise _malformed("is not in Explicit VR Little Endian")
        if length > len(group) - at:
            raise _malformed("ends inside an element")
        yield element, group[at : at + length]
        at += length


def _uid(found: dict[int, bytes], element: int) -> str:
    value = found.get(element)
    if value is None:
        raise _malformed(f"has no (0002,{element:04x})")
    uid = value.decode("latin-1").rstrip("\0 ")
    if not is_uid(uid):
        raise _malformed(f"has no UID in (0002,{element:04x})")
    return uid


def _malformed(what: str) -> Rejected:
    return Rejected("FILE_META_MALFORMED", f"The file meta information (group 0002) {what} (PS3.10 7.1).")


def _not_part_10(what: str) -> Rejected:
    return Rejected("NOT_PART_10", f"The part is no DICOM file: it {what} (PS3.10 7.1).")


def first_identity(data_set: bytes, transfer_syntax_uid: str) -> tuple[str, str] | None:
    """SOP Class UID and SOP Instance UID from the beginning of a data set.

    Returns None if more bytes are needed, and two empty texts if they are not to be found there: then the
    file meta information has to do. Anonymizers often leave old UIDs in that; the data set is what counts.
    """
    order = _BIG if transfer_syntax_uid == ExplicitVRBigEndian else _LITTLE
    found: dict[int, str] = {}
    at = 0
    while at + 12 <= len(data_set):
        group, element, vr, length = struct.unpack_from(f"{order}HH2sH", data_set, at)
        if (group, element) > (0x0008, 0x0018):
            return "", ""
        at += 8
        if transfer_syntax_uid == ImplicitVRLittleEndian:
            length = struct.unpack_from("<L", data_set, at - 4)[0]
        elif vr in _LONG:
            length = struct.unpack_from(f"{order}L", data_set, at)[0]
            at += 4
        if length > IDENTITY_BYTES:
            return "", ""
        if at + length > len(data_set):
            break
        if group == 0x0008 and element in (0x0016, 0x0018):
            found[element] = data_set[at : at + length].decode("latin-1").rstrip("\0 ")
        if len(found) == 2:
            return found[0x0016], found[0x0018]
        at += length
    return None if len(data_set) < IDENTITY_BYTES else ("", "")
