"""A journal of an older schema is brought to the schema of today, and keeps everything that it knows."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import pytest

from ai.profile import DEFAULT_PROFILE
from gateway.header import InstanceHeader
from gateway.journal import Journal, JournalReader, migrate
from gateway.journal.decide import Person
from gateway.journal.profiles import Profiles
from gateway.journal.records import Duplicates, NewInstance, NewJob, NewResult, Receipt, SeriesDecision
from gateway.journal.statements import read_sql

SCHEMA_1 = (Path(__file__).parents[1] / "data" / "journal_schema_1.sql").read_text(encoding="utf-8")
STUDY, SERIES = "1.2.1", "1.2.2"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal of schema 1: a series with a finished job whose result is being sent, and a queued job."""
    path = tmp_path / "journal.db"
    with sqlite3.connect(path) as old:
        old.executescript(f"PRAGMA journal_mode = WAL; {SCHEMA_1} PRAGMA user_version = 1;")
        old.execute(
            "INSERT INTO series VALUES (1, ?, ?, 1, 'routed', 'scanner', 1, 1.0, 1.0, 2.0, '{}', '{}', '{}')",
            (STUDY, SERIES),
        )
        old.execute(
            "INSERT INTO instance VALUES (1, '1.2.3.1', 'd1', '1.2.3', '1.2.840.10008.1.2.1', ?, ?, 1, "
            "'member', 'objects/d1.dcm', 10, '{\"Modality\":[\"CT\"]}', 'scanner', 1.0, 2)",
            (STUDY, SERIES),
        )
        run = json.dumps({"source": {"input_digest": "a"}})
        row = (
            "INSERT INTO job (id, series_id, model, card, destinations, state, attempts, not_before, "
            "created_at, run) VALUES (?, 1, ?, 'card', '[\"pacs\"]', ?, 1, 2.0, 2.0, ?)"
        )
        old.execute(row, (4, "tissue", "done", run))
        old.execute(row, (7, "other", "queued", None))
        old.execute(
            "INSERT INTO result VALUES (5, 4, 'seg', '1.2', '2.25.1', '2.25.2', '1.2', 'p', 'd', 1, 3.0)"
        )
        old.execute(
            "INSERT INTO delivery (id, result_id, destination, state, next_attempt_at, created_at) "
            "VALUES (6, 5, 'pacs', 'pending', 3.0, 3.0)"
        )
        old.execute("INSERT INTO event VALUES (1, 3.0, 'job', 4, 'succeeded', 'running', 'done', 'x', '{}')")
    old.close()
    return path


def schema(path: Path) -> set[tuple[str, ...]]:
    """Every column of every table as SQLite knows it, and every index."""
    with sqlite3.connect(path) as connection:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        columns = {
            (table, str(c[1]), str(c[2]), str(c[3]), str(c[4]))
            for table in tables
            for c in connection.execute(f"PRAGMA table_info({table})")
        }
        query = "SELECT name, tbl_name, coalesce(sql, '') FROM sqlite_schema WHERE type = 'index'"
        indexes = {
            (str(name), str(table), " ".join(sql.split())) for name, table, sql in connection.execute(query)
        }
    connection.close()
    return columns | indexes


def test_a_migrated_journal_has_the_schema_of_a_new_one(path: Path, tmp_path: Path) -> None:
    Journal(path).close()
    Journal(tmp_path / "new.db").close()
    assert schema(path) == schema(tmp_path / "new.db")
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (migrate.SCHEMA_VERSION,)
    assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_a_migrated_journal_goes_on_where_it_stood(path: Path) -> None:
    journal = Journal(path)
    try:
        (member,) = journal.members(1)
        assert (member.facts, member.frames) == ({"Modality": ("CT",)}, ())
        job = journal.claim_job("lease", 99.0, 50.0)
        assert job is not None
        assert (job.id, job.model, job.part, job.attempts) == (7, "other", "", 2)
        delivery = journal.claim_delivery("pacs", 51.0)
        assert delivery is not None
        assert (delivery.id, delivery.kind) == (6, "seg")
    finally:
        journal.close()


def test_a_finished_job_of_schema_1_is_adopted_when_its_instances_are_the_same(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(
            "INSERT INTO series (study_instance_uid, series_instance_uid, revision, state, source, "
            "instance_count, opened_at, last_instance_at) "
            "VALUES (?, ?, 2, 'receiving', 'scanner', 2, 60.0, 60.0)",
            (STUDY, SERIES),
        )
    connection.close()
    journal = Journal(path)
    try:
        (series,) = journal.receiving_series()
        jobs = (
            NewJob("tissue", "card", ("pacs",), "r", "K", "a"),
            NewJob("other", "card", (), "r", "K", "a"),
        )
        decision = SeriesDecision({}, {}, {}, "ROUTE_MATCHED", "r", jobs, refused=False)
        adopted, new = journal.decide_series(series, decision, 61.0)
        assert adopted == 4
        assert new not in (4, 7), "the queued job does not say what it was about"
    finally:
        journal.close()


def test_a_migration_that_breaks_off_leaves_the_old_journal(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = schema(path)
    broken = f"{read_sql('migrate_2.sql')} DROP TABLE nowhere;"
    with monkeypatch.context() as patched:
        patched.setattr(migrate, "read_sql", lambda _name: broken)
        with pytest.raises(sqlite3.OperationalError, match="nowhere"):
            Journal(path)
    assert schema(path) == before
    Journal(path).close()
    assert schema(path) != before


def test_jobs_of_before_priorities_are_normal_and_wait_for_no_model(path: Path) -> None:
    journal = Journal(path)
    try:
        assert journal.holds() == {}
        job = journal.claim_job("lease", 99.0, 50.0)
        assert job is not None
        assert job.priority == "normal"
    finally:
        journal.close()


@pytest.mark.parametrize("version", range(1, migrate.SCHEMA_VERSION))
def test_every_older_schema_becomes_that_of_today(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(migrate, "SCHEMA_VERSION", version)
        connection = sqlite3.connect(path, isolation_level=None)
        migrate.migrate(connection)
        assert connection.execute("PRAGMA user_version").fetchone() == (version,)
        connection.close()
    Journal(path).close()
    Journal(tmp_path / "new.db").close()
    assert schema(path) == schema(tmp_path / "new.db")


def test_members_of_before_belong_to_every_later_revision_and_can_be_replaced(path: Path) -> None:
    journal = Journal(path)
    try:
        header = InstanceHeader("1.2.3", "1.2.3.1", STUDY, SERIES, {})
        other = NewInstance(header, "1.2.840.10008.1.2.1", "d2", "objects/d2.dcm", 10, "scanner")
        assert journal.record_instance(other, 60.0, Duplicates.NEW_REVISION) is Receipt.REPLACED
        (series,) = journal.receiving_series()
        assert [m.digest for m in journal.members(1)] == ["d1"]
        assert (series.revision, [m.digest for m in journal.members(series.id)]) == (2, ["d2"])
        assert journal.counts()["instance"]["stored"] == 2
        assert [each.path for each in journal.paths_with_prefix("objects/d")] == [
            "objects/d1.dcm",
            "objects/d2.dcm",
        ]
    finally:
        journal.close()


def test_results_of_before_profiles_have_the_default_one_and_the_number_1(path: Path) -> None:
    Journal(path).close()
    reader = JournalReader(path)
    (story,) = [reader.series_details(record) for record in reader.series()]
    reader.close()
    done, queued = story["jobs"]
    assert [(r["number"], r["profiles"]) for r in done["results"]] == [(1, [""])]
    assert done["profiles"] == {"": asdict(DEFAULT_PROFILE)}
    assert queued["profiles"] == {}
    assert {(job["purpose"], job["series_number_base"], job["released_at"]) for job in story["jobs"]} == {
        ("run", None, None)
    }


def test_results_that_were_held_before_are_held_and_can_be_released(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM delivery")
        connection.execute("UPDATE job SET failure_name = 'QUALITY_HOLD', failure_reason = 'x' WHERE id = 4")
    connection.close()
    journal = Journal(path)
    try:
        text = journal.release_results(4, Person("a.huber", "seen"), 60.0, Profiles())
        assert text == "Results on their way to pacs: 1."
        assert journal.waiting_deliveries() == {"pacs": 1}
    finally:
        journal.close()


def test_a_job_of_before_series_numbers_keeps_the_configured_ones(path: Path) -> None:
    journal = Journal(path)
    try:
        job = journal.claim_job("lease", 99.0, 50.0, series_number_base=5000)
        assert job is not None
        assert job.series_number_base == 5000, "of the same series and card as the one that wrote results"
    finally:
        journal.close()


def test_several_segmentations_of_a_job_fit_into_a_migrated_journal(path: Path) -> None:
    journal = Journal(path)
    try:
        job = journal.claim_job("lease", 99.0, 50.0)
        assert job is not None
        results = [
            NewResult("seg", "1.2", f"2.25.{n}", "2.25.9", "1.2", f"p{n}", "d", 1, n) for n in (11, 12)
        ]
        journal.finish_job(job, results, {}, 60.0)
        assert journal.waiting_deliveries() == {"pacs": 3}
    finally:
        journal.close()


JOBS_3 = {  # state, destinations, failure name
    11: ("queued", ["pacs"], None),
    12: ("queued", ["pacs"], "WORKER_DIED"),  # tried once, and waits for the next attempt
    13: ("running", ["pacs"], None),
    14: ("done", ["pacs"], None),
    15: ("done", [], None),  # shadow mode
    16: ("done", ["pacs"], "QUALITY_HOLD"),
    17: ("failed", ["pacs"], "PIXEL_DATA_TOO_SHORT"),
    18: ("failed", ["pacs"], "SUPERSEDED"),
}
DELIVERIES_3 = {"seg": "sent", "sr": "sending", "overview": "pending"}


@pytest.fixture
def in_all_states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A journal of schema 3: a job in each state, each in its own series, with results and deliveries."""
    path = tmp_path / "all-states.db"
    with monkeypatch.context() as patched:
        patched.setattr(migrate, "SCHEMA_VERSION", 3)
        old = sqlite3.connect(path, isolation_level=None)
        old.executescript(f"PRAGMA journal_mode = WAL; {SCHEMA_1} PRAGMA user_version = 1;")
        migrate.migrate(old)
    for number, (state, destinations, failure) in JOBS_3.items():
        old.execute(
            "INSERT INTO series VALUES (?, ?, ?, 1, 'routed', 'scanner', 1, 1.0, 1.0, 2.0, '{}', '{}', '{}')",
            (number, STUDY, f"{SERIES}.{number}"),
        )
        ended = state in ("done", "failed")
        run = json.dumps({"model": {"id": "tissue"}}) if state == "done" else None
        old.execute(
            "INSERT INTO job (id, series_id, part, input_digest, model, card, destinations, state, attempts, "
            "interruptions, lease_id, lease_expires_at, not_before, created_at, finished_at, failure_name, "
            "failure_reason, run, priority) VALUES (?, ?, '', ?, 'tissue', 'card', ?, ?, 1, 2, ?, ?, 2.0, "
            "2.5, ?, ?, ?, ?, 'urgent')",
            (number, number, f"images {number}", json.dumps(destinations), state)
            + (("lease", 9.0) if state == "running" else (None, None))
            + (3.0 if ended else None, failure, failure and "Why.", run),
        )
        for kind, sent in DELIVERIES_3.items() if state == "done" else ():
            uid = f"2.25.{number}{list(DELIVERIES_3).index(kind)}"
            row = (number, kind, uid, f"{uid}.9", f"{uid}.dcm")
            result_id = old.execute(
                "INSERT INTO result (job_id, kind, sop_class_uid, sop_instance_uid, series_instance_uid, "
                "transfer_syntax_uid, path, digest, size_bytes, created_at) "
                "VALUES (?, ?, '1.2', ?, ?, '1.2.840.10008.1.2.1', ?, 'd', 7, 3.0)",
                row,
            ).lastrowid
            if failure is None and destinations:
                old.execute(
                    "INSERT INTO delivery (result_id, destination, state, attempts, next_attempt_at, "
                    "created_at) VALUES (?, 'pacs', ?, 1, 3.0, 3.0), (?, 'archive', 'dead', 5, 3.0, 3.0)",
                    (result_id, sent, result_id),
                )
    old.execute("INSERT INTO hold VALUES ('card', 'MODEL_FILE_CHANGED', 'Why.', 2.0)")
    old.close()
    return path


def rows(path: Path, table: str) -> list[dict[str, object]]:
    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row
    found = [dict(row) for row in connection.execute(f"SELECT * FROM {table} ORDER BY id")]  # noqa: S608 - ours
    connection.close()
    return found


def test_every_row_of_schema_3_keeps_what_it_says_in_every_state(in_all_states: Path) -> None:
    before = {table: rows(in_all_states, table) for table in ("series", "job", "result", "delivery", "event")}
    Journal(in_all_states).close()
    for table, old in before.items():
        new = rows(in_all_states, table)
        assert [{name: row[name] for name in old[0]} for row in new] == old if old else new == []
    default = {"": asdict(DEFAULT_PROFILE)}
    for job in rows(in_all_states, "job"):
        state, _, failure = JOBS_3[int(str(job["id"]))]
        assert json.loads(str(job["profiles"])) == (default if state == "done" else {})
        assert (job["held"], job["purpose"]) == (int(failure == "QUALITY_HOLD"), "run")


def test_after_the_migration_every_state_of_schema_3_goes_on(in_all_states: Path) -> None:
    journal = Journal(in_all_states)
    try:
        assert journal.recover(50.0) == (1, 1), "what was running, and what was being sent"
        sent = []
        while (delivery := journal.claim_delivery("pacs", 51.0)) is not None:
            sent.append(delivery.kind)
            journal.delivery_sent(delivery, "0000", 52.0)
        assert sent == ["sr", "overview"], "the SEG is not sent again, what is held and was shadowed neither"
        journal.release_results(16, Person("a.huber", "seen"), 53.0, Profiles())
        assert journal.waiting_deliveries() == {"pacs": 3}
        journal.resend_results(14, Person("a.huber", ""), 54.0, "archive")
        assert journal.waiting_deliveries() == {"pacs": 3, "archive": 3}
        claimed: list[tuple[int, frozenset[str], int]] = []
        while (job := journal.claim_job(f"lease {len(claimed)}", 99.0, 55.0)) is not None:
            claimed.append((job.id, job.written, job.series_number_base))
        # Older versions gave every job the same numbers, 9000; new ones have others.
        assert claimed == [(11, frozenset(), 9010), (12, frozenset(), 9020), (13, frozenset(), 9030)]
    finally:
        journal.close()


def test_requests_for_commitment_of_schema_5_are_told_and_shortened(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(migrate, "SCHEMA_VERSION", 5)
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            migrate.migrate(connection)
            row = (
                "INSERT INTO commitment (source, ae_title, transaction_uid, instances, state, "
                "next_attempt_at, created_at, finished_at) "
                "VALUES ('scanner', 'S', ?, '[[\"1.2\",\"1.3\"]]', ?, 50.0, 50.0, ?)"
            )
            connection.execute(row, ("1.9.1", "reported", 51.0))
            connection.execute(row, ("1.9.2", "pending", None))
    with closing(Journal(path)) as journal:
        (waiting,) = journal.waiting_commitments(60.0)
        assert journal.claim_commitment(waiting.id, 60.0).references == (("1.2", "1.3"),)
        assert journal.shorten_commitment(60.0)
        assert not journal.shorten_commitment(60.0)
        assert journal.counts()["commitment"] == {"reported": 1, "reporting": 1}
    with closing(JournalReader(path)) as reader:
        assert [each["asked"] for each in reader.commitments()] == [1, 1]


KILLED = """
import os, signal, sqlite3, sys
from gateway.journal.migrate import migrate
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
calls = iter(range(int(sys.argv[2])))
def look():
    if next(calls, None) is None:
        os.kill(os.getpid(), signal.SIGKILL)
connection.set_progress_handler(look, 1)
migrate(connection)
"""


def steps(path: Path) -> int:
    """How often SQLite looks up while it migrates a journal."""
    calls = 0

    def look() -> int:
        nonlocal calls
        calls += 1
        return 0

    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.set_progress_handler(look, 1)
        migrate.migrate(connection)
    return calls


@pytest.mark.crash
def test_killed_in_the_middle_of_a_migration_the_journal_is_at_one_step_and_goes_on(
    path: Path, tmp_path: Path
) -> None:
    """Wherever it is killed, in any of the steps, the next start finishes what this one began."""
    before = path.read_bytes()
    (tmp_path / "counted.db").write_bytes(before)
    count = steps(tmp_path / "counted.db")
    versions = set()
    for part in range(1, 8):
        copy = tmp_path / f"{part}.db"
        copy.write_bytes(before)
        command = [sys.executable, "-c", KILLED, str(copy), str(count * part // 8)]
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
        with closing(sqlite3.connect(copy)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            versions.add(connection.execute("PRAGMA user_version").fetchone()[0])
        Journal(copy).close()
        with closing(sqlite3.connect(copy)) as connection:
            assert connection.execute("PRAGMA user_version").fetchone()[0] == migrate.SCHEMA_VERSION
            assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
            for table in ("series", "instance", "result", "delivery"):
                assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (1,)  # noqa: S608
    assert len(versions) > 2
