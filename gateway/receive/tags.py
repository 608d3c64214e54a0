"""What the gateway must know of an instance, read from its encoded data set within bounds.

Only text of the wanted attributes is taken; patient attributes and pixels are passed over.
"""

from __future__ import annotations

from pydicom.uid import ExplicitVRBigEndian

from ai.errors import HeaderError
from ai.source.facts import Facts
from ai.source.facts import read_header as read_facts
from gateway.errors import Rejected
from gateway.header import FACT_KEYWORDS, InstanceHeader
from gateway.receive.text import uid_text
from gateway.uids import is_uid

_IDENTITY = frozenset({"SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"})
_WANTED = FACT_KEYWORDS | _IDENTITY
_FIRST_GROUP = 0x0008
_DATA_SET_REFUSED, _DOES_NOT_MATCH = 0xC000, 0xA900


def read_header(data: bytes | bytearray | memoryview, transfer_syntax_uid: str) -> InstanceHeader:
    """Identity and facts of an encoded data set (no preamble, no file meta information).

    Raises Rejected with the C-STORE status to answer (PS3.4 B.2.3): EMPTY_DATA_SET,
    TRUNCATED_DATA_SET, NOT_PARSEABLE, NESTED_TOO_DEEPLY, HEADER_TOO_LARGE, TRANSFER_SYNTAX_REFUSED
    (0xC000); IDENTITY_MISSING, UID_INVALID (0xA900).
    """
    try:
        found = read_facts(data, transfer_syntax_uid, _WANTED)
    except HeaderError as error:
        raise Rejected(error.code, error.reason, _DATA_SET_REFUSED) from error
    _check_first_group(bytes(data[:2]), transfer_syntax_uid)
    return InstanceHeader(
        sop_class_uid=_uid(found.facts, "SOPClassUID"),
        sop_instance_uid=_uid(found.facts, "SOPInstanceUID"),
        study_instance_uid=_uid(found.facts, "StudyInstanceUID"),
        series_instance_uid=_uid(found.facts, "SeriesInstanceUID"),
        facts={keyword: values for keyword, values in found.facts.items() if keyword in FACT_KEYWORDS},
        frames=found.frames,
    )


def _check_first_group(first: bytes, transfer_syntax_uid: str) -> None:
    """Group 0002 behind the file meta information that we write would be read as a part of that.

    So a file could say another transfer syntax than its row. Groups 0000 (commands, PS3.7 E), 0002 (files,
    PS3.10 7.1), 0004 (directories, PS3.3 F) and 0006, and odd ones below, are in no instance (PS3.5 7.1).
    """
    group = int.from_bytes(first, "big" if transfer_syntax_uid == ExplicitVRBigEndian else "little")
    if group < _FIRST_GROUP:
        raise Rejected(
            "NOT_PARSEABLE",
            f"The data set begins with group {group:04X}, which belongs to messages, files and directories "
            "(PS3.5 7.1): leave it out.",
            _DATA_SET_REFUSED,
        )


def _uid(facts: Facts, keyword: str) -> str:
    values = facts.get(keyword)
    if values is None:
        raise Rejected(
            "IDENTITY_MISSING", f"The data set has no usable {keyword} (PS3.3 C.12.1).", _DOES_NOT_MATCH
        )
    if len(values) != 1 or not is_uid(values[0]):
        raise Rejected(
            "UID_INVALID",
            f"{keyword} is '{uid_text(values[0])}', which is not a UID (PS3.5 9.1).",
            _DOES_NOT_MATCH,
        )
    return values[0]
