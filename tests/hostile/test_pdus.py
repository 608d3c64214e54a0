"""Lengths, items and states of the upper layer: A-ASSOCIATE and PDU headers that lie (PS3.8 9.3)."""

from __future__ import annotations

import contextlib
import struct
import time

import pytest

from tests.hostile import wire
from tests.hostile.node import AT_ONCE_S, HostileNode
from tests.hostile.peer import Gone, RawPeer, accepted
from tests.waiting import wait_until

EVERY_PDU = (1, 2, 3, 4, 5, 6, 7)
UNKNOWN_PDU = (0, 8, 0x41, 0xFF)


# -- lengths ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*EVERY_PDU, *UNKNOWN_PDU])
@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x80000000, (1 << 20) + 1], ids=["4GiB", "2GiB", "1MiB+1"])
def test_a_length_bomb_before_the_association_is_cut_off_by_its_header(
    node: HostileNode, kind: int, length: int
) -> None:
    with RawPeer(node.dicom_port) as peer:
        peer.send(struct.pack(">BBL", kind, 0, length))
        assert peer.ended(AT_ONCE_S)


@pytest.mark.parametrize("kind", [*EVERY_PDU, *UNKNOWN_PDU])
@pytest.mark.parametrize("length", [0xFFFFFFFF, (1 << 20) + 1], ids=["4GiB", "1MiB+1"])
def test_a_length_bomb_in_an_association_is_cut_off_by_its_header(
    node: HostileNode, kind: int, length: int
) -> None:
    with RawPeer(node.dicom_port) as peer:
        peer.associated()
        peer.send(struct.pack(">BBL", kind, 0, length))
        assert peer.ended(AT_ONCE_S)


def test_one_byte_over_the_negotiated_maximum_of_p_data_is_cut_off(node: HostileNode) -> None:
    with RawPeer(node.dicom_port) as peer:
        peer.associated()
        peer.send(struct.pack(">BBL", wire.P_DATA_TF, 0, 131073))
        assert peer.ended(AT_ONCE_S)


@pytest.mark.parametrize("state", ["before the association", "in the association"])
def test_bytes_behind_a_4_gib_header_are_neither_read_nor_kept(node: HostileNode, state: str) -> None:
    block, sent = bytes(65536), 0
    with RawPeer(node.dicom_port) as peer:
        if state == "in the association":
            peer.associated()
        kind = wire.ASSOCIATE_RQ if state == "before the association" else wire.P_DATA_TF
        peer.send(struct.pack(">BBL", kind, 0, 0xFFFFFFF0))
        try:
            while sent < 64 << 20:
                peer.send(block)
                sent += len(block)
                time.sleep(0.01)
        except Gone:
            pass
    assert sent < 12 << 20  # what fits into the buffers of the kernel
    assert node.grown_mib < 20


def test_many_bombs_at_once_leave_memory_flat(node: HostileNode) -> None:
    peers = [RawPeer(node.dicom_port, f"127.0.0.{100 + i}") for i in range(50)]
    try:
        for peer in peers:
            peer.send(struct.pack(">BBL", wire.ASSOCIATE_RQ, 0, 1 << 20) + bytes(1000))
        node.serves()
        assert node.grown_mib < 40
    finally:
        for peer in peers:
            peer.close()


@pytest.mark.parametrize("kind", EVERY_PDU)
def test_an_empty_pdu_ends_the_connection(node: HostileNode, kind: int) -> None:
    with RawPeer(node.dicom_port) as peer:
        peer.send(wire.pdu(kind))
        assert peer.ended(AT_ONCE_S)


@pytest.mark.parametrize("kind", [wire.ASSOCIATE_RQ, wire.ASSOCIATE_AC, wire.ASSOCIATE_RJ, 6, 0, 8, 0xFF])
def test_a_pdu_that_does_not_belong_into_an_association_aborts_it(node: HostileNode, kind: int) -> None:
    with RawPeer(node.dicom_port) as peer:
        peer.associated()
        peer.send(wire.associate_rq() if kind == wire.ASSOCIATE_RQ else wire.pdu(kind, bytes(4)))
        assert peer.ended(AT_ONCE_S)


@pytest.mark.parametrize(
    "hello",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        b"\0" * 100,
        b"\xff" * 100,
    ],
    ids=["HTTP", "TLS", "zeros", "ones"],
)
def test_another_protocol_is_cut_off(node: HostileNode, hello: bytes) -> None:
    with RawPeer(node.dicom_port) as peer:
        peer.send(hello)
        assert peer.ended(AT_ONCE_S)


# -- A-ASSOCIATE-RQ ---------------------------------------------------------------------------


def _contexts(count: int, syntaxes: int) -> list[wire.Context]:
    names = [wire.EXPLICIT, *(b"1.2.840.113619.5.%d" % i for i in range(syntaxes - 1))]
    return [wire.Context(2 * i + 1, wire.CT, names) for i in range(count)]


def test_128_contexts_with_40_transfer_syntaxes_each_are_negotiated(node: HostileNode) -> None:
    started_s = time.monotonic()
    with RawPeer(node.dicom_port) as peer:
        answer = accepted(peer.associate(wire.associate_rq(_contexts(128, 40))))
        assert len(answer) == 128
        assert set(answer.values()) == {0}
        assert node.store_good(peer, context=255) == 0
        peer.release()
    assert time.monotonic() - started_s < 15


BAD_REQUESTS: dict[str, bytes] = {
    "context id 0": wire.associate_rq([wire.Context(0, wire.CT)]),
    "even context id": wire.associate_rq([wire.Context(2, wire.CT)]),
    "context id twice": wire.associate_rq([wire.Context(1, wire.CT), wire.Context(1, wire.VERIFICATION)]),
    "129 contexts": wire.associate_rq([*_contexts(128, 1), wire.Context(1, wire.CT)]),
    "2000 contexts": wire.associate_rq(_contexts(128, 1) * 16),
    "no context": wire.associate_rq([]),
    "context without transfer syntax": wire.associate_rq([wire.Context(1, wire.CT, ())]),
    "context without abstract syntax": wire.associate_rq(
        [], further=wire.item(0x20, b"\x01\0\0\0" + wire.item(0x40, wire.EXPLICIT))
    ),
    "empty context item": wire.associate_rq([], further=wire.item(0x20, b"")),
    "empty abstract syntax": wire.associate_rq([wire.Context(1, b"")]),
    "no user information": wire.associate_rq(user=b""),
    "empty user information": wire.associate_rq(user=wire.item(0x50, b"")),
    "item over the end": wire.associate_rq(further=wire.item(0x20, b"abcd", length=0xFFFF)),
    "sub-item over its item": wire.associate_rq(
        [], further=wire.item(0x20, b"\x01\0\0\0" + wire.item(0x30, wire.CT, length=0xFFF0))
    ),
    "sub-item of user information over its item": wire.associate_rq(
        user=wire.item(0x50, wire.item(0x51, b"\0\0\x40\0", length=0x4000))
    ),
    "maximum length of 2 bytes": wire.associate_rq(user=wire.item(0x50, wire.item(0x51, b"\x40\0"))),
    "half an item header": wire.associate_rq(further=b"\x20\0\0"),
    "unknown item": wire.associate_rq(further=wire.item(0x99, b"abcd")),
    "application context unknown": wire.associate_rq(application_context=b"1.2.3"),
    "application context with a newline": wire.associate_rq(application_context=b"1.2\n3\x1b[2J%s%n"),
    "application context empty": wire.associate_rq(application_context=b""),
    "application context of 60,000 bytes": wire.associate_rq(application_context=b"1." * 30_000),
    "abstract syntax of 60,000 bytes": wire.associate_rq([wire.Context(1, b"1." * 30_000)]),
    "transfer syntax not ASCII": wire.associate_rq([wire.Context(1, wire.CT, (b"\xff\xfe\x00",))]),
    "protocol version 2": wire.associate_rq(version=2),
    "protocol version 0": wire.associate_rq(version=0),
    "cut off in the fixed part": wire.pdu(wire.ASSOCIATE_RQ, bytes(10)),
    "only the fixed part": wire.pdu(wire.ASSOCIATE_RQ, wire.associate_rq()[6:74]),
    "zeros": wire.pdu(wire.ASSOCIATE_RQ, bytes(5000)),
    "ones": wire.pdu(wire.ASSOCIATE_RQ, b"\xff" * 5000),
    "1 MiB of empty items": wire.pdu(wire.ASSOCIATE_RQ, wire.associate_rq()[6:74] + bytes(1_000_000)),
    "user information of 16,000 sub-items": wire.associate_rq(
        user=wire.user_information(16384, wire.item(0x55, b"") * 16_000)
    ),
    "16,000 empty transfer syntaxes": wire.associate_rq([wire.Context(1, wire.CT, (b"",) * 16_000)]),
    "role selection with lying length": wire.associate_rq(
        user=wire.user_information(16384, wire.item(0x54, struct.pack(">H", 60_000) + wire.CT))
    ),
    "extended negotiation with lying length": wire.associate_rq(
        user=wire.user_information(16384, wire.item(0x56, struct.pack(">H", 60_000) + wire.CT))
    ),
    "user identity with lying lengths": wire.associate_rq(
        user=wire.user_information(16384, wire.item(0x58, b"\x02\x01" + struct.pack(">H", 60_000) + b"a"))
    ),
    **{
        f"user identity of type {number}": wire.associate_rq(
            user=wire.user_information(16384, wire.item(0x58, bytes((number, 0, 0, 1)) + b"a\0\0"))
        )
        for number in (0, 6, 255)
    },
    "asynchronous operations of 1 byte": wire.associate_rq(
        user=wire.user_information(16384, wire.item(0x53, b"\x01"))
    ),
    "maximum length 1": wire.associate_rq(user=wire.user_information(1)),
    "maximum length 0xFFFFFFFF": wire.associate_rq(user=wire.user_information(0xFFFFFFFF)),
    "twice the user information": wire.associate_rq(further=wire.user_information()),
    "announced too short": wire.associate_rq(length=100),
}


@pytest.mark.parametrize("kind", BAD_REQUESTS)
def test_a_bad_association_request_is_answered_or_cut_off_in_bounded_time(
    node: HostileNode, kind: str
) -> None:
    """Whichever it is: within a second, without an exception (see the log), and nobody else notices."""
    with RawPeer(node.dicom_port) as peer:
        peer.send(BAD_REQUESTS[kind])
        try:
            answer = peer.read_pdu(AT_ONCE_S)
        except Gone:
            return
        assert answer.kind in (wire.ASSOCIATE_AC, wire.ASSOCIATE_RJ, wire.ABORT)
        node.serves()


MUST_NOT_BE_ACCEPTED = (
    "protocol version 2",
    "protocol version 0",
    "cut off in the fixed part",
    "only the fixed part",
    "item over the end",
    "zeros",
    "ones",
    "application context unknown",
    "announced too short",
    "context id twice",
    "2000 contexts",
    "user identity of type 255",
)


@pytest.mark.parametrize("kind", MUST_NOT_BE_ACCEPTED)
def test_a_request_that_breaks_the_standard_is_not_accepted(node: HostileNode, kind: str) -> None:
    with RawPeer(node.dicom_port) as peer:
        peer.send(BAD_REQUESTS[kind])
        with contextlib.suppress(Gone):
            assert peer.read_pdu(AT_ONCE_S).kind != wire.ASSOCIATE_AC


@pytest.mark.parametrize("maximum", [1, 2, 6, 7, 8, 12])
def test_a_peer_that_takes_only_tiny_pdus_does_not_keep_us_busy(node: HostileNode, maximum: int) -> None:
    """Its answers come in pieces that fit, or the association ends; nothing runs for ever."""
    with RawPeer(node.dicom_port) as peer:
        answer = peer.associate(wire.associate_rq(user=wire.user_information(maximum)))
        if answer.kind == wire.ASSOCIATE_AC:
            peer.send(wire.message(3, wire.c_echo_rq()))
            try:
                while len((found := peer.read_pdu(3.0)).body) <= max(maximum, 7):
                    if found.kind == wire.ABORT or found.body[5] & 2:
                        break
            except Gone:
                pass
        node.serves()


# -- who may not call -------------------------------------------------------------------------

STRANGERS: dict[str, tuple[dict[str, bytes], str, tuple[int, int, int]]] = {
    "CALLED_AE_TITLE_NOT_RECOGNISED": ({"called": b"SOMEBODY"}, "127.0.0.1", (1, 1, 7)),
    "CALLING_AE_TITLE_NOT_RECOGNISED": ({"calling": b"NOBODY"}, "127.0.0.1", (1, 1, 3)),
    "ADDRESS_NOT_ALLOWED": ({"calling": b"SCANNER"}, "127.0.0.66", (1, 1, 3)),
    "APPLICATION_CONTEXT_NOT_SUPPORTED": (
        {"application_context": b"1.2.77", "calling": b"STRANGE"},
        "127.0.0.1",
        (1, 1, 2),
    ),
}
"""Name → what is wrong (first), the address that calls; result, source and reason of the A-ASSOCIATE-RJ."""


@pytest.mark.parametrize("name", STRANGERS)
def test_whoever_may_not_call_is_rejected_and_the_text_for_its_administrator_is_shown(
    node: HostileNode, name: str
) -> None:
    wrong, address, numbers = STRANGERS[name]
    stored = node.stored
    with RawPeer(node.dicom_port, address) as peer:
        answer = peer.associate(wire.associate_rq(**wrong))  # type: ignore[arg-type]
        assert (answer.kind, tuple(answer.body[1:])) == (wire.ASSOCIATE_RJ, numbers)
        peer.send(wire.message(1, wire.c_store_rq(b"1.2.3"), b"all the same"))
        assert peer.ended(15)
    assert node.stored == stored
    told = wait_until(lambda: node.told(name), 15, "the record")
    assert f"It called from {address} without TLS" in told
    assert next(iter(wrong.values())).decode() in told
    run = node.aigw("study", "explain", "--refusals")
    assert name in run.stdout
    assert " ".join(told.split()) in " ".join(run.stdout.split())


# -- nothing acceptable -----------------------------------------------------------------------


def test_an_association_without_acceptable_context_is_recorded_with_its_reason(node: HostileNode) -> None:
    contexts = [wire.Context(1, b"1.2.840.10008.5.1.4.1.2.2.2"), wire.Context(3, wire.CT, (b"1.2.3.4",))]
    before = len(node.refusals())
    with RawPeer(node.dicom_port) as peer:
        peer.send(wire.associate_rq(contexts))
        found = peer.read_pdu(5.0)
        if found.kind == wire.ASSOCIATE_AC:
            assert accepted(found) == {1: 3, 3: 4}  # abstract syntax, transfer syntaxes not supported
    wait_until(lambda: len(node.refusals()) > before, 15, "the record")
    new = node.refusals()[before:]
    assert [(subject, name) for subject, name, _ in new] == [
        ("association", "NO_PRESENTATION_CONTEXT_ACCEPTED")
    ]
    assert "scanner" in new[0][2]
    told = node.told("NO_PRESENTATION_CONTEXT_ACCEPTED")
    assert "CTImageStorage with 1.2.3.4: none of the transfer syntaxes is taken" in told


def test_deflate_and_private_syntaxes_are_not_accepted_and_the_rest_is(node: HostileNode) -> None:
    contexts = [
        wire.Context(1, wire.CT, (wire.DEFLATED,)),
        wire.Context(3, wire.CT, (b"1.2.840.113619.5.2",)),
        wire.Context(5, wire.CT, (wire.DEFLATED, b"1.2.840.113619.5.2", wire.EXPLICIT)),
        wire.Context(7, b"1.3.12.2.1107.5.9.1"),  # CSA Non-Image Storage, private
        wire.Context(9, b"1.2.840.10008.5.1.4.1.2.2.2"),  # Study Root C-MOVE: there is no such SCP
        wire.Context(11, wire.CT),
    ]
    with RawPeer(node.dicom_port) as peer:
        answer = accepted(peer.associate(wire.associate_rq(contexts)))
        assert answer == {1: 4, 3: 4, 5: 0, 7: 3, 9: 3, 11: 0}
        assert node.store_good(peer, context=5) == 0
        peer.release()
