"""What ``aigw status`` says, and how it is asked for."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog
from rich.console import Console

from gateway.cli.common import console
from gateway.cli.status import print_status
from gateway.clock import SystemClock
from gateway.control import Desk
from gateway.control.disk import FlushTime, measure_flush
from gateway.control.questions import ask_status
from gateway.control.status import CertificateEnd, Listener, NodeView, node_status
from gateway.errors import GatewayError
from gateway.journal import Journal
from gateway.journal.profiles import Profiles
from gateway.journal.records import Failure
from tests.journals import Site

DAY_S = 24 * 3600.0


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    opened = Site(tmp_path / "journal.db")
    yield opened
    opened.journal.close()


@pytest.fixture
def journal(site: Site) -> Journal:
    return site.journal


@pytest.fixture
def view(tmp_path: Path, journal: Journal) -> NodeView:
    certificates = [
        CertificateEnd("ours", "", "CN=aigw", "a" * 64, 1000.0 + 10 * DAY_S),
        CertificateEnd("peer", "ct1", "CN=ct1\x1b[2J", "b" * 64, 1000.0 - DAY_S),
        CertificateEnd("authority", "", "CN=ca", "c" * 64, 1000.0 + 100 * DAY_S),
    ]
    return NodeView(
        version="1.2",
        ae_title="AIGW",
        pid=7,
        started_s=400.0,
        data_dir=tmp_path,
        journal=journal,
        max_associations=20,
        max_requests=8,
        warn_before_s=30 * DAY_S,
        listeners=lambda: [Listener("dicom", "0.0.0.0", 11112)],
        associations=lambda: {"ct1": 2},
        requests=lambda: {"vna": 1},
        last_instances=lambda: {"ct1": 990.0},
        received=lambda: {("ct1", "stored"): 5, ("ct1", "duplicate"): 1},
        refusals=lambda: {"TLS_REQUIRED": 3},
        rejections=lambda: {("ct1", "UID_INVALID"): 1, ("mr", "UID_INVALID"): 2},
        certificates=lambda: certificates,
        tls_problem=str,
        disk_problem=str,
        flush=lambda: FlushTime(0.008, 0.002),
    )


def test_a_status_has_everything_and_warns_of_what_ends(view: NodeView) -> None:
    status = node_status(view, 1000.0)
    assert status["up_s"] == 600.0
    assert status["associations"] == {"open": 2, "limit": 20, "by_peer": {"ct1": 2}}
    assert status["store_requests"] == {"open": 1, "limit": 8, "by_peer": {"vna": 1}}
    assert status["instances"]["by_source"] == [
        {"source": "ct1", "instances": 0, "last_at": 990.0, "since_start": {"stored": 5, "duplicate": 1}}
    ]
    assert status["rejected_instances"] == {"UID_INVALID": 3}
    assert status["disk"]["slices_per_s"] == 100
    assert [each["days_left"] for each in status["certificates"]] == [10.0, -1.0, 100.0]
    warnings = [each for each in status["warnings"] if "certificate" in each]
    assert len(warnings) == 2
    assert "CN=aigw (ours) ends in 10 days" in warnings[0]
    assert "(peer ct1) has ended" in warnings[1]
    json.dumps(status)


def test_what_is_in_the_journal_is_told(view: NodeView, site: Site) -> None:
    journal = site.journal
    site.at = 979.0
    site.receive()
    journal.hold_cards({"liver": Failure("MODEL_SWITCHED_OFF", "It crashed.")}, 1.0)
    status = node_status(view, 1000.0)
    assert status["instances"]["stored"] == 1
    (stored,) = [each for each in status["instances"]["by_source"] if each["instances"]]
    assert stored["last_at"] == 980.0
    assert status["held_models"] == [{"card": "liver", "name": "MODEL_SWITCHED_OFF", "reason": "It crashed."}]
    assert "liver does not run: It crashed." in status["warnings"]


def test_trouble_comes_first(view: NodeView) -> None:
    troubled = replace(view, disk_problem=lambda: "full", tls_problem=lambda: "broken file")
    assert node_status(troubled, 1000.0)["warnings"][:2] == ["full", "broken file"]


def test_files_that_the_journal_does_not_know_are_a_warning_until_they_are_gone(view: NodeView) -> None:
    folder = view.data_dir / "spool" / "unclaimed" / "ab"
    folder.mkdir(parents=True)
    assert not any("unclaimed" in each for each in node_status(view, 1000.0)["warnings"])
    (folder / f"{'ab' * 32}.dcm").touch()
    assert any(
        "journal does not know: if it was lost, put it back" in each
        for each in node_status(view, 1000.0)["warnings"]
    )


def test_a_person_reads_it_without_control_characters(view: NodeView) -> None:
    out = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    print_status(node_status(view, 1000.0), out)
    text = out.export_text()
    for said in (
        "AIGW: aigw 1.2, process 7, up 0:10:00",
        "2 of 20 open (2 ct1)",
        "at most 100 slices/s in one association",
        "aigw" and "ours: CN=aigw, 10 days left",
        "3 TLS_REQUIRED",
    ):
        assert said in text
    assert "\x1b" not in text


def test_the_disk_is_measured_and_nothing_is_left(tmp_path: Path) -> None:
    began_s = time.monotonic()
    flush = measure_flush(tmp_path)
    assert time.monotonic() - began_s < 5
    assert 0 < flush.commit_s < 5
    assert 0 < flush.slices_per_s < 1e6
    assert list(tmp_path.iterdir()) == []


@contextmanager
def desk(folder: Path, journal: Journal, status: Any) -> Iterator[None]:
    stopping = threading.Event()
    log = structlog.wrap_logger(None, processors=[lambda *_: (_ for _ in ()).throw(structlog.DropEvent)])
    opened = Desk(folder, journal, Profiles({}), SystemClock(), log, status)
    thread = threading.Thread(target=opened.run, args=(stopping,))
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


def test_the_running_node_is_asked_over_its_socket(tmp_path: Path, journal: Journal) -> None:
    assert ask_status(tmp_path) is None
    large = {"peers": ["x" * 1000] * 1000}
    with desk(tmp_path, journal, lambda: large):
        assert ask_status(tmp_path) == large
        assert ask_status(tmp_path) == large
    assert ask_status(tmp_path) is None


def test_a_node_that_gives_no_status_is_said_to_have_none(tmp_path: Path, journal: Journal) -> None:
    with desk(tmp_path, journal, lambda: ["no", "status"]), pytest.raises(GatewayError) as raised:
        ask_status(tmp_path)
    assert raised.value.name == "NO_ANSWER"


def test_a_fingerprint_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """To rich, :AB: and :CD: are emoji."""
    console().print("sha256:AB:CD:ID:0A:AB:12", soft_wrap=True)
    assert capsys.readouterr().out == "sha256:AB:CD:ID:0A:AB:12\n"
