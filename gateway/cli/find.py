"""The journal of a configuration, and the study or series in it that a person names."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from gateway.cli.common import EXIT_FAILED, EXIT_NOT_FOUND, EXIT_USAGE, fail

if TYPE_CHECKING:
    from gateway.journal import JournalReader
    from gateway.settings import Settings

Record = dict[str, Any]
LEVELS = ("study_instance_uid", "series_instance_uid")


@contextmanager
def open_journal(settings: Settings) -> Iterator[JournalReader]:
    """The journal of a configuration, read-only; works beside a running gateway."""
    from gateway.journal import JournalReader

    path = settings.data_dir / "journal.db"
    try:
        exists = path.is_file()
    except PermissionError:
        fail(
            "JOURNAL_UNREADABLE", f"{path} is not yours to read: run this as the gateway's user.", EXIT_FAILED
        )
    if not exists:
        reason = f"There is no journal at {path}: the gateway has not run with this configuration yet."
        fail("NO_JOURNAL", reason, EXIT_NOT_FOUND)
    try:
        reader = JournalReader(path)
        try:
            yield reader
        finally:
            reader.close()
    except sqlite3.Error as error:
        fail("JOURNAL_UNREADABLE", f"{path} cannot be read: {error}.", EXIT_FAILED)


def resolve(records: list[Record], ending: str, levels: Sequence[str] = LEVELS) -> tuple[str, str]:
    """Column and UID that an ending names; leaves the program if there is none or more than one."""
    ending = ending.lstrip("….")
    all_uids = {(level, str(record[level])) for record in records for level in levels}
    exact = {each for each in all_uids if each[1] == ending}
    found = sorted(exact or {each for each in all_uids if each[1].endswith(ending)})
    if not found:
        kinds = " or ".join(level.partition("_")[0] for level in levels)
        fail("NOT_FOUND", f"No {kinds} has a UID that ends in {ending!r}.", EXIT_NOT_FOUND)
    if len(found) > 1:
        sys.stderr.writelines(f"  {level.partition('_')[0]:<7} {uid}\n" for level, uid in found[:20])
        fail("AMBIGUOUS", f"{len(found)} UIDs end in {ending!r}; give more of one of them.", EXIT_USAGE)
    return found[0]
