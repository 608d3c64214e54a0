from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from gateway.header import InstanceHeader
from gateway.journal import Journal, JournalReader
from gateway.journal.records import NewInstance, Receipt, SeriesDecision

STUDY, SERIES = "1.2.1", "1.2.2"


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.db")


def instance(number: int, digest: str = "", series: str = SERIES) -> NewInstance:
    digest = digest or f"{number:064x}"
    header = InstanceHeader("1.2.3", f"1.2.3.{number}", STUDY, series, {"Modality": ("CT",)})
    return NewInstance(header, "1.2.840.10008.1.2.1", digest, f"objects/{digest}.dcm", 10, "scanner")


def decide(journal: Journal, at: float) -> None:
    (series,) = journal.receiving_series()
    decision = SeriesDecision({"reason": "quiet"}, {}, {}, "NO_ROUTE", "none matched", (), refused=False)
    journal.decide_series(series, decision, at)


def test_a_new_instance_opens_a_series_and_is_its_member(journal: Journal) -> None:
    assert journal.record_instance(instance(1), 5.0) is Receipt.STORED
    assert journal.record_instance(instance(2), 7.0) is Receipt.STORED
    (series,) = journal.receiving_series()
    assert (series.instance_count, series.revision, series.source) == (2, 1, "scanner")
    assert (series.opened_at, series.last_instance_at) == (5.0, 7.0)
    members = journal.members(series.id)
    assert [m.sop_instance_uid for m in members] == ["1.2.3.1", "1.2.3.2"]
    assert members[0].facts == {"Modality": ("CT",)}


def test_the_same_bytes_again_are_counted_once(journal: Journal) -> None:
    journal.record_instance(instance(1), 5.0)
    assert journal.record_instance(instance(1), 6.0) is Receipt.DUPLICATE
    (series,) = journal.receiving_series()
    assert series.instance_count == 1
    assert len(journal.members(series.id)) == 1


def test_the_same_uid_with_other_bytes_is_kept_beside_the_first(journal: Journal, tmp_path: Path) -> None:
    journal.record_instance(instance(1), 5.0)
    assert journal.record_instance(instance(1, "f" * 64), 6.0) is Receipt.CONFLICT
    assert journal.record_instance(instance(1, "f" * 64), 7.0) is Receipt.DUPLICATE
    (series,) = journal.receiving_series()
    assert [m.digest for m in journal.members(series.id)] == [f"{1:064x}"]
    reader = JournalReader(tmp_path / "journal.db")
    details = reader.series_details(reader.series()[0])
    assert [c["digest"] for c in details["conflicts"]] == ["f" * 64]
    assert [e["name"] for e in details["events"]] == ["opened", "DUPLICATE_SOP_INSTANCE"]
    reader.close()
    paths = [each.path for each in journal.paths_with_prefix("objects/")]
    assert paths == [f"objects/{1:064x}.dcm", f"objects/{'f' * 64}.dcm"]


def test_a_late_instance_opens_a_new_revision_that_has_all_members(journal: Journal) -> None:
    journal.record_instance(instance(1), 5.0)
    decide(journal, 6.0)
    assert journal.receiving_series() == []
    assert journal.record_instance(instance(2), 7.0) is Receipt.STORED
    (series,) = journal.receiving_series()
    assert (series.revision, series.instance_count) == (2, 2)
    assert len(journal.members(series.id)) == 2


def test_a_late_duplicate_or_conflict_opens_no_revision(journal: Journal) -> None:
    journal.record_instance(instance(1), 5.0)
    decide(journal, 6.0)
    assert journal.record_instance(instance(1), 7.0) is Receipt.DUPLICATE
    assert journal.record_instance(instance(1, "f" * 64), 8.0) is Receipt.CONFLICT
    assert journal.receiving_series() == []


def test_two_series_of_a_study_are_kept_apart(journal: Journal) -> None:
    journal.record_instance(instance(1), 5.0)
    journal.record_instance(instance(2, series="1.2.9"), 5.0)
    assert {s.series_instance_uid: s.instance_count for s in journal.receiving_series()} == {
        SERIES: 1,
        "1.2.9": 1,
    }


def test_threads_count_every_instance_exactly_once(journal: Journal) -> None:
    def send(first: int) -> None:
        for number in range(first, first + 20):
            journal.record_instance(instance(number), 5.0)

    threads = [threading.Thread(target=send, args=(start,)) for start in (0, 10, 20, 30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (series,) = journal.receiving_series()
    assert series.instance_count == len(journal.members(series.id)) == 50


def test_an_instance_that_cannot_be_entered_leaves_no_trace(journal: Journal) -> None:
    journal.record_instance(instance(1), 5.0)
    broken = NewInstance(instance(2).header, "1.2", "a" * 64, "p", None, "scanner")  # type: ignore[arg-type]
    with pytest.raises(sqlite3.IntegrityError):
        journal.record_instance(broken, 6.0)
    (series,) = journal.receiving_series()
    assert (series.instance_count, series.last_instance_at) == (1, 5.0)
    assert journal.record_instance(instance(2), 7.0) is Receipt.STORED


def test_what_was_refused_is_kept_newest_first(journal: Journal, tmp_path: Path) -> None:
    journal.record("association", "CALLED_AE_TITLE_NOT_RECOGNISED", "why", 1.0)
    journal.record("instance", "UID_INVALID", "why not", 2.0, {"source": "scanner"})
    reader = JournalReader(tmp_path / "journal.db")
    newest, oldest = reader.refusals()
    reader.close()
    assert (newest["name"], newest["details"], oldest["subject"]) == (
        "UID_INVALID",
        {"source": "scanner"},
        "association",
    )
