"""Command sets and P-DATA as the transport reads them: without a socket, byte by byte."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.receive.association.association_request import read_association_request
from gateway.receive.association.commands import Command, encode_p_data, encode_response, parse_command
from gateway.receive.association.inbound import Inbound, Interrupted
from gateway.receive.association.messages import Answer, Context, MessageLimits, Messages
from gateway.receive.association.violations import Violation
from tests.hostile import wire

CT, VERIFICATION = wire.CT.decode(), wire.VERIFICATION.decode()


@dataclass
class Store:
    """Keeps a data set."""

    request: Command
    data: bytearray = field(default_factory=bytearray)
    calls: list[int] = field(default_factory=list)
    ending: str = "open"

    def write(self, *chunks: memoryview) -> None:
        assert self.ending == "open"
        assert chunks
        self.calls.append(len(chunks))
        for chunk in chunks:
            assert len(chunk)
            self.data += chunk

    def finish(self) -> Answer:
        self.ending = "finished"
        return Answer(0)

    def discard(self) -> None:
        if self.ending == "open":
            self.ending = "discarded"


@dataclass
class Party:
    """Takes C-STORE in context 1, and others in context 3."""

    stores: list[Store] = field(default_factory=list)
    forwarded: list[tuple[int, int, bytes]] = field(default_factory=list)
    responses: bytearray = field(default_factory=bytearray)
    refusals: list[str] = field(default_factory=list)

    def context(self, context_id: int) -> Context | None:
        return {
            1: Context(1, CT, "1.2.840.10008.1.2.1"),
            3: Context(3, VERIFICATION, "1.2.840.10008.1.2"),
        }.get(context_id)

    def begin_store(self, context: Context, request: Command) -> Store:
        assert context.id in (1, 3)
        self.stores.append(Store(request))
        return self.stores[-1]

    def takes(self, context: Context, request: Command) -> bool:
        return context.id == 3 and request.field in (wire.C_ECHO_RQ, wire.N_ACTION_RQ)

    def forward(self, context_id: int, control: int, fragment: bytes) -> None:
        self.forwarded.append((context_id, control, fragment))

    def refused(self, violation: Violation) -> None:
        self.refusals.append(violation.name)

    def respond(self, p_data: bytes) -> None:
        self.responses += p_data


LIMITS = MessageLimits(store_bytes=100_000, other_bytes=5_000, stall_s=1.0)


def run(stream: bytes, pieces: int = 65536, limits: MessageLimits = LIMITS) -> Party:
    """Feed whole P-DATA-TF PDUs; raises Violation, or ConnectionError where the stream ends."""
    rest = memoryview(stream)

    def receive(view: memoryview) -> int:
        nonlocal rest
        count = min(len(rest), len(view), pieces)
        if not count:
            raise ConnectionAbortedError
        view[:count], rest = rest[:count], rest[count:]
        return count

    party = Party()
    inbound = Inbound(receive, lambda: False, 4096)
    messages = Messages(inbound, party, limits)
    try:
        while rest or not inbound.is_empty:
            inbound.allow(1.0)
            kind, length = struct.unpack(">BxL", inbound.need(6))
            assert kind == wire.P_DATA_TF
            messages.read_pdu(length)
    finally:
        messages.close()
    return party


def statuses(responses: bytes | bytearray) -> list[tuple[int, int]]:
    """(command field, status) of responses in one PDU each."""
    found, at = [], 0
    while at < len(responses):
        length = struct.unpack_from(">L", responses, at + 2)[0]
        elements = wire.read_command(bytes(responses[at + 12 : at + 6 + length]))
        found.append((wire.us_value(elements[0x100]), wire.us_value(elements[0x900])))
        at += 6 + length
    return found


# -- command sets -------------------------------------------------------------------------------


def test_a_command_set_is_read_and_answered() -> None:
    request = parse_command(wire.c_store_rq(b"1.2.3", 77))
    assert request == Command(1, 77, has_data_set=True, sop_class_uid=CT, sop_instance_uid="1.2.3")
    elements = wire.read_command(encode_response(request, 0xA700, "DISK_FULL: odd"))
    assert (wire.us_value(elements[0x100]), wire.us_value(elements[0x120])) == (0x8001, 77)
    assert (wire.us_value(elements[0x800]), wire.us_value(elements[0x900])) == (0x0101, 0xA700)
    assert (elements[0x902], elements[0x1000]) == (b"DISK_FULL: odd", b"1.2.3\0")
    assert all(len(value) % 2 == 0 for value in elements.values())
    assert wire.us_value(elements[0x0100]) & 0x8000


@pytest.mark.parametrize(
    ("encoded", "said"),
    [
        (b"\0\0\0\0\4", "ends inside"),
        (wire.element(0x100, b"\1\0", length=400), "says 400 bytes"),
        (wire.us(0x100, 1) + wire.us(0x100, 1), "there twice"),
        (struct.pack("<HHL", 8, 0x18, 2) + b"1\0", "group 0008"),
        (wire.element(0x100, b"\1"), "1 bytes instead of 2"),
        (wire.us(0x100, 1), "missing"),
        (b"", "missing"),
    ],
)
def test_a_command_set_that_is_none_is_named(encoded: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_command(encoded)


@given(st.binary(max_size=400))
def test_no_bytes_confuse_the_reader_of_command_sets(encoded: bytes) -> None:
    try:
        request = parse_command(encoded)
    except ValueError:
        return
    assert wire.read_command(encode_response(request, 0))[0x900] == b"\0\0"


@pytest.mark.parametrize("limit", [0, 16384, 100, 8, 1])
def test_a_response_keeps_to_the_length_that_the_peer_takes(limit: int) -> None:
    command_set = encode_response(Command(1, 1, True, CT, "1.2.3"), 0)
    encoded, at, joined = encode_p_data(5, command_set, limit), 0, b""
    while at < len(encoded):
        kind, length, pdv_length, context, control = struct.unpack_from(">BxLLBB", encoded, at)
        assert (kind, context, length) == (4, 5, pdv_length + 4)
        assert not limit or length <= max(limit, 8)
        joined += encoded[at + 12 : at + 6 + length]
        at += 6 + length
        assert control == (3 if at == len(encoded) else 1)
    assert joined == command_set


# -- messages -----------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    sizes=st.lists(st.integers(0, 9000), min_size=1, max_size=6),
    cuts=st.lists(st.integers(0, 3000), min_size=1, max_size=12),
    per_pdu=st.integers(1, 4),
    pieces=st.integers(1, 5000),
)
def test_data_sets_arrive_whole_however_they_are_cut(
    sizes: list[int], cuts: list[int], per_pdu: int, pieces: int
) -> None:
    stream, sent = b"", []
    for number, size in enumerate(sizes):
        data = bytes((number + i) % 251 for i in range(size))
        sent.append(data)
        command = wire.c_store_rq(b"1.2.%d" % number, number)
        fragments = [(1, command[:7]), (3, command[7:])]
        at = 0
        for cut in cuts:  # zero-length fragments among them
            fragments.append((0, data[at : at + cut]))
            at += cut
        fragments.append((2, data[at:]))
        pdvs = [wire.pdv(1, control, fragment) for control, fragment in fragments]
        stream += b"".join(wire.p_data(*pdvs[i : i + per_pdu]) for i in range(0, len(pdvs), per_pdu))
    party = run(stream, pieces)
    assert [bytes(store.data) for store in party.stores] == sent
    assert {store.ending for store in party.stores} == {"finished"}
    assert statuses(party.responses) == [(0x8001, 0)] * len(sizes)


def test_what_is_in_the_buffer_is_handed_on_together_before_the_next_wait() -> None:
    """One call for each filling of the buffer (4096 bytes here), however small the PDVs."""
    data = bytes(range(250)) * 40
    fragments = [data[i : i + 100] for i in range(0, len(data), 100)]
    pdvs = [wire.pdv(1, 2 if at == 99 else 0, fragment) for at, fragment in enumerate(fragments)]
    (store,) = run(wire.p_data(STORE) + b"".join(map(wire.p_data, pdvs))).stores
    assert store.data == data
    assert store.ending == "finished"
    assert len(store.calls) == 3
    assert sum(store.calls) == 102  # two were cut by the end of the buffer


def test_a_great_many_small_fragments_are_handed_on_in_between() -> None:
    data = bytes(range(250)) * 2
    pdvs = [wire.pdv(1, 2 if at == 499 else 0, data[at : at + 1]) for at in range(500)]
    (store,) = run(wire.p_data(STORE) + wire.p_data(*pdvs)).stores
    assert store.data == data
    assert max(store.calls) <= 256


def test_what_is_no_c_store_is_forwarded_or_answered_or_dropped() -> None:
    echo = wire.message(3, wire.c_echo_rq())
    cancel = wire.message(1, wire.command(wire.us(0x100, 0x0FFF), wire.us(0x120, 1), wire.us(0x800, 0x0101)))
    unknown = wire.message(
        1, wire.command(wire.us(0x100, 0x0077), wire.us(0x110, 9), wire.us(0x800, 1)), b"data"
    )
    late = wire.message(1, wire.command(wire.us(0x100, 0x8001), wire.us(0x120, 1), wire.us(0x800, 0x0101)))
    party = run(echo + cancel + unknown + late + wire.message(1, wire.c_store_rq(b"1.2", 4), b"x"))
    assert party.forwarded == [(3, 3, wire.c_echo_rq())]
    assert statuses(party.responses) == [(0x8077, 0x0211), (0x8001, 0)]
    assert party.refusals == ["UNRECOGNISED_OPERATION"]


@pytest.mark.parametrize("element", [wire.ui(2, wire.CT), wire.ui(3, wire.CT), wire.ui(3, b"\\1.2")])
@pytest.mark.parametrize(("field", "status"), [(wire.C_ECHO_RQ, 0x0122), (wire.N_ACTION_RQ, 0x0118)])
def test_a_request_that_names_another_class_than_its_context_is_answered_and_not_forwarded(
    element: bytes, field: int, status: int
) -> None:
    """In whichever element: pynetdicom would serve it by the class alone."""
    others = (wire.us(0x100, field), wire.us(0x110, 9), wire.us(0x800, 1))
    named = wire.ui(5 - element[2], wire.VERIFICATION)  # the other one is right
    for request in (wire.command(element, *others), wire.command(element, named, *others)):
        party = run(wire.message(3, request, b"data") + wire.message(3, wire.c_echo_rq()))
        assert statuses(party.responses) == [(field | 0x8000, status)]
        assert party.forwarded == [(3, 3, wire.c_echo_rq())]
        assert party.refusals == ["SOP_CLASS_NOT_NEGOTIATED"]


def test_a_c_store_without_data_set_is_finished_at_once() -> None:
    party = run(wire.message(1, wire.c_store_rq(b"1.2", 4, data_set=wire.NO_DATA_SET)))
    assert [(store.ending, bytes(store.data)) for store in party.stores] == [("finished", b"")]


STORE = wire.pdv(1, 3, wire.c_store_rq(b"1.2", 1))
LIES = {
    "no PDV": (wire.p_data(), "PDV_INVALID", 6),
    "PDV of one byte": (wire.p_data(wire.pdv(1, 3, b"", length=1)), "PDV_INVALID", 6),
    "PDV longer than the PDU": (wire.p_data(wire.pdv(1, 3, b"ab", length=400)), "PDV_INVALID", 6),
    "rest that is no PDV": (wire.p_data(STORE + b"\0\0\0"), "PDV_INVALID", 6),
    "context that was not accepted": (wire.p_data(wire.pdv(9, 3, wire.c_echo_rq())), "PDV_INVALID", 6),
    "data set first": (wire.p_data(wire.pdv(1, 2, b"ab")), "MESSAGE_UNEXPECTED", 5),
    "command in a data set": (wire.p_data(STORE, wire.pdv(1, 0, b"ab"), STORE), "MESSAGE_UNEXPECTED", 5),
    "cancel in a data set": (wire.p_data(STORE, wire.pdv(1, 3, b"")), "MESSAGE_UNEXPECTED", 5),
    "other context in a message": (wire.p_data(STORE, wire.pdv(3, 0, b"ab")), "MESSAGE_UNEXPECTED", 5),
    "endless command": (wire.p_data(*[wire.pdv(1, 1, bytes(9000))] * 2), "COMMAND_INVALID", 6),
    "no command": (wire.p_data(wire.pdv(1, 3, b"\1\2\3")), "COMMAND_INVALID", 6),
    "no message id": (
        wire.p_data(wire.pdv(1, 3, wire.command(wire.us(0x100, 1), wire.us(0x800, 1)))), "COMMAND_INVALID", 6,
    ),
    "too large": (wire.message(1, wire.c_store_rq(b"1.2", 1), bytes(100_001)), "INSTANCE_TOO_LARGE", 0),
    "too large a data set that nobody wants": (
        wire.message(
            1, wire.command(wire.us(0x100, 0x20), wire.us(0x110, 9), wire.us(0x800, 1)), bytes(5_001)
        ),
        "MESSAGE_TOO_LARGE", 0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_ends_the_association_with_its_reason_and_keeps_nothing(lie: str) -> None:
    stream, name, reason = LIES[lie]
    with pytest.raises(Violation) as found:
        run(stream)
    assert (found.value.name, found.value.abort_reason) == (name, reason)


@settings(max_examples=150)
@given(st.lists(st.binary(max_size=60), max_size=6), st.integers(1, 100))
def test_no_bytes_confuse_the_reader_of_fragments(bodies: list[bytes], pieces: int) -> None:
    stream = wire.p_data(STORE, wire.pdv(1, 0, b"begun")) + b"".join(wire.p_data(body) for body in bodies)
    try:
        party = run(stream, pieces)
    except Violation:
        return
    assert len(party.stores) <= len(bodies) + 1


def test_a_message_that_trickles_is_ended_and_one_that_we_keep_waiting_is_not() -> None:
    inbound = Inbound(lambda _: 0, lambda: False, 64)
    messages = Messages(inbound, Party(), LIMITS)
    messages._context = Context(1, CT, "")
    messages._size = 2048
    inbound.waited_s = 2.9  # 1 s at a stretch, and 2 KiB at 1 KiB/s
    with pytest.raises(Violation, match="PDV_INVALID"):
        messages.read_pdu(0)
    inbound.waited_s = 3.1
    with pytest.raises(Violation, match="PEER_TOO_SLOW"):
        messages.read_pdu(0)


def test_a_wait_ends_when_its_time_is_over_or_we_want_to_end() -> None:
    def never(_: memoryview) -> int:
        return 0

    inbound = Inbound(never, lambda: False, 64)
    inbound.allow(0.01)
    with pytest.raises(Violation, match="PEER_TOO_SLOW"):
        inbound.need(6)
    with pytest.raises(Interrupted):
        Inbound(never, lambda: True, 64).take(1)


# -- A-ASSOCIATE-RQ -----------------------------------------------------------------------------


def body(pdu: bytes) -> bytes:
    return pdu[6:]


USER_IDENTITY_OF_TYPE_0 = wire.item(0x58, b"\0\0\0\1a\0\0")


def test_a_usual_request_is_well_built() -> None:
    read_association_request(body(wire.associate_rq()))
    for identity in range(1, 6):  # PS3.7 D.3.3.7.1
        user = wire.user_information(16384, wire.item(0x58, bytes([identity]) + b"\0\0\1a\0\0"))
        read_association_request(body(wire.associate_rq(user=user)))
    many = [
        wire.Context(2 * i + 1, b"1.2.%d" % i, [b"1.2.840.10008.1.2.%d" % k for k in range(40)])
        for i in range(128)
    ]
    read_association_request(body(wire.associate_rq(many)))


@pytest.mark.parametrize(
    "request_pdu",
    [
        b"123456" + bytes(67),
        wire.associate_rq([]),
        wire.associate_rq([wire.Context(2, wire.CT)]),
        wire.associate_rq([wire.Context(1, wire.CT), wire.Context(1, wire.CT)]),
        wire.associate_rq([wire.Context(1, wire.CT, [])]),
        wire.associate_rq([wire.Context(1, wire.CT)] * 129),
        wire.associate_rq([wire.Context(1, wire.CT, [b"1.%d" % n for n in range(257)])]),
        wire.associate_rq(user=b""),
        wire.associate_rq(user=wire.user_information() * 2),
        wire.associate_rq(user=wire.user_information(16384, *[wire.item(0x54, b"")] * 2000)),
        wire.associate_rq(user=wire.user_information(16384, USER_IDENTITY_OF_TYPE_0)),
        wire.associate_rq(user=wire.user_information(16384, wire.item(0x58, b"\6" + bytes(7)))),
        wire.associate_rq(user=wire.user_information(16384, wire.item(0x58, b""))),
        wire.associate_rq(further=wire.item(0x20, b"", length=999)),
        wire.associate_rq(further=b"\x20\0"),
    ],
)
def test_a_request_that_is_built_wrong_is_refused(request_pdu: bytes) -> None:
    with pytest.raises(Violation, match="PDU_INVALID"):
        read_association_request(body(request_pdu))


def test_an_ae_title_is_named_where_it_is_the_reason_and_may_be_filled_with_nul() -> None:
    request = read_association_request(body(wire.associate_rq(called=b"AIGW", calling=b"CT1\0\0")))
    assert request.rest[4:36] == b"AIGW".ljust(16) + b"CT1".ljust(16)
    for title in (b"A\\B", b"A\nB", b"A\0B", b"", "Ü".encode()):
        for what in ("called", "calling"):
            with pytest.raises(Violation, match=f"The {what} AE title is none"):
                read_association_request(body(wire.associate_rq(**{what: title})))  # type: ignore[arg-type]


@given(st.binary(max_size=300))
def test_no_bytes_confuse_the_check_of_requests(rest: bytes) -> None:
    try:
        read_association_request(b"A" * 68 + rest)
    except Violation:
        return
