"""``aigw results``: what waits for a person, and what is decided, with the exit codes of the house."""

from __future__ import annotations

import getpass
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.cli.app import run
from gateway.clock import SystemClock
from gateway.journal.records import QUALITY_HOLD, Failure
from tests.journals import SERIES, Site, result

CONFIG = """\
version: 1
data_dir: {folder}
peers:
  pacs: {{ae_title: PACS, host: 127.0.0.1, port: 4242, roles: [destination]}}
  archive: {{ae_title: VNA, host: 127.0.0.1, port: 4243, roles: [destination]}}
results: {{status: live}}
"""
HOLD = Failure(QUALITY_HOLD, "Liver has 3 mL.")
Aigw = Callable[..., tuple[int, str, str]]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """No gateway runs: the command has the journal to itself, and the test looks at it in between."""
    (tmp_path / "gw.yaml").write_text(CONFIG.format(folder=tmp_path), encoding="utf-8")
    site = Site(tmp_path / "journal.db")
    site.at = SystemClock().now_s()
    yield site
    site.journal.close()


@pytest.fixture
def aigw(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Aigw:
    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            run(["results", *arguments, "--config", str(tmp_path / "gw.yaml")])
        out, err = capsys.readouterr()
        return int(caught.value.code or 0), out, err

    return call


def held(site: Site, series: str = SERIES) -> int:
    job = site.job("pacs", "archive", series=series)
    site.finish(job, [result("seg", run=series), result("sr", run=series)], hold=HOLD)
    return job.id


def sent(site: Site, series: str) -> int:
    job = site.job("pacs", "archive", series=series)
    site.finish(job, [result("seg", run=series)])
    site.deliver_all("pacs")
    site.deliver_all("archive")
    return job.id


def test_the_list_tells_what_waits_and_since_when(site: Site, aigw: Aigw) -> None:
    assert aigw("list") == (0, "Nothing waits for a person.\n", "")
    job = held(site)
    code, out, _ = aigw("list")
    assert code == 0
    assert f"job {job}  series {SERIES}  model tissue" in out
    assert "QUALITY_HOLD: Liver has 3 mL." in out
    rows = json.loads(aigw("list", "--json")[1])["jobs"]
    assert [(row["job"], row["held"], row["dead"]) for row in rows] == [(job, 1, 0)]


@pytest.mark.parametrize("target", ["1", SERIES, "…2.3", ".3"])
def test_a_job_is_named_by_its_number_or_by_its_series(site: Site, aigw: Aigw, target: str) -> None:
    held(site)
    code, out, err = aigw("release", target, "--reason", "looked at it", "--by", "a.huber")
    assert (code, err) == (0, "")
    assert out == "job 1: Results on their way to pacs, archive: 4.\n"
    assert site.deliver_all("pacs") == ["seg", "sr"]
    assert site.record(1)["events"][-1]["reason"] == f"{QUALITY_HOLD} released by a.huber: looked at it"


def test_a_decision_needs_a_reason_and_has_a_name(site: Site, aigw: Aigw) -> None:
    held(site)
    assert aigw("release", "1")[0] == 2
    code, _, err = aigw("discard", "1", "--reason", " ")
    assert (code, err.split(":")[0]) == (2, "NO_REASON")
    code, out, _ = aigw("discard", "1", "--reason", "artefact", "--json")
    assert code == 0
    assert json.loads(out) == {
        "jobs": [{"job": 1, "text": "Its results are kept here and not sent.", "refused": ""}]
    }
    assert f"discarded by {getpass.getuser()}: artefact" in site.record(1)["events"][-1]["reason"]


def test_what_a_terminal_gives_is_kept_as_text(
    site: Site, aigw: Aigw, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody() -> str:
        raise KeyError

    held(site)
    assert aigw("release", "1", "--reason", "x" * 2001)[2].startswith("TOO_LONG")
    monkeypatch.setattr(getpass, "getuser", nobody)
    assert aigw("release", "1", "--reason", "Gr\udcf6\udcdfe")[0] == 0
    assert site.record(1)["events"][-1]["reason"].endswith(f"by user {os.getuid()}: Gr??e")


def test_what_is_not_held_is_refused_and_what_is_not_there_is_not_found(site: Site, aigw: Aigw) -> None:
    sent(site, "1.2.5")
    code, _, err = aigw("release", "1", "--reason", "x")
    assert (code, err) == (6, "job 1: NOT_HELD: The results of job 1 are not held: the job is done.\n")
    code, _, err = aigw("release", "1.2.5", "--reason", "x")
    assert code == 6
    assert "job 1 is done" in err
    assert aigw("release", "7", "--reason", "x")[0] == 5
    assert aigw("release", "9" * 20, "--reason", "x")[0] == 5
    assert aigw("release", "1.9.9", "--reason", "x")[0] == 5
    code, _, err = aigw("release", "4711x", "--reason", "x")
    assert (code, err.split(":")[0]) == (2, "NOT_A_TARGET")


def test_sent_results_are_sent_once_more_to_all_or_to_one(site: Site, aigw: Aigw) -> None:
    sent(site, "1.2.5")
    assert aigw("resend", "1.2.5", "--to", "archive")[:2] == (
        0,
        "job 1: Deliveries that are made once more: 1.\n",
    )
    assert site.journal.waiting_deliveries() == {"archive": 1}
    assert aigw("resend", "1")[0] == 0
    assert site.journal.waiting_deliveries() == {"archive": 1, "pacs": 1}
    code, _, err = aigw("resend", "1", "--to", "nobody")
    assert (code, err.split(":")[0]) == (5, "UNKNOWN_PEER")
    held(site)
    code, _, err = aigw("resend", "2")
    assert code == 6
    assert "aigw results release" in err


def test_of_a_series_in_parts_all_held_jobs_are_released(site: Site, aigw: Aigw) -> None:
    site.receive()
    site.decide("pacs", parts=[("A", "a"), ("B", "b"), ("C", "c")])
    for number in range(3):
        hold = HOLD if number else None
        site.finish(site.claim(), [result("seg", run=str(number))], hold=hold)
    code, out, _ = aigw("release", SERIES, "--reason", "seen")
    assert (code, out.count("Results on their way")) == (0, 2)
    assert site.journal.waiting_deliveries() == {"pacs": 3}
