"""In which transfer syntax a file is: bytes without it are no image.

Files of one body are the same instance where their transfer syntax is the same. Of such one is enough. With
another transfer syntax they are two, and neither takes the place of the other: it goes to ``unclaimed/``.
"""

from __future__ import annotations

import struct
from pathlib import Path

from gateway.spool.intact import LONGEST_HEADER_BYTES
from gateway.uids import is_uid

_PREAMBLE_BYTES, _PREFIX = 128, b"DICM"
_FILE_META, _TRANSFER_SYNTAX_UID = b"\x02\x00", 0x0010


def transfer_syntax_uid(path: str | Path) -> str | None:
    """Of the file meta information (PS3.10 7.1); None where there is no UID. Raises OSError."""
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123
        head = file.read(LONGEST_HEADER_BYTES)
    at = _PREAMBLE_BYTES + len(_PREFIX)
    if head[_PREAMBLE_BYTES:at] != _PREFIX:
        return None
    while head.startswith(_FILE_META, at) and at + 12 <= len(head):
        element, vr, length = struct.unpack_from("<H2sH", head, at + 2)
        at += 8
        if element == _TRANSFER_SYNTAX_UID:
            uid = head[at : at + length].decode("latin-1").rstrip("\0 ")
            return uid if is_uid(uid) else None
        if vr == b"OB":
            (length,) = struct.unpack_from("<L", head, at)
            at += 4
        at += length
    return None
