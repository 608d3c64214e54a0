"""PDVs and command sets that lie, and messages that have no place here (PS3.7, PS3.8 E)."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import pytest

from tests.hostile import wire
from tests.hostile.node import AT_ONCE_S, IDLE_TIMEOUT_S, HostileNode, good_bytes
from tests.hostile.peer import Gone, RawPeer, digest
from tests.hostile.wire import command, element, p_data, pdv, ui, us

UID, DATA_SET = good_bytes()
STORE = wire.c_store_rq(UID)


def _store(*, fragment: int = 16000) -> bytes:
    return wire.message(1, STORE, DATA_SET, fragment)


def outcome(peer: RawPeer, timeout_s: float = AT_ONCE_S) -> int | None:
    """Status of the answer; None when the association was ended instead. Silence is an error."""
    try:
        return peer.answer(timeout_s).status
    except Gone:
        return None


# -- PDVs -------------------------------------------------------------------------------------

BROKEN_PDVS: dict[str, bytes] = {
    "no PDV at all": p_data(),
    "length 0": p_data(pdv(1, 3, b"", length=0)),
    "length 1": p_data(pdv(1, 3, b"", length=1)),
    "length over the PDU": p_data(pdv(1, 3, STORE, length=len(STORE) + 3)),
    "length 4 GiB": p_data(pdv(1, 3, STORE, length=0xFFFFFFFF)),
    "second length over the PDU": p_data(pdv(1, 3, STORE), pdv(1, 2, b"ab", length=5000)),
    "half a PDV header": p_data(pdv(1, 3, STORE) + b"\0\0\0"),
    "length short of the fragment": p_data(pdv(1, 3, STORE, length=10)),
    "context not accepted": wire.message(99, STORE, DATA_SET),
    "context even": wire.message(2, STORE, DATA_SET),
    "context 0": wire.message(0, STORE, DATA_SET),
    "data before any command": p_data(pdv(1, 2, DATA_SET)),
    "data of another context": p_data(pdv(1, 3, STORE)) + p_data(pdv(3, 2, DATA_SET)),
    "command within the data set": p_data(pdv(1, 3, STORE), pdv(1, 0, DATA_SET[:100]), pdv(1, 3, STORE)),
    "half a command within the data set": p_data(pdv(1, 3, STORE), pdv(1, 0, b"ab"), pdv(1, 1, STORE[:20])),
    "two commands interleaved": p_data(
        pdv(1, 1, STORE[:20]), pdv(3, 1, wire.c_echo_rq()[:20]), pdv(1, 3, STORE[20:])
    ),
}


@pytest.mark.parametrize("kind", BROKEN_PDVS)
def test_a_broken_pdv_ends_the_association_and_stores_nothing(node: HostileNode, kind: str) -> None:
    stored = node.stored
    with RawPeer(node.dicom_port) as peer:
        peer.associated().send(BROKEN_PDVS[kind])
        assert outcome(peer) is None
    assert node.stored == stored


def test_a_command_fragmented_byte_by_byte_is_understood(node: HostileNode) -> None:
    pdvs = [pdv(1, 1, STORE[i : i + 1]) for i in range(len(STORE) - 1)]
    with RawPeer(node.dicom_port) as peer:
        peer.associated().send(b"".join(map(p_data, pdvs)) + p_data(pdv(1, 3, STORE[-1:])))
        peer.send(p_data(*(pdv(1, 0, DATA_SET[i : i + 1]) for i in range(len(DATA_SET)))))
        peer.send(p_data(pdv(1, 2, b"")))
        assert outcome(peer) == 0


def test_reserved_bits_of_a_control_header_are_not_looked_at(node: HostileNode) -> None:
    """PS3.8 E.2: bits 2 to 7 are always zero and never checked by the receiver."""
    with RawPeer(node.dicom_port) as peer:
        peer.associated().send(p_data(pdv(1, 0xFF, STORE)) + p_data(pdv(1, 0xFE, DATA_SET)))
        assert outcome(peer) == 0


def test_ten_thousand_empty_fragments_are_endured(node: HostileNode) -> None:
    with RawPeer(node.dicom_port) as peer:
        peer.associated().send(p_data(pdv(1, 3, STORE)))
        peer.send(p_data(pdv(1, 0, b"")) * 10_000 + p_data(pdv(1, 2, DATA_SET)))
        assert outcome(peer, 30) == 0
    assert node.grown_mib < 40


def test_an_endless_command_set_is_bounded(node: HostileNode) -> None:
    sent, fragment = 0, p_data(pdv(1, 1, bytes(16000)))
    with RawPeer(node.dicom_port) as peer:
        peer.associated()
        try:
            while sent < 40 << 20:
                peer.send(fragment)
                sent += len(fragment)
        except Gone:
            pass
    assert sent < 40 << 20, "40 MiB of a command set were taken"
    assert node.grown_mib < 30


def test_whatever_stops_in_the_middle_loses_its_association(node: HostileNode) -> None:
    peers = {middle: RawPeer(node.dicom_port).associated() for middle in MIDDLES}
    for middle, peer in peers.items():
        peer.send(MIDDLES[middle])
    for middle, peer in peers.items():
        with peer:
            assert peer.ended(IDLE_TIMEOUT_S + 3), middle


def test_a_data_set_over_the_limit_is_refused_without_being_held(node: HostileNode) -> None:
    """80 MiB where 64 MiB are allowed: 0xC000 at its end or an abort before, recorded by name."""
    fragment = p_data(*(pdv(1, 0, bytes(16000)) for _ in range(8)))
    with RawPeer(node.dicom_port) as peer:
        peer.associated().send(p_data(pdv(1, 3, STORE)))
        try:
            for _ in range((90 << 20) // len(fragment)):
                peer.send(fragment)
            peer.send(p_data(pdv(1, 2, bytes(100))))
            assert outcome(peer) in (None, 0xC000)
        except Gone:
            pass
    assert "INSTANCE_TOO_LARGE" in node.refusal_names()
    assert node.grown_mib < 100


# -- command sets -----------------------------------------------------------------------------

GOOD = (ui(2, wire.CT), us(0x100, 1), us(0x110, 1), us(0x700, 0), us(0x800, 1), ui(0x1000, UID))


def _without(position: int) -> bytes:
    return command(*(e for i, e in enumerate(GOOD) if i != position))


def _instead(position: int, other: bytes) -> bytes:
    return command(*(other if i == position else e for i, e in enumerate(GOOD)))


BROKEN_COMMANDS: dict[str, bytes] = {
    "empty": b"",
    "one byte": b"\0",
    "7 bytes": STORE[:7],
    "only a group length": command(),
    "cut off in an element": STORE[:-5],
    "element over the end": _instead(5, element(0x1000, UID, length=5000)),
    "element of 4 GiB": _instead(0, element(2, wire.CT, length=0xFFFFFFFE)),
    "element of undefined length": _instead(0, element(2, wire.CT, length=0xFFFFFFFF)),
    "another group": command(*GOOD, b"\x10\0\x10\0\x04\0\0\0Doe^"),
    "explicit VR": command(b"\0\0\x02\0UI\x1a\0" + wire.CT + b"\0", *GOOD[1:]),
    "no command field": _without(1),
    "no message id": _without(2),
    "no class": _without(0),
    "no data set type": _without(4),
    "no instance": _without(5),
    "empty command field": _instead(1, element(0x100, b"")),
    "command field of one byte": _instead(1, element(0x100, b"\x01")),
    "command field of 8 bytes": _instead(1, element(0x100, b"\x01" + bytes(7))),
    "unknown command": _instead(1, us(0x100, 0x7777)),
    "empty message id": _instead(2, element(0x110, b"")),
    "instance of odd length": _instead(5, element(0x1000, UID)),
    "empty instance": _instead(5, ui(0x1000, b"")),
    "class is not the context's": _instead(0, ui(2, b"1.2.840.10008.5.1.4.1.1.4")),
    "class is a path": _instead(0, ui(2, b"../../x")),
    "class is binary": _instead(0, element(2, b"\xff\xfe\x00\x01")),
    "elements out of order": command(*reversed(GOOD)),
    "command field twice": command(*GOOD, us(0x100, wire.C_ECHO_RQ)),
    "10,000 unknown elements": command(*GOOD, b"".join(us(0x5000 + i % 999, i) for i in range(10_000))),
    "random": bytes(range(256)) * 8,
}


ANSWERED: dict[str, int] = {
    "no class": 0x0122,
    "class is not the context's": 0x0122,
    "class is a path": 0x0122,
    "class is binary": 0x0122,
    "no instance": 0xA900,
    "empty instance": 0xA900,
    "unknown command": 0x0211,
    # Against PS3.7 6.3.1, and yet there is only one thing that it can mean.
    "elements out of order": 0,
    "instance of odd length": 0,  # its UID has 13 characters
}
"""The status of those that can be answered; all others end the association."""


@pytest.mark.parametrize("kind", BROKEN_COMMANDS)
def test_a_broken_command_set_is_answered_or_ends_the_association(node: HostileNode, kind: str) -> None:
    """As the table says; never silence, never an exception in the log, never a lost file."""
    uid, data_set = good_bytes()
    assert len(uid) == len(UID)
    expected, stored = ANSWERED.get(kind), node.stored
    with RawPeer(node.dicom_port) as peer:
        peer.associated().send(p_data(pdv(1, 3, BROKEN_COMMANDS[kind].replace(UID, uid))))
        with contextlib.suppress(Gone):  # the command set was enough
            peer.send(p_data(pdv(1, 2, data_set)))
        assert outcome(peer) == expected
    assert node.stored == stored + (expected == 0)
    if expected == 0:
        node.acknowledged[uid.decode()] = digest(data_set)
    if expected is None:
        assert "COMMAND_INVALID" in node.refusal_names()


@pytest.mark.parametrize("length", [0, 1, 10_000, 0xFFFFFFFF])
def test_a_lie_in_the_group_length_changes_nothing(node: HostileNode, length: int) -> None:
    with RawPeer(node.dicom_port) as peer:
        peer.associated().send(p_data(pdv(1, 3, command(*GOOD, length=length))) + p_data(pdv(1, 2, DATA_SET)))
        assert outcome(peer) == 0


def test_a_store_that_announces_no_data_set_is_refused_by_status(node: HostileNode) -> None:
    with RawPeer(node.dicom_port) as peer:
        peer.associated().send(wire.message(1, wire.c_store_rq(UID, data_set=wire.NO_DATA_SET)))
        assert outcome(peer) == 0xC000
        assert peer.echo() == 0


def test_a_message_id_may_be_used_again(node: HostileNode) -> None:
    with RawPeer(node.dicom_port) as peer:
        peer.associated()
        for _ in range(5):
            assert node.store_good(peer) == 0
            assert peer.echo(message_id=1) == 0
        peer.release()


# -- messages that have no place here ----------------------------------------------------------

STUDY_ROOT_FIND, STUDY_ROOT_MOVE, STUDY_ROOT_GET = (b"1.2.840.10008.5.1.4.1.2.2.%d" % i for i in (1, 2, 3))
IDENTIFIER = b"\x08\0\x52\0CS\x06\0STUDY "


def _query(field: int, sop_class_uid: bytes) -> bytes:
    move = [ui(0x600, b"EVIL")] if field == wire.C_MOVE_RQ else []
    return command(ui(2, sop_class_uid), us(0x100, field), us(0x110, 7), *move, us(0x700, 0), us(0x800, 1))


def _normalized(field: int) -> bytes:
    return command(
        ui(3, wire.CT), us(0x100, field), us(0x110, 7), us(0x800, 0x101), ui(0x1001, UID), us(0x1008, 1)
    )


NO_SERVICE: dict[str, bytes] = {
    "C-FIND": wire.message(1, _query(wire.C_FIND_RQ, STUDY_ROOT_FIND), IDENTIFIER),
    "C-MOVE": wire.message(1, _query(wire.C_MOVE_RQ, STUDY_ROOT_MOVE), IDENTIFIER),
    "C-GET": wire.message(1, _query(wire.C_GET_RQ, STUDY_ROOT_GET), IDENTIFIER),
    "C-FIND of the context's class": wire.message(1, _query(wire.C_FIND_RQ, wire.CT), IDENTIFIER),
    "C-MOVE of the context's class": wire.message(1, _query(wire.C_MOVE_RQ, wire.CT), IDENTIFIER),
    "C-STORE on the verification context": wire.message(3, STORE, DATA_SET),
    **{
        name: wire.message(1, _normalized(field))
        for name, field in (
            ("N-EVENT-REPORT", wire.N_EVENT_REPORT_RQ),
            ("N-GET", wire.N_GET_RQ),
            ("N-SET", wire.N_SET_RQ),
            ("N-ACTION", wire.N_ACTION_RQ),
            ("N-CREATE", wire.N_CREATE_RQ),
            ("N-DELETE", wire.N_DELETE_RQ),
        )
    },
}


@pytest.mark.parametrize("kind", NO_SERVICE)
def test_a_service_that_is_not_there_is_refused_by_status(node: HostileNode, kind: str) -> None:
    """Unrecognised operation (PS3.7 C.5.26); a C-STORE without storage class: SOP class not supported."""
    stored = node.stored
    with RawPeer(node.dicom_port) as peer:
        peer.associated().send(NO_SERVICE[kind])
        assert outcome(peer) == (0x0122 if kind.startswith("C-STORE") else 0x0211)
        assert peer.echo() == 0
    assert node.stored == stored


@pytest.mark.parametrize("field", [wire.C_STORE_RSP, wire.C_ECHO_RSP, 0x8020, 0x8021, 0x8130, 0xFFFF])
def test_a_response_that_nobody_asked_for_is_passed_over(node: HostileNode, field: int) -> None:
    response = command(
        ui(2, wire.CT), us(0x100, field), us(0x120, 1), us(0x800, 0x101), us(0x900, 0), ui(0x1000, UID)
    )
    with RawPeer(node.dicom_port) as peer:
        peer.associated().send(wire.message(1, response))
        assert peer.echo() == 0


def test_a_cancel_of_nothing_is_passed_over(node: HostileNode) -> None:
    cancel = command(us(0x100, wire.C_CANCEL_RQ), us(0x120, 1), us(0x800, 0x101))
    with RawPeer(node.dicom_port) as peer:
        peer.associated().send(wire.message(1, cancel) * 100)
        assert peer.echo() == 0


# -- ends in the wrong place -------------------------------------------------------------------


def _half_close(peer: RawPeer) -> None:
    peer.socket.shutdown(1)


ENDS: dict[str, Callable[[RawPeer], None]] = {
    "release": lambda peer: peer.send(wire.release_rq()),
    "abort": lambda peer: peer.send(wire.abort()),
    "half-close": _half_close,
    "close": RawPeer.close,
    "reset": RawPeer.reset,
}
MIDDLES: dict[str, bytes] = {
    "a command set": p_data(pdv(1, 1, STORE[:20])),
    "a message": p_data(pdv(1, 3, STORE)),
    "a data set": p_data(pdv(1, 3, STORE)) + p_data(pdv(1, 0, DATA_SET[:300])),
    "a PDU": p_data(pdv(1, 3, STORE)) + p_data(pdv(1, 2, DATA_SET))[:100],
    "a PDU header": p_data(pdv(1, 3, STORE)) + b"\x04\0\0",
}


@pytest.mark.parametrize(
    ("end", "middle"),
    # Within a PDU, a release or abort is only more of its bytes.
    [(e, m) for e in ENDS for m in MIDDLES if not (e in ("release", "abort") and m.startswith("a PDU"))],
)
def test_an_end_in_the_middle_stores_nothing_and_frees_everything(
    node: HostileNode, end: str, middle: str
) -> None:
    stored = node.stored
    with RawPeer(node.dicom_port) as peer:
        peer.associated().send(MIDDLES[middle])
        try:
            ENDS[end](peer)
            if end not in ("close", "reset"):
                assert peer.ended(AT_ONCE_S)
        except Gone:
            pass
    assert node.stored == stored


def test_data_after_the_release_are_not_taken(node: HostileNode) -> None:
    stored = node.stored
    with RawPeer(node.dicom_port) as peer:
        peer.associated().send(wire.release_rq() + _store() * 20)
        peer.until_closed(IDLE_TIMEOUT_S + 3)
    assert node.stored == stored


def test_a_release_that_is_not_followed_by_a_close_does_not_keep_the_connection(node: HostileNode) -> None:
    with RawPeer(node.dicom_port) as peer:
        peer.associated().send(wire.release_rq())
        assert peer.read_pdu().kind == wire.RELEASE_RP
        started_s = time.monotonic()
        peer.until_closed(IDLE_TIMEOUT_S + 5)
        assert time.monotonic() - started_s < IDLE_TIMEOUT_S + 4


def test_many_whole_messages_in_one_write_are_all_answered_in_order(node: HostileNode) -> None:
    """A peer may pipeline where it likes: one answer for each, in the order of the requests."""
    with RawPeer(node.dicom_port) as peer:
        peer.associated()
        peer.send(b"".join(wire.message(3, wire.c_echo_rq(i)) for i in range(1, 51)))
        assert [peer.answer().message_id for _ in range(50)] == list(range(1, 51))
        peer.release()
