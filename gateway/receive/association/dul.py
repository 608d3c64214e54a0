"""The DICOM upper layer of one association (PS3.8 9.2): pynetdicom's state machine, our input and timers.

pynetdicom's reactor looks for work every millisecond, believes announced lengths and copies every
fragment several times. This one waits in poll() for the socket and a bell, checks every PDU header
before it reads on, and hands P-DATA to :class:`gateway.receive.association.messages.Messages`. The overridden
members are listed in ``tests/integration/test_pynetdicom_contract.py``.
"""

from __future__ import annotations

import queue
import select
from typing import TYPE_CHECKING, Any

from pynetdicom.dul import DULServiceProvider
from pynetdicom.fsm import TRANSITION_TABLE
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_P_ABORT

from gateway.receive.association import violations
from gateway.receive.association.acceptance import Host
from gateway.receive.association.association_request import Proposal, read_association_request
from gateway.receive.association.commands import Command
from gateway.receive.association.dimse import hand_over
from gateway.receive.association.inbound import Inbound, Interrupted
from gateway.receive.association.lingering import Lingering
from gateway.receive.association.messages import Context, MessageLimits, Messages, StoreReceiver
from gateway.receive.association.pdu_headers import (
    ASSOCIATE_RQ,
    AWAITING_REQUEST,
    CLOSING,
    ESTABLISHED,
    P_DATA_TF,
    PDU_HEADER,
    check_header,
    provider_abort,
)
from gateway.receive.association.violations import Violation, pdu_invalid
from gateway.receive.association.wakeup import Bell, SignallingQueue, SteadyTimer
from gateway.receive.association.wire import PeerSocket

if TYPE_CHECKING:
    from pynetdicom.association import Association

_FIRST_BUFFER_BYTES, _BUFFER_BYTES = 8 << 10, 256 << 10  # before and after the association is open
_LARGE_PDU_BYTES = 1 << 20

_READING = frozenset({AWAITING_REQUEST, ESTABLISHED, "Sta7", "Sta10", "Sta11"})
_FROM_PRIMITIVES = frozenset({"Evt7", "Evt8", "Evt9", "Evt11", "Evt14", "Evt15"})


class UpperLayer(DULServiceProvider):
    """The thread that owns the socket of an association."""

    def __init__(
        self, association: Association, host: Host, limits: MessageLimits, max_pdu_bytes: int
    ) -> None:
        super().__init__(association)
        self.daemon = True
        self._host = host
        self._stall_s = limits.stall_s
        self._max_pdu_bytes = max_pdu_bytes or 0xFFFFFFFF
        self._idle_timer = SteadyTimer(None)
        self.artim_timer = SteadyTimer(None)
        self.to_user_queue = SignallingQueue(host.wake)
        self._bell = Bell()
        self._lingering: Lingering | None = None
        self.proposals: tuple[Proposal, ...] = ()
        """The presentation contexts that the peer proposed; pynetdicom's list has what is left of them."""
        self._is_wide = False
        self._is_reading = False
        self.has_ended = False
        """The thread does nothing more; the socket is closed."""
        self._peer: PeerSocket
        self._inbound: Inbound
        self._messages: Messages
        self._limits = limits

    def connect(self, peer: PeerSocket) -> None:
        """Before start: the socket to use."""
        self._peer = peer
        self._inbound = Inbound(peer.receive_into, self._is_wanted_elsewhere, _FIRST_BUFFER_BYTES)
        self._messages = Messages(self._inbound, self, self._limits)

    def abandon(self) -> None:
        """It will never be started: give everything back."""
        self._bell.close()
        self.has_ended = True

    # -- what others ask for ------------------------------------------------------------------

    def send_pdu(self, primitive: Any) -> None:
        """Queue a primitive and wake the thread."""
        super().send_pdu(primitive)
        self._bell.ring()

    def kill_dul(self) -> None:
        """End the thread as soon as it looks."""
        super().kill_dul()
        self._bell.ring()

    def look(self) -> None:
        """Something may have changed."""
        self._bell.ring()

    def served(self) -> None:
        """The message that was handed over last is served: read on. Meanwhile we kept the peer waiting."""
        self._idle_timer.restart()
        self.assoc.dimse.msg_queue.task_done()
        self._bell.ring()

    def idle_left_s(self) -> float:
        """Until the peer was silent for too long; all of that time in the middle of something with limits.

        Who waits looks again then: nobody wakes it when the middle has become the end.
        """
        timer = self._idle_timer
        return timer.timeout or float("inf") if self._is_reading else timer.remaining

    def idle_timer_expired(self) -> bool:
        """The peer was silent for too long."""
        return self.idle_left_s() <= 0

    # -- the thread ---------------------------------------------------------------------------

    def run_reactor(self) -> None:
        """Until the connection is closed."""
        self._idle_timer.start()
        self.assoc._dul_ready.set()
        self._poll_all, self._poll_bell = select.poll(), select.poll()
        self._poll_all.register(self._peer.fileno(), select.POLLIN)
        for each in (self._poll_all, self._poll_bell):
            each.register(self._bell.fileno(), select.POLLIN)
        try:
            while not self._kill_thread:
                self._step()
        except Exception as error:  # noqa: BLE001 - the peer gets its A-ABORT, whatever it was
            self._host.failed(error)
            self._abort(violations.REASON_NOT_SPECIFIED)
        finally:
            self._messages.close()
            self._inbound.drop()
            self._inbound.widen(0)  # the buffer now, not when the garbage collector finds our cycles
            self._peer._shutdown_socket()
            self._bell.close()
            self.has_ended = True
            self._host.wake()

    def _step(self) -> None:
        """One event: of a timer, of our user, or of the peer."""
        state = self.state_machine.current_state
        if state in (AWAITING_REQUEST, CLOSING) and self.artim_timer.expired:
            self.event_queue.put("Evt18")
        elif self.event_queue.empty() and not self._process_recv_primitive():
            self._wait(state)
        try:
            event = self.event_queue.get_nowait()
        except queue.Empty:
            return
        self._perform(event)

    def _perform(self, event: str) -> None:
        state = self.state_machine.current_state
        if (event, state) in TRANSITION_TABLE:
            self.state_machine.do_action(event)
        elif event in _FROM_PRIMITIVES and not self.to_provider_queue.empty():
            self.to_provider_queue.get_nowait()  # too late: the peer has gone, or was aborted

    def _wait(self, state: str) -> None:
        """Wait for the bell, and for the peer where its input is due; read one PDU or message."""
        if state == CLOSING:
            self._linger()
            return
        # No asynchronous operations are negotiated: one message is held in memory, waiting or being served.
        is_due = state in _READING and not self.assoc.dimse.msg_queue.unfinished_tasks
        if is_due and (not self._inbound.is_empty or self._peer.has_decrypted):
            self._read_pdu_data()
            return
        left_s = self.artim_timer.remaining if state == AWAITING_REQUEST else float("inf")
        if self._bell.wait(self._poll_all if is_due else self._poll_bell, left_s):
            self._read_pdu_data()

    def _linger(self) -> None:
        """Sta13: until the peer closes, or it has had its time."""
        if self._lingering is None:
            self._lingering = Lingering(self._peer, self._inbound, self._bell)
        if self._lingering.is_over():
            self._peer.close()  # puts Evt17

    # -- input --------------------------------------------------------------------------------

    def _read_pdu_data(self) -> None:
        """Read a PDU; when a message begins, all of it."""
        self._is_reading = True
        try:
            self._read_pdu()
            while self._is_in_message():
                self._read_pdu()
        except Violation as violation:
            self._abort_as_provider(violation)
        except Interrupted:
            self._messages.close()
        except OSError:
            self._messages.close()
            self.event_queue.put("Evt17")
        finally:
            self._idle_timer.restart()
            self._is_reading = False

    def _is_in_message(self) -> bool:
        """A message goes on; an A-ABORT or A-RELEASE-RQ in its middle is acted on first."""
        is_open = self.state_machine.current_state == ESTABLISHED
        return is_open and self._messages.is_in_progress and self.event_queue.empty()

    def _read_pdu(self) -> None:
        state = self.state_machine.current_state
        self._inbound.allow(self.artim_timer.remaining if state == AWAITING_REQUEST else self._stall_s)
        pdu_type, length = PDU_HEADER.unpack(self._inbound.need(PDU_HEADER.size))
        check_header(state, pdu_type, length, self._max_pdu_bytes)
        if length > _LARGE_PDU_BYTES:  # only where no maximum was negotiated
            self._inbound.allow(self._stall_s + length / _LARGE_PDU_BYTES)
        if pdu_type == P_DATA_TF and state == ESTABLISHED:
            if not self._is_wide:
                self._is_wide = True
                self._inbound.widen(_BUFFER_BYTES)
                self._messages.response_bytes = self.assoc.requestor.maximum_length or 0
            self._messages.read_pdu(length)
            return
        self._messages.close()  # a release or an abort ends a message too
        body = self._inbound.read(length)
        if pdu_type == ASSOCIATE_RQ:
            request = read_association_request(body)
            self.proposals = request.proposals
            body = bytearray(request.rest)
        self._hand_over(pdu_type, body)

    def _hand_over(self, pdu_type: int, body: bytearray) -> None:
        """To pynetdicom's state machine."""
        raw = bytearray(PDU_HEADER.pack(pdu_type, len(body)))
        raw += body
        try:
            pdu, event = self._decode_pdu(raw)
            if isinstance(pdu, A_ASSOCIATE_RQ):
                pdu.to_primitive()  # as action AE-6 does; it would fail there
        except Exception as error:
            raise pdu_invalid(f"A PDU of type {pdu_type:02X} cannot be read.") from error
        self._recv_pdu.put(pdu)
        self.event_queue.put(event)

    def _abort_as_provider(self, violation: Violation) -> None:
        """Action AA-8 with the reason that PS3.8 Table 9-26 has for it (pynetdicom's always says 0)."""
        self._messages.close()
        self._host.violated(violation)
        self._abort(violation.abort_reason)
        self.artim_timer.start()
        self.state_machine.transition(CLOSING)

    def _abort(self, reason: int) -> None:
        """Tell the peer, and our user."""
        self._peer.send(provider_abort(reason))
        indication = A_P_ABORT()
        indication.provider_reason = reason
        self.to_user_queue.put(indication)

    def _is_wanted_elsewhere(self) -> bool:
        """We are to end, or an abort of ours waits to be sent."""
        is_aborting = self.assoc._sent_abort and self.state_machine.current_state != CLOSING
        return self._kill_thread or is_aborting

    # -- messages.Party -----------------------------------------------------------------------

    def context(self, context_id: int) -> Context | None:
        """An accepted presentation context."""
        found = self.assoc._accepted_cx.get(context_id)
        if found is None:
            return None
        return Context(context_id, str(found.abstract_syntax), str(found.transfer_syntax[0]))

    def begin_store(self, context: Context, request: Command) -> StoreReceiver:
        """A C-STORE has begun."""
        return self._host.begin_store(context, request)

    def takes(self, context: Context, request: Command) -> bool:
        """Whether pynetdicom shall see the message."""
        return self._host.takes(context, request)

    def forward(self, context_id: int, control: int, fragment: bytes) -> None:
        """To pynetdicom's DIMSE provider."""
        hand_over(self.assoc, context_id, control, fragment)

    def refused(self, violation: Violation) -> None:
        """A message is being answered with a status."""
        self._host.refused(violation)

    def respond(self, p_data: bytes) -> None:
        """One write."""
        self._peer.send(p_data)
