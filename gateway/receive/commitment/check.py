"""What is true of instances that somebody wants committed: the journal's rows, and the files themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from gateway.journal import Journal
from gateway.journal.commitment_records import KeptInstance, Outcome, Reference, SeriesKey

PROCESSING_FAILURE, NO_SUCH_INSTANCE, CLASS_CONFLICT = 0x0110, 0x0112, 0x0119
"""Failure Reason (0008,1197), PS3.3 C.14.1.1."""


def examine(journal: Journal, spool_root: Path, source: str, references: Sequence[Reference]) -> Outcome:
    """Look every instance up, and its file: only what is here in full is committed.

    Who sent it does not matter, but what we refused does: a ``source`` whose other bytes of an instance were
    refused may mean those.
    """
    rows = list(journal.kept_instances(list(dict.fromkeys(uid for _, uid in references))))
    refused = journal.refused_duplicates({row.series for row in rows}, source)
    return judge(
        references,
        rows,
        lambda kept: kept.sop_instance_uid not in refused and _is_whole(spool_root, kept),
    )


def judge(
    references: Sequence[Reference],
    rows: Iterable[KeptInstance],
    is_whole: Callable[[KeptInstance], bool],
) -> Outcome:
    """What can be committed; pure but for ``is_whole``.

    Of an instance that arrived with different bytes, all must be intact: the peer does not say which ones it
    means.
    """
    kept: dict[str, list[KeptInstance]] = {}
    for row in rows:
        kept.setdefault(row.sop_instance_uid, []).append(row)
    committed: list[Reference] = []
    failed: list[tuple[str, str, int]] = []
    members: dict[SeriesKey, set[str]] = {}
    fine: Counter[SeriesKey] = Counter()
    for sop_class, uid in references:
        found = kept.get(uid, [])
        reason = _failure(found, sop_class, is_whole)
        for series in {row.series for row in found if row.is_member}:
            members.setdefault(series, set()).add(uid)
            fine[series] += reason is None
        if reason is None:
            committed.append((sop_class, uid))
        else:
            failed.append((sop_class, uid, reason))
    counts = {series: len(uids) for series, uids in members.items()}
    return Outcome(tuple(committed), tuple(failed), counts, dict(fine))


def _failure(
    found: Sequence[KeptInstance], sop_class: str, is_whole: Callable[[KeptInstance], bool]
) -> int | None:
    """The Failure Reason; None if it is committed."""
    if not found:
        return NO_SUCH_INSTANCE
    of_class = [row for row in found if row.sop_class_uid == sop_class]
    if not of_class:
        return CLASS_CONFLICT
    return None if all(map(is_whole, of_class)) else PROCESSING_FAILURE


def _is_whole(spool_root: Path, kept: KeptInstance) -> bool:
    """Whether the file is there, and nobody has found it damaged.

    Its length says nothing: a file that was written anew names another sender in its file meta information.
    """
    try:
        return not kept.is_quarantined and (spool_root / kept.path).is_file()
    except OSError:
        return False
