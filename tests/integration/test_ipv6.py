"""A receiver at ``::``: callers by IPv6 and by IPv4, each known, counted and refused by its own address."""

from __future__ import annotations

import socket
from contextlib import ExitStack, closing
from pathlib import Path

from gateway.journal import JournalReader
from gateway.receive.calls import KnownPeer
from gateway.receive.sockets import caller_address, listen
from tests.hostile import wire
from tests.hostile.peer import RawPeer
from tests.peers import receiver
from tests.ports import needs_both_families
from tests.waiting import wait_until

pytestmark = needs_both_families

BY_4 = KnownPeer("by4", "SCANNER", "127.0.0.1")
BY_6 = KnownPeer("by6", "SCANNER", "::1")


def first_byte(port: int) -> int:
    """Type of the PDU (PS3.8 9.3) that answers an A-ASSOCIATE-RQ by IPv6."""
    with socket.create_connection(("::1", port), timeout=20) as raw:
        raw.sendall(wire.associate_rq())
        return raw.recv(1)[0]


def test_callers_of_both_families_are_known_by_their_addresses(tmp_path: Path) -> None:
    with receiver(tmp_path, host="::", peers=(BY_4, BY_6)) as gateway:
        with RawPeer(gateway.port) as peer:
            peer.associated()
            assert first_byte(gateway.port) == wire.ASSOCIATE_AC
        opened = [line for line in gateway.log if line["event"] == "association_opened"]
        assert [(line["source"], line["address"]) for line in opened] == [
            ("by4", "127.0.0.1"),
            ("by6", "::1"),
        ]


def test_a_refused_caller_by_ipv4_is_told_its_own_address(tmp_path: Path) -> None:
    with receiver(tmp_path, host="::", peers=(BY_6,)) as gateway:
        with RawPeer(gateway.port) as peer:
            peer.send(wire.associate_rq())
            assert peer.read_pdu().kind == wire.ASSOCIATE_RJ
        with closing(JournalReader(gateway.folder / "journal.db")) as reader:
            [refusal] = reader.refusals()
        assert (refusal["name"], refusal["details"]["address"]) == ("ADDRESS_NOT_ALLOWED", "127.0.0.1")
        assert "now has the address 127.0.0.1." in refusal["details"]["advice"]


def test_connections_by_ipv4_are_counted_as_those_of_their_address(tmp_path: Path) -> None:
    limited = receiver(tmp_path, host="::", peers=(BY_4,), max_connections_per_address=3)
    with limited as gateway, ExitStack() as stack:
        others = [stack.enter_context(RawPeer(gateway.port, f"127.0.0.{n}")) for n in (2, 3, 4, 5)]
        crowd = [stack.enter_context(RawPeer(gateway.port)) for _ in range(4)]
        assert crowd[0].ended(20), "it made room"
        wait_until(lambda: any(line.get("name") == "TOO_MANY_CONNECTIONS" for line in gateway.log))
        [told] = [line for line in gateway.log if line.get("name") == "TOO_MANY_CONNECTIONS"]
        assert told["address"] == "127.0.0.1"
        for peer in others:
            peer.send(wire.associate_rq())
            assert peer.read_pdu().kind == wire.ASSOCIATE_RJ


def test_a_listener_at_one_address_takes_that_family_only() -> None:
    for host, refused in (("::1", "127.0.0.1"), ("127.0.0.1", "::1"), ("localhost", "::1")):
        with listen(host, 0, 1) as listening:
            port = listening.getsockname()[1]
            with socket.socket(socket.AF_INET6 if ":" in refused else socket.AF_INET) as client:
                assert client.connect_ex((refused, port)) != 0
            with socket.create_connection((host, port)), listening.accept()[0] as accepted:
                assert caller_address(accepted.getpeername()) in {"127.0.0.1", "::1"}


def test_an_address_is_written_without_its_zone_and_not_as_a_mapped_one() -> None:
    assert caller_address(("::ffff:192.0.2.1", 1, 0, 0)) == "192.0.2.1"
    assert caller_address(("fe80::1%eth0", 1, 0, 2)) == "fe80::1"
