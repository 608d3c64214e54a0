"""The journal: one method per transition, each one transaction with an event row.

A transition that finds its row in another state raises :class:`gateway.errors.LostRace`; an edge
that ``gateway.states`` does not have raises IllegalTransition before anything is written.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway.errors import LostRace
from gateway.journal.connection import Transaction, WriteConnection
from gateway.journal.edges import as_json, failure_columns, take_edge, write_event
from gateway.journal.records import (
    ClaimedDelivery,
    ClaimedJob,
    Failure,
    Member,
    NewInstance,
    NewResult,
    Receipt,
    ReceivingSeries,
    SeriesDecision,
)
from gateway.states import (
    DELIVERY,
    JOB,
    SERIES,
    DeliveryEvent,
    DeliveryState,
    JobEvent,
    JobState,
    SeriesEvent,
    SeriesState,
)


class Journal:
    """The write side. One instance per gateway; safe to call from several threads."""

    def __init__(self, path: Path) -> None:
        self._connection = WriteConnection(path)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def record(
        self, subject: str, name: str, reason: str, at: float, details: Mapping[str, Any] | None = None
    ) -> None:
        """Write down something that happened to no row: a refused association, a rejected instance."""
        with self._connection.transaction() as work:
            write_event(work, subject, None, name, reason, at, details=details)

    # -- receive ------------------------------------------------------------------------------

    def record_instance(self, instance: NewInstance, at: float) -> Receipt:
        """Enter an instance whose file is durable; when this returns, it may be acknowledged.

        Same UID and same bytes: counted. Same UID and other bytes: both kept, the first stays the
        member of the series. A series that was already decided gets a new revision.
        """
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
            "source": instance.source,
            "received_at": at,
        }
        with self._connection.transaction() as work:
            same = work.one("find_same_instance", row)
            if same is not None:
                work.run("count_copy", {"id": same["id"]})
                return Receipt.DUPLICATE
            series_id, revision = self._series_for(work, row, at)
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

    def _series_for(self, work: Transaction, row: dict[str, Any], at: float) -> tuple[int, int]:
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
            else f"An instance arrived after revision {revision - 1} was decided: "
            f"this is revision {revision}."
        )
        write_event(work, "series", series_id, "opened", reason, at, states=(None, SeriesState.RECEIVING))
        return series_id, revision

    # -- sweep --------------------------------------------------------------------------------

    def receiving_series(self) -> list[ReceivingSeries]:
        """All series revisions that have not been decided."""
        return [ReceivingSeries(**dict(row)) for row in self._connection.query("receiving_series")]

    def members(self, series_id: int) -> list[Member]:
        """The instances of a series revision, in order of arrival."""
        rows = self._connection.query("members_of_series", {"series_id": series_id})
        return [
            Member(**{**dict(row), "facts": {k: tuple(v) for k, v in json.loads(row["facts"]).items()}})
            for row in rows
        ]

    def is_own_result_series(self, series_instance_uid: str) -> bool:
        """True if this gateway made the series itself (loop guard)."""
        return bool(
            self._connection.query("is_own_result_series", {"series_instance_uid": series_instance_uid})
        )

    def decide_series(self, series: ReceivingSeries, decision: SeriesDecision, at: float) -> int | None:
        """Complete a series and act on the decision, in one transaction; returns the job's id.

        Raises LostRace if an instance arrived since ``series`` was read.
        """
        with self._connection.transaction() as work:
            counted = {"id": series.id, "instance_count": series.instance_count}
            if work.one("lock_series_count", counted) is None:
                raise LostRace("LOST_RACE", f"series {series.id} grew while it was being decided.")
            settled = (SeriesState.RECEIVING, SeriesEvent.SETTLED)
            take_edge(work, SERIES, series.id, settled, str(decision.evidence.get("reason", "")), at)
            work.run(
                "record_decision",
                {
                    "id": series.id,
                    "evidence": as_json(decision.evidence),
                    "verdict": as_json(decision.verdict),
                    "decision": as_json(decision.decision),
                    "at": at,
                },
            )
            event = (
                SeriesEvent.ROUTE_MATCHED
                if decision.job
                else SeriesEvent.GEOMETRY_REFUSED
                if decision.refused
                else SeriesEvent.NO_ROUTE
            )
            reason = f"{decision.name}: {decision.reason}"
            take_edge(work, SERIES, series.id, (SeriesState.COMPLETE, event), reason, at)
            if decision.job is None:
                return None
            job = {
                "series_id": series.id,
                "model": decision.job.model,
                "card": decision.job.card,
                "destinations": as_json(decision.job.destinations),
                "at": at,
            }
            job_id = work.insert("insert_job", job)
            write_event(work, "job", job_id, "created", decision.reason, at, states=(None, JobState.QUEUED))
            return job_id

    # -- jobs ---------------------------------------------------------------------------------

    def claim_job(
        self, lease_id: str, lease_expires_at: float, at: float, longest_wait_s: float = math.inf
    ) -> ClaimedJob | None:
        """Lease the oldest queued job; the attempt counts from now, even if the worker dies.

        A job that would wait for more than ``longest_wait_s`` is due: the clock was set back. Jobs
        of a series that has a newer revision meanwhile are ended first: nobody needs their result.
        """
        with self._connection.transaction() as work:
            self._supersede_jobs(work, at)
            row = work.one("next_queued_job", {"at": at, "longest_wait_s": longest_wait_s})
            if row is None:
                return None
            lease = {"id": row["id"], "lease_id": lease_id, "lease_expires_at": lease_expires_at}
            work.run("take_lease", lease)
            job = work.one("job_to_run", {"id": row["id"]})
            assert job is not None  # noqa: S101 - selected in this transaction
            reason = f"Attempt {job['attempts']}."
            take_edge(work, JOB, row["id"], (JobState.QUEUED, JobEvent.CLAIMED), reason, at)
            fields = {**dict(job), "destinations": tuple(json.loads(job["destinations"]))}
            return ClaimedJob(lease_id=lease_id, **fields)

    def _supersede_jobs(self, work: Transaction, at: float) -> None:
        for row in work.run("outdated_jobs", {}).fetchall():
            failure = _superseded(row)
            take_edge(work, JOB, row["id"], (JobState.QUEUED, JobEvent.SUPERSEDED), failure.reason, at)
            work.run("close_job", {**failure_columns(failure), "id": row["id"], "at": at, "run": None})

    def renew_lease(self, job: ClaimedJob, lease_expires_at: float) -> None:
        """Extend a lease; raises LostRace if it is not ours any more."""
        with self._connection.transaction() as work:
            values = {"id": job.id, "lease_id": job.lease_id, "lease_expires_at": lease_expires_at}
            if work.run("renew_lease", values).rowcount != 1:
                raise LostRace("LEASE_LOST", f"job {job.id} is not leased to us any more.")

    def finish_job(
        self, job: ClaimedJob, results: Sequence[NewResult], run: Mapping[str, Any], at: float
    ) -> None:
        """Done: result rows, outbox rows and the job's state in one transaction."""
        with self._connection.transaction() as work:
            self._under_lease(work, job)
            reason = f"{len(results)} results stored."
            take_edge(work, JOB, job.id, (JobState.RUNNING, JobEvent.SUCCEEDED), reason, at)
            work.run("close_job", {**failure_columns(None), "id": job.id, "at": at, "run": as_json(run)})
            for result in results:
                result_id = work.insert("insert_result", {**vars(result), "job_id": job.id, "at": at})
                for destination in job.destinations:
                    row = {"result_id": result_id, "destination": destination, "at": at}
                    delivery_id = work.insert("insert_delivery", row)
                    write_event(
                        work,
                        "delivery",
                        delivery_id,
                        "created",
                        f"{result.kind} for {destination}.",
                        at,
                        states=(None, DeliveryState.PENDING),
                    )

    def requeue_job(
        self, job: ClaimedJob, event: JobEvent, failure: Failure, not_before: float, at: float
    ) -> None:
        """Back to the queue after a retryable error or a lost worker; the attempt stays counted."""
        with self._connection.transaction() as work:
            self._under_lease(work, job)
            take_edge(work, JOB, job.id, (JobState.RUNNING, event), f"{failure.name}: {failure.reason}", at)
            work.run("release_lease", {**failure_columns(failure), "id": job.id, "not_before": not_before})
            if event is JobEvent.INTERRUPTED:
                work.run("refund_attempt", {"id": job.id})

    def fail_job(self, job: ClaimedJob, failure: Failure, at: float) -> None:
        """Give up: the reason is kept for ``explain``."""
        with self._connection.transaction() as work:
            self._under_lease(work, job)
            reason = f"{failure.name}: {failure.reason}"
            take_edge(work, JOB, job.id, (JobState.RUNNING, JobEvent.GAVE_UP), reason, at)
            work.run("close_job", {**failure_columns(failure), "id": job.id, "at": at, "run": None})

    def _under_lease(self, work: Transaction, job: ClaimedJob) -> None:
        if work.one("job_under_lease", {"id": job.id, "lease_id": job.lease_id}) is None:
            raise LostRace("LEASE_LOST", f"job {job.id} is not leased to us any more.")

    # -- deliver ------------------------------------------------------------------------------

    def claim_delivery(
        self, destination: str, at: float, longest_wait_s: float = math.inf
    ) -> ClaimedDelivery | None:
        """Take the oldest due delivery of a destination.

        One that would wait for more than ``longest_wait_s`` is due: the clock was set back. Results
        of a series that has a newer revision meanwhile are kept here and not sent any more.
        """
        due = {"destination": destination, "at": at, "longest_wait_s": longest_wait_s}
        with self._connection.transaction() as work:
            self._supersede_deliveries(work, destination, at)
            row = work.one("next_delivery", due)
            if row is None:
                return None
            work.run("count_attempt", {"id": row["id"]})
            delivery = work.one("delivery_to_send", {"id": row["id"]})
            assert delivery is not None  # noqa: S101 - selected in this transaction
            reason = f"Attempt {delivery['attempts']} to {destination}."
            take_edge(work, DELIVERY, row["id"], (DeliveryState.PENDING, DeliveryEvent.CLAIMED), reason, at)
            return ClaimedDelivery(**dict(delivery))

    def _supersede_deliveries(self, work: Transaction, destination: str, at: float) -> None:
        for row in work.run("outdated_deliveries", {"destination": destination}).fetchall():
            failure = _superseded(row)
            edge = (DeliveryState.PENDING, DeliveryEvent.SUPERSEDED)
            take_edge(work, DELIVERY, row["id"], edge, failure.reason, at)
            work.run("close_delivery", {**failure_columns(failure), "id": row["id"], "at": at})

    def delivery_sent(self, delivery: ClaimedDelivery, reason: str, at: float) -> None:
        """The destination stored it."""
        with self._connection.transaction() as work:
            take_edge(work, DELIVERY, delivery.id, (DeliveryState.SENDING, DeliveryEvent.STORED), reason, at)
            work.run("close_delivery", {**failure_columns(None), "id": delivery.id, "at": at})

    def delivery_postponed(
        self, delivery: ClaimedDelivery, failure: Failure, next_attempt_at: float, at: float
    ) -> None:
        """Not stored this time; due again at ``next_attempt_at``."""
        with self._connection.transaction() as work:
            reason = f"{failure.name}: {failure.reason}"
            take_edge(
                work, DELIVERY, delivery.id, (DeliveryState.SENDING, DeliveryEvent.TRY_AGAIN), reason, at
            )
            work.run(
                "postpone_delivery",
                {**failure_columns(failure), "id": delivery.id, "next_attempt_at": next_attempt_at},
            )

    def delivery_dead(self, delivery: ClaimedDelivery, failure: Failure, at: float) -> None:
        """Given up; a person must look at it."""
        with self._connection.transaction() as work:
            reason = f"{failure.name}: {failure.reason}"
            take_edge(work, DELIVERY, delivery.id, (DeliveryState.SENDING, DeliveryEvent.GAVE_UP), reason, at)
            work.run("close_delivery", {**failure_columns(failure), "id": delivery.id, "at": at})

    # -- start --------------------------------------------------------------------------------

    def recover(self, at: float) -> tuple[int, int]:
        """After a restart: running jobs are queued again, sending deliveries are pending again.

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
            deliveries = work.run("sending_deliveries", {}).fetchall()
            for row in deliveries:
                edge = (DeliveryState.SENDING, DeliveryEvent.INTERRUPTED)
                take_edge(work, DELIVERY, row["id"], edge, reason, at)
        return len(jobs), len(deliveries)

    def known_paths(self) -> tuple[set[str], set[str]]:
        """Relative paths that rows point to: in the spool, and in the results folder."""
        instances = {str(row["path"]) for row in self._connection.query("known_instance_paths")}
        results = {str(row["path"]) for row in self._connection.query("known_result_paths")}
        return instances, results

    def waiting_deliveries(self) -> Mapping[str, int]:
        """Destination → deliveries that wait for it."""
        return {row["destination"]: row["n"] for row in self._connection.query("waiting_deliveries")}

    def counts(self) -> Mapping[str, Mapping[str, int]]:
        """Rows by state, for health and metrics: ``{"series": {...}, "job": {...}, "delivery": {...}}``.

        Instances have no states: ``{"instance": {"stored": n}}``.
        """
        tables = ("series", "job", "delivery")
        counts = {t: {r["state"]: r["n"] for r in self._connection.query(f"{t}_counts")} for t in tables}
        return {**counts, "instance": {"stored": self._connection.query("instance_count")[0]["n"]}}


def _superseded(row: Mapping[str, Any]) -> Failure:
    return Failure(
        "SUPERSEDED",
        f"More instances of the series arrived: revision {row['newest_revision']} takes the place of "
        f"revision {row['revision']}.",
    )
