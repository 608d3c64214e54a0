"""A job that has failed for good is reported once where the site wants that; what is superseded never is."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.errors import LostRace
from gateway.journal.records import SUPERSEDED, ClaimedJob, Failure, Purpose, Wanted
from gateway.states import JobEvent
from tests.journals import CONTOURS, LABEL_MAP, Site, result

SHORT = Failure("PIXEL_DATA_TOO_SHORT", "10 of 20 bytes.")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "journal.db", {"vna": LABEL_MAP, "therapy": CONTOURS})
    yield site
    site.journal.close()


def fail(site: Site, job: ClaimedJob, failure: Failure = SHORT) -> None:
    site.journal.fail_job(job, failure, site.tick(), site.profiles)


def test_a_failed_job_is_reported_to_the_destinations_that_take_reports(site: Site) -> None:
    failed = site.job("pacs", "vna", "therapy")
    fail(site, failed)
    job = site.claim()
    assert (job.purpose, job.reports, job.card) == (Purpose.FAILURE_REPORT, SHORT, failed.card)
    assert (job.series_id, job.part, job.destinations) == (failed.series_id, failed.part, ("pacs", "vna"))
    assert job.series_number_base == failed.series_number_base
    site.finish(job, [result("sr"), result("sr", LABEL_MAP)])
    assert (site.deliver_all("pacs"), site.deliver_all("vna"), site.deliver_all("therapy")) == (
        ["sr"],
        ["sr"],
        [],
    )
    assert site.claim_if_any() is None
    first, second = site.stories()[0]["jobs"]
    assert (first["purpose"], first["state"], second["purpose"]) == ("run", "failed", "failure_report")
    assert "job 1 has failed" in second["events"][0]["reason"]


def test_without_the_setting_nothing_is_reported(site: Site) -> None:
    site.journal.fail_job(site.job("pacs"), SHORT, site.tick())
    assert site.claim_if_any() is None


@pytest.mark.parametrize("destinations", [(), ("therapy",)])
def test_where_nobody_takes_reports_there_is_none(site: Site, destinations: tuple[str, ...]) -> None:
    fail(site, site.job(*destinations))
    assert site.claim_if_any() is None


def test_what_a_newer_revision_took_the_place_of_is_not_reported(site: Site) -> None:
    fail(site, site.job("pacs"), Failure(SUPERSEDED, "Revision 2 takes its place."))
    assert site.claim_if_any() is None
    site.receive()
    site.decide("pacs")
    site.receive()
    site.decide("pacs")
    job = site.claim()  # ends the one of the older revision, which was queued
    assert (job.purpose, job.revision) == (Purpose.RUN, 3)
    assert site.claim_if_any() is None


def test_a_report_that_fails_is_not_reported(site: Site) -> None:
    fail(site, site.job("pacs"))
    fail(site, site.claim(), Failure("NO_READABLE_FILE", "None."))
    assert site.claim_if_any() is None


def test_the_failure_and_its_report_are_one_transaction(site: Site) -> None:
    job = site.job("pacs")
    with sqlite3.connect(site.path) as connection:
        connection.execute(
            "CREATE TRIGGER full BEFORE INSERT ON job BEGIN SELECT RAISE(ABORT, 'the disk is full'); END"
        )
    connection.close()
    with pytest.raises(sqlite3.Error, match="the disk is full"):
        fail(site, job)
    assert site.record(job.id)["state"] == "running"
    with sqlite3.connect(site.path) as connection:
        connection.execute("DROP TRIGGER full")
    connection.close()
    fail(site, job)
    with pytest.raises(LostRace):
        fail(site, job)
    assert [j["purpose"] for j in site.stories()[0]["jobs"]] == ["run", "failure_report"]


def test_a_report_does_not_wait_for_the_model(site: Site) -> None:
    fail(site, site.job("pacs"))
    site.journal.hold_cards({"ct-tissue": Failure("MODEL_SWITCHED_OFF", "Off.")}, site.tick())
    (_, waiting) = site.stories()[0]["jobs"]
    assert waiting["hold_name"] is None
    at = site.tick()
    job = site.journal.claim_job("lease", at + 60, at, wanted=Wanted(frozenset({"ct-tissue"})))
    assert job is not None
    assert job.purpose is Purpose.FAILURE_REPORT


def test_a_later_revision_with_the_same_images_takes_the_report_over(site: Site) -> None:
    site.receive()
    site.decide("pacs", parts=[("", "a")])
    failed = site.claim()
    fail(site, failed)
    site.receive()
    site.decide("pacs", "vna", parts=[("phase=1", "a"), ("phase=2", "b")])
    jobs = [site.claim(), site.claim()]
    (report,) = [job for job in jobs if job.purpose is Purpose.FAILURE_REPORT]
    assert (report.part, report.revision, report.destinations) == ("phase=1", 2, ("pacs", "vna"))
    assert report.reports == SHORT
    assert site.record(failed.id)["state"] == "failed"


def test_a_report_that_was_superseded_is_made_anew_where_a_later_revision_wants_it(site: Site) -> None:
    site.receive()
    site.decide("pacs", parts=[("", "a")])
    fail(site, site.claim())
    site.receive()
    site.decide("pacs", parts=[("", "b")])
    assert site.claim().purpose is Purpose.RUN, "the report is of an older revision: superseded"
    site.receive()
    site.decide("pacs", parts=[("x", "a"), ("y", "b")])
    report = site.claim()
    assert (report.purpose, report.part, report.reports) == (Purpose.FAILURE_REPORT, "x", SHORT)


def test_a_run_for_a_further_profile_that_fails_is_reported_to_those_that_have_nothing(site: Site) -> None:
    job = site.job("pacs")
    site.finish(job, [result("seg")])
    site.receive()
    site.decide("pacs", "vna", parts=[("", "digest 1.2.3 1")])
    fail(site, site.claim())
    assert site.claim().destinations == ("vna",)


def test_a_report_that_is_taken_over_is_not_sent_to_those_that_have_the_results(site: Site) -> None:
    job = site.job("pacs")
    site.finish(job, [result("seg"), result("sr", run="results")])
    site.deliver_all("pacs")
    site.receive()
    site.decide("pacs", "vna", parts=[("", "digest 1.2.3 1")])
    fail(site, site.claim())
    site.finish(site.claim(), [result("sr", LABEL_MAP)])
    assert site.deliver_all("vna") == ["sr"]
    site.receive()
    site.decide("pacs", "vna", parts=[("", "digest 1.2.3 1")])
    assert site.claim_if_any() is None, "nobody lacks the report"
    assert site.journal.waiting_deliveries() == {}


def test_what_is_said_of_a_first_run_stays_when_a_further_one_fails(site: Site) -> None:
    job = site.job("pacs")
    site.finish(job, [result("seg")], run={"segments": [{"label": "Liver"}]})
    site.receive()
    site.decide("pacs", "vna", parts=[("", "digest 1.2.3 1")])
    fail(site, site.claim())
    record = site.record(job.id)
    assert (record["state"], record["run"]) == ("failed", {"segments": [{"label": "Liver"}]})


def test_a_retry_is_no_failure(site: Site) -> None:
    job = site.job("pacs")
    now = site.tick()
    site.journal.requeue_job(job, JobEvent.RETRYABLE_ERROR, SHORT, now, now)
    assert site.claim().id == job.id
