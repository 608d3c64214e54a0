"""Instances of several associations share a commit, and one that fails fails alone."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.header import InstanceHeader
from gateway.journal import Journal
from gateway.journal.connection import Transaction, WriteConnection
from gateway.journal.records import NewInstance, Receipt

THREADS = 12


def instance(number: int, series: int = 1) -> NewInstance:
    header = InstanceHeader(
        "1.2.3", f"1.2.{series}.{number}", "1.2.1", f"1.2.{series}", {"Modality": ("CT",)}
    )
    digest = f"{series:032x}{number:032x}"
    return NewInstance(header, "1.2.840.10008.1.2.1", digest, f"objects/00/{digest}.dcm", 10, "ct1")


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "journal.db")
    yield journal
    journal.close()


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When each transaction began; all but the last of them take long, so that callers queue up."""
    begun: list[float] = []
    plain = WriteConnection.transaction

    @contextmanager
    def slow(self: WriteConnection) -> Iterator[Transaction]:
        with plain(self) as work:
            begun.append(time.monotonic())
            yield work
            time.sleep(0.05)

    monkeypatch.setattr(WriteConnection, "transaction", slow)
    return begun


def enter_at_once(journal: Journal, instances: list[NewInstance]) -> list[Any]:
    """A thread for each instance; its receipt or its exception."""
    outcomes: list[Any] = [None] * len(instances)

    def work(place: int) -> None:
        try:
            outcomes[place] = journal.record_instance(instances[place], float(place))
        except Exception as error:  # noqa: BLE001 - it is what is looked at
            outcomes[place] = error

    threads = [threading.Thread(target=work, args=(place,)) for place in range(len(instances))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30.0)
        assert not thread.is_alive()
    return outcomes


def test_callers_that_wait_share_one_commit(journal: Journal, commits: list[float]) -> None:
    outcomes = enter_at_once(journal, [instance(number) for number in range(THREADS)])
    assert outcomes == [Receipt.STORED] * THREADS
    assert 2 <= len(commits) <= 4
    (series,) = journal.receiving_series()
    assert (series.instance_count, len(journal.members(series.id))) == (THREADS, THREADS)


def test_a_caller_that_is_alone_waits_for_nobody(journal: Journal, commits: list[float]) -> None:
    for number in range(3):
        assert journal.record_instance(instance(number), 1.0) is Receipt.STORED
    assert len(commits) == 3


@pytest.mark.usefixtures("commits")
def test_an_instance_that_cannot_be_entered_fails_alone(journal: Journal) -> None:
    instances = [instance(number) for number in range(THREADS)]
    instances[5] = replace(instances[5], transfer_syntax_uid=None)  # type: ignore[arg-type]
    outcomes = enter_at_once(journal, instances)
    assert isinstance(outcomes.pop(5), sqlite3.IntegrityError)
    assert outcomes == [Receipt.STORED] * (THREADS - 1)
    (series,) = journal.receiving_series()
    assert series.instance_count == THREADS - 1


@pytest.mark.usefixtures("commits")
def test_the_same_instance_from_all_sides_is_stored_once(journal: Journal) -> None:
    outcomes = enter_at_once(journal, [instance(1)] * THREADS)
    assert sorted(outcomes) == [Receipt.DUPLICATE] * (THREADS - 1) + [Receipt.STORED]
    assert journal.receiving_series()[0].instance_count == 1


def test_a_journal_that_cannot_be_written_is_told_to_every_caller_and_recovers(
    journal: Journal, tmp_path: Path
) -> None:
    other = sqlite3.connect(tmp_path / "journal.db", isolation_level=None)
    journal._connection._connection.execute("PRAGMA busy_timeout = 10")
    other.execute("BEGIN IMMEDIATE")
    instances = [instance(number) for number in range(THREADS)]
    outcomes = enter_at_once(journal, instances)
    assert [str(outcome) for outcome in outcomes] == ["database is locked"] * THREADS
    other.execute("ROLLBACK")
    other.close()
    assert (
        enter_at_once(journal, [instance(number) for number in range(THREADS)]) == [Receipt.STORED] * THREADS
    )


def test_an_event_of_a_refusal_is_kept_until_a_hundred_thousand_newer_ones_are_there(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.journal.journal._KEPT_REFUSALS", 20)
    monkeypatch.setattr("gateway.journal.journal._LOOK_EVERY", 10)
    journal.record("instance", "TOO_LARGE", "It is.", 0.5)
    for number in range(100):
        journal.record("association", "UNKNOWN_CALLER", f"Caller {number}.", float(number))
    rows = journal._connection.query("refusals", {"limit": 1000, "subjects": '["association"]'})
    assert 20 <= len(rows) <= 30
    assert rows[0]["reason"] == "Caller 99."
    others = journal._connection.query("refusals", {"limit": 1000, "subjects": '["instance"]'})
    assert len(others) == 1
