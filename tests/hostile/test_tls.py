"""The TLS port under attack: handshakes that never finish keep nobody waiting, on neither port."""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.certificates import Authority, Leaf
from tests.hostile import wire
from tests.hostile.node import ASSOCIATION_TIMEOUT_S, HostileNode
from tests.hostile.peer import Gone, RawPeer
from tests.ports import free_port
from tests.waiting import wait_until

HELLO = bytes.fromhex("1603010200010001fc0303") + bytes(40)
SLACK_S = 3.0


class Site:
    """A node with a TLS port, and the certificate of a good peer."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder / "pki")
        ours = self.authority.issue("gateway", "/O=Clinic/CN=gateway")
        self.leaf: Leaf = self.authority.issue("scanner", "/O=Clinic/CN=scanner")
        self.port = free_port()
        tls = (
            f"  tls: {{listen: {{host: 127.0.0.1, port: {self.port}}}, certificate: {ours.certificate}, "
            f"key: {ours.key}, authorities: {self.authority.certificate}}}\n"
        )
        self.node = HostileNode(folder / "site", tls=tls)

    def serves_tls(self, within_s: float) -> None:
        """A good peer shakes hands, stores and releases in this time."""
        context = ssl.create_default_context(cafile=self.authority.certificate)
        context.load_cert_chain(self.leaf.certificate, self.leaf.key)
        started_s = time.monotonic()
        with RawPeer(self.port) as peer:
            peer.socket = context.wrap_socket(peer.socket, server_hostname="localhost")
            peer.associated()
            assert self.node.store_good(peer) == 0
            peer.release()
        assert time.monotonic() - started_s < within_s


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One for the module."""
    made = Site(tmp_path_factory.mktemp("tls"))
    with made.node as running:
        yield made
        running.finish()


@pytest.fixture(scope="module")
def node(site: Site) -> HostileNode:
    """What conftest.py looks at after every test."""
    return site.node


def test_a_handshake_that_never_finishes_keeps_nobody_waiting_and_is_cut_off(site: Site) -> None:
    with ExitStack() as stack:
        beginnings = (b"", HELLO[:1], HELLO[:5], HELLO)
        silent = [stack.enter_context(RawPeer(site.port)) for _ in beginnings]
        for peer, said in zip(silent, beginnings, strict=True):
            peer.send(said)
        site.serves_tls(within_s=2)
        site.node.serves(within_s=2)
        assert all(peer.ended(ASSOCIATION_TIMEOUT_S + SLACK_S) for peer in silent)


def test_100_silent_handshakes_keep_nobody_waiting_on_either_port(site: Site) -> None:
    with ExitStack() as stack:
        for number in range(100):
            stack.enter_context(RawPeer(site.port, f"127.0.1.{number + 1}")).send(HELLO)
        for _ in range(3):
            site.serves_tls(within_s=4)
            site.node.serves(within_s=4)
        assert site.node.grown_mib < 60
    wait_until(site.node.is_calm, ASSOCIATION_TIMEOUT_S + 10, "the handshakes to be forgotten")


def test_a_handshake_of_a_byte_at_a_time_does_not_win_more_time(site: Site) -> None:
    started_s = time.monotonic()
    with RawPeer(site.port) as peer:
        sent = peer.trickle(HELLO, 0.25)
    assert sent < len(HELLO)
    assert time.monotonic() - started_s < ASSOCIATION_TIMEOUT_S + SLACK_S


@pytest.mark.parametrize(
    "said",
    [
        wire.associate_rq(),
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff" * 500,
        os.urandom(500),
        b"\x80\x2e\x01\x00\x02" + bytes(60),
    ],
    ids=["plain DICOM", "HTTP", "ones", "random", "SSL 2"],
)
def test_what_is_no_tls_is_cut_off(site: Site, said: bytes) -> None:
    with RawPeer(site.port) as peer:
        peer.send(said)
        try:
            while peer.socket.recv(4096):
                pass
        except ConnectionError:
            pass


def test_a_peer_without_certificate_and_an_old_protocol_are_refused(site: Site) -> None:
    context = ssl.create_default_context(cafile=site.authority.certificate)
    with RawPeer(site.port) as peer:
        with suppress(ssl.SSLError):  # TLS 1.3 says it with the first answer only
            peer.socket = context.wrap_socket(peer.socket, server_hostname="localhost")
        with pytest.raises((ssl.SSLError, Gone, OSError)):
            peer.associated()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(site.leaf.certificate, site.leaf.key)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)), RawPeer(site.port) as peer:
        context.wrap_socket(peer.socket)


def test_length_bombs_inside_tls_are_cut_off_by_their_header(site: Site) -> None:
    context = ssl.create_default_context(cafile=site.authority.certificate)
    context.load_cert_chain(site.leaf.certificate, site.leaf.key)
    for before in (b"", wire.associate_rq()):
        with RawPeer(site.port) as peer:
            peer.socket = context.wrap_socket(peer.socket, server_hostname="localhost")
            if before:
                peer.associated(before)
            peer.send((b"\x04" if before else b"\x01") + b"\0\xff\xff\xff\xf0")
            assert peer.ended(2)


def test_connect_and_abort_cycles_within_the_handshake_leave_nothing(site: Site) -> None:
    def cycle(count: int) -> None:
        for number in range(count):
            with RawPeer(site.port) as peer:
                try:
                    peer.send(HELLO[: number % len(HELLO)])
                    peer.reset()
                except (Gone, OSError):
                    pass

    cycle(20)
    wait_until(site.node.is_calm, 20, "the first connections to be forgotten")
    rss_mib = site.node.rss_mib
    threads = [threading.Thread(target=cycle, args=(100,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_until(site.node.is_calm, 20, "threads and descriptors as before")
    assert site.node.rss_mib - rss_mib < 15


def test_a_half_closed_handshake_is_forgotten(site: Site) -> None:
    with RawPeer(site.port) as peer:
        peer.send(HELLO)
        peer.socket.shutdown(socket.SHUT_WR)
        assert peer.ended(ASSOCIATION_TIMEOUT_S + SLACK_S)
