"""Destinations with profiles of their own: each gets its own objects, in order, also after an adoption."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from ai.profile import DEFAULT_PROFILE, Profile
from gateway.journal.decide import Person
from gateway.journal.profiles import Profiles
from gateway.journal.records import QUALITY_HOLD, Failure, Purpose
from tests.journals import CONTOURS, LABEL_MAP, Site, result


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "journal.db", {"vna": LABEL_MAP, "therapy": CONTOURS})
    yield site
    site.journal.close()


def test_profiles_are_wanted_once_each_and_the_default_one_where_nothing_is_sent() -> None:
    profiles = Profiles({"vna": LABEL_MAP, "other": LABEL_MAP, "therapy": CONTOURS})
    assert profiles.wanted(("pacs", "vna", "other")) == (DEFAULT_PROFILE, LABEL_MAP)
    assert profiles.wanted(()) == (DEFAULT_PROFILE,)
    assert profiles.wanted(("pacs", "vna"), written={""}) == (LABEL_MAP,)
    assert profiles.wanted(("therapy", "vna"), purpose=Purpose.FAILURE_REPORT) == (LABEL_MAP,)
    assert profiles.report_to(("pacs", "vna", "therapy"), {""}) == ("vna",)


def test_each_destination_gets_what_belongs_to_its_profile(site: Site) -> None:
    job = site.job("pacs", "vna")
    results = [
        result("seg"),
        result("sr"),
        result("seg", LABEL_MAP),
        result("sr", LABEL_MAP),
        result("overview", DEFAULT_PROFILE, LABEL_MAP),
    ]
    site.finish(job, results)
    assert site.deliver_all("pacs") == ["seg", "sr", "overview"]
    assert site.deliver_all("vna") == ["seg", "sr", "overview"]
    record = site.record(job.id)
    sent = {r["sop_instance_uid"]: [d["destination"] for d in r["deliveries"]] for r in record["results"]}
    assert sent == {
        results[0].sop_instance_uid: ["pacs"],
        results[1].sop_instance_uid: ["pacs"],
        results[2].sop_instance_uid: ["vna"],
        results[3].sop_instance_uid: ["vna"],
        results[4].sop_instance_uid: ["pacs", "vna"],
    }
    assert record["profiles"] == {"": asdict(DEFAULT_PROFILE), LABEL_MAP.key: asdict(LABEL_MAP)}


def test_all_segmentations_go_first_then_contours_report_and_picture(site: Site) -> None:
    job = site.job("therapy")
    kinds = ["overview", "sr", "rtstruct", "seg"]
    site.finish(job, [result(kind, CONTOURS) for kind in kinds] + [result("seg", CONTOURS, number=2)])
    assert site.deliver_all("therapy") == ["seg", "seg", "rtstruct", "sr", "overview"]
    numbers = [(r["kind"], r["number"]) for r in site.record(job.id)["results"]]
    assert numbers[:2] == [("seg", 1), ("seg", 2)]


def test_shadow_mode_writes_the_default_profile_and_sends_nothing(site: Site) -> None:
    job = site.job()
    site.finish(job, [result("seg"), result("sr")])
    assert site.journal.counts()["delivery"] == {}
    assert list(site.record(job.id)["profiles"]) == [""]
    site.receive()
    site.decide("pacs", parts=[("", "digest 1.2.3 1")])
    assert site.deliver_all("pacs") == ["seg", "sr"], "taken over live: what is there is sent"


def test_an_adopted_job_is_run_again_for_a_profile_in_which_nothing_was_written(site: Site) -> None:
    job = site.job("pacs")
    site.finish(job, [result("seg"), result("sr"), result("overview")])
    assert site.deliver_all("pacs") == ["seg", "sr", "overview"]
    site.receive()
    assert site.decide("pacs", "vna", parts=[("", "digest 1.2.3 1")]) == (job.id,)
    again = site.claim()
    assert (again.id, again.attempts, again.written) == (job.id, 1, {""})
    assert site.profiles.wanted(again.destinations, again.written) == (LABEL_MAP,)
    site.finish(again, [result("seg", LABEL_MAP), result("sr", LABEL_MAP), result("overview", LABEL_MAP)])
    assert site.deliver_all("pacs") == [], "it has what it wants"
    assert site.deliver_all("vna") == ["seg", "sr", "overview"]
    record = site.record(job.id)
    assert [r["profiles"] for r in record["results"] if r["kind"] == "overview"] == [["", LABEL_MAP.key]]
    names = [event["name"] for event in record["events"]]
    assert names[-4:] == ["adopted", "profile_wanted", "claimed", "succeeded"]
    assert "as the profile of vna wants them" in record["events"][-3]["reason"]


def test_a_job_that_is_adopted_while_it_runs_is_run_again_for_what_it_was_not_asked_for(site: Site) -> None:
    job = site.job("pacs")
    site.receive()
    site.decide("vna", parts=[("", "digest 1.2.3 1")])
    site.finish(job, [result("seg"), result("sr")])
    assert site.record(job.id)["state"] == "queued"
    again = site.claim()
    site.finish(again, [result("seg", LABEL_MAP)])
    assert site.deliver_all("vna") == ["seg"]
    assert site.deliver_all("pacs") == [], "the later revision does not want it"
    assert site.record(job.id)["state"] == "done"


def test_a_queued_job_that_is_adopted_writes_what_the_later_revision_wants(site: Site) -> None:
    site.receive()
    (first,) = site.decide("pacs")
    site.receive()
    site.decide("vna", parts=[("", "digest 1.2.3 1")])
    job = site.claim()
    assert (job.id, job.destinations, job.written) == (first, ("vna",), frozenset())


def test_held_results_are_written_for_a_further_profile_when_they_are_released(site: Site) -> None:
    hold = Failure(QUALITY_HOLD, "Liver has 3 mL.")
    job = site.job("pacs")
    site.finish(job, [result("seg")], hold=hold)
    site.receive()
    site.decide("pacs", "vna", parts=[("", "digest 1.2.3 1")])
    assert site.claim_if_any() is None, "nobody has said yet that they may be sent"
    assert site.journal.waiting_deliveries() == {}
    text = site.journal.release_results(job.id, Person("a.huber", "seen"), site.tick(), site.profiles)
    assert text == "Results on their way to pacs, vna: 1. The job runs once more, for vna alone."
    again = site.claim()
    site.journal.fail_job(again, Failure("OUT_OF_MEMORY", "Too large."), site.tick(), site.profiles)
    assert site.deliver_all("pacs") == ["seg"], "what is released is sent, whatever becomes of the rest"
    assert site.claim().destinations == ("vna",), "told of the failure"


def test_the_record_of_a_further_run_has_the_objects_of_all(site: Site) -> None:
    def run(*uids: str) -> dict[str, object]:
        return {"model": {}, "results": [{"sop_instance_uid": uid} for uid in uids]}

    job = site.job("pacs")
    site.finish(job, [result("seg")], run=run("2.1", "2.2"))
    site.receive()
    site.decide("pacs", "vna", parts=[("", "digest 1.2.3 1")])
    site.finish(site.claim(), [result("seg", LABEL_MAP)], run=run("2.3", "2.2"))
    assert site.record(job.id)["run"] == run("2.1", "2.2", "2.3")


def test_a_run_for_a_further_profile_that_is_held_was_never_asked_for_twice(site: Site) -> None:
    job = site.job("pacs")
    site.receive()
    site.decide("pacs", "vna", parts=[("", "digest 1.2.3 1")])
    site.finish(job, [result("seg")], hold=Failure(QUALITY_HOLD, "Liver has 3 mL."))
    record = site.record(job.id)
    assert (record["state"], record["held"], record["failure_name"]) == ("done", 1, QUALITY_HOLD)
    assert site.claim_if_any() is None


@pytest.mark.parametrize("running", [False, True])
def test_what_was_done_stays_done_when_a_newer_revision_ends_the_further_run(
    site: Site, running: bool
) -> None:
    job = site.job("pacs")
    site.finish(job, [result("seg")], run={"segments": []})
    assert site.deliver_all("pacs") == ["seg"]
    site.receive()
    site.decide("pacs", "vna", parts=[("", "digest 1.2.3 1")])
    again = site.claim() if running else None
    site.receive()
    site.decide("pacs", parts=[("", "other images")])
    if again is not None:
        superseded = site.journal.newer_revision(again)
        assert superseded is not None
        site.journal.fail_job(again, superseded, site.tick(), site.profiles)
    other = site.claim()
    assert other.id != job.id
    record = site.record(job.id)
    assert (record["state"], record["failure_name"], record["run"]) == ("done", None, {"segments": []})
    site.receive()
    adopted, _ = site.decide("pacs", "vna", parts=[("A", "digest 1.2.3 1"), ("B", "other images")])
    assert adopted == job.id, "a job of its own would write the same UIDs anew"
    assert site.deliver_all("pacs") == []


def test_a_superseded_delivery_in_a_form_that_is_not_wanted_any_more_is_not_sent(site: Site) -> None:
    job = site.job("pacs")
    site.finish(job, [result("seg")])
    site.receive()
    site.decide(parts=[("", "other images")])
    assert site.deliver_all("pacs") == [], "superseded"
    site.profiles = Profiles({"pacs": LABEL_MAP})
    site.receive()
    site.decide("pacs", parts=[("A", "digest 1.2.3 1"), ("B", "other images")])
    assert site.journal.waiting_deliveries() == {}
    (again,) = [each for each in (site.claim(), site.claim()) if each.id == job.id]
    site.finish(again, [result("seg", LABEL_MAP)])
    assert site.journal.waiting_deliveries() == {"pacs": 1}


def test_the_configuration_as_it_is_now_decides_how_a_queued_job_is_written(tmp_path: Path) -> None:
    site = Site(tmp_path / "journal.db")
    site.receive()
    site.decide("pacs")
    site.profiles = Profiles({"pacs": Profile(absent="report")})
    job = site.claim()
    (profile,) = site.profiles.wanted(job.destinations, job.written, job.purpose)
    assert profile.absent == "report"
    site.finish(job, [result("seg", profile)])
    assert site.deliver_all("pacs") == ["seg"]
    site.journal.close()


@pytest.mark.parametrize("state", ["sent", "pending", "nothing sent"])
def test_a_report_names_the_one_that_it_replaces_if_that_was_sent(site: Site, state: str) -> None:
    first = site.job("pacs", "vna")
    assert site.journal.reports_before(first) == {}
    site.finish(first, [result("seg"), result("sr"), result("seg", LABEL_MAP), result("sr", LABEL_MAP)])
    if state != "nothing sent":
        seg = site.journal.claim_delivery("pacs", site.tick())
        assert seg is not None
        site.journal.delivery_sent(seg, "0000", site.tick())
    if state == "sent":
        assert site.deliver_all("pacs") == ["sr"]
    second = site.job("pacs", "vna")
    found = site.journal.reports_before(second)
    assert set(found) == (set() if state == "nothing sent" else {""}), (
        "of a set in part the rest is still sent"
    )
    if found:
        assert found[""].sop_instance_uid == result("sr").sop_instance_uid
        assert found[""].series_instance_uid == result("sr").series_instance_uid
        assert found[""].study_instance_uid == "1.2"


def test_the_newest_report_is_the_one_that_is_replaced(site: Site) -> None:
    for run in ("1", "2"):
        job = site.job("pacs")
        site.finish(job, [result("sr", run=run)])
        site.deliver_all("pacs")
    third = site.job("pacs")
    assert site.journal.reports_before(third)[""].sop_instance_uid == result("sr", run="2").sop_instance_uid
    elsewhere = site.job("pacs", series="1.2.4")
    assert site.journal.reports_before(elsewhere) == {}
