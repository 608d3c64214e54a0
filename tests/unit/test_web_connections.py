"""HTTP connections over real sockets: what a stranger's bytes may cost, and who is served all the same."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import h11
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from gateway.web.connections import MAX_HEAD_BYTES, MAX_HEAD_FIELDS, GuardedProtocol
from gateway.web.server import WebServer
from tests.builders import ct_series
from tests.stow import AUTHORIZATION, CONTENT_TYPE, StowServer, multipart, part10, raw, stow_server
from tests.waiting import wait_until

STRANGER = b"POST /dicom-web/studies HTTP/1.1\r\nHost: localhost\r\n"
KNOWN = STRANGER + "".join(
    f"{name}: {value}\r\n" for name, value in {**AUTHORIZATION, "Content-Type": CONTENT_TYPE}.items()
).encode("ascii")
LIVE = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
CRUMB = b"1\r\nx\r\n"
LAST_CHUNK = b"0\r\n\r\n"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StowServer]:
    with stow_server(tmp_path) as running:
        yield running


@pytest.fixture
def series() -> list[bytes]:
    return [part10(each) for each in ct_series((2, 64, 64))]


def connect(server: StowServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=20)


def read_sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes of every piece that a connection reads from now on."""
    sizes: list[int] = []
    received = GuardedProtocol.data_received

    def watched(self: GuardedProtocol, data: bytes) -> None:
        sizes.append(len(data))
        received(self, data)

    monkeypatch.setattr(GuardedProtocol, "data_received", watched)
    return sizes


# -- what bytes cost ------------------------------------------------------------------------------


def test_a_body_in_crumbs_is_refused_and_a_few_small_chunks_are_not(
    server: StowServer, series: list[bytes]
) -> None:
    with connect(server) as client:
        client.sendall(KNOWN + CHUNKED + CRUMB * 300)
        assert client.recv(4096).startswith(b"HTTP/1.1 400")
    body = multipart(series)
    pieces = [body[start : start + 1] for start in range(100)] + [body[100:-40], body[-40:-20], body[-20:]]
    assert server.post(iter(pieces)).status == 200
    assert len(server.rows()) == 2


def test_of_a_body_that_is_not_wanted_only_the_end_is_looked_for(
    server: StowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Any] = []
    next_event = h11.Connection.next_event

    def watched(self: h11.Connection) -> Any:
        found.append(next_event(self))
        return found[-1]

    monkeypatch.setattr(h11.Connection, "next_event", watched)
    with connect(server) as stranger:
        stranger.sendall(STRANGER + CHUNKED + CRUMB)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += stranger.recv(4096)
        assert answer.startswith(b"HTTP/1.1 401")
        stranger.sendall(CRUMB * 40_000 + LAST_CHUNK)
        while stranger.recv(4096):
            pass
    assert len([each for each in found if isinstance(each, h11.Data)]) < 300


def test_strangers_are_read_in_small_pieces(
    server: StowServer, series: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = read_sizes(monkeypatch)
    assert server.post(bytes(8 << 20), {"Authorization": ""}).status == 401
    assert max(sizes) <= MAX_HEAD_BYTES
    sizes.clear()
    assert server.post(multipart(series * 200)).status in (200, 202)
    assert max(sizes) > MAX_HEAD_BYTES


@pytest.mark.parametrize(
    "fields",
    [b"a:\r\n" * MAX_HEAD_FIELDS, b"a: " + b"x" * MAX_HEAD_BYTES + b"\r\n"],
    ids=["fields", "bytes"],
)
def test_a_head_that_comes_at_once_is_bounded_too(server: StowServer, fields: bytes) -> None:
    assert raw(server.port, LIVE + fields + b"\r\n").startswith(b"HTTP/1.1 400")


def test_who_still_sends_when_a_head_is_refused_sees_the_answer(server: StowServer) -> None:
    with connect(server) as client:
        client.sendall(LIVE + b"a: " + b"x" * (2 << 20))
        assert client.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 400"


def test_a_head_within_the_bounds_is_served(server: StowServer) -> None:
    fields = b"a: " + b"x" * 150 + b"\r\n"
    answer = raw(server.port, LIVE + b"Connection: close\r\n" + fields * (MAX_HEAD_FIELDS - 2) + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 200")


def test_broken_requests_write_nothing_in_the_log(
    server: StowServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    for head in (LIVE, LIVE.replace(b"live", b"none"), STRANGER):
        assert raw(server.port, head + CHUNKED + b"zz\r\n").startswith(b"HTTP/1.1 400")
    for _ in range(200):  # among them some that go before we have closed our half
        with connect(server) as client:
            client.sendall(LIVE + CHUNKED + b"zz\r\n")
            assert client.recv(1) == b"H"
    wait_until(lambda: server.notes, 20, "the door to have answered")
    for _ in range(2):  # what it answered has been dropped when somebody else is served
        assert raw(server.port, LIVE + b"Connection: close\r\n\r\n").startswith(b"HTTP/1.1 200")
    assert [record.name for record in caplog.records if record.levelno >= logging.ERROR] == []


# -- who is served --------------------------------------------------------------------------------


def test_a_client_that_closes_its_half_after_its_request_is_answered(
    server: StowServer, series: list[bytes]
) -> None:
    body = multipart(series)
    with connect(server) as client:
        client.sendall(KNOWN + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := client.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 200")
    assert len(server.rows()) == 2


def test_a_client_that_closes_its_half_within_its_request_is_gone(server: StowServer) -> None:
    with connect(server) as client:
        client.sendall(KNOWN + b"Content-Length: 1000\r\n\r\n" + b"--")
        client.shutdown(socket.SHUT_WR)
        wait_until(lambda: any("CLIENT_GONE" in note for note in server.notes), 20, "the break to be noted")


def test_answers_are_not_held_back_by_nagle(server: StowServer, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[int] = []
    made = GuardedProtocol.connection_made

    def watched(self: GuardedProtocol, transport: asyncio.Transport) -> None:
        accepted = transport.get_extra_info("socket")
        found.append(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        made(self, transport)

    monkeypatch.setattr(GuardedProtocol, "connection_made", watched)
    raw(server.port, LIVE + b"Connection: close\r\n\r\n")
    assert found == [1]


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this system has no IPv6")
def test_a_listener_on_every_ipv6_address_serves_ipv4_as_ipv4() -> None:
    def who(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.client.host if request.client else "")

    web = WebServer("::", 0)
    web.start(Starlette(routes=[Route("/", who)]))
    try:
        for address in ("127.0.0.1", "::1"):
            with closing(socket.create_connection((address, web.port), timeout=20)) as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                answer = b""
                while piece := client.recv(4096):
                    answer += piece
            assert answer.endswith(b"\r\n\r\n" + address.encode())
    finally:
        web.stop()
