"""Part 10 files as the network sees them; without numpy and pydicom, so that a sender starts at once."""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_ROUND = re.compile(rb"2\.25\.7\d{9}")
_HEADER_BYTES = 4096  # all UIDs of a slice lie in its first bytes


@dataclass(frozen=True)
class Instance:
    """A Part 10 file as the network sees it."""

    sop_class_uid: bytes
    sop_instance_uid: bytes
    transfer_syntax_uid: bytes
    data_set: bytes

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the data set."""
        return hashlib.sha256(self.data_set).hexdigest()


def renew(folders: Sequence[Path], round_number: int) -> None:
    """Give every file below the folders the UIDs of this round."""
    prefix = b"2.25.7%09d" % round_number
    for path in (path for folder in folders for path in folder.glob("*.dcm")):
        with path.open("r+b") as file:
            header = file.read(_HEADER_BYTES)
            file.seek(0)
            file.write(_ROUND.sub(prefix, header))


def read(path: Path) -> Instance:
    """Take a Part 10 file apart (PS3.10 7.1); its meta information is explicit VR with short lengths."""
    raw = path.read_bytes()
    end = 144 + struct.unpack_from("<L", raw, 140)[0]
    meta: dict[int, bytes] = {}
    at = 144
    while at < end:
        element, vr, length = struct.unpack_from("<2xH2sH", raw, at)
        at += 8
        if vr == b"OB":
            (length,) = struct.unpack_from("<L", raw, at)
            at += 4
        meta[element] = raw[at : at + length].rstrip(b"\0")
        at += length
    return Instance(meta[0x02], meta[0x03], meta[0x10], raw[end:])


def digests(folders: Sequence[Path]) -> set[str]:
    """SHA-256 (hex) of every data set below the folders."""
    return {read(path).digest for folder in folders for path in folder.glob("*.dcm")}
