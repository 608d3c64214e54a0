"""The same SOP Instance UID again: the same bytes are counted, other bytes go by the rule."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import LostRace
from gateway.header import InstanceHeader
from gateway.journal import Journal, JournalReader
from gateway.journal.records import Duplicates, NewInstance, NewJob, Receipt, SeriesDecision

STUDY, SERIES = "1.2.1", "1.2.2"
EXPLICIT, JPEG_BASELINE = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.50"
KEEP, REVISE, REFUSE = Duplicates.KEEP_FIRST, Duplicates.NEW_REVISION, Duplicates.REFUSE


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    journal = Journal(path)
    yield journal
    journal.close()


def instance(number: int, content: str = "a", series: str = SERIES, **facts: str) -> NewInstance:
    known = {keyword: (value,) for keyword, value in {"Rows": "8", **facts}.items()}
    header = InstanceHeader("1.2.3", f"1.2.3.{number}", STUDY, series, known)
    digest = f"{content}{number}" + "0" * 60
    return NewInstance(header, EXPLICIT, digest, f"objects/{digest}.dcm", 10, "ct1")


def relabelled(number: int, content: str = "a", source: str = "ct1") -> NewInstance:
    """The same bytes under another transfer syntax."""
    return replace(instance(number, content), transfer_syntax_uid=JPEG_BASELINE, source=source)


def decide(journal: Journal, at: float, *jobs: NewJob) -> None:
    (series,) = journal.receiving_series()
    name = "ROUTE_MATCHED" if jobs else "NO_ROUTE"
    decision = SeriesDecision({"reason": "quiet"}, {}, {"name": name}, name, "why", jobs, refused=False)
    journal.decide_series(series, decision, at)


def contents(journal: Journal, series_id: int) -> list[str]:
    """First two characters of the digests of the members: content and number."""
    return [member.digest[:2] for member in journal.members(series_id)]


def stories(path: Path) -> list[dict[str, Any]]:
    reader = JournalReader(path)
    try:
        return [reader.series_details(record) for record in reader.series()]
    finally:
        reader.close()


def test_in_a_receiving_revision_the_new_bytes_take_the_place_at_once(journal: Journal, path: Path) -> None:
    journal.record_instance(instance(1), 1.0, REVISE)
    journal.record_instance(instance(2), 2.0, REVISE)
    assert journal.record_instance(instance(1, "b"), 3.0, REVISE) is Receipt.REPLACED
    (series,) = journal.receiving_series()
    assert (series.revision, series.instance_count, series.last_instance_at) == (1, 2, 3.0)
    assert contents(journal, series.id) == ["a2", "b1"]
    (story,) = stories(path)
    assert [(c["digest"][:2], c["role"]) for c in story["conflicts"]] == [("a1", "member")]
    assert [e["name"] for e in story["events"]] == ["opened", "DUPLICATE_SOP_INSTANCE_REPLACED"]
    assert "used from revision 1 on (admission.duplicates: new-revision)." in story["events"][1]["reason"]


def test_after_the_decision_a_new_revision_opens_and_the_decided_one_stays_as_it_was(
    journal: Journal, path: Path
) -> None:
    journal.record_instance(instance(1), 1.0, REVISE)
    journal.record_instance(instance(2), 2.0, REVISE)
    decide(journal, 3.0)
    assert journal.record_instance(instance(1, "b"), 4.0, REVISE) is Receipt.REPLACED
    (series,) = journal.receiving_series()
    assert (series.revision, series.instance_count) == (2, 2)
    assert contents(journal, 1) == ["a1", "a2"]
    assert contents(journal, series.id) == ["a2", "b1"]
    first, second = stories(path)
    assert (first["conflicts"], second["conflicts"][0]["last_revision"]) == ([], 1)
    assert "arrived after revision 1 was decided: this is revision 2." in second["events"][0]["reason"]


def test_several_instances_are_replaced_in_one_new_revision(journal: Journal) -> None:
    for number in (1, 2, 3):
        journal.record_instance(instance(number), 1.0, REVISE)
    decide(journal, 2.0)
    for number in (1, 2, 3):
        assert journal.record_instance(instance(number, "b"), 3.0, REVISE) is Receipt.REPLACED
    journal.record_instance(instance(2, "c"), 4.0, REVISE)
    (series,) = journal.receiving_series()
    assert (series.revision, series.instance_count) == (2, 3)
    assert contents(journal, series.id) == ["b1", "b3", "c2"]
    assert contents(journal, 1) == ["a1", "a2", "a3"]


def test_what_gave_up_its_place_never_gets_it_back(journal: Journal, path: Path) -> None:
    """Two senders that send two versions in turn must not make revisions without end."""
    journal.record_instance(instance(1), 1.0, REVISE)
    decide(journal, 2.0)
    journal.record_instance(instance(1, "b"), 3.0, REVISE)
    decide(journal, 4.0)
    for at in (5.0, 6.0):
        assert journal.record_instance(instance(1), at, REVISE) is Receipt.DUPLICATE
        assert journal.record_instance(instance(1, "b"), at, REVISE) is Receipt.DUPLICATE
    assert journal.receiving_series() == []
    story = stories(path)[-1]
    assert (story["revision"], story["copies"]) == (2, {"instances": 2, "times": 4})
    assert story["conflicts"][0]["copies"] == 3


def test_a_later_revision_counts_only_what_is_used_in_it(journal: Journal) -> None:
    journal.record_instance(instance(1), 1.0, REVISE)
    decide(journal, 2.0)
    journal.record_instance(instance(1, "b"), 3.0, REVISE)
    decide(journal, 4.0)
    journal.record_instance(instance(2), 5.0, REVISE)
    (series,) = journal.receiving_series()
    assert (series.revision, series.instance_count) == (3, 2)
    assert contents(journal, series.id) == ["b1", "a2"]


def test_bytes_that_were_kept_and_never_used_are_used_when_they_come_again_under_the_other_rule(
    journal: Journal,
) -> None:
    """The site sees the conflict, sets admission.duplicates to new-revision, and sends the series again."""
    journal.record_instance(instance(1), 1.0, KEEP)
    assert journal.record_instance(instance(1, "b"), 2.0, KEEP) is Receipt.CONFLICT
    decide(journal, 3.0)
    assert journal.record_instance(instance(1, "b"), 4.0, KEEP) is Receipt.DUPLICATE
    assert journal.record_instance(instance(1, "b"), 5.0, REVISE) is Receipt.REPLACED
    (series,) = journal.receiving_series()
    assert (series.revision, series.instance_count) == (2, 1)
    assert (contents(journal, 1), contents(journal, series.id)) == (["a1"], ["b1"])


def test_refused_bytes_leave_a_record_and_nothing_else(journal: Journal, path: Path) -> None:
    journal.record_instance(instance(1), 1.0, REFUSE)
    assert journal.record_instance(instance(1, "b"), 2.0, REFUSE) is Receipt.REFUSED
    assert journal.record_instance(instance(1), 3.0, REFUSE) is Receipt.DUPLICATE
    (series,) = journal.receiving_series()
    assert (series.instance_count, series.last_instance_at) == (1, 1.0)
    assert journal.counts()["instance"]["stored"] == 1
    (story,) = stories(path)
    assert story["events"][-1]["name"] == "DUPLICATE_SOP_INSTANCE_REFUSED"
    assert "from ct1: they were refused (admission.duplicates: refuse)." in story["events"][-1]["reason"]


@pytest.mark.parametrize("tried", ["the same bytes", "other bytes each time"])
def test_a_sender_that_tries_for_ever_is_written_down_once(journal: Journal, path: Path, tried: str) -> None:
    """A proxy that stamps each try with the time sends other bytes each time."""
    journal.record_instance(instance(1), 1.0, REFUSE)
    for number in range(500):
        content = "b" if tried == "the same bytes" else f"b{number}"
        assert journal.record_instance(instance(1, content), 2.0 + number, REFUSE) is Receipt.REFUSED
    archive = replace(instance(1, "b"), source="archive")
    assert journal.record_instance(archive, 600.0, REFUSE) is Receipt.REFUSED
    journal.record_instance(instance(11), 700.0, REFUSE)  # the UID of the first is the begin of this one's
    assert journal.record_instance(instance(11, "b"), 800.0, REFUSE) is Receipt.REFUSED
    (story,) = stories(path)
    told = [e["details"] for e in story["events"] if e["name"] == "DUPLICATE_SOP_INSTANCE_REFUSED"]
    assert [(each["sop_instance_uid"], each["source"]) for each in told] == [
        ("1.2.3.1", "ct1"),
        ("1.2.3.1", "archive"),
        ("1.2.3.11", "ct1"),
    ]


@pytest.mark.parametrize("rule", [KEEP, REVISE, REFUSE])
def test_the_same_bytes_under_another_transfer_syntax_are_refused_by_any_rule(
    journal: Journal, path: Path, rule: Duplicates
) -> None:
    """They are not kept as they were sent: to say so is all that can be done."""
    journal.record_instance(instance(1), 1.0, rule)
    decide(journal, 2.0)
    for at in range(3, 9):
        assert journal.record_instance(relabelled(1), at, rule) is Receipt.RELABELLED
    assert journal.receiving_series() == []
    assert [each.transfer_syntax_uid for each in journal.members(1)] == [EXPLICIT]
    (story,) = stories(path)
    assert story["copies"] == {"instances": 0, "times": 0}
    (event,) = [e for e in story["events"] if e["name"] == "DUPLICATE_TRANSFER_SYNTAX_REFUSED"]
    assert event["reason"].endswith(
        f"under transfer syntax {JPEG_BASELINE}: they were refused, as they came under {EXPLICIT} first."
    )
    assert journal.record_instance(instance(1), 9.0, rule) is Receipt.DUPLICATE


@pytest.mark.parametrize("rule", [KEEP, REVISE, REFUSE])
def test_what_is_damaged_is_not_healed_by_another_transfer_syntax(journal: Journal, rule: Duplicates) -> None:
    journal.record_instance(instance(1), 1.0)
    journal.quarantine(instance(1).path, "Its SHA-256 is another.", 2.0)
    assert journal.record_instance(relabelled(1), 3.0, rule) is Receipt.RELABELLED
    assert journal.damaged_count() == 1
    assert journal.record_instance(instance(1), 4.0, rule) is Receipt.DUPLICATE
    assert journal.damaged_count() == 0


def test_bytes_that_are_kept_beside_have_their_transfer_syntax_too(journal: Journal) -> None:
    journal.record_instance(instance(1), 1.0, KEEP)
    journal.record_instance(instance(1, "b"), 2.0, KEEP)
    assert journal.record_instance(relabelled(1, "b"), 3.0, REVISE) is Receipt.RELABELLED
    assert journal.record_instance(relabelled(1, "c"), 4.0, KEEP) is Receipt.CONFLICT


def test_the_same_bytes_are_committed_though_another_transfer_syntax_was_refused(journal: Journal) -> None:
    journal.record_instance(instance(1), 1.0, KEEP)
    assert journal.record_instance(relabelled(1), 2.0, KEEP) is Receipt.RELABELLED
    assert journal.refused_duplicates({(STUDY, SERIES)}, "ct1") == set()


def test_without_pixels_another_transfer_syntax_means_the_same(journal: Journal) -> None:
    """A report has the same bytes in explicit VR and in every syntax that compresses pixels."""
    report, again = (
        replace(each, header=replace(each.header, facts={})) for each in (instance(1), relabelled(1))
    )
    assert journal.record_instance(report, 1.0, KEEP) is Receipt.STORED
    assert journal.record_instance(again, 2.0, KEEP) is Receipt.DUPLICATE


@pytest.mark.parametrize(
    ("rule", "receipt"),
    [(KEEP, Receipt.CONFLICT), (REVISE, Receipt.CONFLICT), (REFUSE, Receipt.REFUSED)],
)
def test_no_series_loses_an_instance_to_another_one(
    journal: Journal, path: Path, rule: Duplicates, receipt: Receipt
) -> None:
    journal.record_instance(instance(1), 1.0, rule)
    decide(journal, 2.0)
    assert journal.record_instance(instance(1, "b", "1.2.9"), 3.0, rule) is receipt
    assert contents(journal, 1) == ["a1"]
    assert [(s["series_instance_uid"], s["instance_count"]) for s in stories(path)] == (
        [(SERIES, 1)] if rule is REFUSE else [(SERIES, 1), ("1.2.9", 0)]
    )


def test_a_decision_on_what_was_replaced_meanwhile_is_refused(journal: Journal) -> None:
    journal.record_instance(instance(1), 1.0, REVISE)
    (stale,) = journal.receiving_series()
    journal.record_instance(instance(1, "b"), 1.0, REVISE)  # at the same tick of the clock
    decision = SeriesDecision({}, {}, {}, "NO_ROUTE", "why", (), refused=False)
    with pytest.raises(LostRace, match="changed while it was being decided"):
        journal.decide_series(stale, decision, 2.0)
    (series,) = journal.receiving_series()
    journal.decide_series(series, decision, 2.0)


def test_results_of_the_replaced_bytes_are_superseded_and_a_new_job_runs(journal: Journal) -> None:
    journal.record_instance(instance(1), 1.0, REVISE)
    decide(journal, 2.0, NewJob("tissue", "ct-tissue", ("pacs",), "r", "", "digest of a1"))
    journal.record_instance(instance(1, "b"), 3.0, REVISE)
    decide(journal, 4.0, NewJob("tissue", "ct-tissue", ("pacs",), "r", "", "digest of b1"))
    job = journal.claim_job("lease", 99.0, 5.0)
    assert job is not None
    assert job.revision == 2
    assert journal.claim_job("lease", 99.0, 6.0) is None, "the job of revision 1 is superseded"
    assert journal.counts()["job"] == {"failed": 1, "running": 1}


def test_the_heading_of_a_series_is_that_of_its_newest_bytes(journal: Journal, path: Path) -> None:
    journal.record_instance(instance(1, SeriesDescription="wrong"), 1.0, REVISE)
    journal.record_instance(instance(1, "b", SeriesDescription="right"), 2.0, REVISE)
    assert stories(path)[0]["facts"]["SeriesDescription"] == ["right"]


# -- files --------------------------------------------------------------------------------------


def test_a_damaged_file_is_told_once_and_forgotten_when_the_same_bytes_come_again(
    journal: Journal, path: Path
) -> None:
    journal.record_instance(instance(1), 1.0)
    file = instance(1).path
    assert journal.quarantine(file, "Its SHA-256 is another.", 2.0)
    assert not journal.quarantine(file, "Still.", 3.0)
    assert not journal.quarantine("objects/unknown.dcm", "What?", 3.0)
    assert [each.is_quarantined for each in journal.paths_with_prefix(file)] == [True]
    (story,) = stories(path)
    (damaged,) = story["damaged"]
    assert (damaged["sop_instance_uid"], damaged["reason"]) == ("1.2.3.1", "Its SHA-256 is another.")
    assert journal.record_instance(instance(1), 4.0) is Receipt.DUPLICATE
    assert [each.is_quarantined for each in journal.paths_with_prefix(file)] == [False]
    assert stories(path)[0]["damaged"] == []
    assert not journal.heal(file, "It is whole.", 5.0)
    assert journal.quarantine(file, "Again.", 6.0)
    assert journal.heal(file, "Restored from a backup.", 7.0)


def test_the_size_is_that_of_the_file_that_was_written_anew(journal: Journal) -> None:
    """Another sender, another AE title in the file meta information."""
    journal.record_instance(instance(1), 1.0)
    journal.record_instance(replace(instance(1), size_bytes=12, source="archive"), 2.0)
    (series,) = journal.receiving_series()
    assert [each.size_bytes for each in journal.members(series.id)] == [12]


@pytest.mark.parametrize("rule", [KEEP, REFUSE])
def test_other_bytes_take_the_place_of_those_that_are_damaged_whatever_the_rule(
    journal: Journal, path: Path, rule: Duplicates
) -> None:
    """An archive sends the image again in its own encoding: that is better than none."""
    journal.record_instance(instance(1), 1.0)
    journal.record_instance(instance(2), 1.5)
    decide(journal, 2.0)
    journal.quarantine(instance(1).path, "Its SHA-256 is another.", 3.0)
    assert journal.record_instance(instance(2, "b"), 3.5, rule) is not Receipt.REPLACED  # that one is whole
    assert journal.record_instance(instance(1, "b"), 4.0, rule) is Receipt.REPLACED
    (series,) = journal.receiving_series()
    assert (series.revision, series.instance_count) == (2, 2)
    assert sorted(contents(journal, series.id)) == ["a2", "b1"]
    assert journal.damaged_count() == 0
    reasons = [event["reason"] for story in stories(path) for event in story["events"]]
    assert any("used from revision 2 on (the file of the first ones is damaged" in each for each in reasons)
    assert journal.record_instance(instance(1), 5.0, rule) is Receipt.DUPLICATE
    assert sorted(contents(journal, series.id)) == ["a2", "b1"]


def test_what_was_kept_beside_takes_the_place_of_what_is_damaged_when_it_comes_again(
    journal: Journal,
) -> None:
    journal.record_instance(instance(1), 1.0)
    assert journal.record_instance(instance(1, "b"), 2.0) is Receipt.CONFLICT
    journal.quarantine(instance(1).path, "Its SHA-256 is another.", 3.0)
    assert journal.record_instance(instance(1, "b"), 4.0) is Receipt.REPLACED
    (series,) = journal.receiving_series()
    assert (series.instance_count, contents(journal, series.id)) == (1, ["b1"])


def test_paths_are_found_by_any_beginning_in_order(journal: Journal) -> None:
    names = ["aa0", "aa1", "ab0", "b"]
    for number, name in enumerate(reversed(names)):
        new = instance(number)
        file = f"objects/{name[:2]}/{name}{'0' * 60}.dcm"
        journal.record_instance(NewInstance(new.header, "1.2", f"{name}0", file, 1, "ct1"), 1.0)
    everything = [each.path for each in journal.paths_with_prefix("")]
    assert everything == sorted(everything)
    prefixes = {
        "": 4,
        "objects/": 4,
        "objects/a": 3,
        "objects/aa/": 2,
        everything[1]: 1,
        "c": 0,
        "objects/c": 0,
    }
    assert {prefix: len(journal.paths_with_prefix(prefix)) for prefix in prefixes} == prefixes
