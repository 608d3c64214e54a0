"""The file meta information that we put before a received data set (PS3.10 7.1)."""

from __future__ import annotations

import struct

from gateway.spool import SEAL_BYTES, sealed

IMPLEMENTATION_CLASS_UID = "2.25.243268069127379831809711784615966381033"
IMPLEMENTATION_VERSION_NAME = "AIGW_1"

_PREAMBLE = bytes(128) + b"DICM"  # zeros: a preamble can carry a program (CVE-2019-11687)


def file_header(
    sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, source_ae_title: str
) -> bytes:
    """Preamble, ``DICM`` and group 0002, sealed, for a data set that is kept as it was received."""
    elements = b"".join(
        (
            struct.pack("<HH2sHLH", 0x0002, 0x0001, b"OB", 0, 2, 0x0100),
            _text(0x0002, b"UI", sop_class_uid),
            _text(0x0003, b"UI", sop_instance_uid),
            _text(0x0010, b"UI", transfer_syntax_uid),
            _text(0x0012, b"UI", IMPLEMENTATION_CLASS_UID),
            _text(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME),
            _text(0x0016, b"AE", source_ae_title),
        )
    )
    group_length = struct.pack("<HH2sHL", 0x0002, 0x0000, b"UL", 4, len(elements) + SEAL_BYTES)
    return sealed(_PREAMBLE + group_length + elements)


def _text(element: int, vr: bytes, text: str) -> bytes:
    value = text.encode("ascii", "replace")
    if len(value) % 2:
        value += b"\0" if vr == b"UI" else b" "
    return struct.pack("<HH2sH", 0x0002, element, vr, len(value)) + value
