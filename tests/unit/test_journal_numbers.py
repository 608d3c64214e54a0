"""Series numbers of results are the job's own in its study, and stay over revisions."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.journals import Site, result


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "journal.db")
    yield site
    site.journal.close()


def forget_base(site: Site, job_id: int) -> None:
    """As a job of a version that kept no bases is after the migration."""
    with sqlite3.connect(site.path) as connection:
        connection.execute("UPDATE job SET series_number_base = NULL WHERE id = ?", (job_id,))
    connection.close()


def test_jobs_of_a_study_are_ten_apart_and_a_later_revision_keeps_its_numbers(site: Site) -> None:
    first, second = site.job(series="1.2.3"), site.job(series="1.2.4")
    assert (first.series_number_base, second.series_number_base) == (9000, 9010)
    site.finish(first, [result("seg")])
    assert site.job(series="1.2.3").series_number_base == 9000
    assert site.job(series="1.2.5").series_number_base == 9020


def test_parts_and_models_have_numbers_of_their_own(site: Site) -> None:
    site.receive()
    site.decide(parts=[("A", "a"), ("B", "b")])
    assert [site.claim().series_number_base for _ in range(2)] == [9000, 9010]
    site.receive()
    site.decide(parts=[("A", "other a")], card="lungs")
    assert site.claim().series_number_base == 9020


@pytest.mark.parametrize(("number", "base"), [("9003", 9010), ("9010", 9000), ("9009", 9010), ("8999", 9000)])
def test_numbers_of_received_series_are_left_out(site: Site, number: str, base: int) -> None:
    site.receive("1.2.9", SeriesNumber=number)
    site.decide(parts=[("", "x")])
    assert site.claim().series_number_base == base


def test_a_series_number_that_is_none_is_nobodys(site: Site) -> None:
    assert site.job(SeriesNumber="nine thousand").series_number_base == 9000
    assert site.job(series="1.2.7", SeriesNumber="-3").series_number_base == 9010
    assert site.job(series="1.2.8", SeriesNumber="+-3").series_number_base == 9020
    assert site.job(series="1.2.9", SeriesNumber="9" * 5000).series_number_base == 9030


def test_a_claim_after_an_interruption_keeps_the_base(site: Site) -> None:
    job = site.job()
    site.job(series="1.2.4")
    site.journal.recover(site.tick())
    again = site.claim()
    assert (again.id, again.series_number_base) == (job.id, 9000)


def test_another_first_number_does_not_bring_two_jobs_together(site: Site) -> None:
    site.job()
    site.receive("1.2.4")
    site.decide()
    assert site.claim(first=8995).series_number_base == 9015


def test_an_adopted_part_keeps_its_numbers_under_its_new_key(site: Site) -> None:
    site.receive()
    (first,) = site.decide(parts=[("", "a")])
    site.finish(site.claim(), [result("seg")])
    site.receive()
    adopted, _ = site.decide(parts=[("phase=1", "a"), ("phase=2", "b")])
    assert adopted == first
    assert site.claim().series_number_base == 9010
    site.receive()
    site.decide(parts=[("phase=1", "c"), ("phase=2", "d")])
    assert [site.claim().series_number_base for _ in range(2)] == [9000, 9010]


def test_results_of_an_older_version_have_the_configured_numbers(site: Site) -> None:
    job = site.job()
    site.finish(job, [result("seg")])
    forget_base(site, job.id)
    assert site.job(series="1.2.4").series_number_base == 9010
    assert site.job().series_number_base == 9000


def test_of_two_series_that_an_older_version_gave_the_same_numbers_none_keeps_them(site: Site) -> None:
    for series in ("1.2.3", "1.2.4"):
        job = site.job(series=series)
        site.finish(job, [result("seg", run=series)])
        forget_base(site, job.id)
    assert site.job(series="1.2.3").series_number_base == 9010
    assert site.job(series="1.2.4").series_number_base == 9020
