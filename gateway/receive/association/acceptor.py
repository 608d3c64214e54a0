"""One accepted connection: its TLS handshake, its association, its end (PS3.8 9.2, acceptor side).

pynetdicom negotiates and serves what is no C-STORE; its thread here waits on an event where
pynetdicom's own looks around every millisecond.
"""

from __future__ import annotations

import itertools
import queue
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import cast

from pynetdicom import evt
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom._handlers import (
    standard_dimse_recv_handler,
    standard_dimse_sent_handler,
    standard_pdu_recv_handler,
    standard_pdu_sent_handler,
)
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.transport import AddressInformation

from gateway.receive.association.acceptance import Acceptance
from gateway.receive.association.association_request import Proposal
from gateway.receive.association.commands import C_ECHO_RQ, N_EVENT_REPORT_RQ, RESPONSE_BIT, Command
from gateway.receive.association.dimse import COMMAND_OF_EVENT, MessageQueue
from gateway.receive.association.dul import UpperLayer
from gateway.receive.association.messages import Context, StoreReceiver
from gateway.receive.association.violations import Violation
from gateway.receive.association.wire import PeerSocket
from gateway.receive.calls import KnownPeer

_VERIFICATION = "1.2.840.10008.1.1"
_LOGGING_HANDLERS = (  # they render every PDU and message as text, wanted or not
    (evt.EVT_PDU_RECV, standard_pdu_recv_handler),
    (evt.EVT_PDU_SENT, standard_pdu_sent_handler),
    (evt.EVT_DIMSE_RECV, standard_dimse_recv_handler),
    (evt.EVT_DIMSE_SENT, standard_dimse_sent_handler),
)
_KILL_WAIT_S = 5.0
_MOST_SEND_S = 10.0  # a peer that waits for answers has one to take, and it fits into the buffers
_numbers = itertools.count(1)


class GuardedAssociation(Association):
    """The thread of an accepted connection."""

    dul: UpperLayer

    def __init__(
        self,
        acceptance: Acceptance,
        connection: socket.socket,
        local: AddressInformation,
        remote: AddressInformation,
    ) -> None:
        ae = acceptance.ae
        super().__init__(ae, MODE_ACCEPTOR)
        self._acceptance = acceptance
        self._changed = threading.Event()
        self._errands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._over = threading.Lock()
        self._connection: socket.socket | None = connection
        self._cut_lock = threading.Lock()  # so that no number is shut down that is somebody else's by now
        self._scissors: socket.socket | None = connection.dup()
        try:
            self.dul = UpperLayer(self, self, acceptance.limits, ae.maximum_pdu_size)
        except OSError:  # no descriptor is left, and nobody will call close()
            self._scissors.close()
            raise
        self.dimse.msg_queue = MessageQueue(self.wake)
        self.acse_timeout = acceptance.association_timeout_s
        self.network_timeout = ae.network_timeout
        self.name = f"AcceptorThread-{next(_numbers)}"
        self.acceptor.maximum_length = ae.maximum_pdu_size
        self.acceptor.ae_title = ae.ae_title
        self.acceptor.address_info = local
        self.acceptor.implementation_class_uid = ae.implementation_class_uid
        self.acceptor.implementation_version_name = ae.implementation_version_name
        self.requestor.address_info = remote
        for event, handler in _LOGGING_HANDLERS:
            self.unbind(event, handler)
        for bound_event, bound_handler, *arguments in acceptance.handlers:
            self.bind(bound_event, bound_handler, *arguments)
        self._served = {
            COMMAND_OF_EVENT[event] for event, *_ in acceptance.handlers if event in COMMAND_OF_EVENT
        }
        self.caller: KnownPeer | None = None
        """Who it is, once it was let in."""
        self.is_requested = False
        """An A-ASSOCIATE-RQ has come."""
        self.is_idle_expired = False
        """We ended the association, for the peer was silent for the idle timeout."""

    @property
    def address(self) -> str:
        """IP address of the peer."""
        return str(self.requestor.address)

    @property
    def proposals(self) -> tuple[Proposal, ...]:
        """The presentation contexts that the peer proposed."""
        return self.dul.proposals

    @property
    def secure_socket(self) -> socket.socket | None:
        """The TLS socket, for the certificate of the peer; None for a plain one."""
        return self._connection if self._acceptance.tls is not None else None

    def cut(self) -> None:
        """End the connection from any thread, whatever its own threads wait for."""
        with self._cut_lock, suppress(OSError):
            if self._scissors is not None:
                self._scissors.shutdown(socket.SHUT_RDWR)

    def wake(self) -> None:
        """Let the thread look around."""
        self._changed.set()

    def between_requests(self, errand: Callable[[], None]) -> None:
        """Have the thread do something short when it serves no request of the peer; never, if it ends."""
        self._errands.put(errand)
        self.wake()

    # -- dul.Host -----------------------------------------------------------------------------

    def begin_store(self, context: Context, request: Command) -> StoreReceiver:
        """A C-STORE has begun."""
        return self._acceptance.watcher.begin_store(self, context, request)

    def takes(self, context: Context, request: Command) -> bool:
        """Whether a service is there for the message: pynetdicom would serve it by its SOP class alone."""
        if request.field & RESPONSE_BIT:
            return request.field & ~RESPONSE_BIT == N_EVENT_REPORT_RQ  # we may have sent the request
        if context.abstract_syntax in self._acceptance.storage_classes:
            return False
        is_echo = request.field == C_ECHO_RQ
        return request.field in self._served and is_echo == (context.abstract_syntax == _VERIFICATION)

    def refused(self, violation: Violation) -> None:
        """A message that is no C-STORE is being answered with a status."""
        self._acceptance.watcher.violated(self, violation)

    def violated(self, violation: Violation) -> None:
        """The peer broke the protocol."""
        self._acceptance.watcher.violated(self, violation)

    def failed(self, error: BaseException) -> None:
        """We made a mistake."""
        self.is_aborted = True
        self._acceptance.watcher.failed(error)

    # -- the thread ---------------------------------------------------------------------------

    def run_reactor(self) -> None:
        """From the handshake to the end of the connection."""
        try:
            self._serve()
        except Exception as error:  # noqa: BLE001 - logged; the connection is closed in any case
            self._acceptance.watcher.failed(error)
        finally:
            self.close()

    def close(self) -> None:
        """End everything, give everything back; also for one that was never started."""
        self.dul.kill_dul()
        if self._started_dul:
            self.cut()
            self.dul.join(_KILL_WAIT_S)
        else:
            self.dul.abandon()
        with self._cut_lock:
            connection, self._connection = self._connection, None
            scissors, self._scissors = self._scissors, None
        for each in (connection, scissors):
            if each is not None:
                each.close()
        self._end()
        self._acceptance.watcher.closed(self)

    def _end(self) -> None:
        """Tell, once, that the association is over."""
        if self._over.acquire(blocking=False):
            self._acceptance.watcher.ended(self)

    def _serve(self) -> None:
        acceptance = self._acceptance
        connection = self._connection
        if connection is None:
            return
        if acceptance.tls is not None:
            try:
                connection = acceptance.tls.wrap(connection, acceptance.association_timeout_s)
            except ConnectionError:
                return  # written down there
            self._connection = connection
        peer = PeerSocket(self, connection, min(acceptance.limits.stall_s, _MOST_SEND_S))
        self.set_socket(peer)
        self.dul.connect(peer)
        self.dul.start()
        self._started_dul = True
        request = self._await_request()
        if not isinstance(request, A_ASSOCIATE):
            return
        self.is_requested = True
        self.requestor.primitive = request
        evt.trigger(self, evt.EVT_REQUESTED, {})
        if not self.is_aborted and not self.is_rejected:
            self.acse.negotiate_association()
        if self.is_established:
            self._run_reactor()

    def _await_request(self) -> object | None:
        """What comes first; None if the connection ended. The upper layer has the timer."""
        while not self.dul.has_ended:
            primitive = cast(object | None, self.dul.receive_pdu(wait=False))  # it may be None
            if primitive is not None:
                return primitive
            self._changed.wait()
            self._changed.clear()
        return None

    def _run_reactor(self) -> None:
        """Serve until the association ends; whoever calls ``send_…`` meanwhile holds the checkpoint."""
        while not self._kill:
            self._is_paused = True
            left_s = self.dul.idle_left_s()
            self._changed.wait(None if left_s == float("inf") else max(left_s, 0.01))
            self._changed.clear()
            self._reactor_checkpoint.wait()
            self._is_paused = False
            if not self._reactor_checkpoint.is_set():
                self._changed.set()  # look again afterwards
                continue
            self._serve_message()
            self._do_errands()
            if self._is_over():
                self._end()
                self.kill()
                return

    def _serve_message(self) -> None:
        context_id, message = self.dimse.get_msg(block=False)
        if message is not None and context_id is not None:
            self._serve_request(message, context_id)
            self.dul.served()
        if not self.dimse.msg_queue.empty():
            self._changed.set()

    def _do_errands(self) -> None:
        while self.dimse.msg_queue.empty() and not self._errands.empty():
            self._errands.get_nowait()()
            self.dul.look()  # it may have something to send

    def _is_over(self) -> bool:
        """The peer released or aborted, the connection is gone, or it was silent for too long."""
        if self.is_established and self.acse.is_release_requested():
            self.is_released, self.is_established = True, False
            self._end()  # before it is answered: the peer may call again at once
            self.acse.send_release(is_response=True)
            evt.trigger(self, evt.EVT_RELEASED, {})
            return True
        if self.acse.is_aborted() or self.dul.has_ended:
            self.dul.receive_pdu(wait=False)
            self.is_aborted, self.is_established = True, False
            evt.trigger(self, evt.EVT_ABORTED, {})
            return True
        if self.dul.idle_timer_expired():
            self.is_idle_expired = True
            self.abort(block=False)
            return True
        return False

    def kill(self) -> None:
        """End the thread once what is queued for the peer is sent, and the peer has closed or 2 s passed."""
        self._reactor_checkpoint.set()
        self._kill = True
        self.is_established = False
        self._is_paused = True
        self.wake()
        self.dul.look()
        if threading.current_thread() is not self.dul and self._started_dul:
            self.dul.join(_KILL_WAIT_S)
