"""The thread that looks after stored instances."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial

from structlog.typing import FilteringBoundLogger

from gateway.clock import Clock
from gateway.errors import OutOfResources
from gateway.journal import Journal
from gateway.spool import Found, Spool, transfer_syntax_uid
from gateway.spool.layout import FOLDERS, OBJECTS, UNCLAIMED
from gateway.upkeep.compare import compare_folder

VERIFY_BYTES_PER_S = 8 << 20
"""Read in the background to find damage: 700 GB a day, 2 % of a slow disk."""

COMPARE_EVERY_S = 24 * 3600.0
_PAUSE_S = 0.2
_PAUSE_FACTOR = 10.0  # of the time that a folder took: a small spool is compared at once
_FILE_COSTS_BYTES = 64 << 10  # to open it, whatever its length
_AFTER_TROUBLE_S = 60.0
_SHORTEST_PASS_S = 60.0
_NAMED_IN_RECORD = 100
_WITHOUT_ROW = (
    "{} files that the journal does not know were moved to {}. After a crash, these are images that nobody "
    "was told of and nobody sent again: delete them. If the journal was lost or is an older backup, "
    "they may have been acknowledged: put the right journal back (stop the gateway, remove journal.db-wal "
    "and journal.db-shm, copy it to journal.db; the files come back by themselves), or send them here again "
    "(they are DICOM files)."
)
_MISSING = (
    "{} files that the journal knows are gone from {}: check its disk and restore them from a backup, or "
    "send the series again."
)
_UNREADABLE = (
    "{} files of {} cannot be verified, so nobody knows whether they are what was received (the first one: "
    "{}, {}): give them to the user that the gateway runs as, and check the disk."
)
_DAMAGED = (
    "{} is not any more what was received, and was moved to spool/quarantine: check the disk of data_dir"
)


class Stopped(Exception):
    """The gateway is ending: leave what is being read."""


class Keeper:
    """Finds files without row, rows without file, and files that are not any more what was received.

    Parameters
    ----------
    verify_bytes_per_s
        How fast files are read for it; 0: they are not, and damage is found when a job needs the file.
    """

    def __init__(
        self,
        spool: Spool,
        journal: Journal,
        clock: Clock,
        log: FilteringBoundLogger,
        verify_bytes_per_s: int = VERIFY_BYTES_PER_S,
    ) -> None:
        self._spool = spool
        self._journal = journal
        self._clock = clock
        self._log = log
        self._verify_bytes_per_s = verify_bytes_per_s
        self._place = spool.root / "verified"
        self._unreadable: dict[str, list[str]] = {}  # of each folder, as it was told
        self._stopping = threading.Event()

    def run(self, stopping: threading.Event) -> None:
        """Body of the thread: compare after the start and once a day, verify all the time in between."""
        self._stopping = stopping
        due_s = self._clock.monotonic_s()
        while not stopping.is_set():
            begun_s = self._clock.monotonic_s()
            try:
                if begun_s >= due_s:
                    self.compare()
                    due_s = begun_s + COMPARE_EVERY_S
                if self._verify_bytes_per_s:
                    self.verify_next_folder()
                wait_s = _SHORTEST_PASS_S / len(FOLDERS)
            except (OutOfResources, sqlite3.Error) as error:
                self._log.error("upkeep_postponed", reason=str(error))
                wait_s = _AFTER_TROUBLE_S
            except Stopped:
                return
            stopping.wait(wait_s)

    def compare(self) -> int:
        """Compare all files with all rows; returns how many files without a row have been put aside.

        Raises OutOfResources or sqlite3.Error.
        """
        unclaimed, lost = 0, 0
        first: list[str] = []
        for folder in FOLDERS:
            begun_s = self._clock.monotonic_s()
            found = compare_folder(self._spool, self._journal, folder, self._clock.now_s())
            unclaimed += found.unclaimed
            lost += len(found.missing)
            first.extend(found.missing[: _NAMED_IN_RECORD - len(first)])
            self.examine(found.missing)
            for path in found.returned:
                self._heal(path)
            took_s = self._clock.monotonic_s() - begun_s
            if self._stopping.wait(min(_PAUSE_S, _PAUSE_FACTOR * took_s)):
                raise Stopped
        if unclaimed:
            self._alarm("FILES_WITHOUT_ROW", _WITHOUT_ROW.format(unclaimed, self._spool.root / UNCLAIMED))
        if lost:
            self._alarm("INSTANCE_FILE_MISSING", _MISSING.format(lost, self._spool.root), first)
        return unclaimed

    def _heal(self, path: str) -> None:
        """A file that was damaged or gone is there again."""
        with suppress(OutOfResources, OSError):  # it is named when its folder is verified
            if self._examine(path, slowly=False) is Found.INTACT and self._has_syntax_of_rows(path):
                reason = "The file is there again, as it was received."
                self._journal.heal(path, reason, self._clock.now_s())

    def _has_syntax_of_rows(self, path: str) -> bool:
        found = transfer_syntax_uid(self._spool.absolute(path))
        return all(row.transfer_syntax_uid == found for row in self._journal.stored_as(path))

    def _alarm(self, name: str, reason: str, paths: Sequence[str] = ()) -> None:
        self._log.critical(name, reason=reason)
        details = {"paths": list(paths)} if paths else None
        self._journal.record("instance", name, reason, self._clock.now_s(), details)

    def examine(self, paths: Iterable[str]) -> int:
        """Look at files, and write down what is found; returns how many are not as they were received.

        Raises OutOfResources or sqlite3.Error.
        """
        return sum(self._examine(path, slowly=False) is not Found.INTACT for path in paths)

    def verify_next_folder(self) -> None:
        """Read every file of the folder whose turn it is; the turn outlives a restart.

        A file that cannot be read is told, once as long as that is so; it does not keep the others from it.
        """
        folder = self._turn()
        unreadable: dict[str, str] = {}
        for path in sorted(self._spool.files(folder)):
            self._wait_for(_FILE_COSTS_BYTES)
            try:
                self._examine(path, slowly=True)
            except OutOfResources as error:
                unreadable[path] = getattr(error.__cause__, "strerror", error.name)
        self._tell_unreadable(folder, unreadable)
        following = FOLDERS[(FOLDERS.index(folder) + 1) % len(FOLDERS)]
        try:
            self._place.write_text(following)
        except OSError as error:
            raise OutOfResources(
                "DISK_ERROR", f"{self._place} cannot be written: {error.strerror}."
            ) from error

    def _tell_unreadable(self, folder: str, reasons: Mapping[str, str]) -> None:
        named = list(reasons)[:_NAMED_IN_RECORD]
        if named and named != self._unreadable.get(folder):
            where = self._spool.root / OBJECTS / folder
            reason = _UNREADABLE.format(len(reasons), where, named[0], reasons[named[0]])
            self._alarm("FILES_UNREADABLE", reason, named)
        self._unreadable[folder] = named

    def _turn(self) -> str:
        try:
            place = self._place.read_text()
        except (OSError, ValueError):  # whatever stands there, it begins anew
            return FOLDERS[0]
        return place if place in FOLDERS else FOLDERS[0]

    def _examine(self, path: str, *, slowly: bool) -> Found:
        pace = self._wait_for if slowly else None
        return self._spool.examine(path, partial(self._write_down, path), pace=pace)

    def _write_down(self, path: str, found: Found) -> None:
        now_s = self._clock.now_s()
        if found is Found.MISSING:
            reason = f"{path} is gone: check the disk of data_dir, then send the series again."
            if self._journal.quarantine(path, reason, now_s):
                self._log.error("instance_file_missing", path=path)
            return
        reason = f"{_DAMAGED.format(path)}, then send the series again."
        if self._journal.quarantine(path, reason, now_s):
            self._log.critical("INSTANCE_DAMAGED", reason=reason, path=path)
        else:
            reason = (
                f"{_DAMAGED.format(path)}. No row counts on it; if the journal was lost, it may have been "
                "acknowledged: then send the series again."
            )
            self._alarm("INSTANCE_DAMAGED", reason, [path])

    def _wait_for(self, count: int) -> None:
        """The time that reading so many bytes may take."""
        if self._stopping.wait(count / self._verify_bytes_per_s):
            raise Stopped
