"""Connections without association, incidents in the journal, and how threads wake each other."""

from __future__ import annotations

import select
import threading
import time
from pathlib import Path
from typing import Any

import structlog

from gateway.journal import Journal, JournalReader
from gateway.receive.association.connections import Connections
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


def test_the_same_incident_is_written_once_a_minute_with_its_count(tmp_path: Path) -> None:
    clock, lines = SteppedClock(), []

    def keep(_: Any, __: str, event: Any) -> Any:
        lines.append(event)
        raise structlog.DropEvent

    log = structlog.wrap_logger(
        None, processors=[keep], wrapper_class=structlog.make_filtering_bound_logger(0)
    )
    journal = Journal(tmp_path / "journal.db")
    incidents = Incidents(journal, clock, log)
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
