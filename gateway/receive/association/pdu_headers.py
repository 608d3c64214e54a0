"""Headers of PDUs (PS3.8 9.3.1): which type is due in which state, and how long it may be."""

from __future__ import annotations

import struct

from gateway.receive.association import violations
from gateway.receive.association.association_request import MAX_ASSOCIATION_PDU_BYTES
from gateway.receive.association.violations import Violation

PDU_HEADER = struct.Struct(">BxL")
ASSOCIATE_RQ, P_DATA_TF = 1, 4
_RELEASE_RQ, _RELEASE_RP, _ABORT = 5, 6, 7

AWAITING_REQUEST, ESTABLISHED, CLOSING = "Sta2", "Sta6", "Sta13"
"""States of the upper layer by pynetdicom's names (PS3.8 9.2.1)."""

_SHORT_PDU_BYTES = 4  # of A-RELEASE and A-ABORT (PS3.8 9.3.6 to 9.3.8)
_WELCOME = {
    AWAITING_REQUEST: frozenset({ASSOCIATE_RQ, _ABORT}),
    ESTABLISHED: frozenset({P_DATA_TF, _RELEASE_RQ, _ABORT}),
}
_RELEASING = frozenset({P_DATA_TF, _RELEASE_RQ, _RELEASE_RP, _ABORT})


def provider_abort(reason: int) -> bytes:
    """An A-ABORT of the service provider (PS3.8 9.3.8); the reason is one of :mod:`.violations`."""
    return PDU_HEADER.pack(_ABORT, _SHORT_PDU_BYTES) + bytes((0, 0, 2, reason))


def check_header(state: str, pdu_type: int, length: int, max_p_data_bytes: int) -> None:
    """Raises Violation for a PDU that must not come in this state, or not with this length."""
    if not ASSOCIATE_RQ <= pdu_type <= _ABORT:
        reason = f"A PDU of the unknown type {pdu_type:02X} came: the caller may not speak DICOM."
        raise Violation("PDU_UNRECOGNISED", reason, violations.UNRECOGNISED_PDU)
    if pdu_type not in _WELCOME.get(state, _RELEASING):
        reason = f"A PDU of type {pdu_type:02X} came where none is due."
        raise Violation("PDU_UNEXPECTED", reason, violations.UNEXPECTED_PDU)
    limits = {ASSOCIATE_RQ: MAX_ASSOCIATION_PDU_BYTES, P_DATA_TF: max_p_data_bytes}
    limit = limits.get(pdu_type, _SHORT_PDU_BYTES)
    if length > limit:
        raise Violation(
            "PDU_TOO_LONG",
            f"A PDU of type {pdu_type:02X} and {length} bytes was announced; {limit} are allowed.",
            violations.INVALID_PARAMETER,
        )
