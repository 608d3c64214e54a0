"""The journal: one method per transition, each one transaction with an event row.

A transition that finds its row in another state raises :class:`gateway.errors.LostRace`; an edge
that ``gateway.states`` does not have raises IllegalTransition before anything is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.journal.commitment import CommitmentRoom, recover_commitments
from gateway.journal.connection import WriteConnection
from gateway.journal.deliveries import DeliveryRoom
from gateway.journal.edges import failure_columns, take_edge, write_event
from gateway.journal.job_queue import JobRoom
from gateway.journal.receiving import ReceivingRoom
from gateway.states import DELIVERY, JOB, DeliveryEvent, DeliveryState, JobEvent, JobState

_KEPT_REFUSALS = 100_000
_LOOK_EVERY = 1_000


class Journal(ReceivingRoom, JobRoom, DeliveryRoom, CommitmentRoom):
    """The write side. One instance per gateway; safe to call from several threads.

    Parameters
    ----------
    durable
        False: what is committed survives the end of the process, but no power cut. For measurements alone.
    """

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        super().__init__(WriteConnection(path, durable=durable))

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def record(
        self, subject: str, name: str, reason: str, at: float, details: Mapping[str, Any] | None = None
    ) -> None:
        """Write down something that happened to no row: a refused association, a rejected instance.

        Of each subject the newest hundred thousand are kept: whoever calls us can cause them.
        """
        with self._connection.transaction() as work:
            event_id = write_event(work, subject, None, name, reason, at, details=details)
            if event_id % _LOOK_EVERY == 0:
                work.run("forget_events", {"subject": subject, "kept": _KEPT_REFUSALS})

    def recover(self, at: float) -> tuple[int, int]:
        """After a restart: running jobs are queued again, sending deliveries and reports are pending again.

        The caller holds the data folder's lock, so nobody else can be running them. An attempt
        that the gateway's own end interrupted is given back. Returns the numbers of both.
        """
        reason = "The gateway was restarted."
        with self._connection.transaction() as work:
            jobs = work.run("running_jobs", {}).fetchall()
            for job in jobs:
                take_edge(work, JOB, job["id"], (JobState.RUNNING, JobEvent.INTERRUPTED), reason, at)
                work.run("release_lease", {**failure_columns(None), "id": job["id"], "not_before": at})
                work.run("refund_attempt", {"id": job["id"]})
            work.run("delete_all_holds", {})
            deliveries = work.run("sending_deliveries", {}).fetchall()
            for row in deliveries:
                edge = (DeliveryState.SENDING, DeliveryEvent.INTERRUPTED)
                take_edge(work, DELIVERY, row["id"], edge, reason, at)
            recover_commitments(work, at)
        return len(jobs), len(deliveries)

    def counts(self) -> Mapping[str, Mapping[str, int]]:
        """Rows by state, for health and metrics: ``{"series": {...}, "job": {...}, "delivery": {...}}``.

        Instances have no states: ``{"instance": {"stored": n}}``.
        """
        tables = ("series", "job", "delivery", "commitment")
        counts = {t: {r["state"]: r["n"] for r in self._connection.query(f"{t}_counts")} for t in tables}
        return {**counts, "instance": {"stored": self._connection.query("instance_count")[0]["n"]}}

    def damaged_count(self) -> int:
        """Instances whose file was found damaged or gone, and has not come again."""
        return int(self._connection.query("damaged_count")[0]["n"])

    def received_by_source(self) -> list[dict[str, Any]]:
        """Source, instances of its series in all, and when the last one came, for status."""
        return [dict(row) for row in self._connection.query("received_by_source")]
