"""The receiver's transport with peers on bare sockets and DCMTK; see tests/hostile for the whole node."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import structlog
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, MRImageStorage
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import N_ACTION
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.presentation import PresentationContext, build_context

from gateway.clock import SystemClock
from gateway.journal import JournalReader
from gateway.receive.admit import Admission, AdmissionLimits, Intake
from gateway.receive.callers import Callers
from gateway.receive.calls import KnownPeer, Node
from gateway.receive.contexts import TRANSFER_SYNTAXES, storage_class_uids
from gateway.receive.gate import RefusalLog
from gateway.receive.storage_scp import TlsListener
from gateway.receive.tls.context import TlsContext
from gateway.receive.tls.source import TlsSource
from tests.builders import ct_series, write_series
from tests.certificates import Authority
from tests.hostile import wire
from tests.hostile.peer import Gone, RawPeer, accepted
from tests.peers import SCANNER, RawSender, Receiver, dcmsend, dcmtk, encoded, receiver
from tests.waiting import wait_until

CT = str(CTImageStorage)
COMMITMENT = b"1.2.840.10008.1.20.1"


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Receiver]:
    with receiver(tmp_path) as running:
        yield running


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def records(gateway: Receiver) -> list[tuple[str, str]]:
    with closing(JournalReader(gateway.folder / "journal.db")) as reader:
        return [(row["name"], row["reason"]) for row in reader.refusals()]


def names(gateway: Receiver) -> list[str]:
    return [name for name, _ in records(gateway)]


def letter(gateway: Receiver) -> str:
    """What the administrator of the other side is told by the newest record."""
    with closing(JournalReader(gateway.folder / "journal.db")) as reader:
        return str(reader.refusals()[0]["details"]["advice"])


def stored(gateway: Receiver) -> set[str]:
    return {
        m.sop_instance_uid for s in gateway.journal.receiving_series() for m in gateway.journal.members(s.id)
    }


def abort_of(peer: RawPeer) -> tuple[int, int]:
    """(source, reason) of the A-ABORT that must come next; then the connection must end."""
    found = peer.read_pdu()
    assert found.kind == wire.ABORT, found
    assert peer.until_closed(15) == []
    return found.body[2], found.body[3]


# -- C-STORE ------------------------------------------------------------------------------------


def test_many_messages_in_one_write_are_answered_in_order(gateway: Receiver) -> None:
    series = ct_series((5, 16, 16))
    stream = b"".join(
        wire.message(1, wire.c_store_rq(d.SOPInstanceUID.encode(), n), encoded(d), fragment=701)
        for n, d in enumerate(series)
    )
    with RawPeer(gateway.port) as peer:
        peer.associated().send(stream)
        answers = [peer.answer() for _ in series]
        assert [(a.status, a.message_id) for a in answers] == [(0, n) for n in range(5)]
        assert peer.echo() == 0
        peer.release()
    assert stored(gateway) == {d.SOPInstanceUID for d in series}


def test_a_cancel_between_messages_is_ignored_and_an_unknown_request_is_answered(gateway: Receiver) -> None:
    dataset = ct_series((1, 16, 16))[0]
    cancel = wire.message(1, wire.command(wire.us(0x100, 0x0FFF), wire.us(0x120, 1), wire.us(0x800, 0x0101)))
    find = wire.command(wire.ui(2, wire.CT), wire.us(0x100, 0x20), wire.us(0x110, 3), wire.us(0x800, 1))
    with RawPeer(gateway.port) as peer:
        peer.associated().send(cancel * 30 + wire.message(1, find, b"who is there?"))
        assert peer.answer()[:3] == (0x8020, 0x0211, 3)
        assert peer.store(dataset.SOPInstanceUID, encoded(dataset)).status == 0
        peer.send(wire.message(3, wire.c_store_rq(b"1.2.3"), b"in the context of C-ECHO"))
        assert peer.answer().status == 0x0122
        peer.release()


def test_a_sop_class_other_than_that_of_the_context_is_refused(gateway: Receiver) -> None:
    with RawPeer(gateway.port) as peer:
        answer = peer.associated().store(b"1.2.3", b"data", sop_class_uid=str(MRImageStorage).encode())
        assert answer.status == 0x0122
        assert answer.elements[0x902].startswith(b"SOP_CLASS_NOT_NEGOTIATED")
    assert names(gateway) == ["SOP_CLASS_NOT_NEGOTIATED"]


@pytest.mark.parametrize("sop_class", [wire.VERIFICATION, COMMITMENT])
def test_a_c_store_in_the_context_of_another_service_is_refused(tmp_path: Path, sop_class: bytes) -> None:
    """Even when the request and its data set name the class of that context."""
    dataset = ct_series((1, 16, 16))[0]
    dataset.SOPClassUID = sop_class.decode()
    data = encoded(dataset, implicit_vr=True)
    with receiver(tmp_path, services=[HeldService()]) as gateway:
        with RawPeer(gateway.port) as peer:
            peer.associated(wire.associate_rq([wire.Context(1, sop_class, (wire.IMPLICIT,))]))
            answer = peer.store(dataset.SOPInstanceUID, data, sop_class_uid=sop_class)
            assert answer.status == 0x0122
            assert answer.elements[0x902].startswith(b"SOP_CLASS_NOT_NEGOTIATED")
            peer.release()
        assert names(gateway) == ["SOP_CLASS_NOT_NEGOTIATED"]
        assert stored(gateway) == set()


def test_a_refusal_in_the_middle_is_answered_at_the_end_and_the_next_is_taken(
    gateway: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = ct_series((2, 700, 700))
    write, seen = Intake.write, []

    def full_after_two(self: Intake, *chunks: memoryview) -> None:
        seen.append(len(chunks))
        if len(seen) == 3:
            raise OSError(28, "No space left on device")
        write(self, *chunks)

    with RawPeer(gateway.port) as peer:
        peer.associated()
        with monkeypatch.context() as patch:
            patch.setattr(Intake, "write", full_after_two)
            answer = peer.store(first.SOPInstanceUID, encoded(first))
        assert (answer.status, answer.elements[0x902][:10]) == (0xA700, b"DISK_ERROR")
        assert len(seen) == 3
        assert peer.store(second.SOPInstanceUID, encoded(second)).status == 0
    assert stored(gateway) == {second.SOPInstanceUID}
    assert not any((gateway.folder / "spool").rglob("*.part"))


def test_a_little_over_the_limit_is_answered_and_far_over_it_is_aborted(tmp_path: Path) -> None:
    limits = AdmissionLimits(max_instance_bytes=1 << 20, keep_free_bytes=0, refuse_over_fraction=1.0)
    with receiver(tmp_path, limits=limits) as gateway:
        with RawPeer(gateway.port) as peer:
            assert peer.associated().store(b"1.2.3", bytes(2 << 20)).status == 0xC000
            with pytest.raises(Gone):
                peer.store(b"1.2.3", bytes(60 << 20))
        assert names(gateway).count("INSTANCE_TOO_LARGE") == 2
        assert stored(gateway) == set()


def _ask(peer: RawPeer, message: bytes) -> None:
    peer.send(message)
    peer.answer()


def test_a_message_that_is_no_c_store_has_a_limit_of_its_own(gateway: Receiver) -> None:
    find = wire.command(wire.us(0x100, 0x20), wire.us(0x110, 3), wire.us(0x800, 1))
    with RawPeer(gateway.port) as peer:
        peer.associated()
        with pytest.raises(Gone):
            _ask(peer, wire.message(1, find, bytes(100 << 20), fragment=120_000))
    wait_until(lambda: names(gateway) == ["MESSAGE_TOO_LARGE", "UNRECOGNISED_OPERATION"])
    reasons = dict(records(gateway))
    assert "More than 32 MiB" in reasons["MESSAGE_TOO_LARGE"]
    assert (
        "Command Field 0020 came in a presentation context for 1.2.840.10008"
        in (reasons["UNRECOGNISED_OPERATION"])
    )


class HeldService:
    """Storage commitment whose N-ACTIONs are answered when ``go`` is set."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.sizes: list[int] = []

    def contexts(self) -> list[PresentationContext]:
        return [build_context(COMMITMENT.decode(), [ImplicitVRLittleEndian])]

    def handlers(self) -> list[evt.EventHandlerType]:
        return [(evt.EVT_N_ACTION, self._on_action)]

    def ended(self, association: Association) -> None:
        """Nothing is kept of it."""

    def _on_action(self, event: evt.Event) -> tuple[int, Dataset | None]:
        request = event.request
        assert isinstance(request, N_ACTION)
        assert request.ActionInformation is not None
        self.sizes.append(len(request.ActionInformation.getbuffer()))
        self.go.wait(60)
        return 0x0000, None


def test_of_messages_that_are_sent_without_waiting_one_is_held_in_memory(tmp_path: Path) -> None:
    service, size, count = HeldService(), 8 << 20, 8
    proposal = wire.Context(1, COMMITMENT, (wire.IMPLICIT,))
    sent = [0]

    def send_all(peer: RawPeer) -> None:
        for number in range(1, count + 1):
            request = wire.command(
                wire.ui(3, COMMITMENT), wire.us(0x100, wire.N_ACTION_RQ), wire.us(0x110, number),
                wire.us(0x800, 1), wire.ui(0x1001, b"1.2.840.10008.1.20.1.1"), wire.us(0x1008, 1),
            )  # fmt: skip
            whole = wire.message(1, request, bytes(size), fragment=120_000)
            for at in range(0, len(whole), 1 << 18):
                peer.send(whole[at : at + (1 << 18)])
                sent[0] += min(1 << 18, len(whole) - at)

    with receiver(tmp_path, services=[service], idle_timeout_s=1.0) as gateway, RawPeer(gateway.port) as peer:
        peer.associated(wire.associate_rq([proposal]))
        peer.socket.settimeout(60)
        thread = threading.Thread(target=send_all, args=(peer,))
        thread.start()
        wait_until(lambda: service.sizes, 20)
        before = -1
        while sent[0] != before:  # until nobody takes anything more
            before = sent[0]
            time.sleep(1.2)
        assert sent[0] < 4 * size, "one message, and what fits into the buffers of the kernel"
        service.go.set()
        answers = [peer.answer(30) for _ in range(count)]
        thread.join(30)
        assert [(a.status, a.message_id) for a in answers] == [(0, n) for n in range(1, count + 1)]
        peer.release()
    assert service.sizes == [size] * count
    assert names(gateway) == []


def commitment_request(*elements: bytes, sop_class: bytes = COMMITMENT) -> bytes:
    """An N-ACTION without data set, in context 5."""
    instance = wire.ui(0x1001, b"1.2.840.10008.1.20.1.1")
    return wire.message(5, wire.command(
        wire.ui(3, sop_class), wire.us(0x100, wire.N_ACTION_RQ), wire.us(0x110, 7), wire.us(0x800, 0x0101),
        instance, *elements,
    ))  # fmt: skip


def echo_request(*elements: bytes) -> bytes:
    """A C-ECHO of which the rest of the command set is as given, in context 3."""
    return wire.message(
        3, wire.command(*elements, wire.us(0x100, wire.C_ECHO_RQ), wire.us(0x110, 7), wire.us(0x800, 0x0101))
    )


PROPOSALS = (*wire.STORE_AND_ECHO, wire.Context(5, COMMITMENT, (wire.IMPLICIT,)))
UNSERVED = {
    "C-ECHO without class": (echo_request(), None),
    "C-ECHO with an odd number": (
        echo_request(wire.ui(2, wire.VERIFICATION), wire.element(0x1008, b"abc")), None,
    ),
    "C-ECHO of a class of 100 characters": (echo_request(wire.ui(2, b"1." * 50)), 0x0122),
    "C-ECHO of CT": (echo_request(wire.ui(2, wire.CT)), 0x0122),
    "N-ACTION without type": (commitment_request(), None),
    "N-ACTION of an instance of 100 characters": (
        commitment_request(wire.us(0x1008, 1), wire.ui(0x1000, b"1." * 50)), None,
    ),
    "N-ACTION without class": (commitment_request(wire.us(0x1008, 1), sop_class=b""), None),
    "N-ACTION of CT": (commitment_request(wire.us(0x1008, 1), sop_class=wire.CT), 0x0118),
    "N-ACTION of the printer": (
        commitment_request(wire.us(0x1008, 1), sop_class=b"1.2.840.10008.5.1.1.9"), 0x0118,
    ),
    "N-ACTION of two classes": (commitment_request(wire.ui(2, wire.CT), wire.us(0x1008, 1)), 0x0118),
    "N-EVENT-REPORT-RSP without status": (
        wire.message(5, wire.command(wire.us(0x100, 0x8100), wire.us(0x120, 7), wire.us(0x800, 0x0101))),
        None,
    ),
}  # fmt: skip
"""Messages for pynetdicom that it must not be asked to serve; their status, or None for COMMAND_INVALID."""


@pytest.mark.parametrize("kind", UNSERVED)
def test_a_message_that_cannot_be_served_is_answered_or_aborted_at_once_and_recorded(
    tmp_path: Path, kind: str
) -> None:
    """Long before the idle timeout, and never by the service of another class."""
    message, status = UNSERVED[kind]
    service = HeldService()
    with receiver(tmp_path, services=[service], idle_timeout_s=60.0) as gateway:
        with RawPeer(gateway.port) as peer:
            peer.associated(wire.associate_rq(PROPOSALS)).send(message)
            if status is None:
                assert abort_of(peer) == (2, 6)
            else:
                answer = peer.answer()
                assert (answer.status, answer.message_id) == (status, 7)
                assert answer.field in (wire.C_ECHO_RSP, 0x8130)
                assert answer.elements[0x902].startswith(b"SOP_CLASS_NOT_NEGOTIATED")
                assert peer.echo() == 0
                peer.release()
        name = "SOP_CLASS_NOT_NEGOTIATED" if status else "COMMAND_INVALID"
        wait_until(lambda: names(gateway) == [name])
        assert records(gateway)[0][1].startswith("scanner: ")
        assert "1.1.1.1" not in str(gateway.log)
    assert service.sizes == []


# -- silence ------------------------------------------------------------------------------------


def test_a_peer_that_falls_silent_is_ended_also_when_it_was_busy_at_the_first_look(tmp_path: Path) -> None:
    """The association's thread looks in the middle of a C-STORE; nobody wakes it when that ends."""
    dataset = ct_series((1, 64, 64))[0]
    message = wire.message(1, wire.c_store_rq(dataset.SOPInstanceUID.encode()), encoded(dataset))
    with receiver(tmp_path, idle_timeout_s=3.0) as gateway, RawPeer(gateway.port) as peer:
        peer.associated().send(message[:-2000])
        wait_until(lambda: any((gateway.folder / "spool").rglob("*.part")))
        (association,) = gateway.scp._servers[0]._associations
        association.wake()
        wait_until(lambda: not association._changed.is_set())
        time.sleep(0.1)  # it has looked, and waits again
        peer.send(message[-2000:])
        assert peer.answer().status == 0
        assert [found.kind for found in peer.until_closed(20)] == [wire.ABORT]
        wait_until(lambda: gateway.associations.count() == 0)
        wait_until(lambda: names(gateway) == ["IDLE_TIMEOUT"])
        assert association.is_idle_expired


@pytest.mark.parametrize("ending", [wire.release_rq(), wire.abort(), b""], ids=["release", "abort", "close"])
def test_only_silence_is_called_silence(gateway: Receiver, ending: bytes) -> None:
    with RawPeer(gateway.port) as peer:
        peer.associated()
        (association,) = gateway.scp._servers[0]._associations
        peer.send(ending)
    wait_until(lambda: gateway.associations.count() == 0)
    assert not association.is_idle_expired


# -- violations ---------------------------------------------------------------------------------

VIOLATIONS = {
    "unknown PDU": (wire.pdu(9, b""), "PDU_UNRECOGNISED", 1),
    "second request": (wire.associate_rq(), "PDU_UNEXPECTED", 2),
    "answer to nothing": (wire.pdu(wire.RELEASE_RP, bytes(4)), "PDU_UNEXPECTED", 2),
    "PDU over the negotiated length": (wire.pdu(4, b"", length=131073), "PDU_TOO_LONG", 6),
    "long release": (wire.pdu(5, b"", length=1 << 30), "PDU_TOO_LONG", 6),
    "no PDV": (wire.p_data(), "PDV_INVALID", 6),
    "wrong context": (wire.message(77, wire.c_echo_rq()), "PDV_INVALID", 6),
    "data set of nothing": (wire.p_data(wire.pdv(1, 2, b"x")), "MESSAGE_UNEXPECTED", 5),
    "no command": (wire.p_data(wire.pdv(1, 3, b"x")), "COMMAND_INVALID", 6),
}  # fmt: skip


@pytest.mark.parametrize("violation", VIOLATIONS)
def test_a_violation_is_aborted_as_provider_with_its_reason_and_recorded(
    gateway: Receiver, violation: str
) -> None:
    lie, name, reason = VIOLATIONS[violation]
    with RawPeer(gateway.port) as peer:
        peer.associated().send(lie)
        assert abort_of(peer) == (2, reason)
    wait_until(lambda: names(gateway) == [name])
    assert records(gateway)[0][1].startswith("scanner: ")
    wait_until(lambda: gateway.associations.count() == 0)


@pytest.mark.parametrize("pdu_type", [0x47, 0x02, 0x04, 0x05])
def test_before_the_association_only_its_request_and_an_abort_are_read(
    gateway: Receiver, pdu_type: int
) -> None:
    with RawPeer(gateway.port) as peer:
        peer.send(wire.pdu(pdu_type, b"", length=1 << 30))
        assert abort_of(peer) == (2, 1 if pdu_type == 0x47 else 2)


def test_a_request_of_more_than_a_mebibyte_is_not_read(gateway: Receiver) -> None:
    with RawPeer(gateway.port) as peer:
        peer.send(wire.pdu(1, b"", length=(1 << 20) + 1))
        assert abort_of(peer) == (2, 6)


USER_IDENTITY_OF_TYPE_9 = wire.user_information(16384, wire.item(0x58, b"\x09\0\0\1a\0\0"))


def test_a_user_identity_of_no_known_type_is_the_peers_fault_and_recorded(gateway: Receiver) -> None:
    """Whoever may not call at all can send it."""
    with RawPeer(gateway.port) as peer:
        peer.send(wire.associate_rq(calling=b"NOBODY", user=USER_IDENTITY_OF_TYPE_9))
        assert abort_of(peer) == (2, 6)
    wait_until(lambda: names(gateway) == ["PDU_INVALID"])
    assert records(gateway)[0][1].startswith("127.0.0.1: A user identity")
    assert not [line for line in gateway.log if line["event"] == "association_failed"]


def test_whatever_pynetdicom_cannot_read_in_a_request_is_the_peers_fault(
    gateway: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, RawPeer(gateway.port) as peer:
        patch.setattr(A_ASSOCIATE_RQ, "to_primitive", lambda _: int("not a number"))
        peer.send(wire.associate_rq())
        assert abort_of(peer) == (2, 6)
    wait_until(lambda: names(gateway) == ["PDU_INVALID"])
    assert not [line for line in gateway.log if line["event"] == "association_failed"]


def test_a_peer_that_trickles_a_pdu_loses_its_association(tmp_path: Path) -> None:
    with receiver(tmp_path, idle_timeout_s=1.0) as gateway:
        with RawPeer(gateway.port) as peer:
            peer.associated()
            assert peer.trickle(wire.message(3, wire.c_echo_rq()), 0.2) < 30
        wait_until(lambda: names(gateway) == ["PEER_TOO_SLOW"])


def test_a_peer_that_trickles_its_request_is_cut_off_in_time(tmp_path: Path) -> None:
    with receiver(tmp_path, association_timeout_s=1.0) as gateway, RawPeer(gateway.port) as peer:
        assert peer.trickle(wire.associate_rq(), 0.2) < 60


# -- connections --------------------------------------------------------------------------------


def test_idle_connections_make_room_for_a_peer_that_asks(tmp_path: Path) -> None:
    """Long before the time of the idle ones is over, which is 60 s here."""
    with receiver(tmp_path, max_connections_per_address=8, association_timeout_s=60.0) as gateway:
        idle = [RawPeer(gateway.port) for _ in range(60)]
        with RawPeer(gateway.port) as peer:
            assert peer.associated().echo() == 0
        wait_until(lambda: gateway.scp._connections.count() <= 8)
        wait_until(lambda: names(gateway) == ["TOO_MANY_CONNECTIONS"])
        for each in idle:
            each.close()


def test_associations_that_end_together_are_no_crowd(tmp_path: Path) -> None:
    """Each has its A-RELEASE-RP, and lingers until it is closed: more of them than may wait to ask."""
    with receiver(tmp_path, max_connections_per_address=2) as gateway:
        peers = [RawPeer(gateway.port).associated() for _ in range(8)]
        for peer in peers:
            peer.send(wire.release_rq())
        for peer in peers:
            assert peer.read_pdu(20).kind == wire.RELEASE_RP
        wait_until(lambda: gateway.associations.count() == 0)
        for peer in peers:
            peer.close()
        wait_until(lambda: gateway.scp._connections.count() == 0)
        assert names(gateway) == []


def test_a_connection_that_never_asks_ends_after_its_time(tmp_path: Path) -> None:
    with receiver(tmp_path, association_timeout_s=0.5) as gateway, RawPeer(gateway.port) as peer:
        began = time.monotonic()
        assert peer.until_closed(15) == []
        assert 0.4 < time.monotonic() - began < 15


def test_connections_that_come_and_go_leave_nothing_behind(gateway: Receiver) -> None:
    def come_and_go() -> None:
        for number in range(60):
            with RawPeer(gateway.port) as peer:
                if number % 3:
                    peer.associated()
                if number % 3 == 1:
                    peer.send(wire.abort())
        wait_until(lambda: gateway.associations.count() == 0 and gateway.scp._connections.count() == 0)

    come_and_go()
    threads, descriptors = threading.active_count(), open_descriptors()
    come_and_go()
    wait_until(lambda: threading.active_count() <= threads)
    assert open_descriptors() <= descriptors


def test_idle_associations_wake_nobody(gateway: Receiver) -> None:
    """pynetdicom's own threads look around a thousand times a second each."""
    peers = [RawPeer(gateway.port).associated() for _ in range(8)]
    time.sleep(0.3)
    before = wake_ups()
    time.sleep(1.5)
    assert wake_ups() - before < 100
    for peer in peers:
        peer.close()


def wake_ups() -> int:
    """How often the threads of this process waited and went on, so far."""
    found = 0
    for status in Path("/proc/self/task").glob("*/status"):
        with suppress(OSError):
            found += int(status.read_text().partition("\nvoluntary_ctxt_switches:")[2].split()[0])
    return found


def test_a_stop_in_the_middle_of_a_data_set_does_not_wait_for_its_peer(tmp_path: Path) -> None:
    with receiver(tmp_path, drain_timeout_s=0.1) as gateway:
        peer = RawPeer(gateway.port).associated()
        peer.send(
            wire.p_data(wire.pdv(1, 3, wire.c_store_rq(b"1.2.3"))) + wire.p_data(wire.pdv(1, 0, b"half"))
        )
        wait_until(lambda: any((gateway.folder / "spool").rglob("*.part")))
        began = time.monotonic()
    assert time.monotonic() - began < 15
    assert [found.kind for found in peer.until_closed(15)] == [wire.ABORT]
    assert not any((tmp_path / "spool").rglob("*.part"))
    peer.close()


# -- negotiation --------------------------------------------------------------------------------


def test_a_peer_with_storage_classes_gets_only_those(tmp_path: Path) -> None:
    peer_of_one = KnownPeer(SCANNER.name, SCANNER.ae_title, SCANNER.host, storage_classes=(CT,))
    with receiver(tmp_path, peers=[peer_of_one]) as gateway:
        proposals = [wire.Context(1, wire.CT), wire.Context(3, str(MRImageStorage).encode()),
                     wire.Context(5, wire.VERIFICATION, (wire.IMPLICIT,))]  # fmt: skip
        with RawPeer(gateway.port) as peer:
            assert accepted(peer.associate(wire.associate_rq(proposals))) == {1: 0, 3: 3, 5: 0}
        wait_until(lambda: names(gateway) == ["PRESENTATION_CONTEXTS_REFUSED"])
        assert "MRImageStorage with ExplicitVRLittleEndian: the SOP class is not taken" in letter(gateway)
        with RawPeer(gateway.port) as peer:
            assert accepted(peer.associate(wire.associate_rq(proposals[1:2]))) == {3: 3}
        wait_until(lambda: len(records(gateway)) == 2)
        name, reason = records(gateway)[0]
        assert name == "NO_PRESENTATION_CONTEXT_ACCEPTED"
        assert "MRImageStorage with ExplicitVRLittleEndian: the SOP class is not taken" in reason
        assert "peers.scanner.storage_classes" in reason
        told = letter(gateway)
        assert "the called AE title 'AIGW'" in told
        assert "ExplicitVRLittleEndian: the SOP class is not taken from this system" in told


def test_of_what_is_proposed_in_vain_the_other_side_is_told_the_first(gateway: Receiver) -> None:
    syntaxes = [b"1.2.840.113619.5.%d" % number for number in range(40)]
    proposals = [wire.Context(2 * number + 1, b"1.2.3.%d" % number, syntaxes) for number in range(100)]
    with RawPeer(gateway.port) as peer:
        assert set(accepted(peer.associate(wire.associate_rq(proposals))).values()) == {3}
    wait_until(lambda: names(gateway) == ["NO_PRESENTATION_CONTEXT_ACCEPTED"])
    told = letter(gateway)
    assert "1.2.3.0 with 1.2.840.113619.5.0, 1.2.840.113619.5.1, 1.2.840.113619.5.2 and 37 more: " in told
    assert "the SOP class is not taken; 1.2.3.1 with" in told
    assert "; and 95 more. Please" in told


def test_another_application_context_is_rejected_and_recorded(gateway: Receiver) -> None:
    with RawPeer(gateway.port) as peer:
        found = peer.associate(wire.associate_rq(application_context=b"1.2.3.4"))
        assert (found.kind, found.body[1:]) == (wire.ASSOCIATE_RJ, bytes((1, 1, 2)))
    assert names(gateway) == ["APPLICATION_CONTEXT_NOT_SUPPORTED"]
    assert "'1.2.3.4'" in letter(gateway)
    assert "1.2.840.10008.3.1.1.1" in letter(gateway)


def test_whoever_cannot_be_decided_on_is_rejected_for_now_and_told(
    gateway: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, RawPeer(gateway.port) as peer:
        patch.setattr(Callers, "identify", lambda *_: 1 / 0)
        found = peer.associate()
        assert (found.kind, found.body[1:]) == (wire.ASSOCIATE_RJ, bytes((2, 3, 1)))
    assert names(gateway) == ["INTERNAL_ERROR"]
    assert "The fault is on our side" in letter(gateway)
    assert [line["error"] for line in gateway.log if line["event"] == "association_failed"] == [
        "ZeroDivisionError"
    ]
    with RawPeer(gateway.port) as peer:
        peer.associated().release()


@pytest.mark.parametrize("ending", [wire.release_rq(), wire.abort()], ids=["release", "abort"])
def test_an_end_inside_a_message_ends_it_and_keeps_nothing(gateway: Receiver, ending: bytes) -> None:
    with RawPeer(gateway.port) as peer:
        peer.associated()
        peer.send(wire.p_data(wire.pdv(1, 3, wire.c_store_rq(b"1.2.3")), wire.pdv(1, 0, b"half")) + ending)
        assert [found.kind for found in peer.until_closed(15)] in ([], [wire.RELEASE_RP])
    wait_until(lambda: not any((gateway.folder / "spool").rglob("*.part")))


@pytest.mark.parametrize("ending", [wire.release_rq(), wire.abort()], ids=["release", "abort"])
def test_an_end_after_a_command_is_acted_on_at_once(tmp_path: Path, ending: bytes) -> None:
    """Not when the data set that was announced has not come in time (60 s here)."""
    with receiver(tmp_path, idle_timeout_s=60.0) as gateway, RawPeer(gateway.port) as peer:
        peer.associated().send(wire.p_data(wire.pdv(1, 3, wire.c_store_rq(b"1.2.3"))) + ending)
        peer.until_closed(15)
        wait_until(lambda: gateway.associations.count() == 0)
    assert names(gateway) == []


def test_a_peer_that_released_may_call_again_at_once(tmp_path: Path) -> None:
    """Its place is free when it has our A-RELEASE-RP: without waiting, and without closing first."""
    peer = replace(SCANNER, max_associations=1)
    with receiver(tmp_path, peers=[peer]) as gateway, pytest.MonkeyPatch.context() as patch:
        patch.setattr("gateway.receive.gate.GRACE_S", 0.0)
        for _ in range(30):
            with RawPeer(gateway.port) as first:
                first.associated().send(wire.release_rq())
                assert first.read_pdu().kind == wire.RELEASE_RP
                with RawPeer(gateway.port) as second:
                    second.associated().send(wire.release_rq())
                    assert second.read_pdu().kind == wire.RELEASE_RP


def test_every_storage_class_with_every_syntax_can_be_proposed_at_once(gateway: Receiver) -> None:
    proposals = [
        wire.Context(2 * i + 1, uid.encode(), [str(s).encode() for s in reversed(TRANSFER_SYNTAXES)])
        for i, uid in enumerate(storage_class_uids()[:128])
    ]
    with RawPeer(gateway.port) as peer:
        answer = peer.associate(wire.associate_rq(proposals))
        assert set(accepted(answer).values()) == {0}
        assert answer.body.count(str(ExplicitVRLittleEndian).encode()) >= len(proposals)
        peer.release()


# -- TLS ----------------------------------------------------------------------------------------


def test_tls_peers_are_served_and_a_silent_one_keeps_nobody_out(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "keys")
    ours, theirs = authority.issue("ours", "/O=Clinic/CN=gateway"), authority.issue("ct", "/O=Clinic/CN=ct1")
    (tmp_path / "in").mkdir()
    series = ct_series((4, 64, 64))
    write_series(series, tmp_path / "in")

    def make_tls(written: RefusalLog) -> TlsListener:
        log = structlog.wrap_logger(
            None, processors=[], wrapper_class=structlog.make_filtering_bound_logger(50)
        )
        source = TlsSource(authority.files(ours), "required", SystemClock(), log)
        context = TlsContext(source, Node("AIGW"), written.note)
        return TlsListener("127.0.0.1", 0, context)

    with receiver(tmp_path / "gateway", make_tls=make_tls, association_timeout_s=2.0) as gateway:
        silent = [socket.create_connection(("127.0.0.1", gateway.scp.tls_port)) for _ in range(5)]
        options = ["+tls", theirs.key, theirs.certificate, "+cf", authority.certificate, "-ic"]
        answer = dcmtk_tls("storescu", gateway.scp.tls_port, options, ["+sd", tmp_path / "in"])
        assert answer.returncode == 0, (answer.stderr, gateway.log)
        assert stored(gateway) == {d.SOPInstanceUID for d in series}
        assert dcmtk("echoscu", gateway.scp.tls_port).returncode != 0  # without TLS
        assert dcmtk("echoscu", gateway.port).returncode == 0
        for each in silent:
            each.settimeout(20)
            assert each.recv(1) == b""
            each.close()
        assert "TLS_REQUIRED" not in names(gateway)


def dcmtk_tls(tool: str, port: int, tls: list[object], arguments: list[object]):  # type: ignore[no-untyped-def]
    command = [tool, "-v", "-aet", "SCANNER", "-aec", "AIGW", *map(str, tls), "127.0.0.1", str(port)]
    return subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )


# -- stock senders ------------------------------------------------------------------------------


def test_a_sender_that_leaves_nagle_on_is_acknowledged_at_once(
    gateway: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def send_s(no_delay: str) -> float:
        monkeypatch.setenv("TCP_NODELAY", no_delay)  # DCMTK reads it
        began_s = time.monotonic()
        assert dcmsend(gateway.port, "+sd", tmp_path / "in").returncode == 0
        return time.monotonic() - began_s

    (tmp_path / "in").mkdir()
    write_series(ct_series((40, 128, 128)), tmp_path / "in")
    late_s: list[float] = []
    while not late_s or (min(late_s) >= 40 * 0.020 and len(late_s) < 5):  # the machine may be busy
        late_s.append(send_s("0") - send_s("1"))
    assert min(late_s) < 40 * 0.020, "a delayed acknowledgement takes 40 ms"


def test_a_broken_begin_is_answered(gateway: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Admission, "begin", lambda *_: 1 / 0)
    with RawSender(gateway.port, [CT]) as sender:
        assert sender.send(CT, "1.2.3", b"data").Status == 0xC000
