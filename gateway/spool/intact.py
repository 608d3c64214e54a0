"""Is a file still what was written? Its name is the SHA-256 of its body; what stands before has a seal."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from gateway.spool.seal import is_sound

LONGEST_HEADER_BYTES = 4096
"""Of what stands before a body."""

_BLOCK_BYTES = 1 << 18


class Found(StrEnum):
    """What a look at a file found."""

    INTACT = "intact"
    DAMAGED = "damaged"
    MISSING = "missing"


def damage(
    path: str | Path,
    digest: str,
    body_bytes: int | None = None,
    *,
    forget: bool = False,
    pace: Callable[[int], None] | None = None,
) -> Found:
    """Compare the body of a file with its digest, and what stands before it with its seal.

    Parameters
    ----------
    body_bytes
        Length of the body, which is the end of the file; None: what follows the file meta information
        (PS3.10 7.1) of a received instance.
    forget
        Do not keep the file in the page cache: it was read for this only.
    pace
        Called with the number of bytes after each block, and may wait.

    Raises
    ------
    OSError
        The disk cannot say: that is not yet damage (no descriptors left, no permission), except for EIO.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return Found.MISSING
    try:
        size = os.fstat(handle).st_size
        start = size - body_bytes if body_bytes is not None else _body_start(handle)
        if start is None or not 0 <= start <= LONGEST_HEADER_BYTES:
            return Found.DAMAGED
        if not is_sound(os.pread(handle, start, 0)):
            return Found.DAMAGED
        found = _digest_from(handle, start, pace)
        if forget and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        return Found.INTACT if found == digest else Found.DAMAGED
    except OSError as error:
        if error.errno == errno.EIO:  # a sector that cannot be read is damage as well
            return Found.DAMAGED
        raise
    finally:
        os.close(handle)


def _digest_from(handle: int, start: int, pace: Callable[[int], None] | None) -> str:
    found = hashlib.sha256()
    buffer = memoryview(bytearray(_BLOCK_BYTES))
    at = start
    while count := os.preadv(handle, [buffer], at):
        found.update(buffer[:count])
        at += count
        if pace is not None:
            pace(count)
    return found.hexdigest()


def _body_start(handle: int) -> int | None:
    """Offset behind the file meta information that we wrote: it begins with its own length."""
    head = os.pread(handle, 144, 0)
    if len(head) < 144 or head[128:140] != b"DICM\x02\x00\x00\x00UL\x04\x00":
        return None
    return 144 + int.from_bytes(head[140:144], "little")
