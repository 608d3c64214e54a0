"""Our seal on file meta information: what stands before a data set is checked as well, not only the data set.

A digit that flips in the Transfer Syntax UID (0002,0010) would make another image of the same bytes. The seal
is Private Information (0002,0102), PS3.10 7.1: the SHA-256 of all that stands before its value. It ends the
file meta information.
"""

from __future__ import annotations

import hashlib
import struct

_CREATOR_UID = b"2.25.155435512022920973951979518482821636102"
_DIGEST_BYTES = 32
_MARK = (
    struct.pack("<HH2sH", 0x0002, 0x0100, b"UI", len(_CREATOR_UID))
    + _CREATOR_UID
    + struct.pack("<HH2sHL", 0x0002, 0x0102, b"OB", 0, _DIGEST_BYTES)
)

SEAL_BYTES = len(_MARK) + _DIGEST_BYTES
"""Its length, which the group length (0002,0000) counts."""


def sealed(header: bytes) -> bytes:
    """The whole header: ``header`` begins with the preamble, and lacks the seal only."""
    marked = header + _MARK
    return marked + hashlib.sha256(marked).digest()


def is_sound(header: bytes) -> bool:
    """False if it has our seal and is not what was sealed. A file of an earlier version has none."""
    marked, digest = header[:-_DIGEST_BYTES], header[-_DIGEST_BYTES:]
    return not marked.endswith(_MARK) or hashlib.sha256(marked).digest() == digest
