"""A file of the spool while it arrives."""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from gateway import failpoint
from gateway.spool.disk import Bytes, disk_error, start_flush, sync_directory, write_all
from gateway.spool.intact import Found, damage
from gateway.spool.layout import OBJECTS, SUFFIX, relative_path
from gateway.spool.syntax import transfer_syntax_uid

Quarantine = Callable[[str, str], None]
"""Moves the damaged file at an absolute path, of a digest, out of the way."""
SetAside = Callable[[str], None]
"""Moves the intact file at an absolute path out of the way."""

FORGET_BYTES = 8 << 20
"""A longer file does not stay in the page cache."""

_FLUSH_BYTES = 128 << 10  # so much at a time goes to the disk as it arrives


@dataclass(frozen=True)
class StoredFile:
    """A file that survives a power cut.

    Attributes
    ----------
    path
        Relative to the root of the spool, with forward slashes.
    digest
        SHA-256 (hex) of the body: for a received instance its data set, for a result the file.
    size_bytes
        Size of the whole file.
    repaired
        A damaged file had this name; it is in quarantine now.
    was_there
        An intact file had this name already, and was not moved out of the way.
    """

    path: str
    digest: str
    size_bytes: int
    repaired: bool = field(default=False, compare=False)
    was_there: bool = field(default=False, compare=False)


class Incoming:
    """A file that is being written; it is not in the spool until it is kept.

    After an error it is discarded already. Not for several threads at once. Made by
    :meth:`gateway.spool.spool.Spool.begin`.
    """

    def __init__(
        self,
        root: str,
        name: str,
        header: Bytes,
        *,
        durable: bool,
        quarantine: Quarantine,
        set_aside: SetAside,
    ) -> None:
        self._root = root
        self._name = name
        self._durable = durable
        self._quarantine = quarantine
        self._set_aside = set_aside
        self._sha256 = hashlib.sha256()
        self._unwritten = header  # goes out with the first of the body
        self._header_bytes = len(header)
        self._written_bytes = 0
        self._flushed_bytes = 0
        self._forgotten_bytes = 0
        self.body_bytes = 0
        """Of the body, so far."""
        self._handle = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the body so far."""
        return self._sha256.hexdigest()

    def write(self, *chunks: Bytes) -> None:
        """Add to the body. Raises OutOfResources (DISK_FULL, DISK_ERROR)."""
        try:
            self._write(*chunks)
        except OSError as error:
            self.discard()
            raise disk_error(error) from error
        if self._written_bytes - self._flushed_bytes >= _FLUSH_BYTES:
            self.start_flush()  # now: the disk works while we hash
        for chunk in chunks:
            self._sha256.update(chunk)
            self.body_bytes += len(chunk)

    def _write(self, *chunks: Bytes) -> None:
        header, self._unwritten = self._unwritten, b""
        self._written_bytes += write_all(self._handle, (header, *chunks))

    def start_flush(self) -> None:
        """The disk may begin with what was written since the last time. Never fails."""
        begin, self._flushed_bytes = self._flushed_bytes, self._written_bytes
        if self._written_bytes - self._forgotten_bytes >= FORGET_BYTES:
            begin, self._forgotten_bytes = 0, self._written_bytes
        if self._durable and self._written_bytes > begin:
            start_flush(self._handle, begin, self._written_bytes - begin)

    @contextmanager
    def body(self) -> Iterator[memoryview]:
        """The body so far, without reading it into memory; the view is gone when the block ends."""
        if not self.body_bytes:
            yield memoryview(b"")
            return
        size = self._header_bytes + self.body_bytes
        with mmap.mmap(self._handle, size, access=mmap.ACCESS_READ) as file:
            if size >= FORGET_BYTES:  # little of it is looked at: what lies between is not read again
                file.madvise(mmap.MADV_RANDOM)
            with memoryview(file) as whole, whole[self._header_bytes :] as view:
                yield view

    def keep(self, is_needed: Callable[[str], bool] = lambda _: True) -> StoredFile:
        """Make the file durable under the digest of its body; see :meth:`gateway.spool.spool.Spool.store`.

        An intact file with the same body stays, with its own header, where ``is_needed`` says so of its
        relative path. Else this one takes its place, and one of another transfer syntax is moved to
        ``unclaimed/`` before, for it may have been acknowledged with a row that is lost. ``is_needed`` is
        asked only where there is a file, and may raise. The caller holds the digest
        (:meth:`gateway.spool.spool.Spool.hold`).
        """
        try:
            self._write()
            return self._keep(self.digest, is_needed)
        except OSError as error:
            self.discard()
            raise disk_error(error) from error
        except BaseException:
            self.discard()
            raise

    def _keep(self, digest: str, is_needed: Callable[[str], bool]) -> StoredFile:
        path = relative_path(digest)
        folder = f"{self._root}/{OBJECTS}/{digest[:2]}"
        target = f"{folder}/{digest}{SUFFIX}"
        is_known = os.access(target, os.F_OK)  # no exception for what is nearly always so
        found = damage(target, digest, self.body_bytes) if is_known else Found.MISSING
        stays = found is not Found.MISSING and is_needed(path) and found is Found.INTACT
        was_there = stays or (found is Found.INTACT and self._is_same(target))
        if stays:
            size = self._again(target)
        else:
            if found is Found.DAMAGED:
                self._quarantine(target, digest)
            elif found is Found.INTACT and not was_there:
                self._set_aside(target)
            size = self._appear(target)
        failpoint.reach("spool.renamed")
        if self._durable:
            sync_directory(folder)
        failpoint.reach("spool.directory_synced")
        return StoredFile(
            path,
            digest,
            size,
            repaired=found is Found.DAMAGED,
            was_there=was_there,
        )

    def _is_same(self, target: str) -> bool:
        return transfer_syntax_uid(target) == transfer_syntax_uid(self._name)

    def _appear(self, target: str) -> int:
        failpoint.reach("spool.written")
        self._sync(self._handle)
        failpoint.reach("spool.file_synced")
        os.rename(self._name, target)  # noqa: PTH104 - a Path would cost more than the call
        self._close()
        return self._header_bytes + self.body_bytes

    def _again(self, target: str) -> int:
        """The same body is there already, with the header that it came with."""
        self.discard()
        handle = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._sync(handle)
            return os.fstat(handle).st_size
        finally:
            os.close(handle)

    def _sync(self, handle: int) -> None:
        if self._durable:
            os.fsync(handle)

    def discard(self) -> None:
        """Nothing of it stays; after :meth:`keep` this does nothing."""
        if self._handle < 0:
            return
        self._close()
        with suppress(OSError):
            os.unlink(self._name)  # noqa: PTH108

    def _close(self) -> None:
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)
