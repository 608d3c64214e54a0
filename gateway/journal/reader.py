"""The read side of the journal, for the command line: what arrived, what was decided, what was sent."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from gateway.journal.commitment_records import outcome_sentence
from gateway.journal.connection import ReadConnection
from gateway.journal.records import Json

_JSON_COLUMNS = ("evidence", "verdict", "decision", "destinations", "profiles", "run", "facts", "details")


def _plain(row: sqlite3.Row) -> Json:
    record = dict(row)
    for column in _JSON_COLUMNS:
        if record.get(column) is not None:
            record[column] = json.loads(record[column])
    return record


class JournalReader:
    """Reads the records; cannot write. Works beside a running gateway."""

    def __init__(self, path: Path) -> None:
        self._connection = ReadConnection(path)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def series(self) -> list[Json]:
        """All series revisions with evidence, verdict and decision, and the facts of the first instance."""
        records = [_plain(row) for row in self._connection.query("list_series")]
        for record in records:
            facts = self._connection.query("first_facts_of_series", _uids(record))
            record["facts"] = json.loads(facts[0]["facts"]) if facts else {}
        return records

    def series_details(self, record: Json) -> Json:
        """One series revision with its conflicts, copies, jobs, results, deliveries and events."""
        jobs = [_plain(row) for row in self._connection.query("jobs_of_series", {"series_id": record["id"]})]
        for job in jobs:
            job["events"] = self._events("job", job["id"])
            job["results"] = [
                _plain(r) for r in self._connection.query("results_of_job", {"job_id": job["id"]})
            ]
            for result in job["results"]:
                rows = self._connection.query("deliveries_of_result", {"result_id": result["id"]})
                result["deliveries"] = [
                    {**_plain(r), "events": self._events("delivery", r["id"])} for r in rows
                ]
        return {
            **record,
            **self._instances(record),
            "jobs": jobs,
            "events": self._events("series", record["id"]),
        }

    def _instances(self, record: Json) -> Json:
        """What is to be said of single instances: other bytes under their UIDs, copies, damaged files."""
        uids = _uids(record)
        revision = {**uids, "revision": record["revision"]}
        conflicts = [_plain(row) for row in self._connection.query("conflicts_of_revision", revision)]
        damaged = [_plain(row) for row in self._connection.query("damaged_in_series", uids)]
        for each in damaged:
            each["reason"] = self._events("instance", each.pop("id"))[-1]["reason"]
        copies = _plain(self._connection.query("copies_of_series", uids)[0])
        return {"conflicts": conflicts, "copies": copies, "damaged": damaged}

    def refusals(
        self, limit: int = 50, subjects: Sequence[str] = ("association", "instance", "commitment")
    ) -> list[Json]:
        """The newest refused associations, instances and requests for storage commitment, newest first."""
        values = {"limit": limit, "subjects": json.dumps(list(subjects))}
        return [_plain(row) for row in self._connection.query("refusals", values)]

    def commitments(self, limit: int = 50) -> list[Json]:
        """The newest requests for storage commitment, newest first, with what was reported."""
        records = [_plain(row) for row in self._connection.query("list_commitments", {"limit": limit})]
        for record in records:
            outcome = json.loads(record.pop("outcome") or "null")
            record["committed"] = outcome["committed"] if outcome else None
            record["failed"] = outcome["failed"] if outcome else []
            record["told"] = outcome_sentence(outcome["committed"], outcome["failed"]) if outcome else ""
        return records

    def has_job(self, job_id: int) -> bool:
        """Whether there is a job with this number."""
        return job_id < 2**63 and bool(self._connection.query("job_by_id", {"id": job_id}))

    def waiting_for_a_person(self) -> list[Json]:
        """Jobs of newest revisions whose results are held, or have deliveries that were given up."""
        return [_plain(row) for row in self._connection.query("waiting_for_a_person")]

    def _events(self, subject: str, subject_id: int) -> list[Json]:
        rows = self._connection.query("events_of", {"subject": subject, "subject_id": subject_id})
        return [_plain(row) for row in rows]


def _uids(record: Json) -> Json:
    return {key: record[key] for key in ("study_instance_uid", "series_instance_uid")}
