"""The journal's side of storage commitment: who asked for what, and what was told."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from sqlite3 import Row
from typing import Any

from gateway.errors import RefusedByState
from gateway.journal.commitment_records import (
    ClaimedCommitment,
    KeptInstance,
    NewCommitment,
    Outcome,
    Reference,
    SeriesKey,
    WaitingCommitment,
)
from gateway.journal.connection import Transaction
from gateway.journal.edges import as_json, failure_columns, take_edge, write_event
from gateway.journal.records import Failure
from gateway.journal.room import Room
from gateway.states import COMMITMENT, CommitmentEvent, CommitmentState

_AT_ONCE = 500  # UIDs of one query: whoever stores meanwhile waits for no more than that


class CommitmentRoom(Room):
    """Requests for storage commitment."""

    def kept_instances(self, uids: Sequence[str]) -> Iterator[KeptInstance]:
        """Every row of some SOP Instance UIDs; one UID may have several, with other bytes."""
        for start in range(0, len(uids), _AT_ONCE):
            some = {"uids": json.dumps(uids[start : start + _AT_ONCE])}
            for row in self._connection.query("instances_with_uids", some):
                flags = {name: bool(row[name]) for name in ("is_quarantined", "is_member")}
                yield KeptInstance(**{**dict(row), **flags})

    def refused_duplicates(self, series: Iterable[SeriesKey], source: str) -> set[str]:
        """SOP Instance UIDs of which ``source`` sent other bytes, which were refused."""
        keys = (_series_values(each) for each in series)
        rows = (self._connection.query("refused_duplicates", {**key, "source": source}) for key in keys)
        return {row["sop_instance_uid"] for row in itertools.chain.from_iterable(rows)}

    def commitment_references(self, commitment_id: int) -> tuple[Reference, ...]:
        """What a request asks for."""
        (row,) = self._connection.query("commitment_to_report", {"id": commitment_id})
        return _references(row)

    def ask_commitment(
        self, request: NewCommitment, outcome: Outcome, first_report_at: float, at: float, most_open: int
    ) -> int:
        """Enter a request; when this returns, it survives a power cut and may be answered. Returns its row.

        The same transaction with the same instances is told once more; while its report waits, asking again
        is only a reason not to wait longer, and adds nothing to the journal. A request that names every
        member of a series that this source is sending, and nothing that is missing here, is evidence that
        the series is complete: written down with it.

        Raises
        ------
        RefusedByState
            TRANSACTION_UID_IN_USE, for other instances; TOO_MANY_OPEN_REQUESTS, when ``most_open`` of this
            source wait for their report.
        """
        # Before the journal is locked: reading and comparing 100,000 references takes a while.
        instances = as_json(request.references)
        seen = self._connection.query("commitment_of_transaction", vars(request))
        if seen:
            _require_same(request, self._connection.query("commitment_to_report", {"id": seen[0]["id"]})[0])
        with self._connection.transaction() as work:
            known = work.one("commitment_of_transaction", vars(request))
            if known is None:
                commitment_id = _enter(work, request, instances, first_report_at, at, most_open)
                is_news = True
            else:
                commitment_id = int(known["id"])
                if not seen:  # asked on two associations in the same moment
                    row = work.one("commitment_to_report", {"id": commitment_id})
                    assert row is not None  # noqa: S101 - it is there in this transaction
                    _require_same(request, row)
                values = {"instances": instances, "first": first_report_at, "at": at}
                is_news = _ask_again(work, known, request.source, values)
            _tell_series(work, commitment_id, request, outcome, at, is_news=is_news)
        return commitment_id

    def waiting_commitments(
        self, at: float, longest_wait_s: float = math.inf, sources: Sequence[str] = ()
    ) -> list[WaitingCommitment]:
        """Reports that are due, and all others of some sources; the oldest first.

        One that would wait for more than ``longest_wait_s`` is due: the clock was set back.
        """
        values = {"at": at, "longest_wait_s": longest_wait_s, "sources": json.dumps(list(sources))}
        return [
            WaitingCommitment(**dict(row)) for row in self._connection.query("waiting_commitments", values)
        ]

    def shorten_commitment(self, until: float) -> bool:
        """Forget which instances a request named that was told or given up until then; False: there is none.

        One at a time, so that nobody waits. Their number and digest stay: asking for the same once more is
        still understood.
        """
        for row in self._connection.query("commitments_in_full", {"until": until}):
            known = _references(row)
            with self._connection.transaction() as work:  # perhaps asked once more meanwhile
                values = {"asked": len(known), "digest": _digest(known)}
                work.run("shorten_commitment", {"id": row["id"], "finished_at": row["finished_at"], **values})
            return True
        return False

    def claim_commitment(self, commitment_id: int, at: float) -> ClaimedCommitment:
        """Take a pending one; raises LostRace if it is not pending any more."""
        with self._connection.transaction() as work:
            work.run("count_report", {"id": commitment_id})
            row = work.one("commitment_to_report", {"id": commitment_id})
            assert row is not None  # noqa: S101 - no row of this table is ever deleted
            edge = (CommitmentState.PENDING, CommitmentEvent.CLAIMED)
            take_edge(work, COMMITMENT, commitment_id, edge, f"Attempt {row['attempts']}.", at)
        names = ("id", "source", "ae_title", "transaction_uid", "attempts", "created_at")
        return ClaimedCommitment(**{name: row[name] for name in names}, references=_references(row))

    def commitment_reported(
        self, claimed: ClaimedCommitment, outcome: Outcome, where: str, at: float
    ) -> None:
        """The peer has acknowledged the report. Raises LostRace if it has asked once more meanwhile."""
        reason = f"{outcome.sentence}; {claimed.source} acknowledged the report {where}."
        record = as_json({"committed": len(outcome.committed), "failed": outcome.failed})
        with self._connection.transaction() as work:
            edge = (CommitmentState.REPORTING, CommitmentEvent.ACKNOWLEDGED)
            take_edge(work, COMMITMENT, claimed.id, edge, reason, at)
            values = {**failure_columns(None), "id": claimed.id, "at": at, "outcome": record}
            work.run("close_commitment", values)
            for series, asked in outcome.members.items():
                of_series = outcome.committed_members.get(series, 0)
                text = f"Storage commitment of {of_series} of {asked} instances reported to {claimed.source}."
                _series_event(work, series, "COMMITMENT_REPORTED", text, at, {"commitment": claimed.id})

    def commitment_postponed(
        self, claimed: ClaimedCommitment, failure: Failure, next_attempt_at: float, at: float
    ) -> None:
        """Not reported this time; due again at ``next_attempt_at``."""
        with self._connection.transaction() as work:
            edge = (CommitmentState.REPORTING, CommitmentEvent.TRY_AGAIN)
            take_edge(work, COMMITMENT, claimed.id, edge, f"{failure.name}: {failure.reason}", at)
            values = {**failure_columns(failure), "id": claimed.id, "next_attempt_at": next_attempt_at}
            work.run("postpone_commitment", values)

    def commitment_dead(
        self, claimed: ClaimedCommitment, outcome: Outcome, failure: Failure, at: float
    ) -> None:
        """Given up: the peer was never told."""
        reason = f"{failure.name}: {failure.reason}"
        with self._connection.transaction() as work:
            edge = (CommitmentState.REPORTING, CommitmentEvent.GAVE_UP)
            take_edge(work, COMMITMENT, claimed.id, edge, reason, at)
            values = {**failure_columns(failure), "id": claimed.id, "at": at, "outcome": None}
            work.run("close_commitment", values)
            text = f"The report of storage commitment was given up: {reason}"
            for series in outcome.members:
                _series_event(work, series, "COMMITMENT_NOT_REPORTED", text, at, {"commitment": claimed.id})


def recover_commitments(work: Transaction, at: float) -> int:
    """After a restart: reports under way are pending again, and all that wait are due; how many wait."""
    edge = (CommitmentState.REPORTING, CommitmentEvent.INTERRUPTED)
    for row in work.run("reporting_commitments", {}).fetchall():
        take_edge(work, COMMITMENT, row["id"], edge, "The gateway was restarted.", at)
    return work.run("hasten_commitments", {"at": at}).rowcount


def _enter(
    work: Transaction,
    request: NewCommitment,
    instances: str,
    first_report_at: float,
    at: float,
    most_open: int,
) -> int:
    waiting = work.one("open_commitments_of", {"source": request.source})
    if waiting is not None and waiting["n"] >= most_open:
        raise RefusedByState(
            "TOO_MANY_OPEN_REQUESTS",
            f"{waiting['n']} requests of {request.source} wait for their report: see why with "
            "`aigw study commitments`.",
        )
    row = {**vars(request), "instances": instances, "first": first_report_at, "at": at}
    commitment_id = work.insert("insert_commitment", row)
    reason = f"{request.source} asks for {len(request.references)} instances ({request.transaction_uid})."
    states = (None, CommitmentState.PENDING)
    write_event(work, "commitment", commitment_id, "asked", reason, at, states=states)
    return commitment_id


def _require_same(request: NewCommitment, known: Row) -> None:
    """The order means nothing, and no request names an instance twice."""
    if known["digest"] is None:
        is_same = set(_references(known)) == set(request.references)
    else:
        is_same = known["digest"] == _digest(request.references)
    if not is_same:
        raise RefusedByState(
            "TRANSACTION_UID_IN_USE",
            f"{request.source} has used transaction {request.transaction_uid} for other instances: every "
            "request needs a Transaction UID of its own.",
        )


def _digest(references: Sequence[Reference]) -> str:
    """The same for the same instances in any order."""
    return hashlib.sha256(as_json(sorted(references)).encode()).hexdigest()


def _ask_again(work: Transaction, known: Row, source: str, values: Mapping[str, Any]) -> bool:
    """Tell it once more; False if its report waits in any case. Then only one that was tried is due anew.

    ``values``: instances, first (time of the next attempt) and at, as in a new row.
    """
    state = CommitmentState(known["state"])
    waits = state is CommitmentState.PENDING
    if not waits:
        reason = f"{source} asks for the same once more."
        take_edge(work, COMMITMENT, known["id"], (state, CommitmentEvent.ASKED_AGAIN), reason, values["at"])
    if not waits or known["attempts"]:
        work.run("reopen_commitment", {**values, "id": known["id"]})
    return not waits


def _tell_series(
    work: Transaction,
    commitment_id: int,
    request: NewCommitment,
    outcome: Outcome,
    at: float,
    *,
    is_news: bool,
) -> None:
    """Write the request down with each series; where it is evidence of completeness, mark the series."""
    for series, asked in outcome.members.items():
        newest = work.one("newest_revision_size", _series_values(series))
        if newest is None:
            continue
        if is_news:
            of_all = f"{asked} of {newest['instance_count']} instances"
            text = f"{request.source} asks for storage commitment of {of_all}."
            details = {"commitment": commitment_id, "transaction_uid": request.transaction_uid}
            write_event(work, "series", int(newest["id"]), "COMMITMENT_ASKED", text, at, details=details)
        if not outcome.failed:
            mark = {"id": newest["id"], "count": asked, "source": request.source, "at": at}
            work.run("mark_series_committed", mark)


def _references(row: Row) -> tuple[Reference, ...]:
    return tuple((sop_class, uid) for sop_class, uid in json.loads(row["instances"]))


def _series_event(
    work: Transaction, series: SeriesKey, name: str, text: str, at: float, details: Mapping[str, Any]
) -> None:
    newest = work.one("newest_revision_size", _series_values(series))
    if newest is not None:
        write_event(work, "series", int(newest["id"]), name, text, at, details=details)


def _series_values(series: SeriesKey) -> dict[str, str]:
    return dict(zip(("study_instance_uid", "series_instance_uid"), series, strict=True))
