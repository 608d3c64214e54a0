"""Storage commitment in the journal: asked once, told once, evidence of completeness, restart."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from gateway.completion import Complete, CompletionRules, Wait, decide
from gateway.errors import LostRace, RefusedByState
from gateway.header import InstanceHeader
from gateway.journal.commitment_records import KeptInstance, NewCommitment, Outcome, Reference
from gateway.journal.records import Duplicates, Failure, NewInstance, Receipt
from gateway.receive.commitment.check import examine, judge
from gateway.states import COMMITMENT, CommitmentEvent, CommitmentState
from tests.journals import SERIES, STUDY, Site

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
MOST_OPEN = 3


# -- what is true of an instance --------------------------------------------------------------


def kept(uid: str, path: str = "a", sop_class: str = CT, **change: object) -> KeptInstance:
    row = KeptInstance(uid, sop_class, "1.2", "1.2.3", path, 100, is_quarantined=False, is_member=True)
    return replace(row, **change)  # type: ignore[arg-type]


def test_each_instance_is_committed_or_has_its_reason() -> None:
    rows = [
        kept("1.1"),
        kept("1.2", sop_class=MR),
        kept("1.3", "gone"),
        kept("1.5", series_instance_uid="1.9"),
    ]
    asked = [(CT, "1.1"), (CT, "1.2"), (CT, "1.3"), (CT, "1.4"), (CT, "1.5")]
    outcome = judge(asked, rows, lambda row: row.path != "gone")
    assert outcome.committed == ((CT, "1.1"), (CT, "1.5"))
    assert outcome.failed == ((CT, "1.2", 0x0119), (CT, "1.3", 0x0110), (CT, "1.4", 0x0112))
    assert outcome.members == {("1.2", "1.2.3"): 3, ("1.2", "1.9"): 1}
    assert outcome.sentence == (
        "2 of 5 instances committed; 1 damaged, gone or refused in this version here (0110), "
        "1 never arrived (0112), 1 of another SOP class (0119)"
    )


def test_of_an_instance_with_different_bytes_all_must_be_intact() -> None:
    rows = [kept("1.1", "first"), kept("1.1", "other", is_member=False)]
    assert judge([(CT, "1.1")], rows, lambda _: True).committed == ((CT, "1.1"),)
    broken = judge([(CT, "1.1")], rows, lambda row: row.path == "first")
    assert broken.failed == ((CT, "1.1", 0x0110),)
    assert broken.members == {("1.2", "1.2.3"): 1}


def test_a_file_must_be_there_and_must_not_be_quarantined(tmp_path: Path) -> None:
    site = Site(tmp_path / "journal.db")
    for _ in range(4):
        site.receive()
    for number, size in ((1, 100), (2, 98), (4, 100)):  # 2 was written anew for another sender
        (tmp_path / f"{SERIES}.{number}.dcm").write_bytes(bytes(size))
    site.journal.quarantine(f"{SERIES}.4.dcm", "bit rot", site.tick())
    outcome = examine(site.journal, tmp_path, "scanner", references(4))
    assert outcome.committed == ((CT, f"{SERIES}.1"), (CT, f"{SERIES}.2"))
    assert [(uid, reason) for _, uid, reason in outcome.failed] == [(f"{SERIES}.{n}", 0x0110) for n in (3, 4)]


# -- requests ---------------------------------------------------------------------------------


def references(count: int, series: str = SERIES) -> list[Reference]:
    return [(CT, f"{series}.{number}") for number in range(1, count + 1)]


def ask(
    site: Site, asked: list[Reference], transaction: str = "9.1", *, source: str = "scanner", missing: int = 0
) -> int:
    failed = tuple((CT, f"8.{n}", 0x0112) for n in range(missing))
    members = {("1.2", SERIES): len(asked)}
    outcome = Outcome(tuple(asked), failed, members, members)
    new = NewCommitment(source, "SCANNER", transaction, (*asked, *(f[:2] for f in failed)))
    return site.journal.ask_commitment(new, outcome, site.at, site.tick(), MOST_OPEN)


def state_of(site: Site, commitment_id: int) -> str:
    (row,) = [
        r
        for r in site.journal._connection.query("list_commitments", {"limit": 100})
        if r["id"] == commitment_id
    ]
    return str(row["state"])


def test_a_request_is_told_once_and_its_series_tells_of_it(tmp_path: Path) -> None:
    site = Site(tmp_path / "journal.db")
    site.receive()
    number = ask(site, references(1))
    (waiting,) = site.journal.waiting_commitments(site.tick())
    claimed = site.journal.claim_commitment(waiting.id, site.tick())
    assert (claimed.id, claimed.references, claimed.attempts) == (number, ((CT, f"{SERIES}.1"),), 1)
    assert site.journal.waiting_commitments(site.tick()) == []
    with pytest.raises(LostRace):
        site.journal.claim_commitment(number, site.tick())
    outcome = Outcome(claimed.references, (), {("1.2", SERIES): 1}, {("1.2", SERIES): 1})
    site.journal.commitment_reported(claimed, outcome, "there", site.tick())
    assert state_of(site, number) == "reported"
    assert site.journal.waiting_commitments(site.tick()) == []
    assert site.journal.counts()["commitment"] == {"reported": 1}
    reasons = [e["reason"] for e in site.stories()[0]["events"] if e["name"].startswith("COMMITMENT")]
    assert reasons == [
        "scanner asks for storage commitment of 1 of 1 instances.",
        "Storage commitment of 1 of 1 instances reported to scanner.",
    ]


def test_the_same_request_is_not_doubled_and_another_one_under_its_uid_is_refused(tmp_path: Path) -> None:
    site = Site(tmp_path / "journal.db")
    for _ in range(3):
        site.receive()
    first = ask(site, references(2))
    assert ask(site, references(2)[::-1]) == first  # the order means nothing
    with pytest.raises(RefusedByState, match="TRANSACTION_UID_IN_USE"):
        ask(site, references(3))
    assert ask(site, references(3), source="ct2") != first  # another peer's transactions are its own
    claimed = site.journal.claim_commitment(first, site.tick())
    assert ask(site, references(2)) == first  # while it is being told: what it is told may be old
    with pytest.raises(LostRace):
        site.journal.commitment_reported(claimed, Outcome(claimed.references), "here", site.tick())
    assert state_of(site, first) == "pending"
    claimed = site.journal.claim_commitment(first, site.tick())
    site.journal.commitment_reported(claimed, Outcome(claimed.references), "here", site.tick())
    assert ask(site, references(2)) == first  # the report was lost: it is told again
    assert first in [each.id for each in site.journal.waiting_commitments(site.tick())]


def test_asking_the_same_over_and_over_adds_nothing_while_its_report_waits(tmp_path: Path) -> None:
    def recorded() -> tuple[int, list[object]]:
        """Rows changed so far, and the events."""
        with site.journal._connection.transaction() as work:
            changes = work._connection.total_changes
        return changes, [event for story in site.stories() for event in story["events"]]

    site = Site(tmp_path / "journal.db")
    site.receive()
    number = ask(site, references(1))
    after_first = recorded()
    for _ in range(10):
        assert ask(site, references(1)) == number
    assert recorded() == after_first
    claimed = site.journal.claim_commitment(number, site.tick())
    site.journal.commitment_postponed(claimed, Failure("PEER_UNREACHABLE", "down."), site.at + 1e6, site.at)
    assert site.journal.waiting_commitments(site.tick()) == []
    _, events = recorded()
    ask(site, references(1))  # it is there: there is no reason to wait
    assert [each.id for each in site.journal.waiting_commitments(site.tick())] == [number]
    after_hastened = recorded()
    assert after_hastened[1] == events
    for _ in range(10):
        ask(site, references(1))
    assert recorded() == after_hastened


def test_one_transaction_asked_on_two_associations_at_once_is_one_request(tmp_path: Path) -> None:
    site = Site(tmp_path / "journal.db")
    site.receive()
    together = threading.Barrier(8)
    found: list[int | str] = []

    def ask_at_once(count: int) -> None:
        together.wait(30)
        try:
            found.append(ask(site, references(count)))
        except RefusedByState as error:
            found.append(error.name)

    threads = [threading.Thread(target=ask_at_once, args=(1 + number % 2,)) for number in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(30)
    assert sorted(map(str, found)) == ["1"] * 4 + ["TRANSACTION_UID_IN_USE"] * 4


def test_a_peer_that_cannot_be_told_does_not_fill_the_journal(tmp_path: Path) -> None:
    site = Site(tmp_path / "journal.db")
    for number in range(MOST_OPEN):
        ask(site, references(1), f"9.{number}")
    with pytest.raises(RefusedByState, match="TOO_MANY_OPEN_REQUESTS"):
        ask(site, references(1), "9.99")
    ask(site, references(1), "9.99", source="ct2")


def test_a_restart_puts_a_report_under_way_back_and_makes_all_due(tmp_path: Path) -> None:
    site = Site(tmp_path / "journal.db")
    one, two, three = (ask(site, references(1), f"9.{number}") for number in (1, 2, 3))
    site.journal.claim_commitment(one, site.tick())
    postponed = site.journal.claim_commitment(two, site.tick())
    site.journal.commitment_postponed(postponed, Failure("PEER_UNREACHABLE", "down."), site.at + 1e6, site.at)
    given_up = site.journal.claim_commitment(three, site.tick())
    site.journal.commitment_dead(given_up, Outcome(()), Failure("PEER_UNREACHABLE", "down."), site.at)
    assert site.journal.waiting_commitments(site.tick()) == []
    assert [each.id for each in site.journal.waiting_commitments(site.tick(), sources=["scanner"])] == [two]
    site.journal.recover(site.tick())
    assert [each.id for each in site.journal.waiting_commitments(site.tick())] == [one, two]
    assert state_of(site, three) == "dead"


def test_no_report_is_sent_twice_after_it_was_acknowledged() -> None:
    after = {event for state, event in COMMITMENT.edges if state is CommitmentState.REPORTED}
    assert after == {CommitmentEvent.ASKED_AGAIN}


def told_in_full(site: Site, commitment_id: int) -> bool:
    with site.journal._connection.transaction() as work:
        row = work.one("commitment_to_report", {"id": commitment_id})
    assert row is not None
    return bool(row["instances"] != "[]")


def test_a_request_that_was_told_long_ago_is_kept_as_a_number_and_a_digest(tmp_path: Path) -> None:
    site = Site(tmp_path / "journal.db")
    for _ in range(3):
        site.receive()
    told, given_up, waiting = (ask(site, references(2), f"9.{number}") for number in range(3))
    claimed = site.journal.claim_commitment(told, site.tick())
    told_at = site.tick()
    site.journal.commitment_reported(claimed, Outcome(claimed.references), "here", told_at)
    claimed = site.journal.claim_commitment(given_up, site.tick())
    failure = Failure("PEER_UNREACHABLE", "down.")
    site.journal.commitment_dead(claimed, Outcome(claimed.references), failure, site.tick())
    assert not site.journal.shorten_commitment(told_at - 0.5)
    assert site.journal.shorten_commitment(told_at)
    assert not site.journal.shorten_commitment(told_at)
    assert [told_in_full(site, each) for each in (told, given_up, waiting)] == [False, True, True]
    assert site.journal.shorten_commitment(site.at)
    assert not site.journal.shorten_commitment(1e9), "one that waits keeps its instances"
    rows = site.journal._connection.query("list_commitments", {"limit": 9})
    assert [row["asked"] for row in rows] == [2, 2, 2]
    # Nobody can tell the difference.
    with pytest.raises(RefusedByState, match="TRANSACTION_UID_IN_USE"):
        ask(site, references(3), "9.0")
    assert ask(site, references(2)[::-1], "9.0") == told
    assert ask(site, references(2), "9.1") == given_up
    for each in (told, given_up):
        claimed = site.journal.claim_commitment(each, site.tick())
        assert sorted(claimed.references) == references(2)
        site.journal.commitment_reported(claimed, Outcome(claimed.references), "here", site.tick())
        assert site.journal.shorten_commitment(site.at), "and after it was told again, it is forgotten again"


# -- evidence of completeness -----------------------------------------------------------------

RULES = CompletionRules(quiet_for_s=30.0, at_most_s=900.0)


def verdict(site: Site) -> Complete | Wait:
    (series,) = site.journal.receiving_series()
    return decide(series, 1, site.tick() + 3.0, RULES)


def test_a_request_for_all_members_completes_the_series_at_once(tmp_path: Path) -> None:
    site = Site(tmp_path / "journal.db")
    for _ in range(3):
        site.receive()
    assert isinstance(verdict(site), Wait)
    ask(site, references(3))
    outcome = verdict(site)  # although its association is open
    assert isinstance(outcome, Complete)
    assert outcome.evidence["reason"] == (
        "3 instances; scanner asked for storage commitment of exactly these, and all are here: nothing more "
        "is waited for."
    )
    assert outcome.evidence["incomplete"] is False


def test_a_later_instance_makes_the_evidence_void_until_it_is_asked_for_too(tmp_path: Path) -> None:
    site = Site(tmp_path / "journal.db")
    site.receive()
    ask(site, references(1))
    site.receive()
    assert isinstance(verdict(site), Wait)
    ask(site, references(2), "9.2")
    assert isinstance(verdict(site), Complete)


def test_asking_again_for_what_was_asked_for_does_not_put_the_decision_off(tmp_path: Path) -> None:
    site = Site(tmp_path / "journal.db")
    site.receive()
    ask(site, references(1))
    (first,) = site.journal.receiving_series()
    for number in range(5):
        ask(site, references(1))
        ask(site, references(1), "9.2" if number < 3 else "9.3")
    (later,) = site.journal.receiving_series()
    assert (later.committed_at, later.committed_count) == (first.committed_at, 1)


def test_a_request_for_some_members_or_with_something_missing_says_nothing(tmp_path: Path) -> None:
    site = Site(tmp_path / "journal.db")
    for _ in range(3):
        site.receive()
    ask(site, references(2), "9.1")
    assert isinstance(verdict(site), Wait)
    ask(site, references(3), "9.2", missing=1)
    assert isinstance(verdict(site), Wait)


def test_only_who_sends_a_series_says_that_it_is_complete(tmp_path: Path) -> None:
    """An archive that asks for all that it has seen knows nothing of what its sender still has."""
    site = Site(tmp_path / "journal.db")
    for _ in range(2):
        site.receive()
    ask(site, references(2), source="archive")
    assert isinstance(verdict(site), Wait)
    ask(site, references(2), source="scanner")
    assert isinstance(verdict(site), Complete)
    header = InstanceHeader(CT, f"{SERIES}.3", STUDY, SERIES, {"Modality": ("CT",)})
    other = NewInstance(header, "1.2.840.10008.1.2.1", "third", "third.dcm", 100, "archive")
    site.journal.record_instance(other, site.tick())
    for source in ("archive", "scanner"):  # each has sent a part
        ask(site, references(3), "9.3", source=source)
        assert isinstance(verdict(site), Wait)


def test_bytes_that_another_sender_brought_back_are_no_evidence_of_the_first(tmp_path: Path) -> None:
    """Then the series is that of the other one, and the evidence would name it as who asked."""
    site = Site(tmp_path / "journal.db")
    header = InstanceHeader(CT, f"{SERIES}.1", STUDY, SERIES, {"Modality": ("CT",)})
    for digest, source, rule, receipt in (
        ("a", "archive", Duplicates.KEEP_FIRST, Receipt.STORED),
        ("b", "scanner", Duplicates.KEEP_FIRST, Receipt.CONFLICT),
        ("b", "archive", Duplicates.NEW_REVISION, Receipt.REPLACED),
    ):
        new = NewInstance(header, "1.2.840.10008.1.2.1", digest, f"{digest}.dcm", 100, source)
        assert site.journal.record_instance(new, site.tick(), rule) is receipt
    (series,) = site.journal.receiving_series()
    assert series.source == "archive"
    ask(site, references(1), source="scanner")
    assert isinstance(verdict(site), Wait)


@dataclass(frozen=True)
class Arrived:
    source: str = "ct1"
    instance_count: int = 312
    opened_at: float = 1000.0
    last_instance_at: float = 1100.0
    committed_at: float | None = 1101.0
    committed_count: int | None = 312


@pytest.mark.parametrize(
    ("arrived", "complete"),
    [
        (Arrived(), True),
        (Arrived(instance_count=313), False),
        (Arrived(committed_count=None, committed_at=None), False),
        (Arrived(last_instance_at=1101.5), False),  # other bytes took the place of an instance
    ],
)
def test_the_evidence_is_about_the_series_as_it_is(arrived: Arrived, complete: bool) -> None:
    assert isinstance(decide(arrived, 1, 1104.0, RULES), Complete) is complete


def test_a_revision_that_is_decided_is_not_marked(tmp_path: Path) -> None:
    site = Site(tmp_path / "journal.db")
    site.receive()
    site.decide()
    ask(site, references(1))
    site.receive()
    (series,) = site.journal.receiving_series()
    assert (series.revision, series.committed_at) == (2, None)


# -- other bytes that were refused ------------------------------------------------------------


def test_a_source_whose_other_bytes_were_refused_is_not_told_that_they_are_committed(tmp_path: Path) -> None:
    site = Site(tmp_path / "journal.db")
    site.receive()
    (tmp_path / f"{SERIES}.1.dcm").write_bytes(bytes(100))
    assert examine(site.journal, tmp_path, "scanner", references(1)).failed == ()
    (first,) = site.journal.kept_instances([f"{SERIES}.1"])
    header = InstanceHeader(CT, f"{SERIES}.1", STUDY, SERIES, {"Modality": ("CT",)})
    other = NewInstance(header, "1.2.840.10008.1.2.1", "other", "other.dcm", 100, "scanner")
    assert site.journal.record_instance(other, site.tick(), Duplicates.REFUSE) is Receipt.REFUSED
    assert list(site.journal.kept_instances([f"{SERIES}.1"])) == [first]
    failed = examine(site.journal, tmp_path, "scanner", references(1)).failed
    assert failed == ((CT, f"{SERIES}.1", 0x0110),)
    assert examine(site.journal, tmp_path, "archive", references(1)).failed == ()  # it never sent those
