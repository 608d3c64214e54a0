"""How SQLite goes about the statements of the journal: what runs often reads no table that grows."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from gateway.journal import Journal
from gateway.journal.statements import load_statements

GROWING = ("series", "instance", "job", "result", "delivery", "commitment", "event")
RARE = {
    "list_series": "a person asks",
    "list_commitments": "a person asks; the newest only",
    "waiting_for_a_person": "a person asks",
    "received_by_source": "a person asks for the status",
    "known_result_paths": "at the start",
}
LISTS = ("uids", "sources", "subjects", "except_cards")
STATEMENTS = load_statements()


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    """To an empty journal: without ANALYZE, the plans are those of a full one."""
    path = tmp_path_factory.mktemp("plans") / "journal.db"
    Journal(path).close()
    with closing(sqlite3.connect(path)) as connection:
        yield connection


def plan(connection: sqlite3.Connection, name: str) -> list[str]:
    statement = STATEMENTS[name]
    values = {key: "[]" if key in LISTS else 1 for key in re.findall(r":(\w+)", statement)}
    return [str(row[3]) for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)]


def reads_all(step: str) -> bool:
    """Whether a step goes through a table, or through the events of all rows of one subject.

    An index that holds all that is asked for is fine: it is a hundredth of its table.
    """
    scan = re.match(r"SCAN (\w+)", step)
    if scan and scan[1] in GROWING:
        return not re.search(r"USING (COVERING )?INDEX (\w+_by_state|instance_damaged)$", step)
    return "event_by_subject (subject=?)" in step


@pytest.mark.parametrize("name", sorted(STATEMENTS))
def test_only_what_runs_rarely_reads_a_whole_table(connection: sqlite3.Connection, name: str) -> None:
    steps = plan(connection, name)
    whole = [step for step in steps if reads_all(step)]
    assert bool(whole) == (name in RARE), steps


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("waiting_commitments", "commitment_by_state (state=?)"),
        ("open_commitments_of", "commitment_by_state (state=?)"),
        ("reporting_commitments", "COVERING INDEX commitment_by_state (state=?)"),
        ("hasten_commitments", "commitment_by_state (state=?)"),
        ("commitment_counts", "COVERING INDEX commitment_by_state"),
        ("commitments_in_full", "commitment_in_full (finished_at<?)"),
        ("refused_duplicates", "event_by_subject (subject=? AND subject_id=?)"),
        ("mark_series_committed", "instance_by_series (study_instance_uid=? AND series_instance_uid=?)"),
    ],
)
def test_a_look_at_storage_commitment_does_not_cost_more_with_every_request(
    connection: sqlite3.Connection, name: str, index: str
) -> None:
    """Each row has its instances in it, so that even looking at a row is expensive."""
    assert any(index in step for step in plan(connection, name)), plan(connection, name)
