"""Content-addressed files below one folder."""

from __future__ import annotations

import itertools
import os
import secrets
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from pathlib import Path

from gateway.spool.disk import Bytes, check_space, disk_error, named_disk_errors, sync_directory
from gateway.spool.holds import Holds
from gateway.spool.incoming import Incoming, StoredFile
from gateway.spool.intact import Found, damage
from gateway.spool.layout import (
    FOLDERS,
    INCOMING,
    OBJECTS,
    QUARANTINE,
    SUFFIX,
    UNCLAIMED,
    digest_in,
    labelled,
    without_label,
)
from gateway.spool.syntax import transfer_syntax_uid


class Spool:
    """Content-addressed files below ``root`` (mode 0700; files 0600). Safe from threads.

    Several processes may store; only one calls :meth:`remove_parts`, before any of them does.

    Parameters
    ----------
    durable
        False, for measurements only: nothing is flushed, and a power cut loses what was stored.
    """

    def __init__(self, root: Path, *, durable: bool = True) -> None:
        self.root = root
        self._durable = durable
        self._holds = Holds()
        self._incoming = f"{root}/{INCOMING}"
        self._mark = f"{secrets.token_hex(8)}-"
        self._numbers = itertools.count(1)
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (INCOMING, QUARANTINE, OBJECTS, *(f"{OBJECTS}/{name}" for name in FOLDERS)):
            (root / folder).mkdir(mode=0o700, exist_ok=True)
        for above in (root / OBJECTS, root, root.parent):
            sync_directory(above)

    def begin(self, header: Bytes = b"") -> Incoming:
        """A new file that starts with ``header``; its body is written as it arrives.

        Raises OutOfResources (DISK_FULL, DISK_ERROR).
        """
        name = f"{self._incoming}/{self._mark}{next(self._numbers):x}.part"
        try:
            return Incoming(
                str(self.root),
                name,
                header,
                durable=self._durable,
                quarantine=self._move_to_quarantine,
                set_aside=self._set_aside,
            )
        except OSError as error:
            raise disk_error(error) from error

    def hold(self, digest: str) -> AbstractContextManager[None]:
        """Nobody else stores, removes or judges the file of this digest in the block.

        Whoever keeps a file holds its digest until the row that needs the file is committed.
        """
        return self._holds.hold(digest)

    def store(self, body: Bytes, header: Bytes = b"") -> StoredFile:
        """Make ``header`` + ``body`` durable under the digest of ``body``; returns when it is.

        If the body is there already, it is verified and kept with the header that it came with; a damaged
        one goes to quarantine. Raises OutOfResources (DISK_FULL, DISK_ERROR); then no part of the file stays.
        """
        incoming = self.begin(header)
        try:
            incoming.write(body)
            with self.hold(incoming.digest):
                return incoming.keep()
        finally:
            incoming.discard()

    def absolute(self, path: str) -> Path:
        """Where the file with this relative path lies."""
        return self.root / path

    def check_space(self, keep_free_bytes: int, refuse_over_fraction: float, incoming_bytes: int = 0) -> None:
        """Raise OutOfResources (DISK_FULL) if ``incoming_bytes`` more would leave too little space."""
        check_space(self.root, keep_free_bytes, refuse_over_fraction, incoming_bytes)

    # -- after a crash ------------------------------------------------------------------------

    def remove_parts(self) -> int:
        """Delete half-written files; returns how many. Only at start, before anything is stored."""
        with named_disk_errors():
            parts = list(os.scandir(self._incoming))
            for part in parts:
                os.unlink(part)  # noqa: PTH108
        return len(parts)

    def files(self, folder: str) -> set[str]:
        """Relative paths in one of :data:`gateway.spool.layout.FOLDERS`; what is not ours is passed over."""
        return self._listed(OBJECTS, folder)

    def put_aside(self, path: str, is_known: Callable[[], bool], before_s: float) -> bool:
        """Move a file that no row needs to ``unclaimed/``; True if it was one.

        It is not deleted: its row may have been lost with the journal. One that was written after
        ``before_s`` (seconds since 1970) stays where it is: a crash left it, and whoever sent it was not
        answered and sends it again. ``is_known`` is asked while nobody can store the same body: an
        admission that relies on this file has committed its row by then, or has not looked for it yet.
        """
        with self.hold(_digest_in(path)), named_disk_errors():
            file = self.absolute(path)
            try:
                if file.stat().st_mtime > before_s or is_known():
                    return False
            except FileNotFoundError:
                return False
            self._move_aside(file)  # either name will do after a power cut: nothing is flushed
            return True

    def unclaimed(self, folder: str) -> set[str]:
        """Relative paths that files had which were put aside out of one of the folders."""
        return self._listed(UNCLAIMED, folder) if (self.root / UNCLAIMED / folder).is_dir() else set()

    def take_back(self, path: str, transfer_syntaxes: Collection[str] = ()) -> bool:
        """Put a file that was put aside back, as a row needs it after all; True if it was needed.

        ``transfer_syntaxes`` are those of the rows; empty: any will do. Where a whole file of one of them
        has come again meanwhile, the same one is deleted from ``unclaimed/``. A whole file of another
        transfer syntax changes places with the one that the row needs.
        """
        digest = _digest_in(path)
        with self.hold(digest), named_disk_errors():
            file = self.absolute(path)
            found = damage(file, digest)
            if found is Found.DAMAGED:
                return False  # moved when it is read
            asides = self._asides(digest, transfer_syntaxes)
            if found is Found.INTACT:
                syntax = transfer_syntax_uid(file)
                if not transfer_syntaxes or syntax in transfer_syntaxes:
                    for aside in asides:
                        if transfer_syntax_uid(aside) == syntax:
                            aside.unlink()
                    return False
                asides = [each for each in asides if damage(each, digest) is Found.INTACT]
                if asides:
                    self._move_aside(file)
            if asides:
                asides[0].rename(file)
            return bool(asides)

    def drop_aside(self, path: str, before_s: float) -> bool:
        """Delete a file that was put aside and was written before that time; True if it was one."""
        with named_disk_errors():
            aside = self._aside(_digest_in(path))
            if aside.stat().st_mtime > before_s:
                return False
            aside.unlink()
            return True

    def _aside(self, digest: str, label: str = "") -> Path:
        return self.root / UNCLAIMED / digest[:2] / labelled(digest, label)

    def _asides(self, digest: str, transfer_syntaxes: Collection[str]) -> list[Path]:
        """Files of a body that were put aside, of one of these transfer syntaxes; empty: of any."""
        names = (self._aside(digest), *(self._aside(digest, each) for each in transfer_syntaxes))
        there = (name for name in names if name.exists())
        return [
            name for name in there if not transfer_syntaxes or transfer_syntax_uid(name) in transfer_syntaxes
        ]

    def _move_aside(self, file: Path) -> Path:
        """Move a file to ``unclaimed/``, in place of the same one; returns where it is.

        Where one of another transfer syntax is there, its own is added to its name.
        """
        aside = self._aside(file.stem)
        aside.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if aside.exists() and transfer_syntax_uid(aside) != (syntax := transfer_syntax_uid(file)):
            aside = self._aside(file.stem, syntax or "unknown")
        return file.rename(aside)

    def _set_aside(self, target: str) -> None:
        """The same for a file whose name is taken by another one next: it must not get lost."""
        aside = self._move_aside(Path(target))
        if self._durable:
            for folder in (aside.parent, aside.parent.parent, self.root):
                sync_directory(folder)

    def _listed(self, kind: str, folder: str) -> set[str]:
        with named_disk_errors():
            names = os.listdir(f"{self.root}/{kind}/{folder}")  # noqa: PTH208 - a million of them
        if kind == UNCLAIMED:
            names = [without_label(name) for name in names]
        paths = (f"{OBJECTS}/{folder}/{name}" for name in names)
        return {path for path in paths if digest_in(path) is not None}

    def remove(self, path: str) -> None:
        """Delete a file that was just kept and that no row needs; the caller still holds its digest."""
        with named_disk_errors():
            self.absolute(path).unlink(missing_ok=True)

    # -- bit rot ------------------------------------------------------------------------------

    def examine(
        self,
        path: str,
        on_damage: Callable[[Found], None],
        *,
        pace: Callable[[int], None] | None = None,
    ) -> Found:
        """Read a file; a damaged one is moved to ``quarantine/``. ``on_damage`` hears all but INTACT.

        Nobody can store the same body while ``on_damage`` runs. ``pace`` is called with the number of
        bytes read, and may wait. Raises OutOfResources (DISK_ERROR) if the disk cannot be asked.
        """
        digest = _digest_in(path)
        target = self.absolute(path)
        with named_disk_errors():
            found = damage(target, digest, forget=pace is not None, pace=pace)
            if found is Found.INTACT:
                return found
            with self.hold(digest):
                found = damage(target, digest)  # it may have come again meanwhile
                if found is Found.DAMAGED:
                    self._move_to_quarantine(str(target), digest)
                if found is not Found.INTACT:
                    on_damage(found)
                return found

    def _move_to_quarantine(self, target: str, digest: str) -> None:
        """Keep a damaged file for a person to look at, under a name of its own."""
        names = (f"{self.root}/{QUARANTINE}/{digest}-{number}{SUFFIX}" for number in itertools.count(1))
        os.rename(target, next(name for name in names if not os.path.lexists(name)))  # noqa: PTH104
        if self._durable:
            sync_directory(f"{self.root}/{QUARANTINE}")
            sync_directory(os.path.dirname(target))  # noqa: PTH120


def _digest_in(path: str) -> str:
    digest = digest_in(path)
    if digest is None:
        raise ValueError("not the path of an object")
    return digest
