"""The journal: every transition once, with a reason, and nothing moves twice."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import GatewayError, LostRace
from gateway.header import InstanceHeader
from gateway.journal import Journal, JournalReader
from gateway.journal.connection import WriteConnection
from gateway.journal.records import (
    QUALITY_HOLD,
    ClaimedJob,
    Failure,
    NewInstance,
    NewJob,
    NewResult,
    Receipt,
    SeriesDecision,
    Wanted,
)
from gateway.journal.statements import read_sql
from gateway.states import COMMITMENT, DELIVERY, JOB, SERIES, JobEvent


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    journal = Journal(path)
    yield journal
    journal.close()


def instance(number: int, digest: str = "", series: str = "1.2.3") -> NewInstance:
    header = InstanceHeader(
        "1.2.840.10008.5.1.4.1.1.2", f"{series}.{number}", "1.2", series, {"Modality": ("CT",)}
    )
    name = digest or f"digest-{series}-{number}"
    return NewInstance(header, "1.2.840.10008.1.2.1", name, f"objects/{name}.dcm", 100, "scanner")


def decided(
    journal: Journal, *parts: tuple[str, str], destinations: tuple[str, ...] = ("pacs",), at: float = 20.0
) -> tuple[int, ...]:
    """Decide the receiving series: one job for each part, given as its key and input digest."""
    (series,) = journal.receiving_series()
    jobs = tuple(
        NewJob("tissue", "ct-tissue", destinations, "it matched", key, digest)
        for key, digest in parts or (("", f"digest of revision {series.revision}"),)
    )
    decision = SeriesDecision(
        {"reason": "quiet"}, {"code": "ACCEPTED"}, {}, "ROUTED", "it matched", jobs, False
    )
    return journal.decide_series(series, decision, at)


def stories(path: Path) -> list[dict[str, Any]]:
    reader = JournalReader(path)
    try:
        return [reader.series_details(record) for record in reader.series()]
    finally:
        reader.close()


def claimed(journal: Journal, at: float = 30.0) -> ClaimedJob:
    job = journal.claim_job("lease-1", at + 10, at)
    assert job is not None
    return job


def result(kind: str, job: int = 0) -> NewResult:
    uid = f"2.25.{job}{ord(kind[1])}"
    return NewResult(kind, "1.2.3", uid, f"2.25.{job}", "1.2.840.10008.1.2.1", f"{kind}.dcm", "d", 1)


def test_the_schema_allows_exactly_the_states_of_the_tables() -> None:
    checks = re.findall(r"state\s+TEXT NOT NULL CHECK \(state IN \(([^)]*)\)\)", read_sql("schema.sql"))
    found = [set(re.findall(r"'(\w+)'", text)) for text in checks]
    expected = [{str(s) for s in type(machine.initial)} for machine in (SERIES, JOB, DELIVERY, COMMITMENT)]
    assert found == expected


def test_the_same_bytes_again_are_counted_and_change_nothing(journal: Journal) -> None:
    assert journal.record_instance(instance(1), 1.0) is Receipt.STORED
    assert journal.record_instance(instance(1), 2.0) is Receipt.DUPLICATE
    (series,) = journal.receiving_series()
    assert (series.instance_count, series.last_instance_at) == (1, 1.0)


def test_other_bytes_under_the_same_uid_are_kept_but_the_first_is_used(journal: Journal) -> None:
    journal.record_instance(instance(1), 1.0)
    assert journal.record_instance(instance(1, "other"), 2.0) is Receipt.CONFLICT
    (series,) = journal.receiving_series()
    assert [m.digest for m in journal.members(series.id)] == ["digest-1.2.3-1"]
    paths = [each.path for each in journal.paths_with_prefix("objects/")]
    assert paths == ["objects/digest-1.2.3-1.dcm", "objects/other.dcm"]


def test_a_late_instance_opens_a_revision_that_holds_all_instances(journal: Journal) -> None:
    journal.record_instance(instance(1), 1.0)
    decided(journal)
    journal.record_instance(instance(2), 25.0)
    (series,) = journal.receiving_series()
    assert (series.revision, series.instance_count) == (2, 2)
    assert len(journal.members(series.id)) == 2


def test_a_decision_on_a_series_that_grew_meanwhile_is_refused(journal: Journal) -> None:
    journal.record_instance(instance(1), 1.0)
    (stale,) = journal.receiving_series()
    journal.record_instance(instance(2), 2.0)
    decision = SeriesDecision({}, {}, {}, "X", "x", (), False)
    with pytest.raises(LostRace):
        journal.decide_series(stale, decision, 3.0)
    assert len(journal.receiving_series()) == 1


def test_results_and_outbox_rows_appear_together_with_done(journal: Journal, path: Path) -> None:
    journal.record_instance(instance(1), 1.0)
    decided(journal, destinations=("pacs", "vna"))
    job = claimed(journal)
    assert journal.claim_delivery("pacs", 99.0) is None
    journal.finish_job(job, [result("seg"), result("sr")], {"ok": True}, 40.0)
    first = journal.claim_delivery("pacs", 40.0)
    assert first is not None
    assert (first.kind, first.attempts) == ("seg", 1)
    journal.delivery_sent(first, "0000", 41.0)
    with pytest.raises(LostRace):
        journal.delivery_sent(first, "0000", 42.0)
    assert journal.counts()["delivery"] == {"pending": 3, "sent": 1}
    reader = JournalReader(path)
    story = reader.series_details(reader.series()[0])
    reader.close()
    assert [e["name"] for e in story["events"]] == ["opened", "settled", "route_matched"]
    assert [e["name"] for e in story["jobs"][0]["events"]] == ["created", "claimed", "succeeded"]


def test_shadow_results_are_kept_and_sent_nowhere(journal: Journal) -> None:
    journal.record_instance(instance(1), 1.0)
    decided(journal, destinations=())
    journal.finish_job(claimed(journal), [result("seg")], {}, 40.0)
    assert journal.counts()["delivery"] == {}


def test_a_lost_lease_cannot_finish_the_job(journal: Journal) -> None:
    journal.record_instance(instance(1), 1.0)
    decided(journal)
    job = claimed(journal)
    journal.requeue_job(job, JobEvent.LEASE_EXPIRED, Failure("WORKER_DIED", "signal 9"), 31.0, 31.0)
    with pytest.raises(LostRace):
        journal.finish_job(job, [result("seg")], {}, 40.0)
    again = journal.claim_job("lease-2", 99.0, 31.0)
    assert again is not None
    assert again.attempts == 2


def test_a_restart_gives_the_attempt_back_and_takes_up_what_was_under_way(path: Path) -> None:
    journal = Journal(path)
    journal.record_instance(instance(1), 1.0)
    decided(journal)
    claimed(journal)
    journal.close()

    journal = Journal(path)
    assert journal.recover(50.0) == (1, 0)
    job = claimed(journal, 51.0)
    assert (job.attempts, job.interruptions) == (1, 1)
    journal.finish_job(job, [result("seg")], {}, 52.0)
    assert journal.claim_delivery("pacs", 53.0) is not None
    journal.close()

    journal = Journal(path)
    assert journal.recover(60.0) == (0, 1)
    assert journal.claim_delivery("pacs", 61.0) is not None
    journal.close()


def test_a_failed_job_keeps_its_reason(journal: Journal, path: Path) -> None:
    journal.record_instance(instance(1), 1.0)
    decided(journal)
    journal.fail_job(claimed(journal), Failure("PIXEL_DATA_TOO_SHORT", "10 of 20 bytes"), 40.0)
    reader = JournalReader(path)
    (job,) = reader.series_details(reader.series()[0])["jobs"]
    reader.close()
    assert (job["state"], job["failure_name"]) == ("failed", "PIXEL_DATA_TOO_SHORT")


def test_a_journal_of_a_newer_version_is_refused(path: Path) -> None:
    connection = WriteConnection(path)
    connection._connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(GatewayError, match="JOURNAL_TOO_NEW"):
        Journal(path)


def test_the_journal_is_durable_at_commit(path: Path) -> None:
    connection = WriteConnection(path)
    assert connection._connection.execute("PRAGMA synchronous").fetchone()[0] == 2
    assert connection._connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    connection.close()


def test_a_clock_that_was_set_back_holds_neither_jobs_nor_deliveries(journal: Journal) -> None:
    journal.record_instance(instance(1), 10_000.0)
    decided(journal, at=10_000.0)
    job = journal.claim_job("lease-1", 10_060.0, 9_995.0, longest_wait_s=10.0)
    assert job is None, "within the longest wait it waits"
    job = journal.claim_job("lease-1", 60.0, 5.0, longest_wait_s=10.0)
    assert job is not None
    journal.finish_job(job, [result("seg")], {}, 10_000.0)
    assert journal.claim_delivery("pacs", 5.0) is None
    assert journal.claim_delivery("pacs", 5.0, longest_wait_s=900.0) is not None


def test_what_waits_is_counted_by_destination(journal: Journal) -> None:
    journal.record_instance(instance(1), 1.0)
    decided(journal, destinations=("pacs", "vna"))
    journal.finish_job(claimed(journal), [result("seg"), result("sr")], {}, 40.0)
    assert journal.claim_delivery("vna", 50.0) is not None
    assert journal.waiting_deliveries() == {"pacs": 2, "vna": 1}


def test_a_queued_job_of_an_older_revision_is_superseded_by_name(journal: Journal, path: Path) -> None:
    journal.record_instance(instance(1), 1.0)
    decided(journal)
    journal.record_instance(instance(2), 25.0)
    decided(journal)
    job = claimed(journal)
    assert job.revision == 2
    assert journal.claim_job("lease-2", 99.0, 31.0) is None
    (first,) = stories(path)[0]["jobs"]
    assert (first["state"], first["failure_name"]) == ("failed", "SUPERSEDED")


def test_results_of_an_older_revision_are_not_sent_unless_their_sending_had_begun(journal: Journal) -> None:
    journal.record_instance(instance(1), 1.0)
    decided(journal, destinations=("pacs", "vna"))
    journal.finish_job(claimed(journal), [result("seg"), result("sr")], {}, 40.0)
    begun = journal.claim_delivery("vna", 41.0)
    assert begun is not None
    journal.delivery_sent(begun, "0000", 42.0)
    journal.record_instance(instance(2), 43.0)
    decided(journal, at=43.5)
    assert journal.claim_delivery("pacs", 44.0) is None
    assert journal.claim_delivery("vna", 44.0) is not None
    assert journal.counts()["delivery"] == {"dead": 2, "sending": 1, "sent": 1}


def test_while_a_later_revision_is_received_jobs_and_results_of_the_older_one_wait(journal: Journal) -> None:
    journal.record_instance(instance(1), 1.0)
    decided(journal, ("A", "a"), ("B", "b"), destinations=("pacs", "vna"))
    journal.finish_job(claimed(journal), [result("seg"), result("sr")], {}, 40.0)
    begun = journal.claim_delivery("vna", 41.0)
    assert begun is not None
    journal.delivery_sent(begun, "0000", 42.0)
    journal.record_instance(instance(2), 43.0)
    assert journal.claim_job("lease-2", 99.0, 44.0) is None
    assert journal.claim_delivery("pacs", 44.0) is None
    assert journal.claim_delivery("vna", 44.0) is not None, "of a set that was begun the rest is sent"
    assert journal.counts()["job"] == {"done": 1, "queued": 1}
    assert journal.counts()["delivery"] == {"pending": 2, "sending": 1, "sent": 1}


def test_a_part_that_no_late_instance_changed_keeps_its_job_results_and_deliveries(
    journal: Journal, path: Path
) -> None:
    journal.record_instance(instance(1), 1.0)
    first, _ = decided(journal, ("A", "a"), ("B", "b"))
    journal.finish_job(claimed(journal), [result("seg")], {}, 40.0)
    journal.record_instance(instance(2), 43.0)
    adopted, new = decided(journal, ("A", "a"), ("B", "other b"), at=50.0)
    assert adopted == first
    assert journal.counts()["job"] == {"done": 1, "queued": 2}
    delivery = journal.claim_delivery("pacs", 51.0)
    assert delivery is not None
    assert delivery.kind == "seg"
    job = claimed(journal, 52.0)
    assert (job.id, job.part, job.revision) == (new, "B", 2)
    older, newer = stories(path)
    assert [(j["part"], j["state"], j["failure_name"]) for j in older["jobs"]] == [
        ("B", "failed", "SUPERSEDED")
    ]
    assert [(j["part"], j["state"]) for j in newer["jobs"]] == [("A", "done"), ("B", "running")]
    event = newer["jobs"][0]["events"][-1]
    assert (event["name"], event["from_state"], event["to_state"]) == ("adopted", "done", "done")
    assert event["reason"].startswith(
        "Revision 2 of the series has the same instances in part A as revision 1"
    )
    assert older["events"][-1]["name"] == "JOB_ADOPTED"


def test_a_job_that_runs_while_its_part_is_adopted_ends_as_usual(journal: Journal) -> None:
    journal.record_instance(instance(1), 1.0)
    decided(journal, ("A", "a"), ("B", "b"))
    job = claimed(journal)
    journal.record_instance(instance(2), 31.0)
    decided(journal, ("A", "a"), ("B", "other b"), destinations=("vna",), at=32.0)
    journal.renew_lease(job, 99.0)
    journal.finish_job(job, [result("seg")], {}, 40.0)
    assert journal.waiting_deliveries() == {"vna": 1}, "as the newest revision wants it"


def test_a_volume_that_becomes_one_part_of_several_is_adopted_under_its_new_key(journal: Journal) -> None:
    journal.record_instance(instance(1), 1.0)
    (first,) = decided(journal, ("", "a"))
    journal.record_instance(instance(2), 25.0)
    jobs = decided(journal, ("TemporalPositionIdentifier=1", "a"), ("TemporalPositionIdentifier=2", "b"))
    assert jobs[0] == first
    job = claimed(journal)
    assert (job.id, job.part, job.revision) == (first, "TemporalPositionIdentifier=1", 2)


def test_a_part_whose_key_a_late_instance_changes_keeps_its_job(journal: Journal) -> None:
    journal.record_instance(instance(1), 1.0)
    before = decided(journal, ("EchoTime=5", "a"), ("EchoTime=9", "b"))
    journal.record_instance(instance(2), 25.0)
    after = decided(journal, ("grid=1", "c"), ("grid=2;EchoTime=5", "a"), ("grid=2;EchoTime=9", "b"))
    assert after[1:] == before
    assert claimed(journal).part == "grid=2;EchoTime=5"


def test_a_part_keeps_its_job_when_its_model_has_another_name_in_the_configuration(
    journal: Journal, path: Path
) -> None:
    journal.record_instance(instance(1), 1.0)
    (first,) = decided(journal, ("A", "a"))
    journal.record_instance(instance(2), 25.0)
    (series,) = journal.receiving_series()
    job = NewJob("renamed", "ct-tissue", ("pacs",), "it matched", "A", "a")
    decision = SeriesDecision({}, {}, {}, "ROUTED", "it matched", (job,), False)
    assert journal.decide_series(series, decision, 26.0) == (first,)
    assert stories(path)[1]["jobs"][0]["model"] == "renamed"


def test_what_was_superseded_is_not_adopted_but_run(journal: Journal) -> None:
    journal.record_instance(instance(1), 1.0)
    (first,) = decided(journal, ("A", "a"))
    journal.record_instance(instance(2), 25.0)
    decided(journal, ("B", "b"))
    assert claimed(journal).part == "B"  # this supersedes A
    journal.record_instance(instance(3), 26.0)
    assert first not in decided(journal, ("A", "a"))


def test_results_kept_in_shadow_mode_are_sent_when_a_later_live_revision_adopts_them(
    journal: Journal,
) -> None:
    journal.record_instance(instance(1), 1.0)
    decided(journal, ("A", "a"), destinations=())
    journal.finish_job(claimed(journal), [result("seg"), result("sr")], {}, 40.0)
    journal.record_instance(instance(2), 43.0)
    decided(journal, ("A", "a"), destinations=("pacs",), at=44.0)
    assert journal.waiting_deliveries() == {"pacs": 2}


def test_held_results_are_kept_explained_and_never_sent_even_when_a_later_revision_adopts_them(
    journal: Journal, path: Path
) -> None:
    journal.record_instance(instance(1), 1.0)
    decided(journal, ("A", "a"))
    hold = Failure(QUALITY_HOLD, "The results are kept here and not sent: Anterior hippocampus has 0.05 mL.")
    journal.finish_job(claimed(journal), [result("seg"), result("sr")], {"ok": True}, 40.0, hold)
    assert journal.waiting_deliveries() == {}
    journal.record_instance(instance(2), 43.0)
    decided(journal, ("A", "a"), destinations=("pacs", "vna"), at=44.0)
    assert journal.waiting_deliveries() == {}
    reader = JournalReader(path)
    story = reader.series_details(reader.series()[-1])
    reader.close()
    (job,) = story["jobs"]
    assert (job["state"], job["failure_name"], job["failure_reason"]) == ("done", hold.name, hold.reason)
    assert len(job["results"]) == 2
    assert hold.reason in [e["reason"] for e in job["events"] if e["name"] == QUALITY_HOLD]


def test_results_that_a_revision_in_between_did_not_want_are_sent_once_a_later_one_does(
    journal: Journal, path: Path
) -> None:
    journal.record_instance(instance(1), 1.0)
    (first,) = decided(journal, ("", "a"), destinations=("pacs", "vna"))
    journal.finish_job(claimed(journal), [result("seg"), result("sr")], {}, 40.0)
    journal.record_instance(instance(2), 43.0)
    decided(journal, ("", "begun second phase"), destinations=("pacs", "vna"), at=44.0)
    assert journal.claim_delivery("pacs", 45.0) is None, "superseded"
    assert journal.claim_delivery("vna", 45.0) is None
    journal.record_instance(instance(3), 46.0)
    adopted, _ = decided(journal, ("phase=1", "a"), ("phase=2", "b"), at=47.0)
    assert adopted == first
    assert journal.waiting_deliveries() == {"pacs": 2}, "vna is not wanted any more"
    delivery = journal.claim_delivery("pacs", 48.0)
    assert delivery is not None
    assert delivery.kind == "seg"
    reopened = stories(path)[2]["jobs"][0]["results"][0]["deliveries"][0]
    assert (reopened["failure_name"], reopened["finished_at"]) == (None, None)
    assert [event["name"] for event in reopened["events"]] == [
        "created",
        "superseded",
        "wanted_again",
        "claimed",
    ]


def test_facts_of_frames_come_back_as_they_were_given(journal: Journal) -> None:
    plain = instance(1)
    frames = ({"StackID": ("1",), "ImagePositionPatient": ("0", "0", "1")}, {"StackID": ("2",)})
    journal.record_instance(replace(plain, header=replace(plain.header, frames=frames)), 1.0)
    journal.record_instance(instance(2), 2.0)
    (series,) = journal.receiving_series()
    assert [member.frames for member in journal.members(series.id)] == [frames, ()]


def queued(journal: Journal, number: int, priority: str, at: float = 20.0, card: str = "ct-tissue") -> int:
    """A queued job of a series of its own."""
    journal.record_instance(instance(1, series=f"1.7.{number}"), at)
    (series,) = journal.receiving_series()
    job = NewJob("tissue", card, (), "it matched", "", f"digest {number}", priority)
    decision = SeriesDecision({}, {}, {}, "ROUTED", "it matched", (job,), refused=False)
    (job_id,) = journal.decide_series(series, decision, at)
    return job_id


def claims(journal: Journal, count: int, at: float = 30.0, wanted: Wanted = Wanted()) -> list[int]:  # noqa: B008
    """The ids of the next jobs that are claimed."""
    found = [journal.claim_job(f"lease {n}", at + 10, at, wanted=wanted) for n in range(count)]
    return [job.id for job in found if job is not None]


def test_jobs_are_claimed_by_priority_and_of_equals_the_oldest_first(journal: Journal) -> None:
    wishes = ("offpeak", "normal", "urgent", "normal", "urgent")
    jobs = [queued(journal, number, wish) for number, wish in enumerate(wishes)]
    assert claims(journal, 5) == [jobs[2], jobs[4], jobs[1], jobs[3], jobs[0]]


def test_what_is_off_peak_is_as_good_as_normal_after_an_hour(journal: Journal) -> None:
    old, new = queued(journal, 1, "offpeak", at=20.0), queued(journal, 2, "normal", at=3000.0)
    assert claims(journal, 2, at=3610.0) == [new, old]
    old, new = queued(journal, 3, "offpeak", at=20.0), queued(journal, 4, "normal", at=3000.0)
    assert claims(journal, 2, at=3630.0) == [old, new]


def test_a_claim_can_leave_models_out_or_take_urgent_jobs_only_or_the_oldest(journal: Journal) -> None:
    normal, urgent = queued(journal, 1, "normal"), queued(journal, 2, "urgent", card="liver")
    assert claims(journal, 1, wanted=Wanted(frozenset({"liver"}), only_urgent=True)) == []
    assert claims(journal, 1, wanted=Wanted(oldest_first=True)) == [normal]
    assert claims(journal, 1, wanted=Wanted(only_urgent=True)) == [urgent]


def test_a_held_model_is_told_with_its_waiting_jobs_and_forgotten_at_a_restart(
    journal: Journal, path: Path
) -> None:
    queued(journal, 1, "normal")
    off = Failure("MODEL_SWITCHED_OFF", "It crashed.")
    journal.hold_cards({"ct-tissue": off}, 40.0)
    journal.hold_cards({"ct-tissue": off}, 41.0)
    assert journal.holds() == {"ct-tissue": off}
    (job,) = stories(path)[0]["jobs"]
    assert (job["hold_name"], job["hold_reason"], job["priority"]) == (*vars(off).values(), "normal")
    journal.hold_cards({}, 42.0)
    reader = JournalReader(path)
    told = [event["name"] for event in reader.refusals(subjects=("gateway",))]
    reader.close()
    assert told == ["MODEL_RUNS_AGAIN", "MODEL_SWITCHED_OFF"]
    journal.hold_cards({"ct-tissue": off}, 43.0)
    journal.recover(44.0)
    assert journal.holds() == {}
