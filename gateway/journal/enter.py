"""A received instance, entered: its row, its series, and what to say when it is known already."""

from __future__ import annotations

from typing import Any

from gateway.journal.connection import Transaction
from gateway.journal.edges import as_json, write_event
from gateway.journal.records import NewInstance, Receipt
from gateway.states import SeriesState


def enter(work: Transaction, instance: NewInstance, at: float) -> Receipt:
    """Enter an instance; see :meth:`gateway.journal.journal.Journal.record_instance`."""
    header = instance.header
    row: dict[str, Any] = {
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
        "received_at": at,
    }
    same = work.one("find_same_instance", row)
    if same is not None:
        work.run("count_copy", {"id": same["id"]})
        return Receipt.DUPLICATE
    series_id, revision = _series_for(work, row, at)
    first = work.one("find_member_with_uid", row)
    role = "member" if first is None else "conflict"
    work.run("insert_instance", {**row, "first_revision": revision, "role": role})
    if first is None:
        work.run("grow_series", {"id": series_id, "at": at, "source": instance.source})
        return Receipt.STORED
    moved = first["series_instance_uid"] != header.series_instance_uid
    where = f" in series {first['series_instance_uid']}" if moved else ""
    write_event(
        work,
        "series",
        series_id,
        "DUPLICATE_SOP_INSTANCE",
        f"SOP Instance {header.sop_instance_uid} arrived again with other bytes: both are kept, "
        f"the first one is used{where}.",
        at,
        details={"first_digest": first["digest"], "other_digest": instance.digest},
    )
    return Receipt.CONFLICT


def _series_for(work: Transaction, row: dict[str, Any], at: float) -> tuple[int, int]:
    """The receiving revision of the instance's series; opens one where there is none."""
    newest = work.one("newest_revision", row)
    conflict = work.one("find_member_with_uid", row) is not None
    if newest is not None and (newest["state"] == SeriesState.RECEIVING or conflict):
        return int(newest["id"]), int(newest["revision"])
    revision = 1 if newest is None else int(newest["revision"]) + 1
    series_id = work.insert("open_revision", {**row, "revision": revision, "at": at})
    reason = (
        "First instance of the series."
        if revision == 1
        else f"An instance arrived after revision {revision - 1} was decided: this is revision {revision}."
    )
    write_event(work, "series", series_id, "opened", reason, at, states=(None, SeriesState.RECEIVING))
    return series_id, revision
