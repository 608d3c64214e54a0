"""STOW-RS and the web listener of the running node against clients that mean no good."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from gateway.web.connections import MAX_CONNECTIONS
from tests.gateway_process import GatewayProcess
from tests.hostile.node import HostileNode, good_instance
from tests.hostile.peer import digest
from tests.peers import encoded
from tests.stow import AUTHORIZATION, BOUNDARY, CONTENT_TYPE, Reply, multipart, part10, post, raw
from tests.waiting import wait_until

POOLED_THREADS = 4 + 8 + 40
"""Doors and workers of STOW-RS, and those that answer /metrics: once there, they stay."""
STRANGERS = MAX_CONNECTIONS + 60
HEAD = "POST /dicom-web/studies HTTP/1.1\r\nHost: 127.0.0.1\r\n"
KNOWN = HEAD + f"Authorization: {AUTHORIZATION['Authorization']}\r\nContent-Type: {CONTENT_TYPE}\r\n"


class WebNode(HostileNode):
    """Its web face keeps the threads that it has needed."""

    def is_calm(self) -> bool:
        threads, descriptors = self._at_rest
        return self.threads <= threads + POOLED_THREADS and self.descriptors <= descriptors + 2


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostileNode]:
    """Of its own, so that those threads hide nothing from the tests of DICOM."""
    with WebNode(tmp_path_factory.mktemp("http")) as running:
        yield running
        running.finish()


@pytest.fixture(autouse=True)
def _is_served(node: HostileNode) -> Iterator[None]:
    """After every attack a good client stores, and nothing else was kept."""
    others = node.stored - len(node.acknowledged)
    yield
    store_good(node)
    assert node.stored - len(node.acknowledged) == others, "something of an attack was kept"


def send(node: HostileNode, body: bytes | Iterator[bytes], **headers: str) -> Reply:
    """With the right token."""
    fields = {**AUTHORIZATION, "Content-Type": CONTENT_TYPE}
    return post(
        node.http_port, body, fields | {name.replace("_", "-"): text for name, text in headers.items()}
    )


def store_good(node: HostileNode) -> None:
    """Store a correct instance; at the end it must still be there."""
    dataset = good_instance()
    reply = send(node, multipart([part10(dataset)]))
    assert reply.status == 200, reply.body
    node.acknowledged[str(dataset.SOPInstanceUID)] = digest(encoded(dataset))


def is_alive(node: HostileNode) -> bool:
    """A monitor is answered."""
    with closing(http.client.HTTPConnection("127.0.0.1", node.http_port, timeout=15)) as connection:
        connection.request("GET", "/health/live")
        return connection.getresponse().status == 200


def answers(port: int) -> bool:
    """A monitor is answered, perhaps: where too many come from its address, its connection may make room."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        try:
            connection.request("GET", "/health/live")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False


def connect(node: HostileNode, source: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(("127.0.0.1", node.http_port), timeout=30, source_address=(source, 0))


def cut_off(connection: socket.socket, word: bytes, pause_s: float, within_s: float = 40.0) -> bytes:
    """Send a word over and over until the server answers or ends the connection; its answer."""
    deadline_s = time.monotonic() + within_s
    connection.settimeout(pause_s)
    while time.monotonic() < deadline_s:
        try:
            connection.sendall(word)
            return connection.recv(4096)
        except TimeoutError:
            continue
        except ConnectionError:
            return b""
    raise AssertionError("the connection never ended")


# -- bodies ---------------------------------------------------------------------------------------


def test_a_gzip_bomb(node: HostileNode) -> None:
    bomb = gzip.compress(multipart([b""], end=False)[:-2] + bytes(160 << 20), compresslevel=9)
    reply = send(node, bomb, Content_Encoding="gzip")
    assert reply.status == 413
    assert "GZIP_BOMB" in reply.headers["warning"]


def test_a_hundred_thousand_parts(node: HostileNode) -> None:
    assert send(node, multipart([b""] * 100_000)).status == 413
    assert "TOO_MANY_PARTS" in node.refusal_names()


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"x", {"Content_Type": "multipart/related"}, 400),
        (b"x", {"Content_Type": "multipart/related; boundary=a; boundary=b"}, 400),
        (multipart([b"x"], "multipart/related; boundary=inner"), {}, 415),
        (f"--{BOUNDARY}\r\na: ".encode() + b"x" * (4 << 20), {}, 400),
        (f"--{BOUNDARY}\r\n".encode() + b"a: b\r\n" * 200_000, {}, 400),
        (b"x" * (4 << 20), {}, 400),
    ],
    ids=["no boundary", "two boundaries", "nested", "endless field", "endless fields", "endless preamble"],
)
def test_what_is_no_message(node: HostileNode, body: bytes, headers: dict[str, str], status: int) -> None:
    assert send(node, body, **headers).status == status


def test_metadata_is_neither_parsed_nor_followed(node: HostileNode, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.settimeout(0.3)
        trapped = f"http://127.0.0.1:{trap.getsockname()[1]}/x"
        uris = [f"file://{secret}", "http://169.254.169.254/latest/meta-data", trapped]
        metadata = json.dumps([{"7FE00010": {"vr": "OW", "BulkDataURI": uri}} for uri in uris]).encode()
        entities = b"".join(b'<!ENTITY e%d SYSTEM "%s">' % (i, uri.encode()) for i, uri in enumerate(uris))
        xml = b"<!DOCTYPE x [" + entities + b"]><NativeDicomModel>&e0;&e1;&e2;</NativeDicomModel>"
        for body, kind in ((metadata, "json"), (b"[" * 10_000 + b"]" * 10_000, "json"), (xml, "xml")):
            of_parts = CONTENT_TYPE.replace("application/dicom", f"application/dicom+{kind}")
            assert send(node, body, Content_Type=f"application/dicom+{kind}").status == 415
            assert (
                send(node, multipart([body], f"application/dicom+{kind}"), Content_Type=of_parts).status
                == 415
            )
            assert send(node, multipart([body], f"application/dicom+{kind}")).status == 415
        with pytest.raises(TimeoutError):
            trap.accept()


# -- lengths and time -----------------------------------------------------------------------------


def test_lengths_that_lie(node: HostileNode) -> None:
    for length in (b"1099511627776", b"-5", b"1, 2", b"5\r\nContent-Length: 6", b"0x10"):
        answer = raw(node.http_port, KNOWN.encode() + b"Content-Length: " + length + b"\r\n\r\n")
        assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 413")), (length, answer[:40])
    with connect(node) as connection:
        connection.sendall(f"{KNOWN}Content-Length: {4 << 30}\r\n\r\n".encode() + multipart([b""])[:40])
    wait_until(lambda: "CLIENT_GONE" in node.refusal_names(), 20, "the break to be written down")


def test_the_slow_loris(node: HostileNode) -> None:
    with connect(node) as head, connect(node) as body, connect(node) as silent:
        head.sendall(HEAD.encode())
        for each in (body, silent):
            each.sendall(f"{KNOWN}Content-Length: 100000\r\n\r\n".encode())
        assert cut_off(body, b"x", 0.05).startswith(b"HTTP/1.1 408")
        assert silent.recv(12) == b"HTTP/1.1 408"
        assert not cut_off(head, b"a: b\r\n", 0.2)


# -- floods ---------------------------------------------------------------------------------------

REFUSED = f"{HEAD}Content-Length: 9\r\n\r\n".encode()
CROWD = 700
UNREAD = b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 100


@pytest.mark.parametrize(
    "words", [b"", HEAD.encode(), REFUSED, UNREAD], ids=["silent", "half a head", "no body", "nothing read"]
)
def test_strangers_without_credentials_keep_nobody_out(node: HostileNode, words: bytes) -> None:
    with ExitStack() as stack:
        for count in range(STRANGERS):
            stranger = stack.enter_context(connect(node, f"127.0.0.{10 + count % 9}"))
            with suppress(ConnectionError):
                stranger.sendall(words)
            if count % 50 == 49:
                assert is_alive(node)
        for _ in range(3):
            assert is_alive(node)
            store_good(node)
        assert node.descriptors < MAX_CONNECTIONS + 50


def test_a_crowd_that_comes_at_once_takes_no_descriptors_from_the_rest(tmp_path: Path) -> None:
    """The event loop accepts what has come before anything of ours can count it."""
    node = GatewayProcess(tmp_path, pacs_port=1)
    node.start(under=("prlimit", "--nofile=512:512"))
    try:
        for _ in range(2):
            with ExitStack() as stack:
                for _ in range(CROWD):
                    stranger = stack.enter_context(socket.socket())
                    stranger.setblocking(False)
                    stranger.connect_ex(("127.0.0.1", node.http_port))
                wait_until(lambda: answers(node.http_port), 30, "a monitor to be answered")
        assert "Too many open files" not in node.log.read_text()
        assert node.terminate() == 0
    finally:
        node.__exit__(None, None, None)
