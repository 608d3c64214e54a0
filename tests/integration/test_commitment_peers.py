"""Reports of storage commitment to peers that take, send or answer what they should not."""

from __future__ import annotations

import queue
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from pynetdicom import evt

from gateway.errors import PeerError
from gateway.receive.commitment import lines as commitment_lines
from gateway.receive.commitment.bounded_call import MOST_BYTES, MOST_PDU_BYTES, bounded
from gateway.receive.commitment.call import ReportCall, open_call
from gateway.receive.commitment.codec import write_report
from gateway.receive.commitment.link import Exchange, Report, ReportAddress
from tests.commitment_site import CT_IMAGE, PUSH_MODEL, CommitmentSCU, ReportSCP, committing_node, failed
from tests.hostile import wire
from tests.peers import SCANNER, SCANNER_AE_TITLE
from tests.ports import free_port
from tests.waiting import wait_until
from tests.wire_peer import WirePeer, associate_ac

UNKNOWN = [(CT_IMAGE, "1.2.3.4.5")]
TOLD = {"1.2.3.4.5": 0x0112}
SOON_S = 0.5
PATIENCE_S = 40.0


@pytest.fixture
def hangs_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The peer hangs up in a moment: on a busy machine too, before it seems to wait for the report."""
    monkeypatch.setattr(commitment_lines, "QUIET_S", 10.0)


def at(port: int) -> ReportAddress:
    return ReportAddress("scanner", SCANNER_AE_TITLE, "127.0.0.1", port)


def report(references: int) -> Report:
    missing = [(CT_IMAGE, f"1.2.3.{number}", 0x0112) for number in range(references)]
    return Report(2, lambda explicit_vr: write_report("1.9.1", (), missing, explicit_vr=explicit_vr))


def ends(work: Callable[[], object]) -> None:
    """Do something that a peer might keep from ending."""
    found: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

    def attempt() -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - raised below
            found.put(error)
        else:
            found.put(None)

    threading.Thread(target=attempt, daemon=True).start()
    error = found.get(timeout=PATIENCE_S)
    if error is not None:
        raise error


# -- a peer that takes short PDUs only --------------------------------------------------------


@pytest.mark.parametrize("max_pdu_bytes", [6, 7])
def test_a_peer_that_takes_tiny_pdus_is_told_on_its_next_association_that_takes_more(
    tmp_path: Path, max_pdu_bytes: int
) -> None:
    with committing_node(tmp_path) as node:
        with CommitmentSCU(node.port, max_pdu_bytes=max_pdu_bytes) as scu:
            scu.ask("1.9.1", UNKNOWN)  # of 6 bytes, none is left for the answer
            row = node.wait_for_failure("PEER_WITHOUT_PORT")
            if max_pdu_bytes > 6:
                assert f"scanner takes PDUs of {max_pdu_bytes} bytes at most" in row["failure_reason"]
            assert scu.told.empty()
        with CommitmentSCU(node.port) as again:
            assert failed(again.report()[1]) == TOLD
            node.wait_for("reported")


@pytest.mark.usefixtures("hangs_up")
@pytest.mark.parametrize("max_pdu_bytes", [6, 7])
def test_a_peer_that_takes_tiny_pdus_where_it_is_called_is_told_when_it_takes_more(
    tmp_path: Path, max_pdu_bytes: int
) -> None:
    port = free_port()
    with committing_node(tmp_path, [at(port)]) as node:
        with ReportSCP(port, max_pdu_bytes=max_pdu_bytes) as there:
            with CommitmentSCU(node.port) as scu:
                scu.ask("1.9.1", UNKNOWN)
            row = node.wait_for_failure("MAXIMUM_LENGTH_TOO_SMALL")
            assert f"takes PDUs of {max_pdu_bytes} bytes at most" in row["failure_reason"]
            assert there.told.empty()
        with ReportSCP(port, max_pdu_bytes=4096) as there:
            assert failed(there.report()[1]) == TOLD
            node.wait_for("reported")


# -- a peer that accepts oddly ----------------------------------------------------------------


@pytest.mark.usefixtures("hangs_up")
@pytest.mark.parametrize("syntax", [None, b"1.2.840.10008.1.2.4.50"], ids=["none", "JPEG"])
def test_a_peer_that_accepts_without_a_transfer_syntax_of_ours_is_told_when_it_mends_that(
    tmp_path: Path, syntax: bytes | None
) -> None:
    """What leaves the reporter's thread is the end of the node."""
    port, role = free_port(), struct.pack(">H", len(PUSH_MODEL)) + PUSH_MODEL.encode() + b"\x00\x01"
    acceptance = associate_ac([(1, syntax)], wire.user_information(16384, wire.item(0x54, role)))
    with committing_node(tmp_path, [at(port)]) as node:
        with WirePeer(acceptance, port=port) as there:
            with CommitmentSCU(node.port) as scu:
                scu.ask("1.9.1", UNKNOWN)
            row = node.wait_for_failure("PEER_BREAKS_PROTOCOL")
            assert "transfer syntax" in row["failure_reason"]
            wait_until(lambda: wire.ABORT in there.kinds, what="the abort")
            assert wire.P_DATA_TF not in there.kinds
        with ReportSCP(port) as again:
            assert failed(again.report()[1]) == TOLD
            node.wait_for("reported")


def test_what_pynetdicom_did_not_foresee_costs_the_call_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    def surprise(*_: object) -> None:
        raise KeyError("role")

    monkeypatch.setattr("pynetdicom.acse.negotiate_as_requestor", surprise)
    with WirePeer(associate_ac()) as there:
        with pytest.raises(PeerError, match=r"PEER_BREAKS_PROTOCOL.*KeyError"):
            open_call(at(there.port), "AIGW", Exchange(), PATIENCE_S)
        wait_until(lambda: there.kinds == [wire.ASSOCIATE_RQ, wire.ABORT], what="the abort")


# -- long reports -----------------------------------------------------------------------------


@pytest.mark.parametrize("max_pdu_bytes", [0, 4096, 0xFFFFFFFF])
def test_a_long_report_arrives_whole_and_its_fragments_are_queued_in_one_piece(max_pdu_bytes: int) -> None:
    """The thread that sends them answers a C-STORE whenever it finds its queue empty."""
    lengths: list[int] = []

    class Watched(deque[object]):
        def extend(self, fragments: Iterable[object]) -> None:
            listed = list(fragments)
            lengths.append(len(listed))
            super().extend(listed)

        def append(self, _: object) -> None:
            raise AssertionError("one fragment on its own")

    exchange, long = Exchange(), report(4000)
    with ReportSCP(max_pdu_bytes=max_pdu_bytes) as there:
        association = open_call(at(there.port), "AIGW", exchange, PATIENCE_S)
        waiting = association.dul.to_provider_queue
        real, waiting.queue = waiting.queue, Watched()
        exchange.tell(association, "scanner", long, PATIENCE_S)
        waiting.queue = real
        association.release()
        assert len(failed(there.report()[1])) == 4000
    pdu_bytes = min(max_pdu_bytes or 1 << 17, 1 << 17)
    assert lengths == [1 + -(-len(long.encoded(True)) // (pdu_bytes - 6))]


# -- a peer that keeps a call from ending -----------------------------------------------------


def fail_to_tell(there: ReportSCP, what: Report) -> None:
    """On an association that we open; returns when nothing of it is left."""
    call = ReportCall("AIGW", Exchange(), PATIENCE_S)
    call.open(at(there.port))
    association = call._association
    assert association is not None
    call._timeout_s = SOON_S
    with pytest.raises(PeerError, match="PEER_SILENT"):
        ends(lambda: call.tell(at(there.port), what))
    assert not association.dul.is_alive()
    association.join(PATIENCE_S)
    assert not association.is_alive()


def test_a_peer_that_sends_half_a_pdu_does_not_keep_the_call_open() -> None:
    stop = threading.Event()

    def half(connection: socket.socket) -> None:
        connection.sendall(b"\x04\x00\x00")
        stop.wait(PATIENCE_S)

    with ReportSCP(instead=half) as there:
        fail_to_tell(there, report(1))
        stop.set()


def test_a_peer_that_drips_bytes_does_not_keep_the_call_open() -> None:
    def drip(connection: socket.socket) -> None:
        with suppress(OSError):
            connection.sendall(struct.pack(">BxL", 4, 1000))
            for _ in range(int(PATIENCE_S / 0.2)):
                connection.sendall(b"\x00")
                time.sleep(0.2)

    with ReportSCP(instead=drip) as there:
        fail_to_tell(there, report(1))


def test_a_peer_that_reads_nothing_does_not_keep_the_call_open() -> None:
    stop = threading.Event()

    def stand_still(event: evt.Event) -> None:
        if event.data[0] == 4:  # P-DATA-TF: the thread that reads goes no further
            stop.wait(PATIENCE_S)

    more_than_buffers_hold = bytes(24 << 20)
    with ReportSCP() as there:
        there.bind(evt.EVT_DATA_RECV, stand_still)
        fail_to_tell(there, Report(2, lambda _: more_than_buffers_hold))
        stop.set()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_call_whose_own_thread_has_died_is_ended_and_replaced() -> None:
    """pynetdicom's release waits for that thread for ever."""
    with ReportSCP() as there:
        call = ReportCall("AIGW", Exchange(), PATIENCE_S)
        call.open(at(there.port))
        dead = call._association
        assert dead is not None
        dead.dimse.msg_queue.put((1, object()))  # type: ignore[arg-type]
        dead.join(PATIENCE_S)
        assert not dead.is_alive()
        ends(call.close)
        assert not dead.dul.is_alive()
        call.open(at(there.port))
        dead = call._association
        assert dead is not None
        dead.dul.kill_dul()
        dead.dul.join(PATIENCE_S)
        call.open(at(there.port))
        assert call._association is not dead
        call.tell(at(there.port), report(1))
        ends(call.close)
        assert failed(there.report()[1]) == {"1.2.3.0": 0x0112}


def test_a_peer_that_announces_a_pdu_of_4_gb_on_a_call_is_hung_up_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def flood() -> None:
            peer, _ = server.accept()
            with peer, suppress(OSError):
                peer.sendall(struct.pack(">BxL", 2, 0xFFFFFFF0) + bytes(1 << 16))
                while peer.recv(1 << 16):
                    pass

        peer = threading.Thread(target=flood)
        peer.start()
        began = time.monotonic()
        with pytest.raises(PeerError):
            open_call(at(server.getsockname()[1]), "AIGW", Exchange(), 30.0)
        assert time.monotonic() - began < 25.0  # not by a timeout
        peer.join(30.0)
        assert not peer.is_alive()


def test_what_a_peer_may_send_on_a_call_is_bounded_in_all() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sender = threading.Thread(target=theirs.sendall, args=(bytes(MOST_BYTES),))
        sender.start()
        receive = bounded(ours, PATIENCE_S)
        for _ in range(MOST_BYTES // MOST_PDU_BYTES):
            assert len(receive(MOST_PDU_BYTES)) == MOST_PDU_BYTES
        sender.join(PATIENCE_S)
        with pytest.raises(OSError, match="more than answers"):
            receive(1)
    with pytest.raises(OSError, match="more than answers"):
        bounded(ours, PATIENCE_S)(MOST_PDU_BYTES + 1)


@pytest.mark.parametrize("drips", [False, True])
def test_what_a_peer_announces_on_a_call_has_to_come_in_time(drips: bool) -> None:
    ours, theirs = socket.socketpair()
    over = threading.Event()

    def drip() -> None:
        while drips and not over.wait(SOON_S / 10):
            theirs.sendall(b"\x00")

    with ours, theirs:
        sender = threading.Thread(target=drip)
        sender.start()
        with pytest.raises(TimeoutError):
            bounded(ours, SOON_S)(MOST_PDU_BYTES)
        over.set()
        sender.join(PATIENCE_S)
        assert ours.gettimeout() == SOON_S  # of the next write


def test_what_a_peer_left_unfinished_is_shorter_than_announced() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"half")
        theirs.shutdown(socket.SHUT_WR)
        assert bounded(ours, PATIENCE_S)(6) == b"half"


# -- a caller that nobody knows ---------------------------------------------------------------


@pytest.mark.usefixtures("hangs_up")
def test_a_caller_that_nobody_knows_never_makes_us_open_a_connection(tmp_path: Path) -> None:
    """Neither to what its AE title names, nor to the peer whose AE title it has borrowed."""
    with socket.create_server(("127.0.0.1", 0)) as trap:
        port = trap.getsockname()[1]
        elsewhere = replace(SCANNER, host="127.0.0.9")
        with committing_node(tmp_path, [at(port)], [elsewhere], unknown_callers="accept") as node:
            titles = [f"127.0.0.1:{port}", SCANNER_AE_TITLE, "scanner", "localhost"]
            for title in titles:
                with CommitmentSCU(node.port, ae_title=title) as scu:
                    assert scu.ask("1.9.1", UNKNOWN).Status == 0x0000
            deadline = time.monotonic() + PATIENCE_S
            while {row["failure_name"] for row in node.commitments()} != {"PEER_WITHOUT_PORT"}:
                assert time.monotonic() < deadline, node.commitments()
                time.sleep(0.05)
            assert {row["source"] for row in node.commitments()} == {f"{title}@127.0.0.1" for title in titles}
            node.journal.recover(time.time())  # all are due once more
            attempts = sum(row["attempts"] for row in node.commitments())
            while sum(row["attempts"] for row in node.commitments()) < attempts + len(titles):
                assert time.monotonic() < deadline, node.commitments()
                time.sleep(0.05)
        trap.settimeout(0)
        with pytest.raises(BlockingIOError):
            trap.accept()
