"""pynetdicom's acceptor with bounds: nothing that a peer announces is believed before it is checked.

Four classes of pynetdicom are subclassed; nothing of it is patched.
"""

from __future__ import annotations

import copy
import itertools
import socket
from collections.abc import Callable
from io import BytesIO
from socketserver import BaseServer

from pynetdicom import AE, evt
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom._handlers import (
    standard_dimse_recv_handler,
    standard_dimse_sent_handler,
    standard_pdu_recv_handler,
    standard_pdu_sent_handler,
)
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_primitives import C_STORE, DimseServiceType
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

MAX_ASSOCIATION_PDU_BYTES = 1 << 20
"""No real A-ASSOCIATE-RQ is longer: 128 contexts with 40 transfer syntaxes have 330 KiB."""

_LOGGING_HANDLERS = (  # they render every PDU and message as text, wanted or not
    (evt.EVT_PDU_RECV, standard_pdu_recv_handler),
    (evt.EVT_PDU_SENT, standard_pdu_sent_handler),
    (evt.EVT_DIMSE_RECV, standard_dimse_recv_handler),
    (evt.EVT_DIMSE_SENT, standard_dimse_sent_handler),
)
_numbers = itertools.count(1)


class BoundedSocket(AssociationSocket):
    """Refuses a PDU whose announced length is over the limit, before a byte of it is kept.

    pynetdicom reads 6 bytes of header, then asks for the announced number of bytes in one call;
    an OSError there closes the connection (PS3.8 9.2, event 17).
    """

    def recv(self, nr_bytes: int) -> bytearray:
        """Read exactly ``nr_bytes``, or what came before the peer closed."""
        limit = max(MAX_ASSOCIATION_PDU_BYTES, self.assoc.acceptor.maximum_length or 0)
        if nr_bytes > limit:
            raise ConnectionAbortedError(f"a PDU of {nr_bytes} bytes was announced; {limit} are allowed")
        return bytearray(super().recv(nr_bytes))


class BoundedMessages(DIMSEServiceProvider):
    """Ends an association whose message grows over the limit, before more of it is kept.

    pynetdicom gathers the fragments of a message in memory until the last one arrives.
    """

    def __init__(
        self, association: Association, limit_bytes: int, on_overrun: Callable[[Association], None]
    ) -> None:
        super().__init__(association)
        self._limit_bytes = limit_bytes
        self._on_overrun = on_overrun
        self._is_over = False

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take a fragment; over the limit, abort as provider (PS3.8 9.2, event 19)."""
        if self._is_over:
            return
        super().receive_primitive(primitive)
        message = self.message
        if message is None:
            return
        kept = (message.encoded_command_set, message.data_set)
        if sum(part.tell() for part in kept if part is not None) > self._limit_bytes:
            self._is_over = True
            self.message = None
            self._on_overrun(self.assoc)
            self.dul.event_queue.put("Evt19")


class GuardedAssociation(Association):
    """Calls ``on_end`` exactly once when the association's thread ends, in whatever way it ends."""

    def __init__(self, server: GuardedServer) -> None:
        super().__init__(server.ae, MODE_ACCEPTOR)
        self._server = server
        self._on_end = server.on_end
        self.dimse = BoundedMessages(self, server.max_message_bytes, server.on_overrun)
        for event, handler in _LOGGING_HANDLERS:
            self.unbind(event, handler)

    def _serve_request(self, msg: DimseServiceType, context_id: int) -> None:
        """Serve a request; a C-STORE without data set gets an answer too (pynetdicom gives none)."""
        if isinstance(msg, C_STORE) and msg.DataSet is None:
            msg.DataSet = BytesIO()
        super()._serve_request(msg, context_id)

    def run_reactor(self) -> None:
        """The association's thread."""
        try:
            super().run_reactor()
        finally:
            self._on_end(self)


class GuardedServer(ThreadedAssociationServer):
    """Listens on ``address`` and gives every connection its bounds.

    Parameters
    ----------
    on_end
        Called once for every association thread that ends, also for one that was rejected.
    on_overrun
        Called when an association is ended because a message is longer than ``max_message_bytes``.
    receive_timeout_s
        Longest wait for the next bytes of a PDU that has begun.
    """

    def __init__(
        self,
        ae: AE,
        address: tuple[str, int],
        contexts: list[PresentationContext],
        handlers: list[evt.EventHandlerType],
        *,
        on_end: Callable[[Association], None],
        on_overrun: Callable[[Association], None],
        max_message_bytes: int,
        receive_timeout_s: float,
    ) -> None:
        self.on_end = on_end
        self.on_overrun = on_overrun
        self.max_message_bytes = max_message_bytes
        self.receive_timeout_s = receive_timeout_s
        self.event_handlers = handlers
        super().__init__(ae, address, ae.ae_title, contexts, request_handler=GuardedRequest)

    def stop_accepting(self) -> None:
        """Close the listening socket; open associations go on."""
        BaseServer.shutdown(self)  # pynetdicom's own also forgets the server in its AE, where it is not
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that failed before it was an association; socketserver would print it."""


class GuardedRequest(RequestHandler):
    """Sets an accepted connection up: no Nagle delay, a deadline per read, bounded PDUs."""

    server: GuardedServer

    def _create_association(self) -> Association:
        connection: socket.socket = self.request
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(self.server.receive_timeout_s)
        association = GuardedAssociation(self.server)
        association.name = f"AcceptorThread-{next(_numbers)}"  # pynetdicom finds its threads by this name
        association.set_socket(BoundedSocket(association, client_socket=connection))
        association.acceptor.maximum_length = self.ae.maximum_pdu_size
        association.acceptor.ae_title = self.server.ae_title
        association.acceptor.address_info = self.local
        association.acceptor.implementation_class_uid = self.ae.implementation_class_uid
        association.acceptor.implementation_version_name = self.ae.implementation_version_name
        # Negotiation changes the contexts' results only; a deep copy of them all takes 40 ms.
        association.acceptor.supported_contexts = [copy.copy(context) for context in self.server.contexts]
        association.requestor.address_info = self.remote
        for event, handler, *arguments in self.server.event_handlers:
            association.bind(event, handler, *arguments)
        return association
