"""The end of a connection: our last PDU arrives, and a peer that goes on sending gains nothing."""

from __future__ import annotations

import queue
import select
import socket
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.receive.association import lingering
from gateway.receive.association.inbound import Inbound
from gateway.receive.association.lingering import LINGER_BYTES, LINGER_S, Lingering
from gateway.receive.association.wakeup import Bell
from gateway.receive.association.wire import PeerSocket


class Ending:
    """A connection of which we are about to close our end."""

    def __init__(self) -> None:
        self.events: queue.Queue[str] = queue.Queue()
        association = SimpleNamespace(dul=SimpleNamespace(event_queue=self.events))
        listener = socket.create_server(("127.0.0.1", 0))
        self.theirs = socket.create_connection(listener.getsockname())
        self.ours, _ = listener.accept()
        listener.close()
        self.peer = PeerSocket(cast(Any, association), self.ours, 1.0)
        self.bell = Bell()
        self.read_bytes = 0

    def lingering(self) -> Lingering:
        inbound = Inbound(self._receive_into, lambda: False, 256 << 10)
        return Lingering(self.peer, inbound, self.bell)

    def _receive_into(self, view: memoryview) -> int:
        count = self.peer.receive_into(view)
        self.read_bytes += count
        return count

    def wait(self) -> float:
        """Until it is over; the seconds that took."""
        began_s, lingering = time.monotonic(), self.lingering()
        while not lingering.is_over():
            pass
        return time.monotonic() - began_s


@pytest.fixture
def ending() -> Iterator[Ending]:
    made = Ending()
    yield made
    made.theirs.close()
    made.ours.close()
    made.bell.close()


@pytest.fixture
def patience_s(monkeypatch: pytest.MonkeyPatch) -> float:
    """We would wait so long: for what is to end before, on however busy a machine."""
    monkeypatch.setattr(lingering, "LINGER_S", 60.0)
    return 60.0


def test_a_peer_that_reads_and_closes_has_everything_and_ends_it(ending: Ending, patience_s: float) -> None:
    ending.theirs.sendall(bytes(100_000))
    ending.peer.send(b"our last words")

    def read_and_close() -> None:
        received = b"".join(iter(lambda: ending.theirs.recv(4096), b""))
        ending.theirs.sendall(received)  # so the test sees what came
        ending.theirs.close()

    thread = threading.Thread(target=read_and_close)
    thread.start()
    assert ending.wait() < patience_s / 2
    thread.join()
    assert ending.read_bytes == 100_000 + len(b"our last words")


def test_a_peer_that_goes_on_sending_is_neither_read_on_nor_waited_for(ending: Ending) -> None:
    stop = threading.Event()

    def flood() -> None:
        ending.theirs.settimeout(0.1)
        while not stop.is_set():
            try:
                ending.theirs.sendall(bytes(65536))
            except TimeoutError:
                continue
            except OSError:
                return

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        assert LINGER_S * 0.9 < ending.wait() < LINGER_S + 10
    finally:
        stop.set()
        thread.join()
    assert LINGER_BYTES <= ending.read_bytes < 1 << 20


def test_one_that_sent_too_much_and_then_closes_is_not_waited_for(ending: Ending, patience_s: float) -> None:
    ending.theirs.sendall(bytes(LINGER_BYTES + (256 << 10)))
    ending.theirs.close()
    assert ending.wait() < patience_s / 2
    assert ending.read_bytes < 1 << 20


def test_the_bell_ends_a_wait(ending: Ending, patience_s: float) -> None:
    lingering = ending.lingering()
    ending.bell.ring()
    began_s = time.monotonic()
    assert not lingering.is_over()
    assert time.monotonic() - began_s < patience_s / 2
    poll = select.poll()
    poll.register(ending.bell.fileno(), select.POLLIN)
    assert poll.poll(0) == []


def test_a_peer_that_takes_no_answers_is_given_up_after_its_time_whatever_it_takes_meanwhile(
    ending: Ending,
) -> None:
    """The deadline is for the whole answer: taking a little of it again and again does not move it."""
    stop = threading.Event()

    def nibble() -> None:
        while not stop.wait(0.3):
            ending.theirs.recv(300_000)

    while not ending.events.empty():
        ending.events.get()
    thread = threading.Thread(target=nibble)
    thread.start()
    began_s = time.monotonic()
    try:
        ending.peer.send(bytes(64 << 20))
    finally:
        stop.set()
        thread.join()
    assert ending.events.get_nowait() == "Evt17"
    assert 0.9 < time.monotonic() - began_s < 15
