"""Connections without association, incidents in the journal, and how threads wake each other."""

from __future__ import annotations

import resource
import select
import socket
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog
from pynetdicom import AE
from pynetdicom.transport import AddressInformation

from gateway.journal import Journal, JournalReader
from gateway.receive.association.acceptance import Acceptance, Watcher
from gateway.receive.association.acceptor import GuardedAssociation
from gateway.receive.association.connections import Connections
from gateway.receive.association.messages import MessageLimits
from gateway.receive.association.wakeup import Bell, SignallingQueue, SteadyTimer
from gateway.receive.records import Incidents, Repeats


class Told:
    """Counts what was cut, and why."""

    def __init__(self) -> None:
        self.cut: list[object] = []
        self.crowded: list[tuple[str, str]] = []

    def open(self, connections: Connections, key: object, address: str) -> None:
        connections.opened(key, address, lambda: self.cut.append(key))

    def note(self, address: str, limit: str) -> None:
        self.crowded.append((address, limit))


def test_the_oldest_idle_connection_of_an_address_makes_room() -> None:
    told = Told()
    connections = Connections(100, 3, told.note)
    for number in range(5):
        told.open(connections, number, "192.0.2.1")
    told.open(connections, "other", "192.0.2.2")
    assert told.cut == [0, 1]
    assert connections.count() == 4
    assert told.crowded[0][0] == "192.0.2.1"
    assert "dicom.max_connections_per_address (3)" in told.crowded[0][1]


def test_a_connection_with_an_association_is_never_cut() -> None:
    told = Told()
    connections = Connections(100, 1, told.note)
    told.open(connections, "good", "192.0.2.1")
    connections.associated("good")
    for number in range(3):
        told.open(connections, number, "192.0.2.1")
    assert told.cut == [0, 1]
    connections.closed(2)
    connections.closed("good")
    assert connections.count() == 0


def test_a_connection_that_was_cut_for_crowding_ends_without_ending_another() -> None:
    told = Told()
    connections = Connections(100, 2, told.note)

    def cut_and_end(key: int) -> None:
        told.cut.append(key)
        connections.ended(key, "192.0.2.1", lambda: told.cut.append(key))

    for number in range(5):
        connections.opened(number, "192.0.2.1", partial(cut_and_end, number))
    assert told.cut == [0, 1, 2], "one for each newcomer over the limit"
    assert len(told.crowded) == 3


def test_associations_that_end_together_end_nobody_not_even_at_a_stop() -> None:
    told = Told()
    connections = Connections(100, 2, told.note)
    for number in range(20):
        connections.ended(number, "192.0.2.1", partial(told.cut.append, number))
    told.open(connections, "new", "192.0.2.1")
    told.open(connections, "newer", "192.0.2.1")
    assert (told.cut, told.crowded) == ([], [])
    connections.end_all()
    assert told.cut == ["new", "newer"], "the others have an answer under way"
    assert connections.count() == 20
    connections.make_room()
    assert told.cut[2:] == [0], "where descriptors are short, the oldest goes"
    for number in range(1, 20):
        connections.closed(number)
    assert connections.count() == 0


def test_connections_that_linger_count_for_the_bound_of_all() -> None:
    told = Told()
    connections = Connections(4, 100, told.note)
    for number in range(4):
        connections.ended(number, "192.0.2.1", partial(told.cut.append, number))
    told.open(connections, "new", "192.0.2.2")
    assert told.cut == [0]
    assert "all connections (4)" in told.crowded[0][1]


def test_over_all_the_busiest_address_makes_room() -> None:
    told = Told()
    connections = Connections(4, 100, told.note)
    told.open(connections, "scanner", "192.0.2.9")
    for number in range(6):
        told.open(connections, number, "192.0.2.1")
    assert told.cut == [0, 1, 2]
    connections.end_all()
    assert told.cut == [0, 1, 2, "scanner", 3, 4, 5]
    connections.make_room()
    assert connections.count() == 0


class SteppedClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.time_s = 1000.0

    def now_s(self) -> float:
        return self.time_s

    def monotonic_s(self) -> float:
        return self.time_s


def collecting(lines: list[Any]) -> Any:
    """A log that keeps what it is told."""

    def keep(_: Any, __: str, event: Any) -> Any:
        lines.append(event)
        raise structlog.DropEvent

    return structlog.wrap_logger(
        None, processors=[keep], wrapper_class=structlog.make_filtering_bound_logger(0)
    )


def test_the_same_incident_is_written_once_a_minute_with_its_count(tmp_path: Path) -> None:
    clock, journal = SteppedClock(), Journal(tmp_path / "journal.db")
    lines: list[Any] = []
    incidents = Incidents(journal, clock, collecting(lines))
    for second in range(125):
        clock.time_s = 1000.0 + second
        for _ in range(10):
            incidents.note("association", "PDU_INVALID", "It is wrong.", {"address": "192.0.2.1"})
    for number in range(500):  # whoever changes its name each time gains nothing
        incidents.note("association", "PDU_INVALID", "It is wrong.", {"address": f"192.0.2.{number}"})
    journal.close()
    reader = JournalReader(tmp_path / "journal.db")
    rows = reader.refusals(1000)
    reader.close()
    mine = [r for r in rows if r["details"]["address"] == "192.0.2.1" and "repeated" in r["details"]]
    assert sorted(r["details"]["repeated"] for r in mine) == [599, 599]
    assert 100 < len(rows) < 130
    assert len(lines) == len(rows)


def test_a_mistake_of_ours_is_logged_once_a_minute_however_often_it_is_provoked(tmp_path: Path) -> None:
    clock, journal = SteppedClock(), Journal(tmp_path / "journal.db")
    lines: list[Any] = []
    incidents = Incidents(journal, clock, collecting(lines))
    for number in range(300):
        clock.time_s += 60 if number == 299 else 0
        try:
            int(f"what peer {number} sent")
        except ValueError as error:
            incidents.mistake(error)
    journal.close()
    assert [(line["error"], line["repeated"]) for line in lines] == [("ValueError", 0), ("ValueError", 298)]
    assert "what peer" not in str(lines)


def test_a_flood_of_one_name_hides_no_other() -> None:
    clock = SteppedClock()
    repeats = Repeats(clock)
    written = [repeats.due("TOO_MANY_CONNECTIONS", f"192.0.2.{number}") for number in range(500)]
    assert written.count(0) == 120
    assert repeats.due("PDU_INVALID", "192.0.2.1") == 0
    assert repeats.due("PDU_INVALID", "192.0.2.1") is None
    clock.time_s += 60
    assert repeats.due("TOO_MANY_CONNECTIONS", "192.0.2.499") == 1, "how often it was not written"
    assert repeats.due("PDU_INVALID", "192.0.2.1") == 1


def test_a_bell_wakes_a_poll_and_gives_its_descriptor_back() -> None:
    before = sum(1 for _ in Path("/proc/self/fd").iterdir())
    bell = Bell()
    poll = select.poll()
    poll.register(bell.fileno(), select.POLLIN)
    assert poll.poll(0) == []
    threading.Timer(0.05, bell.ring).start()
    assert poll.poll(5000)
    bell.silence()
    bell.silence()
    assert poll.poll(0) == []
    bell.close()
    bell.close()
    bell.ring()
    assert sum(1 for _ in Path("/proc/self/fd").iterdir()) == before


@pytest.mark.parametrize("left", [0, 1])
def test_a_connection_for_which_descriptors_run_out_leaks_none(left: int) -> None:
    """Each takes two besides its own: for the cut, and for the bell."""
    nothing: Any = None
    watcher = Watcher(nothing, nothing, nothing, nothing, nothing)
    acceptance = Acceptance(AE("AIGW"), [], watcher, MessageLimits(1, 1, 1.0), 1.0, frozenset())
    place = AddressInformation("127.0.0.1", 104)
    with socket.socket() as connection:
        before = sorted(int(each.name) for each in Path("/proc/self/fd").iterdir())
        with socket.socket() as probe:
            next_free = probe.fileno()
        usual = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (next_free + left, usual[1]))
        try:
            with pytest.raises(OSError, match="Too many open files"):
                GuardedAssociation(acceptance, connection, place, place)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, usual)
        assert sorted(int(each.name) for each in Path("/proc/self/fd").iterdir()) == before


def test_a_queue_tells_when_something_is_in_it() -> None:
    seen: list[int] = []
    queue = SignallingQueue(lambda: seen.append(queue.qsize()))
    queue.put("a")
    queue.put("b")
    assert seen == [1, 2]


def test_a_timer_does_not_look_at_the_wall_clock() -> None:
    timer = SteadyTimer(0.05)
    assert not timer.expired
    timer.start()
    assert 0 < timer.remaining <= 0.05
    time.sleep(0.06)
    assert timer.expired
    timer.stop()
    assert not timer.expired
    timer.timeout = None
    timer.restart()
    assert timer.remaining == float("inf")
