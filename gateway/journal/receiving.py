"""The journal's side of receiving: instances, their files, and the series that grow."""

from __future__ import annotations

import json
from sqlite3 import Row

from gateway.header import Facts
from gateway.journal.arrivals import Arrivals
from gateway.journal.connection import WriteConnection
from gateway.journal.edges import write_event
from gateway.journal.profiles import Profiles
from gateway.journal.records import (
    Duplicates,
    Json,
    Member,
    NewInstance,
    Receipt,
    ReceivingSeries,
    SeriesDecision,
    StoredAs,
    StoredPath,
)
from gateway.journal.restore import run_again
from gateway.journal.room import Room
from gateway.journal.settle import settle


class ReceivingRoom(Room):
    """Instances and series."""

    def __init__(self, connection: WriteConnection) -> None:
        super().__init__(connection)
        self._arrivals = Arrivals(connection)

    def record_instance(
        self, instance: NewInstance, at: float, duplicates: Duplicates = Duplicates.KEEP_FIRST
    ) -> Receipt:
        """Enter an instance whose file is durable; when this returns, it may be acknowledged.

        Same UID and same bytes: counted. Same UID and other bytes: by the rule; see
        :mod:`gateway.journal.enter`. A series that was already decided gets a new revision. Threads that
        call at the same time share a commit.
        """
        return self._arrivals.enter(instance, at, duplicates)

    def receiving_series(self) -> list[ReceivingSeries]:
        """All series revisions that have not been decided."""
        return [ReceivingSeries(**dict(row)) for row in self._connection.query("receiving_series")]

    def members(self, series_id: int) -> list[Member]:
        """The instances of a series revision, in order of arrival."""
        rows = self._connection.query("members_of_series", {"series_id": series_id})
        return [Member(**{**dict(row), **_facts(row)}) for row in rows]

    def is_own_result_series(self, series_instance_uid: str) -> bool:
        """True if this gateway made the series itself (loop guard)."""
        return bool(
            self._connection.query("is_own_result_series", {"series_instance_uid": series_instance_uid})
        )

    def decide_series(
        self,
        series: ReceivingSeries,
        decision: SeriesDecision,
        at: float,
        profiles: Profiles = Profiles(),  # noqa: B008 - frozen
    ) -> tuple[int, ...]:
        """Complete a series and act on the decision, in one transaction; returns the ids of its jobs.

        Raises LostRace if an instance arrived since ``series`` was read, or took the place of one.
        """
        with self._connection.transaction() as work:
            return settle(work, series, decision, at, profiles)

    def result_paths(self) -> set[str]:
        """Relative paths that rows point to in the results folder."""
        return {str(row["path"]) for row in self._connection.query("known_result_paths")}

    def paths_with_prefix(self, prefix: str) -> list[StoredPath]:
        """Files of instances whose relative path starts with this text, in the order of their paths.

        A file that two rows point to is there twice.
        """
        rows = self._connection.query("paths_between", {"first": prefix})
        return [StoredPath(row["path"], bool(row["is_quarantined"])) for row in rows]

    def stored_as(self, path: str) -> list[StoredAs]:
        """What rows need the file with this relative path."""
        rows = self._connection.query("instances_at_path", {"path": path})
        return [StoredAs(row["sop_instance_uid"], row["transfer_syntax_uid"]) for row in rows]

    def quarantine(self, path: str, reason: str, at: float) -> bool:
        """Say that a file is damaged or gone; True if that is new. Nothing is run on it any more."""
        return self._mark(path, "quarantine_instance", "FILE_QUARANTINED", reason, at)

    def heal(self, path: str, reason: str, at: float) -> bool:
        """Say that a file is again as it was received; True if that is new.

        The same bytes that arrive again do this by themselves.
        """
        return self._mark(path, "heal_instance", "FILE_RESTORED", reason, at)

    def _mark(self, path: str, statement: str, name: str, reason: str, at: float) -> bool:
        moved = False
        with self._connection.transaction() as work:
            for row in work.run("instances_at_path", {"path": path}).fetchall():
                if work.run(statement, {"id": row["id"], "at": at}).rowcount == 1:
                    details = {"sop_instance_uid": row["sop_instance_uid"], "path": path}
                    write_event(work, "instance", row["id"], name, reason, at, details=details)
                    moved = True
                    if statement == "heal_instance":
                        run_again(work, row["id"], at)
        return moved


def _facts(row: Row) -> Json:
    def facts(record: Json) -> Facts:
        return {keyword: tuple(values) for keyword, values in record.items()}

    frames = () if row["frames"] is None else json.loads(row["frames"])
    return {
        "facts": facts(json.loads(row["facts"])),
        "frames": tuple(map(facts, frames)),
        "has_all_facts": row["frames"] is not None,
    }
