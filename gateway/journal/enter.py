"""A received instance, entered: its row, its series, and what to say when it is known already.

One row of the table is the *member* of its SOP Instance UID: what jobs are run on. It belongs to the
revisions of its series from ``first_revision`` to ``last_revision`` (without end, where that is NULL).
Other bytes under the same UID are kept beside it with the role ``conflict``, or take its place
(:class:`Duplicates`): then it belongs to the revisions until then, which no one changes any more, and the
other one to all later ones. Where the file of the member is damaged or gone, they take its place by any rule.

What once gave up its place never gets it back: an archive and a scanner that send two versions in turn would
otherwise make revisions and jobs without end. Its bytes are counted as a copy.

The same bytes under another transfer syntax are refused by any rule: the file is named after its bytes, and
keeps the transfer syntax that they first came in. What is refused is written down once for each sender and
revision, so that one that tries for ever does not fill the journal, whatever its bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gateway.journal.connection import Transaction
from gateway.journal.edges import as_json, write_event
from gateway.journal.records import Duplicates, NewInstance, Receipt
from gateway.journal.restore import run_again
from gateway.states import SeriesState

Row = Mapping[str, Any]


def instance_row(instance: NewInstance, at: float) -> Row:
    """The columns of an instance. Made before the journal is locked: it is most of the work."""
    header = instance.header
    return {
        "sop_instance_uid": header.sop_instance_uid,
        "digest": instance.digest,
        "sop_class_uid": header.sop_class_uid,
        "transfer_syntax_uid": instance.transfer_syntax_uid,
        "study_instance_uid": header.study_instance_uid,
        "series_instance_uid": header.series_instance_uid,
        "path": instance.path,
        "size_bytes": instance.size_bytes,
        "facts": as_json(header.facts),
        "frames": as_json(header.frames),
        "source": instance.source,
        "at": at,
    }


def enter(work: Transaction, row: Row, duplicates: Duplicates) -> Receipt:
    """Enter an instance; see :meth:`gateway.journal.journal.Journal.record_instance`."""
    if work.run("insert_next", row).rowcount == 1:  # nearly always: a new UID of a series that is receiving
        work.run("grow_receiving", row)
        return Receipt.STORED
    same, member = None, None
    for known in map(dict, work.run("same_and_member", row)):
        if known["digest"] == row["digest"]:
            same = known
        if known["is_member"]:
            member = known
    if member is None:
        series_id, revision = _series_for(work, row)
        work.run("insert_instance", {**row, "first_revision": revision, "role": "member"})
        work.run("grow_series", {**row, "id": series_id})
        return Receipt.STORED
    if same is not None and same["transfer_syntax_uid"] != row["transfer_syntax_uid"] and _has_pixels(row):
        return _refuse_syntax(work, row, same)
    if member["quarantined_at"] is not None:
        duplicates = Duplicates.NEW_REVISION  # there is nothing else to use
    if same is not None:
        _count(work, same, row)
        if same["role"] == "member" or duplicates is not Duplicates.NEW_REVISION or _moved(member, row):
            return Receipt.DUPLICATE
        return _replace(work, row, member, same)
    if duplicates is Duplicates.REFUSE:
        return _refuse(work, row, member)
    if duplicates is Duplicates.NEW_REVISION and not _moved(member, row):
        return _replace(work, row, member, None)
    return _keep_first(work, row, member)


def _count(work: Transaction, same: Row, row: Row) -> None:
    """The same bytes again; the spool has verified the file, or written it anew."""
    work.run("count_copy", {"id": same["id"], "size_bytes": row["size_bytes"]})
    if same["quarantined_at"] is not None:
        work.run("heal_instance", {"id": same["id"]})
        reason = f"{row['source']} sent the same bytes again: the damaged file was replaced."
        write_event(work, "instance", same["id"], "FILE_RESTORED", reason, row["at"])
        run_again(work, same["id"], row["at"])


def _replace(work: Transaction, row: Row, member: Row, same: Row | None) -> Receipt:
    """Make these bytes the member, in a revision that is not decided."""
    uid = row["sop_instance_uid"]
    newest = work.one("newest_revision", row)
    assert newest is not None  # noqa: S101 - the member's series has one
    series_id, revision = int(newest["id"]), int(newest["revision"])
    if newest["state"] != SeriesState.RECEIVING:
        reason = f"Other bytes of SOP Instance {uid} arrived after revision {revision} was decided"
        series_id, revision = _open(work, row, revision + 1, reason)
    work.run("end_membership", {"id": member["id"], "last_revision": revision - 1})
    if same is None:
        work.run("insert_instance", {**row, "first_revision": revision, "role": "member"})
    else:
        work.run("begin_membership", {"id": same["id"], "first_revision": revision})
    work.run("change_series", {**row, "id": series_id})
    why = "admission.duplicates: new-revision"
    if member["quarantined_at"] is not None:
        why = "the file of the first ones is damaged or gone"
    text = (
        f"SOP Instance {uid} arrived again with other bytes: both are kept, the new ones are used from "
        f"revision {revision} on ({why})."
    )
    _say(work, "DUPLICATE_SOP_INSTANCE_REPLACED", series_id, text, row, member)
    return Receipt.REPLACED


def _refuse(work: Transaction, row: Row, member: Row) -> Receipt:
    """Write down that other bytes came; nothing else changes."""
    text = (
        f"SOP Instance {row['sop_instance_uid']} arrived again with other bytes from {row['source']}: they "
        "were refused (admission.duplicates: refuse)."
    )
    _say_once(work, "DUPLICATE_SOP_INSTANCE_REFUSED", text, row, member)
    return Receipt.REFUSED


def _refuse_syntax(work: Transaction, row: Row, same: Row) -> Receipt:
    """Write down that these bytes came under another transfer syntax; nothing else changes."""
    text = (
        f"SOP Instance {row['sop_instance_uid']} arrived again from {row['source']} with the same bytes "
        f"under transfer syntax {row['transfer_syntax_uid']}: they were refused, as they came under "
        f"{same['transfer_syntax_uid']} first."
    )
    _say_once(work, "DUPLICATE_TRANSFER_SYNTAX_REFUSED", text, row, same)
    return Receipt.RELABELLED


def _keep_first(work: Transaction, row: Row, member: Row) -> Receipt:
    """Keep the bytes beside the member. A series that has no other instance is opened, to be explained."""
    newest = work.one("newest_revision", row)
    known = (int(newest["id"]), int(newest["revision"])) if newest else _series_for(work, row)
    series_id, revision = known
    work.run("insert_instance", {**row, "first_revision": revision, "role": "conflict"})
    where = ""
    if _moved(member, row):
        where = f" in series {member['series_instance_uid']}"
    text = (
        f"SOP Instance {row['sop_instance_uid']} arrived again with other bytes: both are kept, "
        f"the first one is used{where}."
    )
    _say(work, "DUPLICATE_SOP_INSTANCE", series_id, text, row, member)
    return Receipt.CONFLICT


def _say_once(work: Transaction, name: str, text: str, row: Row, known: Row) -> None:
    """Write a refusal down in the series of the known row, unless the same source was told it before."""
    newest = work.one("newest_revision", known)
    assert newest is not None  # noqa: S101 - the series of a row has one
    series_id = int(newest["id"])
    if work.one("told_refusal", {**row, "series_id": series_id, "name": name}) is None:
        _say(work, name, series_id, text, row, known)


def _say(work: Transaction, name: str, series_id: int, text: str, row: Row, member: Row) -> None:
    details = {
        "sop_instance_uid": row["sop_instance_uid"],
        "source": row["source"],
        "first_digest": member["digest"],
        "other_digest": row["digest"],
    }
    write_event(work, "series", series_id, name, text, row["at"], details=details)


def _has_pixels(row: Row) -> bool:
    """Without, the bytes mean the same in every syntax that they can have come under."""
    return "Rows" in json.loads(row["facts"])


def _moved(member: Row, row: Row) -> bool:
    """Whether the bytes name another series than the member: nothing is taken out of that one."""
    return any(member[name] != row[name] for name in ("study_instance_uid", "series_instance_uid"))


def _series_for(work: Transaction, row: Row) -> tuple[int, int]:
    """The receiving revision of the instance's series; opens one where there is none."""
    newest = work.one("newest_revision", row)
    if newest is None:
        return _open(work, row, 1, "First instance of the series")
    revision = int(newest["revision"])
    if newest["state"] == SeriesState.RECEIVING:
        return int(newest["id"]), revision
    return _open(work, row, revision + 1, f"An instance arrived after revision {revision} was decided")


def _open(work: Transaction, row: Row, revision: int, why: str) -> tuple[int, int]:
    series_id = work.insert("open_revision", {**row, "revision": revision})
    reason = f"{why}." if revision == 1 else f"{why}: this is revision {revision}."
    write_event(work, "series", series_id, "opened", reason, row["at"], states=(None, SeriesState.RECEIVING))
    return series_id, revision
