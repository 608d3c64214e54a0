"""Command sets of DIMSE messages: read within bounds, and written as responses (PS3.7 6.3.1, 9.3, E.1).

A command set is always Implicit VR Little Endian, whatever was negotiated.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

C_STORE_RQ = 0x0001
C_ECHO_RQ = 0x0030
N_EVENT_REPORT_RQ = 0x0100
N_GET_RQ = 0x0110
N_SET_RQ = 0x0120
N_ACTION_RQ = 0x0130
N_CREATE_RQ = 0x0140
N_DELETE_RQ = 0x0150
C_CANCEL_RQ = 0x0FFF
RESPONSE_BIT = 0x8000

NO_DATA_SET = 0x0101
MAX_COMMAND_BYTES = 16 << 10
"""No command set is longer; those of a C-STORE have some 200 bytes."""

_MAX_UID_BYTES = 64
_SHORTEST_PDU_BYTES = 6 + 2  # a PDV header with one byte of each: what a peer may ask for at least

_ELEMENT = struct.Struct("<HHL")
_UNSIGNED_SHORT = struct.Struct("<H")
_PDU_AND_PDV = struct.Struct(">BBLLBB")

_SOP_CLASS, _REQUESTED_SOP_CLASS = 0x0002, 0x0003
_COMMAND, _MESSAGE_ID, _RESPONDED_TO = 0x0100, 0x0110, 0x0120
_DATA_SET_TYPE, _STATUS, _ERROR_COMMENT, _SOP_INSTANCE = 0x0800, 0x0900, 0x0902, 0x1000


@dataclass(frozen=True, slots=True)
class Command:
    """What a message says about itself.

    Attributes
    ----------
    field
        Command Field (0000,0100); responses have the bit 0x8000.
    message_id
        Message ID (0000,0110) of a request, None if it has none.
    has_data_set
        Whether a data set follows.
    sop_class_uid, sop_instance_uid
        The affected ones as text, empty if absent; not checked to be UIDs.
    requested_sop_class_uid
        That of N-ACTION and others (PS3.7 10.3), likewise.
    """

    field: int
    message_id: int | None
    has_data_set: bool
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    requested_sop_class_uid: str = ""

    @property
    def sop_class_uids(self) -> set[str]:
        """All that it names."""
        return {self.sop_class_uid, self.requested_sop_class_uid} - {""}


def parse_command(encoded: bytes | bytearray) -> Command:
    """Read a command set; raises ValueError (a sentence, which quotes nothing) if it is none."""
    values = _elements(encoded)
    field, data_set_type = _number(values, _COMMAND), _number(values, _DATA_SET_TYPE)
    if field is None or data_set_type is None:
        raise ValueError("Command Field or Command Data Set Type is missing.")
    return Command(
        field,
        _number(values, _MESSAGE_ID),
        data_set_type != NO_DATA_SET,
        _uid(values, _SOP_CLASS),
        _uid(values, _SOP_INSTANCE),
        _uid(values, _REQUESTED_SOP_CLASS),
    )


def encode_response(request: Command, status: int, comment: str = "") -> bytes:
    """The command set of the response to a request that has a message id; without data set.

    UIDs of the request that are longer than a UID can be are left out. ``comment`` is ASCII, at most
    64 characters (Error Comment, VR LO).
    """
    body = b"".join(
        (
            _echoed_uid(_SOP_CLASS, request.sop_class_uid),
            _encoded_number(_COMMAND, request.field | RESPONSE_BIT),
            _encoded_number(_RESPONDED_TO, request.message_id or 0),
            _encoded_number(_DATA_SET_TYPE, NO_DATA_SET),
            _encoded_number(_STATUS, status),
            _element(_ERROR_COMMENT, _even(comment.encode("ascii", "replace"), b" ")) if comment else b"",
            _echoed_uid(_SOP_INSTANCE, request.sop_instance_uid),
        )
    )
    return _element(0x0000, struct.pack("<L", len(body))) + body


def encode_p_data(context_id: int, command_set: bytes, max_pdu_bytes: int) -> bytes:
    """P-DATA-TF PDUs with a whole command set (PS3.8 9.3.5), none longer than the peer takes.

    ``max_pdu_bytes`` is what the peer announced; 0 means no limit (PS3.8 D.1.1).
    """
    limit = max(max_pdu_bytes, _SHORTEST_PDU_BYTES) if max_pdu_bytes else len(command_set) + 6
    step = limit - 6
    pdus = []
    for begin in range(0, len(command_set), step):
        part = command_set[begin : begin + step]
        control = 1 | (2 if begin + step >= len(command_set) else 0)
        pdus.append(_PDU_AND_PDV.pack(4, 0, len(part) + 6, len(part) + 2, context_id, control) + part)
    return b"".join(pdus)


def _elements(encoded: bytes | bytearray) -> dict[int, bytes]:
    """Values by element number; the group length is not believed, and not needed."""
    values: dict[int, bytes] = {}
    position, end = 0, len(encoded)
    while position < end:
        if end - position < _ELEMENT.size:
            raise ValueError("The command set ends inside an element.")
        group, element, length = _ELEMENT.unpack_from(encoded, position)
        position += _ELEMENT.size
        if group != 0:
            raise ValueError(f"The command set has an element of group {group:04X}.")
        if length > end - position:
            raise ValueError(f"(0000,{element:04X}) says {length} bytes, and {end - position} are left.")
        if element in values:
            raise ValueError(f"(0000,{element:04X}) is there twice.")
        values[element] = bytes(encoded[position : position + length])
        position += length
    return values


def _number(values: dict[int, bytes], element: int) -> int | None:
    value = values.get(element)
    if value is None:
        return None
    if len(value) != _UNSIGNED_SHORT.size:
        raise ValueError(f"(0000,{element:04X}) has {len(value)} bytes instead of 2.")
    return int(_UNSIGNED_SHORT.unpack(value)[0])


def _uid(values: dict[int, bytes], element: int) -> str:
    return values.get(element, b"").rstrip(b"\0 ").decode("ascii", "backslashreplace")


def _element(element: int, value: bytes) -> bytes:
    return _ELEMENT.pack(0, element, len(value)) + value


def _encoded_number(element: int, value: int) -> bytes:
    return _element(element, _UNSIGNED_SHORT.pack(value))


def _echoed_uid(element: int, uid: str) -> bytes:
    value = uid.encode("ascii", "replace")
    return _element(element, _even(value, b"\0")) if 0 < len(value) <= _MAX_UID_BYTES else b""


def _even(value: bytes, padding: bytes) -> bytes:
    return value + padding if len(value) % 2 else value
