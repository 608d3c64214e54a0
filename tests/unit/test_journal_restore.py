"""A job that failed for a damaged instance runs when all its instances are whole again."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from gateway.header import InstanceHeader
from gateway.journal import Journal
from gateway.journal.records import Failure, NewInstance, NewJob, Receipt, SeriesDecision
from gateway.journal.restore import INSTANCE_DAMAGED, INSTANCE_FILE_MISSING

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"


def instance(number: int) -> NewInstance:
    digest = f"{number:064x}"
    header = InstanceHeader(CT, f"1.2.{number}", "1.3", "1.4", {})
    return NewInstance(header, EXPLICIT, digest, f"objects/00/{digest}.dcm", 10, "scanner")


def decide(journal: Journal, at: float, digest: str = "input") -> int:
    [received] = journal.receiving_series()
    job = NewJob("model", "card", ("pacs",), "test", "", digest, "normal")
    decision = SeriesDecision({"reason": "quiet"}, {}, {}, "ROUTE_MATCHED", "test", (job,), refused=False)
    (job_id,) = journal.decide_series(received, decision, at)
    return job_id


class Site:
    """A journal with one series of two instances, whose job is queued."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "journal.db"
        self.journal = Journal(self.path)
        for number in (1, 2):
            self.journal.record_instance(instance(number), 1.0)
        self.job = decide(self.journal, 2.0)

    def fail(self, name: str) -> None:
        job = self.journal.claim_job("lease", 1e9, 3.0)
        assert job is not None
        self.journal.fail_job(job, Failure(name, "For a test."), 4.0)

    def states(self) -> list[tuple[str, int]]:
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute("SELECT state, attempts FROM job ORDER BY id").fetchall()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.journal.close()


@pytest.mark.parametrize("name", [INSTANCE_DAMAGED, INSTANCE_FILE_MISSING])
def test_the_job_runs_when_the_last_damaged_instance_has_come_again(site: Site, name: str) -> None:
    for number in (1, 2):
        assert site.journal.quarantine(instance(number).path, "Damaged.", 2.5)
    site.fail(name)
    assert site.journal.record_instance(instance(1), 5.0) is Receipt.DUPLICATE
    assert site.states() == [("failed", 1)]
    assert site.journal.record_instance(instance(2), 6.0) is Receipt.DUPLICATE
    assert site.states() == [("queued", 0)]
    again = site.journal.claim_job("lease", 1e9, 7.0)
    assert again is not None
    assert [member.is_damaged for member in site.journal.members(again.series_id)] == [False, False]


def test_a_file_that_is_put_back_does_the_same(site: Site) -> None:
    assert site.journal.quarantine(instance(1).path, "Gone.", 2.5)
    site.fail(INSTANCE_FILE_MISSING)
    assert site.journal.heal(instance(1).path, "Back.", 5.0)
    assert site.states() == [("queued", 0)]


def test_a_job_that_failed_for_another_reason_stays_failed(site: Site) -> None:
    assert site.journal.quarantine(instance(1).path, "Damaged.", 2.5)
    site.fail("MODEL_CRASHED")
    site.journal.record_instance(instance(1), 5.0)
    assert site.states() == [("failed", 1)]


def test_a_job_of_an_earlier_revision_stays_failed(site: Site) -> None:
    assert site.journal.quarantine(instance(1).path, "Damaged.", 2.5)
    site.fail(INSTANCE_DAMAGED)
    site.journal.record_instance(instance(3), 5.0)  # opens revision 2
    site.journal.record_instance(instance(1), 6.0)
    assert site.states() == [("failed", 1)]
    decide(site.journal, 7.0, "other input")
    assert site.states() == [("failed", 1), ("queued", 0)]
