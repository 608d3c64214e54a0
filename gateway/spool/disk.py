"""System calls of the spool, and what their errors are called."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from gateway.errors import OutOfResources

Bytes = bytes | bytearray | memoryview

_MOST_PARTS = 1024  # IOV_MAX of Linux, writev(2)
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def disk_error(error: OSError) -> OutOfResources:
    """DISK_FULL or DISK_ERROR, with what to do."""
    if error.errno in _FULL:
        return OutOfResources(
            "DISK_FULL", f"Writing failed ({error.strerror}): free some space, then send again."
        )
    return OutOfResources(
        "DISK_ERROR",
        f"The disk of the spool failed ({error.strerror or type(error).__name__}): check the disk, "
        "then send again.",
    )


@contextmanager
def named_disk_errors() -> Iterator[None]:
    """OSError becomes OutOfResources."""
    try:
        yield
    except OSError as error:
        raise disk_error(error) from error


def write_all(handle: int, chunks: Sequence[Bytes]) -> int:
    """Write every byte, in as few system calls as there can be; returns how many they were."""
    left = [memoryview(chunk) for chunk in chunks if len(chunk)]
    total = sum(map(len, left))
    while left:
        count = os.writev(handle, left[:_MOST_PARTS])
        done = 0
        while done < len(left) and count >= len(left[done]):
            count -= len(left[done])
            done += 1
        left = left[done:]
        if count:
            left[0] = left[0][count:]
    return total


def start_flush(handle: int, offset: int = 0, count: int = 0) -> None:
    """Let the kernel begin to write what is dirty there, and forget what is written; waits for neither.

    ``count`` 0 means to the end.

    The flush that must be waited for is shorter then: by 10 % of all that is done for an image of 0.5 MB.
    A long file does not fill the page cache.
    """
    if hasattr(os, "posix_fadvise"):
        with suppress(OSError):
            os.posix_fadvise(handle, offset, count, os.POSIX_FADV_DONTNEED)


def sync_directory(path: str | os.PathLike[str]) -> None:
    """Make the names in a directory durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_space(
    path: str | os.PathLike[str], keep_free_bytes: int, refuse_over_fraction: float, incoming_bytes: int
) -> None:
    """Raise OutOfResources (DISK_FULL) if ``incoming_bytes`` more would leave too little space."""
    with named_disk_errors():
        disk = os.statvfs(path)
    free = disk.f_bavail * disk.f_frsize - incoming_bytes
    used = (disk.f_blocks - disk.f_bfree) * disk.f_frsize + incoming_bytes
    fraction = used / max(used + free, 1)
    if free < keep_free_bytes:
        raise OutOfResources(
            "DISK_FULL",
            f"{max(free, 0) >> 20} MiB would be left on the disk and {keep_free_bytes >> 20} MiB must "
            "stay free: free some space, then send again.",
        )
    if fraction > refuse_over_fraction:
        raise OutOfResources(
            "DISK_FULL",
            f"The disk would be {fraction:.1%} full and the limit is {refuse_over_fraction:.1%}: "
            "free some space, then send again.",
        )
    if disk.f_files and not disk.f_favail:
        raise OutOfResources("DISK_FULL", "The disk has no free inodes: remove files, then send again.")
