"""The spool: files that are durable under a name made from their own digest.

``objects/<2 hex>/<sha256>.dcm`` holds complete files, ``incoming/`` files that are being written.
A file appears under its name only after its bytes are on the disk; :meth:`Spool.store` returns
only after the name is on the disk too (write → fsync → rename → fsync of the directory). Names
are made from digests, never from received text.

The same class keeps received instances and results.
"""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from gateway import failpoint
from gateway.errors import OutOfResources

Bytes = bytes | bytearray | memoryview

_DIGEST = re.compile(r"[0-9a-f]{64}")
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_BLOCK_BYTES = 1 << 20


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
    """

    path: str
    digest: str
    size_bytes: int


class Spool:
    """Content-addressed files below ``root`` (mode 0700; files 0600). Safe from threads.

    Several processes may store; only one calls :meth:`remove_garbage`, before any of them does.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._incoming = root / "incoming"
        self._objects = root / "objects"
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        folders = [self._incoming, self._objects, *(self._objects / f"{i:02x}" for i in range(256))]
        for folder in folders:
            folder.mkdir(mode=0o700, exist_ok=True)
        for folder in (self._objects, root, root.parent):
            _sync_directory(folder)

    def begin(self, header: Bytes = b"") -> Incoming:
        """A new file that starts with ``header``; its body is written as it arrives."""
        with _named_disk_errors():
            return Incoming(self.root, self._incoming, header)

    def store(self, body: Bytes, header: Bytes = b"") -> StoredFile:
        """Make ``header`` + ``body`` durable under the digest of ``body``; returns when it is.

        If the body is there already, it is verified and kept with the header that it came with.
        Raises OutOfResources (DISK_FULL, DISK_ERROR); then no part of the file stays.
        """
        incoming = self.begin(header)
        incoming.write(body)
        return incoming.keep()

    def absolute(self, path: str) -> Path:
        """Where the file with this relative path lies."""
        return self.root / path

    def remove_garbage(self, known: set[str]) -> int:
        """Delete half-written files and files without a journal row; returns how many.

        Only at start, before anything is stored: a file is without row until its row is committed.
        """
        count = 0
        with _named_disk_errors():
            for path in self._incoming.iterdir():
                path.unlink()
                count += 1
            for path in self._objects.glob("*/*"):
                if path.relative_to(self.root).as_posix() not in known:
                    path.unlink()
                    count += 1
        return count

    def missing(self, known: set[str]) -> tuple[str, ...]:
        """Paths that have a journal row and no file: something outside the gateway removed them."""
        return tuple(sorted(path for path in known if not (self.root / path).is_file()))

    def check_space(self, keep_free_bytes: int, refuse_over_fraction: float, incoming_bytes: int = 0) -> None:
        """Raise OutOfResources (DISK_FULL) if ``incoming_bytes`` more would leave too little space."""
        with _named_disk_errors():
            disk = os.statvfs(self.root)
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


class Incoming:
    """A file that is being written; it is not in the spool until it is kept.

    After an error it is discarded already. Not for several threads at once.
    """

    def __init__(self, root: Path, folder: Path, header: Bytes) -> None:
        self._root = root
        self._digest = hashlib.sha256()
        self._header_bytes = len(header)
        self.body_bytes = 0
        """Of the body, so far."""
        self._handle, self._name = tempfile.mkstemp(suffix=".part", dir=folder)
        with self._discarded_on_error():
            _write_all(self._handle, header)

    def write(self, chunk: Bytes) -> None:
        """Add to the body. Raises OutOfResources (DISK_FULL, DISK_ERROR)."""
        with self._discarded_on_error():
            _write_all(self._handle, chunk)
        self._digest.update(chunk)
        self.body_bytes += len(chunk)

    @contextmanager
    def body(self) -> Iterator[memoryview]:
        """The body so far, without reading it into memory; the view is gone when the block ends."""
        if not self.body_bytes:
            yield memoryview(b"")
            return
        with (
            mmap.mmap(self._handle, self._header_bytes + self.body_bytes, access=mmap.ACCESS_READ) as file,
            memoryview(file) as whole,
            whole[self._header_bytes :] as view,
        ):
            yield view

    def keep(self) -> StoredFile:
        """Make the file durable under the digest of its body; see :meth:`Spool.store`."""
        digest = self._digest.hexdigest()
        path = relative_path(digest)
        target = self._root / path
        with self._discarded_on_error():
            size = _intact_size(target, digest, self.body_bytes)
            if size is None:
                failpoint.reach("spool.written")
                os.fsync(self._handle)
                failpoint.reach("spool.file_synced")
                Path(self._name).rename(target)
                size = self._header_bytes + self.body_bytes
                self._close()
            else:
                self.discard()
            failpoint.reach("spool.renamed")
            _sync_directory(target.parent)
            failpoint.reach("spool.directory_synced")
        return StoredFile(path, digest, size)

    def discard(self) -> None:
        """Nothing of it stays; after :meth:`keep` this does nothing."""
        if self._handle < 0:
            return
        self._close()
        with suppress(OSError):
            Path(self._name).unlink(missing_ok=True)

    def _close(self) -> None:
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)

    @contextmanager
    def _discarded_on_error(self) -> Iterator[None]:
        try:
            with _named_disk_errors():
                yield
        except BaseException:
            self.discard()
            raise


def relative_path(digest: str) -> str:
    """Path below the root for a SHA-256 in lower-case hex."""
    if _DIGEST.fullmatch(digest) is None:
        raise ValueError("a digest has 64 lower-case hex digits")
    return f"objects/{digest[:2]}/{digest}.dcm"


def _write_all(handle: int, part: Bytes) -> None:
    view = memoryview(part)
    while view:
        view = view[os.write(handle, view) :]


def _intact_size(path: Path, digest: str, body_bytes: int) -> int | None:
    """Size of a file that ends with the body of this digest; None if there is none, or a damaged one."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < body_bytes:
                return None
            file.seek(size - body_bytes)
            found = hashlib.sha256()
            while block := file.read(_BLOCK_BYTES):
                found.update(block)
            if found.hexdigest() != digest:
                return None
            os.fsync(file.fileno())
            return size
    except FileNotFoundError:
        return None


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _named_disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise OutOfResources(
                "DISK_FULL", f"Writing failed ({error.strerror}): free some space, then send again."
            ) from error
        raise OutOfResources(
            "DISK_ERROR",
            f"The disk of the spool failed ({error.strerror or type(error).__name__}): check the disk, "
            "then send again.",
        ) from error
