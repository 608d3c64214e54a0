"""The journal's side of jobs: the queue, leases, results, and what a person decides about them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.errors import LostRace
from gateway.journal.claim import Lease, claim, superseded
from gateway.journal.decide import Person, discard, release, resend
from gateway.journal.edges import failure_columns, take_edge
from gateway.journal.finish import fail, finish, under_lease
from gateway.journal.holds import replace_holds
from gateway.journal.profiles import Profiles
from gateway.journal.records import ClaimedJob, Failure, NewResult, SentReport, Wanted
from gateway.journal.room import Room
from gateway.states import JOB, JobEvent, JobState


class JobRoom(Room):
    """Jobs and their results."""

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
