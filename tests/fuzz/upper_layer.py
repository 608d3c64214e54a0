"""Our upper layer over bytes instead of a socket, and whoever listens to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from pynetdicom import AE
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext

from gateway.receive.association.commands import Command
from gateway.receive.association.dul import UpperLayer
from gateway.receive.association.inbound import Interrupted
from gateway.receive.association.messages import Answer, Context, MessageLimits
from gateway.receive.association.pdu_headers import AWAITING_REQUEST, CLOSING, ESTABLISHED
from gateway.receive.association.violations import Violation
from gateway.receive.association.wire import PeerSocket
from tests.hostile import wire

LIMITS = MessageLimits(store_bytes=1 << 20, other_bytes=1 << 16, stall_s=60)
MAX_PDU_BYTES = 131072
_REQUESTED = "Evt6"  # an A-ASSOCIATE-RQ was received (PS3.8 Table 9-10)


class Pieces:
    """``stream`` as it is received in ``pieces`` of these sizes, over and over; then the peer has gone."""

    def __init__(self, stream: bytes, pieces: Sequence[int]) -> None:
        self._stream = stream
        self._pieces = pieces
        self._at = self._turn = 0

    def receive_into(self, view: memoryview) -> int:
        """As that of a socket."""
        if self._at >= len(self._stream):
            raise ConnectionResetError
        piece = max(self._pieces[self._turn % len(self._pieces)], 1)
        count = min(piece, len(view), len(self._stream) - self._at)
        self._turn += 1
        view[:count] = self._stream[self._at : self._at + count]
        self._at += count
        return count


class Receiver:
    """Remembers what became of one C-STORE."""

    def __init__(self, events: list[object]) -> None:
        self.events = events
        self.data = bytearray()
        self.ends = 0

    def write(self, *chunks: memoryview) -> None:
        assert not self.ends, "data came after the end"
        for chunk in chunks:
            self.data += chunk

    def finish(self) -> Answer:
        self.ends += 1
        self.events.append(("stored", bytes(self.data)))
        return Answer(0)

    def discard(self) -> None:
        self.ends += 1
        self.events.append("discarded")  # how much of it had been handed on by then, depends on the cut


class Party:
    """Contexts 1 (storage) and 3 (verification); keeps everything that happens."""

    def __init__(self) -> None:
        self.events: list[object] = []
        self.receivers: list[Receiver] = []

    def context(self, context_id: int) -> Context | None:
        known = {1: wire.CT, 3: wire.VERIFICATION}.get(context_id)
        return None if known is None else Context(context_id, known.decode(), wire.EXPLICIT.decode())

    def begin_store(self, context: Context, request: Command) -> Receiver:
        self.events.append(("store", context.id, request))
        self.receivers.append(Receiver(self.events))
        return self.receivers[-1]

    def takes(self, context: Context, request: Command) -> bool:  # noqa: ARG002
        return context.id == 3

    def forward(self, context_id: int, control: int, fragment: bytes) -> None:
        # Their cut follows the wire, not what was read at once.
        self.events.append(("forward", context_id, control, fragment))

    def respond(self, p_data: bytes) -> None:
        self.events.append(("respond", p_data))

    def refused(self, violation: Violation) -> None:
        self.events.append(("refused", violation.name))

    # -- further, as the host of an upper layer ---------------------------------------------------

    def violated(self, violation: Violation) -> None:
        raise AssertionError(violation)

    def failed(self, error: Exception) -> None:
        raise AssertionError(error)

    def wake(self) -> None:
        """Nobody sleeps."""


class _Peer(Pieces):
    """In the place of a socket."""

    has_decrypted = False

    def __init__(self, stream: bytes, pieces: Sequence[int], party: Party) -> None:
        super().__init__(stream, pieces)
        self._party = party

    def send(self, bytestream: bytes) -> None:
        """It never fails."""
        self._party.respond(bytestream)


def read_pdus(stream: bytes, pieces: Sequence[int]) -> tuple[list[object], Violation | None]:
    """Everything that happened, in order, and what ended it if that was a violation."""
    party = Party()
    association = Association(AE(), MODE_ACCEPTOR)
    association._accepted_cx = {number: _accepted(party, number) for number in (1, 3)}
    layer = UpperLayer(association, party, LIMITS, MAX_PDU_BYTES)
    layer.connect(cast("PeerSocket", _Peer(stream, pieces, party)))
    layer.state_machine.current_state = AWAITING_REQUEST
    violation = None
    try:
        while layer.state_machine.current_state in (AWAITING_REQUEST, ESTABLISHED):
            layer._read_pdu()
            if not layer.event_queue.empty():
                event = layer.event_queue.get()
                party.events.append((event, layer._recv_pdu.get().encode()))
                layer.state_machine.current_state = ESTABLISHED if event == _REQUESTED else CLOSING
    except Violation as found:
        violation = found
        party.events.append((found.name, found.reason))
    except (Interrupted, ConnectionError) as end:
        party.events.append(type(end).__name__)
    finally:
        layer._messages.close()
        layer.abandon()
    while not association.dimse.msg_queue.empty():
        number, message = association.dimse.msg_queue.get()
        party.events.append((number, type(message).__name__))
    assert all(receiver.ends == 1 for receiver in party.receivers), "a C-STORE has not one end"
    return party.events, violation


def _accepted(party: Party, number: int) -> PresentationContext:
    known = party.context(number)
    assert known is not None
    context = PresentationContext()
    context.context_id = number
    context.abstract_syntax = known.abstract_syntax
    context.transfer_syntax = [known.transfer_syntax]
    return context
