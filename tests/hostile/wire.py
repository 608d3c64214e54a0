"""PDUs, PDVs and command sets as bytes, right or wrong on purpose (PS3.8 9.3, PS3.7 6.3).

No DICOM library stands between a test and the wire: what it says is what is sent. Every ``length``
argument is a lie when it is given.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

APPLICATION_CONTEXT = b"1.2.840.10008.3.1.1.1"
VERIFICATION = b"1.2.840.10008.1.1"
CT = b"1.2.840.10008.5.1.4.1.1.2"
IMPLICIT = b"1.2.840.10008.1.2"
EXPLICIT = b"1.2.840.10008.1.2.1"
DEFLATED = b"1.2.840.10008.1.2.1.99"

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA_TF, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)

C_STORE_RQ, C_STORE_RSP = 0x0001, 0x8001
C_GET_RQ, C_FIND_RQ, C_MOVE_RQ, C_ECHO_RQ, C_CANCEL_RQ = 0x0010, 0x0020, 0x0021, 0x0030, 0x0FFF
C_ECHO_RSP = 0x8030
N_EVENT_REPORT_RQ, N_GET_RQ, N_SET_RQ, N_ACTION_RQ, N_CREATE_RQ, N_DELETE_RQ = (
    0x0100,
    0x0110,
    0x0120,
    0x0130,
    0x0140,
    0x0150,
)

NO_DATA_SET, HAS_DATA_SET = 0x0101, 0x0001

LAST_COMMAND, COMMAND, LAST_DATA, DATA = 0x03, 0x01, 0x02, 0x00
"""Message control headers of a PDV (PS3.8 E.2)."""


class Context(NamedTuple):
    """A proposed presentation context."""

    number: int
    abstract_syntax: bytes
    transfer_syntaxes: Sequence[bytes] = (EXPLICIT,)


STORE_AND_ECHO = (Context(1, CT), Context(3, VERIFICATION, (IMPLICIT,)))


# -- PDUs -------------------------------------------------------------------------------------


def pdu(kind: int, body: bytes = b"", length: int | None = None) -> bytes:
    """A PDU with its 6-byte header."""
    return struct.pack(">BBL", kind, 0, len(body) if length is None else length) + body


def item(kind: int, body: bytes, length: int | None = None) -> bytes:
    """An item or sub-item of an A-ASSOCIATE PDU."""
    return struct.pack(">BBH", kind, 0, len(body) if length is None else length) + body


def context_item(context: Context) -> bytes:
    """A presentation context item (PS3.8 9.3.2.2)."""
    syntaxes = b"".join(item(0x40, syntax) for syntax in context.transfer_syntaxes)
    return item(0x20, bytes([context.number, 0, 0, 0]) + item(0x30, context.abstract_syntax) + syntaxes)


def user_information(max_pdu: int = 16384, *further: bytes) -> bytes:
    """User information with the two sub-items that everybody sends, and further ones."""
    body = item(0x51, struct.pack(">L", max_pdu)) + item(0x52, b"1.2.826.0.1.3680043.9.3811.9")
    return item(0x50, body + b"".join(further))


def associate_rq(
    contexts: Iterable[Context] = STORE_AND_ECHO,
    *,
    called: bytes = b"AIGW",
    calling: bytes = b"SCANNER",
    version: int = 1,
    application_context: bytes = APPLICATION_CONTEXT,
    user: bytes | None = None,
    further: bytes = b"",
    length: int | None = None,
) -> bytes:
    """An A-ASSOCIATE-RQ; AE titles are padded to 16 bytes and never cut."""
    fixed = struct.pack(">HH", version, 0) + called.ljust(16) + calling.ljust(16) + bytes(32)
    items = item(0x10, application_context) + b"".join(context_item(c) for c in contexts)
    return pdu(ASSOCIATE_RQ, fixed + items + (user_information() if user is None else user) + further, length)


def p_data(*pdvs: bytes, length: int | None = None) -> bytes:
    """A P-DATA-TF."""
    return pdu(P_DATA_TF, b"".join(pdvs), length)


def pdv(context: int, control: int, fragment: bytes = b"", length: int | None = None) -> bytes:
    """A presentation data value item."""
    return struct.pack(">LBB", len(fragment) + 2 if length is None else length, context, control) + fragment


def release_rq() -> bytes:
    """An A-RELEASE-RQ."""
    return pdu(RELEASE_RQ, bytes(4))


def abort() -> bytes:
    """An A-ABORT of the service user."""
    return pdu(ABORT, bytes(4))


# -- messages ---------------------------------------------------------------------------------


def element(number: int, value: bytes, length: int | None = None) -> bytes:
    """An element of group 0000, implicit VR little endian."""
    return struct.pack("<HHL", 0, number, len(value) if length is None else length) + value


def us(number: int, value: int) -> bytes:
    """An element of VR US."""
    return element(number, struct.pack("<H", value))


def ui(number: int, value: bytes) -> bytes:
    """An element of VR UI, padded to even length."""
    return element(number, value + b"\0" * (len(value) % 2))


def command(*elements: bytes, length: int | None = None) -> bytes:
    """A command set: its group length, then the elements as they are given."""
    body = b"".join(elements)
    return element(0, struct.pack("<L", len(body) if length is None else length)) + body


def c_echo_rq(message_id: int = 1) -> bytes:
    """The command set of a C-ECHO-RQ."""
    return command(ui(2, VERIFICATION), us(0x100, C_ECHO_RQ), us(0x110, message_id), us(0x800, NO_DATA_SET))


def c_store_rq(
    sop_instance_uid: bytes,
    message_id: int = 1,
    sop_class_uid: bytes = CT,
    data_set: int = HAS_DATA_SET,
) -> bytes:
    """The command set of a C-STORE-RQ."""
    return command(
        ui(2, sop_class_uid),
        us(0x100, C_STORE_RQ),
        us(0x110, message_id),
        us(0x700, 0),
        us(0x800, data_set),
        ui(0x1000, sop_instance_uid),
    )


def message(context: int, command_set: bytes, data_set: bytes = b"", fragment: int = 16000) -> bytes:
    """A whole message, the command set in one PDV and the data set in fragments, a PDU each."""
    out = [p_data(pdv(context, LAST_COMMAND, command_set))]
    for at in range(0, len(data_set), fragment):
        control = LAST_DATA if at + fragment >= len(data_set) else DATA
        out.append(p_data(pdv(context, control, data_set[at : at + fragment])))
    return b"".join(out)


def read_command(command_set: bytes) -> dict[int, bytes]:
    """Element number → value of a command set in implicit VR little endian."""
    found, at = {}, 0
    while at + 8 <= len(command_set):
        _, number, length = struct.unpack_from("<HHL", command_set, at)
        found[number] = command_set[at + 8 : at + 8 + length]
        at += 8 + length
    return found


def us_value(value: bytes) -> int:
    """The number in an element of VR US."""
    return int.from_bytes(value[:2], "little")
