"""Orders of people: carried out by the gateway that runs, or under the lock of the folder while none does."""

from __future__ import annotations

import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import structlog

from gateway.clock import SystemClock
from gateway.control import Answer, Desk, Order, carry_out_orders, desk
from gateway.control.orders import decode_answer, decode_order, encode
from gateway.errors import GatewayError
from gateway.journal.profiles import Profiles
from gateway.journal.records import QUALITY_HOLD, Failure
from gateway.process import lock_data_dir
from tests.journals import Site, result

RELEASE = Order("release", 1, "a.huber", "looked at it")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder whose path is longer than a socket's address may be."""
    folder = tmp_path / ("deep" * 15) / ("deeper" * 10)
    folder.mkdir(parents=True, mode=0o700)
    return folder


@pytest.fixture
def site(folder: Path) -> Iterator[Site]:
    site = Site(folder / "journal.db")
    site.finish(site.job("pacs"), [result("seg")], hold=Failure(QUALITY_HOLD, "Liver has 3 mL."))
    yield site
    site.journal.close()


@contextmanager
def running(site: Site, folder: Path) -> Iterator[None]:
    """The desk of a gateway, which has the lock of the folder."""
    stopping = threading.Event()
    with lock_data_dir(folder):
        desk = Desk(folder, site.journal, Profiles(), SystemClock(), structlog.get_logger())
        thread = threading.Thread(target=desk.run, args=(stopping,))
        thread.start()
        try:
            yield
        finally:
            stopping.set()
            thread.join(timeout=10)


def connected(folder: Path) -> socket.socket:
    """A stranger at the desk."""
    folder_fd = os.open(folder, os.O_PATH)
    stranger = socket.socket(socket.AF_UNIX)
    stranger.connect(f"/proc/self/fd/{folder_fd}/control")
    os.close(folder_fd)
    return stranger


def ask(folder: Path, *orders: Order) -> tuple[Answer, ...]:
    return carry_out_orders(folder, orders, Profiles(), SystemClock(), lock_data_dir)


def test_the_running_gateway_carries_out_orders(site: Site, folder: Path) -> None:
    with running(site, folder):
        assert ask(folder, RELEASE) == (Answer(1, "Results on their way to pacs: 1."),)
        (refused, unknown) = ask(folder, RELEASE, Order("discard", 7, "x"))
    assert (refused.refused, unknown.refused) == ("NOT_HELD", "NOT_FOUND")
    site.at = SystemClock().now_s()
    assert site.deliver_all("pacs") == ["seg"]
    assert "a.huber: looked at it" in site.record(1)["events"][-1]["reason"]


def test_without_a_gateway_the_journal_is_opened_under_the_lock(site: Site, folder: Path) -> None:
    site.journal.close()
    (answer,) = ask(folder, Order("discard", 1, "a.huber", "artefact"))
    assert answer.refused == ""
    assert site.record(1)["failure_name"] == "RESULTS_DISCARDED"


def test_the_socket_of_a_killed_gateway_is_in_nobodys_way(site: Site, folder: Path) -> None:
    with running(site, folder):
        pass
    assert (folder / "control").exists(), "what a killed one leaves"
    with running(site, folder):
        assert ask(folder, RELEASE)[0].refused == ""


def test_a_gateway_that_has_the_folder_but_does_not_listen_is_not_bypassed(site: Site, folder: Path) -> None:
    with lock_data_dir(folder), pytest.raises(GatewayError, match="DATA_DIR_IN_USE"):
        ask(folder, RELEASE)
    assert site.record(1)["held"] == 1


def test_a_start_waits_a_moment_for_a_lock_that_a_killed_gateway_left_to_its_child(folder: Path) -> None:
    held = lock_data_dir(folder)
    ending = threading.Timer(0.3, held.close)
    ending.start()
    with lock_data_dir(folder, wait_s=30.0), pytest.raises(GatewayError, match="DATA_DIR_IN_USE"):
        lock_data_dir(folder, wait_s=0.1)
    ending.join()


def test_only_the_user_of_the_gateway_may_ask(site: Site, folder: Path) -> None:
    with running(site, folder):
        assert stat.S_IMODE((folder / "control").stat().st_mode) == 0o600


def test_another_user_does_not_open_the_journal(
    site: Site, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    with pytest.raises(GatewayError, match="NOT_THE_GATEWAYS_USER"):
        ask(folder, RELEASE)


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"[]\n",
        b'{"verb": "release"}\n',
        b'{"verb": "drop", "job": 1, "by": "x", "why": "", "destination": ""}\n',
        b'{"verb": "release", "job": "1", "by": "x", "why": "", "destination": ""}\n',
        b'{"verb": "release", "job": true, "by": "x", "why": "", "destination": ""}\n',
        b'{"verb": "release", "job": 99999999999999999999, "by": "x", "why": "", "destination": ""}\n',
        b"\xff\xfe\n",
        b"[" * 60_000 + b"\n",
    ],
)
def test_what_is_no_order_is_not_carried_out_and_the_desk_stays_open(
    site: Site, folder: Path, line: bytes
) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of several kinds
        decode_order(line)
    with running(site, folder):
        with connected(folder) as stranger:
            stranger.sendall(line)
            assert stranger.recv(100) == b""
        assert ask(folder, RELEASE)[0].refused == ""


def test_what_has_no_end_is_not_read(site: Site, folder: Path) -> None:
    with running(site, folder):
        with connected(folder) as stranger, pytest.raises(OSError):  # noqa: PT011 - reset, or broken pipe
            stranger.sendall(b"x" * 50_000_000)
        assert ask(folder, RELEASE)[0].refused == ""


def test_half_an_order_is_none(site: Site, folder: Path) -> None:
    with running(site, folder):
        with connected(folder) as stranger:
            stranger.sendall(encode(RELEASE)[:-1])
        assert ask(folder, RELEASE)[0].refused == "", "the first one was not carried out"


def test_a_client_that_says_nothing_keeps_the_others_for_seconds_and_the_end_not_at_all(
    site: Site, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "_LINE_TIMEOUT_S", 1.0)
    with running(site, folder), connected(folder):
        began_s = time.monotonic()
        assert ask(folder, RELEASE)[0].refused == ""
        assert time.monotonic() - began_s > 0.6, "it has its time"
        monkeypatch.setattr(desk, "_LINE_TIMEOUT_S", 60.0)
        silent = connected(folder)
        time.sleep(0.5)
        ends_s = time.monotonic()
    silent.close()
    assert time.monotonic() - ends_s < 8.0


def test_a_journal_that_cannot_be_opened_has_a_name(folder: Path) -> None:
    (folder / "journal.db").write_bytes(b"no database" * 1000)
    with pytest.raises(GatewayError, match="JOURNAL_UNUSABLE"):
        ask(folder, RELEASE)


def test_messages_come_back_as_they_were_sent() -> None:
    order = Order("resend", 3, "Ä. Huber", "why\nnot", "pacs")
    assert decode_order(encode(order)) == order
    answer = Answer(3, "gesendet", "X")
    assert decode_answer(encode(answer)) == answer
    with pytest.raises(GatewayError, match="NO_ANSWER"):
        decode_answer(b"")
