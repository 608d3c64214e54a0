"""The journal: one method per transition, each one transaction with an event row.

A transition that finds its row in another state raises :class:`gateway.errors.LostRace`; an edge
that ``gateway.states`` does not have raises IllegalTransition before anything is written.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from sqlite3 import Row
from typing import Any

from gateway.errors import LostRace
from gateway.header import Facts
from gateway.journal.claim import Lease, claim, superseded
from gateway.journal.connection import WriteConnection
from gateway.journal.decide import Person, discard, release, resend
from gateway.journal.edges import failure_columns, take_edge, write_event
from gateway.journal.enter import enter
from gateway.journal.finish import fail, finish, under_lease
from gateway.journal.holds import replace_holds
from gateway.journal.outbox import claim_delivery
from gateway.journal.profiles import Profiles
from gateway.journal.records import (
    ClaimedDelivery,
    ClaimedJob,
    Failure,
    Json,
    Member,
    NewInstance,
    NewResult,
    Receipt,
    ReceivingSeries,
    SentReport,
    SeriesDecision,
    Wanted,
)
from gateway.journal.settle import settle
from gateway.states import (
    DELIVERY,
    JOB,
    DeliveryEvent,
    DeliveryState,
    JobEvent,
    JobState,
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
        with self._connection.transaction() as work:
            return enter(work, instance, at)

    # -- sweep --------------------------------------------------------------------------------

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

        Raises LostRace if an instance arrived since ``series`` was read.
        """
        with self._connection.transaction() as work:
            return settle(work, series, decision, at, profiles)

    # -- jobs ---------------------------------------------------------------------------------

    def claim_job(
        self,
        lease_id: str,
        lease_expires_at: float,
        at: float,
        longest_wait_s: float = math.inf,
        wanted: Wanted = Wanted(),  # noqa: B008 - frozen
        series_number_base: int = 9000,
    ) -> ClaimedJob | None:
        """Lease the first queued job; the attempt counts from now, even if the worker dies.

        The most urgent one is first, of equals the oldest. A job that would wait for more than
        ``longest_wait_s`` is due: the clock was set back. Jobs of a series that has a newer revision
        meanwhile are ended first: nobody needs their result. The series numbers of the results of a study
        begin at ``series_number_base``.
        """
        with self._connection.transaction() as work:
            lease = Lease(lease_id, lease_expires_at)
            return claim(work, lease, at, longest_wait_s, wanted, series_number_base)

    def hold_cards(self, holds: Mapping[str, Failure], at: float) -> None:
        """Say which models do not run at present, and why; those that are not named run."""
        with self._connection.transaction() as work:
            replace_holds(work, holds, at)

    def holds(self) -> Mapping[str, Failure]:
        """Card → why its jobs wait."""
        return {r["card"]: Failure(r["name"], r["reason"]) for r in self._connection.query("holds")}

    def renew_lease(self, job: ClaimedJob, lease_expires_at: float) -> None:
        """Extend a lease; raises LostRace if it is not ours any more."""
        with self._connection.transaction() as work:
            values = {"id": job.id, "lease_id": job.lease_id, "lease_expires_at": lease_expires_at}
            if work.run("renew_lease", values).rowcount != 1:
                raise LostRace("LEASE_LOST", f"job {job.id} is not leased to us any more.")

    def newer_revision(self, job: ClaimedJob) -> Failure | None:
        """Why nobody needs the result of a running job any more, if that is so."""
        rows = self._connection.query("newer_revision", {"id": job.id})
        return superseded(dict(rows[0])) if rows else None

    def finish_job(
        self,
        job: ClaimedJob,
        results: Sequence[NewResult],
        run: Mapping[str, Any],
        at: float,
        hold: Failure | None = None,
        profiles: Profiles = Profiles(),  # noqa: B008 - frozen
    ) -> None:
        """Done: result rows, outbox rows (none with a hold) and the job's state in one transaction.

        Each destination gets what belongs to its profile: all segmentations first, the overview last. A job
        that a revision with further destinations has adopted meanwhile may be queued once more for these.
        """
        with self._connection.transaction() as work:
            finish(work, job, results, run, at, hold, profiles)

    def requeue_job(
        self, job: ClaimedJob, event: JobEvent, failure: Failure, not_before: float, at: float
    ) -> None:
        """Back to the queue after a retryable error or a lost worker; the attempt stays counted."""
        with self._connection.transaction() as work:
            under_lease(work, job)
            take_edge(work, JOB, job.id, (JobState.RUNNING, event), f"{failure.name}: {failure.reason}", at)
            work.run("release_lease", {**failure_columns(failure), "id": job.id, "not_before": not_before})
            if event is JobEvent.INTERRUPTED:
                work.run("refund_attempt", {"id": job.id})

    def fail_job(self, job: ClaimedJob, failure: Failure, at: float, report: Profiles | None = None) -> None:
        """Give up: the reason is kept for ``explain``.

        Parameters
        ----------
        report
            Given, a job that tells the destinations of it is queued in the same transaction: once for a run,
            and neither for a report itself nor for what a newer revision took the place of.
        """
        with self._connection.transaction() as work:
            fail(work, job, failure, at, report)

    def reports_before(self, job: ClaimedJob) -> Mapping[str, SentReport]:
        """Key of a profile → the newest report of an earlier revision that was sent."""
        found: dict[str, SentReport] = {}
        for row in map(dict, self._connection.query("reports_of_earlier_revisions", {"id": job.id})):
            for key in json.loads(row.pop("profiles")):
                found.setdefault(key, SentReport(**row))
        return found

    # -- what a person decides ----------------------------------------------------------------

    def release_results(self, job_id: int, person: Person, at: float, profiles: Profiles) -> str:
        """Send held results. Raises RefusedByState; see :mod:`gateway.journal.decide`."""
        with self._connection.transaction() as work:
            return release(work, job_id, person, at, profiles)

    def discard_results(self, job_id: int, person: Person, at: float) -> str:
        """Never send held results. Raises RefusedByState."""
        with self._connection.transaction() as work:
            return discard(work, job_id, person, at)

    def resend_results(self, job_id: int, person: Person, at: float, destination: str = "") -> str:
        """Send once more what was sent or given up. Raises RefusedByState."""
        with self._connection.transaction() as work:
            return resend(work, job_id, person, at, destination)

    # -- deliver ------------------------------------------------------------------------------

    def claim_delivery(
        self, destination: str, at: float, longest_wait_s: float = math.inf
    ) -> ClaimedDelivery | None:
        """Take the oldest due delivery of a destination.

        One that would wait for more than ``longest_wait_s`` is due: the clock was set back. Results
        of a series that has a newer revision meanwhile are kept here and not sent any more.
        """
        with self._connection.transaction() as work:
            return claim_delivery(work, destination, at, longest_wait_s)

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
            work.run("delete_all_holds", {})
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


def _facts(row: Row) -> Json:
    def facts(record: Json) -> Facts:
        return {keyword: tuple(values) for keyword, values in record.items()}

    frames = () if row["frames"] is None else json.loads(row["frames"])
    return {
        "facts": facts(json.loads(row["facts"])),
        "frames": tuple(map(facts, frames)),
        "has_all_facts": row["frames"] is not None,
    }
