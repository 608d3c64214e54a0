"""What a person decides: held results released or discarded, sent results sent once more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.errors import RefusedByState
from gateway.journal import JournalReader
from gateway.journal.decide import Person
from gateway.journal.records import DISCARDED, NOTHING_FOUND, QUALITY_HOLD, ClaimedJob, Failure
from tests.journals import LABEL_MAP, Site, result

HOLD = Failure(QUALITY_HOLD, "The results are kept here and not sent: Liver has 3 mL.")
WHO = Person("a.huber", "looked at it, the liver is small")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "journal.db", {"vna": LABEL_MAP})
    yield site
    site.journal.close()


def held(site: Site, *destinations: str, hold: Failure = HOLD) -> ClaimedJob:
    job = site.job(*destinations)
    site.finish(job, [result("seg"), result("sr")], hold=hold)
    assert site.journal.waiting_deliveries() == {}
    return job


def waiting(site: Site) -> list[tuple[int, int, int]]:
    reader = JournalReader(site.path)
    try:
        return [(each["job"], each["held"], each["dead"]) for each in reader.waiting_for_a_person()]
    finally:
        reader.close()


@pytest.mark.parametrize("name", [QUALITY_HOLD, NOTHING_FOUND])
def test_released_results_are_sent_and_it_is_kept_who_and_why(site: Site, name: str) -> None:
    job = held(site, "pacs", hold=Failure(name, "Held."))
    assert waiting(site) == [(job.id, 1, 0)]
    text = site.journal.release_results(job.id, WHO, site.tick(), site.profiles)
    assert text == "Results on their way to pacs: 2."
    assert site.deliver_all("pacs") == ["seg", "sr"]
    record = site.record(job.id)
    assert (record["held"], record["failure_name"], record["released_at"]) == (0, None, site.at - 5)
    event = record["events"][-1]
    assert (event["name"], event["from_state"], event["to_state"]) == ("released", "done", "done")
    assert event["reason"] == f"{name} released by a.huber: looked at it, the liver is small"
    assert waiting(site) == []


def test_a_second_release_is_refused(site: Site) -> None:
    job = held(site, "pacs")
    site.journal.release_results(job.id, WHO, site.tick(), site.profiles)
    with pytest.raises(RefusedByState, match="NOT_HELD"):
        site.journal.release_results(job.id, WHO, site.tick(), site.profiles)
    assert site.journal.waiting_deliveries() == {"pacs": 2}


def test_discarded_results_are_never_sent_and_a_later_revision_does_not_send_them(site: Site) -> None:
    job = held(site, "pacs")
    site.journal.discard_results(job.id, WHO, site.tick())
    record = site.record(job.id)
    assert (record["failure_name"], record["held"], len(record["results"])) == (DISCARDED, 1, 2)
    assert "a.huber" in record["failure_reason"]
    assert HOLD.reason in record["failure_reason"]
    assert waiting(site) == []
    with pytest.raises(RefusedByState, match="ALREADY_DISCARDED"):
        site.journal.discard_results(job.id, WHO, site.tick())
    site.receive()
    site.decide("pacs", "vna", parts=[("", "digest 1.2.3 1")])
    assert site.journal.waiting_deliveries() == {}
    assert site.claim_if_any() is None


def test_a_person_may_change_their_mind(site: Site) -> None:
    job = held(site, "pacs")
    site.journal.discard_results(job.id, WHO, site.tick())
    site.journal.release_results(job.id, WHO, site.tick(), site.profiles)
    assert site.deliver_all("pacs") == ["seg", "sr"]


def test_released_results_stay_released_when_a_further_profile_is_written(site: Site) -> None:
    job = held(site, "pacs")
    site.journal.release_results(job.id, WHO, site.tick(), site.profiles)
    site.receive()
    site.decide("pacs", "vna", parts=[("", "digest 1.2.3 1")])
    site.finish(site.claim(), [result("seg", LABEL_MAP)], hold=HOLD)
    assert site.deliver_all("vna") == ["seg"]


def test_a_release_where_the_profile_has_changed_since_has_the_results_written_again(site: Site) -> None:
    job = held(site, "pacs")
    site.profiles = type(site.profiles)({"pacs": LABEL_MAP})
    site.journal.release_results(job.id, WHO, site.tick(), site.profiles)
    again = site.claim()
    assert (again.id, site.profiles.wanted(again.destinations, again.written)) == (job.id, (LABEL_MAP,))
    site.finish(again, [result("seg", LABEL_MAP)], hold=HOLD)
    assert site.deliver_all("pacs") == ["seg"]


def test_what_cannot_be_released_says_why(site: Site) -> None:
    with pytest.raises(RefusedByState, match="NOT_FOUND"):
        site.journal.release_results(99, WHO, site.tick(), site.profiles)
    shadow = held(site)
    with pytest.raises(RefusedByState, match="NO_DESTINATION"):
        site.journal.release_results(shadow.id, WHO, site.tick(), site.profiles)
    site.receive()
    with pytest.raises(RefusedByState, match="SUPERSEDED: Job 1 is of revision 1"):
        site.journal.release_results(shadow.id, WHO, site.tick(), site.profiles)


def test_sent_and_given_up_results_are_sent_once_more_with_all_their_time(site: Site) -> None:
    job = site.job("pacs", "archive")
    site.finish(job, [result("seg"), result("sr")])
    assert site.deliver_all("pacs") == ["seg", "sr"]
    delivery = site.journal.claim_delivery("archive", site.tick())
    assert delivery is not None
    site.journal.delivery_dead(delivery, Failure("REFUSED", "0xA900"), site.tick())
    assert waiting(site) == [(job.id, 0, 1)]
    text = site.journal.resend_results(job.id, Person("a.huber", ""), site.tick())
    assert text == "Deliveries that are made once more: 3."
    first = site.journal.claim_delivery("archive", site.tick())
    assert first is not None
    assert (first.id, first.attempts, first.created_at) == (delivery.id, 1, site.at - 1)
    assert site.deliver_all("pacs") == ["seg", "sr"]
    events = site.record(job.id)["results"][0]["deliveries"][0]["events"]
    assert [e["name"] for e in events[-3:]] == ["resend_asked", "claimed", "stored"]
    assert "a.huber" in events[-3]["reason"]


def test_a_resend_may_be_for_one_destination(site: Site) -> None:
    job = site.job("pacs", "archive")
    site.finish(job, [result("seg")])
    site.deliver_all("pacs")
    site.deliver_all("archive")
    site.journal.resend_results(job.id, WHO, site.tick(), "archive")
    assert site.journal.waiting_deliveries() == {"archive": 1}


def test_what_was_not_sent_yet_or_is_held_is_not_sent_once_more(site: Site) -> None:
    job = site.job("pacs")
    site.finish(job, [result("seg")])
    with pytest.raises(RefusedByState, match="NOTHING_TO_RESEND: Job 1 has no result that was sent"):
        site.journal.resend_results(job.id, WHO, site.tick())
    other = site.job("pacs", series="1.2.9")
    site.finish(other, [result("seg", run="2")], hold=HOLD)
    with pytest.raises(RefusedByState, match="aigw results release"):
        site.journal.resend_results(other.id, WHO, site.tick())
