"""The files of a spool against the rows that need them, folder by folder, so that memory is flat."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

from gateway.journal import Journal
from gateway.spool import Spool
from gateway.spool.layout import FOLDERS, OBJECTS

GRACE_S = 3600.0
"""A file without a row that is younger was left by a crash a moment ago: it is being sent again."""

RESULTS_KEPT_S = 30 * 24 * 3600.0
"""So long a result stays that no row needs."""


@dataclass(frozen=True)
class Difference:
    """What one folder showed.

    Attributes
    ----------
    unclaimed
        Files without a row that were put aside, now or before.
    missing
        Paths with a row and no file.
    returned
        Paths whose row says that the file is damaged or gone, and there is one.
    """

    unclaimed: int
    missing: tuple[str, ...]
    returned: tuple[str, ...]


def compare_folder(spool: Spool, journal: Journal, folder: str, now_s: float) -> Difference:
    """Compare one of :data:`gateway.spool.layout.FOLDERS`; safe while instances are received.

    The files are listed first: what arrives in between has a row without a listed file, and is looked for
    once more. What was put aside for want of a row, and has one now, comes back before; the row says in which
    transfer syntax. ``now_s`` is in seconds since 1970.
    """

    def is_known(path: str) -> bool:
        return bool(journal.stored_as(path))

    for path in spool.unclaimed(folder):
        if rows_of_it := journal.stored_as(path):
            spool.take_back(path, {row.transfer_syntax_uid for row in rows_of_it})
    files = spool.files(folder)
    rows = {each.path: each.is_quarantined for each in journal.paths_with_prefix(f"{OBJECTS}/{folder}/")}
    for path in files - rows.keys():
        spool.put_aside(path, lambda path=path: is_known(path), now_s - GRACE_S)  # type: ignore[misc]
    lost = (path for path, is_quarantined in rows.items() if not is_quarantined and path not in files)
    return Difference(
        unclaimed=len(spool.unclaimed(folder)),
        missing=tuple(path for path in lost if not spool.absolute(path).is_file()),
        returned=tuple(path for path, is_quarantined in rows.items() if is_quarantined and path in files),
    )


def compare_results(spool: Spool, known: Set[str], now_s: float) -> tuple[int, tuple[str, ...]]:
    """The same for results, which are few: how many files were put aside or deleted, and which are gone.

    Only while nobody writes any. A result without a row is no alarm: a job that was superseded leaves some,
    and they can be made again. So they do not stay for ever.
    """
    count = 0
    for folder in FOLDERS:
        aside = spool.unclaimed(folder)
        for path in aside & known:
            spool.take_back(path)
        count += sum(spool.drop_aside(path, now_s - RESULTS_KEPT_S) for path in aside - known)
        unknown = spool.files(folder) - known
        count += sum(spool.put_aside(path, lambda: False, now_s - GRACE_S) for path in unknown)
    return count, tuple(sorted(path for path in known if not spool.absolute(path).is_file()))
