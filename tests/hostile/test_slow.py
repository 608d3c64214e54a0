"""Peers that are slow, silent, or come and go: nobody else waits, and nothing is kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.hostile import wire
from tests.hostile.node import ASSOCIATION_TIMEOUT_S, CYCLES, IDLE_TIMEOUT_S, HostileNode, good_bytes
from tests.hostile.peer import Gone, RawPeer
from tests.hostile.wire import p_data, pdv
from tests.waiting import wait_until

SLACK_S = 3.0
OTHERS = "127.0.0.66"


@contextmanager
def idle_peers(node: HostileNode, count: int, source: Callable[[int], str]) -> Iterator[list[RawPeer]]:
    """Connections that say nothing; those that the node does not even take are fine too."""
    with ExitStack() as stack:
        yield [stack.enter_context(RawPeer(node.dicom_port, source(i))) for i in range(count)]


# -- before the association ---------------------------------------------------------------------

BEGINNINGS: dict[str, bytes] = {
    "nothing": b"",
    "one byte": b"\x01",
    "a header": wire.associate_rq()[:6],
    "half a request": wire.associate_rq()[:100],
    "all but the last byte": wire.associate_rq()[:-1],
}


def test_a_request_that_never_comes_is_cut_off_by_the_association_timeout(node: HostileNode) -> None:
    started_s = time.monotonic()
    peers = {kind: RawPeer(node.dicom_port) for kind in BEGINNINGS}
    for kind, peer in peers.items():
        peer.send(BEGINNINGS[kind])
    for kind, peer in peers.items():
        with peer:
            assert peer.ended(ASSOCIATION_TIMEOUT_S + SLACK_S), kind
    assert time.monotonic() - started_s > ASSOCIATION_TIMEOUT_S / 2


def test_one_byte_at_a_time_does_not_win_more_time(node: HostileNode) -> None:
    """The deadline is for the whole request: a byte a quarter of a second does not move it (slow-loris)."""
    started_s = time.monotonic()
    with RawPeer(node.dicom_port) as peer:
        sent = peer.trickle(wire.associate_rq(), 0.25)
    assert sent < len(wire.associate_rq())
    assert time.monotonic() - started_s < ASSOCIATION_TIMEOUT_S + SLACK_S


def test_one_byte_at_a_time_in_an_association_does_not_hold_it(node: HostileNode) -> None:
    """A PDU that has begun has a deadline as a whole."""
    pdu = p_data(pdv(1, 3, wire.c_store_rq(good_bytes()[0])))
    started_s = time.monotonic()
    with RawPeer(node.dicom_port) as peer:
        sent = peer.associated().trickle(pdu, 0.25)
    assert sent < len(pdu)
    assert time.monotonic() - started_s < IDLE_TIMEOUT_S + SLACK_S + 1


def test_many_slow_peers_keep_nobody_waiting(node: HostileNode) -> None:
    """Twenty that trickle, from one address, while a good peer stores: five times within a second each."""
    stop = threading.Event()

    def trickle() -> None:
        while not stop.is_set():
            with RawPeer(node.dicom_port, OTHERS) as peer:
                for byte in wire.associate_rq(calling=b"ATTACKER"):
                    try:
                        peer.send(bytes([byte]))
                    except Gone:
                        break
                    if stop.wait(0.1):
                        return

    threads = [threading.Thread(target=trickle) for _ in range(20)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            node.serves(within_s=2)
    finally:
        stop.set()
        for thread in threads:
            thread.join(timeout=30)


def test_200_idle_sockets_of_one_address_keep_nobody_waiting(node: HostileNode, tmp_path: Path) -> None:
    with idle_peers(node, 200, lambda _: OTHERS):
        for _ in range(3):
            node.serves(within_s=3)
        node.serves_dcmtk(tmp_path)
        assert node.grown_mib < 60
    wait_until(lambda: node.is_calm(), ASSOCIATION_TIMEOUT_S + 10, "the idle connections to be forgotten")


def test_200_idle_sockets_of_200_addresses_keep_nobody_waiting(node: HostileNode, tmp_path: Path) -> None:
    with idle_peers(node, 200, lambda i: f"127.0.1.{i + 1}"):
        for _ in range(3):
            node.serves(within_s=3)
        node.serves_dcmtk(tmp_path)
        assert node.grown_mib < 60
    wait_until(lambda: node.is_calm(), ASSOCIATION_TIMEOUT_S + 10, "the idle connections to be forgotten")


def test_200_idle_sockets_of_the_good_peers_address_hold_it_up_no_longer_than_the_timeout(
    node: HostileNode,
) -> None:
    """Behind one address translation: the connections over the limit are closed, the others time out."""
    with idle_peers(node, 200, lambda _: "127.0.0.1"):
        wait_until(lambda: _is_served(node), ASSOCIATION_TIMEOUT_S + SLACK_S, "a good peer to be served")


def test_a_peer_that_calls_again_at_once_finds_its_place_free(node: HostileNode) -> None:
    """One association per image, as many senders do it; one peer has ten of the twelve places."""
    with ExitStack() as stack:
        _fill(node, stack, 9)
        with ExitStack() as last:
            _fill(node, last, 1)  # so none of before is left
        wait_until(lambda: _is_served(node), 5, "that one to be gone")
        for _ in range(30):
            with RawPeer(node.dicom_port) as peer:
                assert peer.associated().echo() == 0
                peer.release()
    wait_until(lambda: _is_served(node), 5, "room for a good peer")


def _fill(node: HostileNode, stack: ExitStack, count: int) -> None:
    """Open so many associations; those that are just ending have their time."""

    def is_open() -> bool:
        return stack.enter_context(RawPeer(node.dicom_port)).associate().kind == wire.ASSOCIATE_AC

    for _ in range(count):
        wait_until(is_open, 5, "an association to be accepted")


def _is_served(node: HostileNode) -> bool:
    try:
        node.serves()
    except (Gone, OSError, AssertionError):
        return False
    return True


def test_a_full_house_is_refused_as_transient_and_has_room_again(node: HostileNode) -> None:
    with ExitStack() as stack:
        answers = [stack.enter_context(RawPeer(node.dicom_port)).associate() for _ in range(16)]
        refused = [answer for answer in answers if answer.kind == wire.ASSOCIATE_RJ]
        assert 4 <= len(refused) < 16
        assert {answer.body[1:] for answer in refused} == {b"\x02\x03\x02"}
    wait_until(lambda: _is_served(node), 5, "room for a good peer")
    assert "TOO_MANY_ASSOCIATIONS_OF_PEER" in node.refusal_names()


# -- come and go ----------------------------------------------------------------------------------


def _connect_and_close(node: HostileNode) -> bool:
    RawPeer(node.dicom_port).close()
    return True


def _connect_and_reset(node: HostileNode) -> bool:
    RawPeer(node.dicom_port).reset()
    return True


def _request_and_reset(node: HostileNode) -> bool:
    with RawPeer(node.dicom_port) as peer:
        peer.send(wire.associate_rq())
        peer.reset()
    return True


def _associate_and_abort(node: HostileNode) -> bool:
    with RawPeer(node.dicom_port) as peer:
        is_open = peer.associate().kind == wire.ASSOCIATE_AC
        peer.send(wire.abort())
    return is_open


def _associate_and_reset_in_a_data_set(node: HostileNode) -> bool:
    uid, data_set = good_bytes()
    with RawPeer(node.dicom_port) as peer:
        is_open = peer.associate().kind == wire.ASSOCIATE_AC
        peer.send(wire.message(1, wire.c_store_rq(uid), data_set)[:-20])
        peer.reset()
    return is_open


CYCLE_KINDS: dict[str, tuple[Callable[[HostileNode], bool], int]] = {
    # What is done (True: the node let it come so far), and how often.
    "connect and close": (_connect_and_close, CYCLES // 5),
    "connect and reset": (_connect_and_reset, CYCLES // 5),
    "request and reset": (_request_and_reset, CYCLES // 5),
    "associate and abort": (_associate_and_abort, max(CYCLES, 4000)),
    "reset in a data set": (_associate_and_reset_in_a_data_set, CYCLES // 5),
}
MOST_GROWN_IN_SECOND_HALF_MIB = 3.0


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", CYCLE_KINDS)
def test_connect_and_abort_cycles_leave_nothing(node: HostileNode, kind: str) -> None:
    """What the first half allocates for good is no leak; the second half finds it there."""
    once, count = CYCLE_KINDS[kind]
    stored = node.stored
    at_half_mib = _rss_mib_after(node, once, count // 2)
    assert _rss_mib_after(node, once, count // 2) - at_half_mib <= MOST_GROWN_IN_SECOND_HALF_MIB
    assert node.stored == stored


def _rss_mib_after(node: HostileNode, once: Callable[[HostileNode], bool], count: int) -> float:
    """Resident memory once it succeeded so often, and nothing is open any more.

    An association that is refused for now, as the last ones are still ending, is asked for again.
    """
    done = 0
    for _ in range(2 * count):
        done += once(node)
        if done == count:
            break
    assert done == count, f"{done} of {count} got so far"
    wait_until(node.is_calm, 30, "threads and descriptors as before")
    return node.rss_mib
