"""The storage SCP: C-ECHO and C-STORE from configured peers (PS3.4 annexes A and B), and further services.

0000 is answered only after :meth:`gateway.receive.admit.Intake.finish` returned.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from pynetdicom import AE, evt
from pynetdicom.events import Event
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import PresentationContext
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.sop_class import uid_to_service_class
from structlog.typing import FilteringBoundLogger

from gateway.receive.admit import Admission
from gateway.receive.arrival import Arrival
from gateway.receive.association import negotiation
from gateway.receive.association.acceptance import Acceptance, Watcher
from gateway.receive.association.acceptor import GuardedAssociation
from gateway.receive.association.commands import Command
from gateway.receive.association.connections import Connections
from gateway.receive.association.messages import SUCCESS, Context, MessageLimits
from gateway.receive.association.violations import Violation
from gateway.receive.associations import OpenAssociations
from gateway.receive.gate import Call, Gate, KnownPeer, Refusal
from gateway.receive.listeners import ScpLimits, TlsListener
from gateway.receive.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from gateway.receive.records import Incidents
from gateway.receive.services import Service
from gateway.receive.store import InstanceReceiver
from gateway.receive.tls.certificates import PeerCertificate
from gateway.receive.tls.context import TlsContext, peer_certificate
from gateway.receive.transport import GuardedServer

__all__ = ["ScpLimits", "StorageSCP", "TlsListener"]

_ANSWERED_OVER_LIMIT_BYTES = 16 << 20  # a little too long gets a status; longer ends the association
_CONNECTIONS_PER_ASSOCIATION = 4
_LEAST_CONNECTIONS = 64
_NO_LIMIT = 1_000_000


class StorageSCP:
    """Listens for associations; two threads for each, of which one reads and stores.

    Parameters
    ----------
    ae_title
        Ours; no other called AE title is answered.
    host, port
        Where to listen; port 0 takes a free one, see :attr:`port`.
    tls
        A second listener, if there is one.
    gate
        Decides on every association.
    contexts
        From :func:`gateway.receive.contexts.storage_contexts`.
    services
        What we serve besides C-ECHO and C-STORE.
    """

    def __init__(
        self,
        *,
        ae_title: str,
        host: str,
        port: int,
        gate: Gate,
        limits: ScpLimits,
        contexts: Sequence[PresentationContext],
        admission: Admission,
        associations: OpenAssociations,
        incidents: Incidents,
        log: FilteringBoundLogger,
        services: Sequence[Service] = (),
        tls: TlsListener | None = None,
    ) -> None:
        self._address = (host, port)
        self._tls = tls
        self._gate = gate
        self._limits = limits
        self._services = tuple(services)
        offered = [*contexts, *(context for service in services for context in service.contexts())]
        self._contexts = {str(context.abstract_syntax): context for context in offered}
        self._storage_classes = frozenset(
            uid for uid in self._contexts if uid_to_service_class(uid) is StorageServiceClass
        )
        self._admission = admission
        self._associations = associations
        self._incidents = incidents
        self._log = log
        most = max(_CONNECTIONS_PER_ASSOCIATION * limits.max_associations, _LEAST_CONNECTIONS)
        self._connections = Connections(most, limits.max_connections_per_address, self._on_crowded)
        self._servers: list[GuardedServer] = []
        self._ae = AE(ae_title)
        self._ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        self._ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        self._ae.maximum_pdu_size = limits.max_pdu_bytes
        self._ae.maximum_associations = _NO_LIMIT  # the gate has ours
        self._ae.network_timeout = limits.idle_timeout_s
        self._ae.dimse_timeout = limits.idle_timeout_s

    @property
    def port(self) -> int:
        """The port that we listen on; known after :meth:`start`."""
        return self._server(0).port

    @property
    def tls_port(self) -> int:
        """That of the listener for TLS."""
        return self._server(1).port

    def _server(self, number: int) -> GuardedServer:
        if number >= len(self._servers):
            raise RuntimeError("the storage SCP is not started, or has no such listener")
        return self._servers[number]

    def start(self) -> None:
        """Bind and accept; raises OSError if an address cannot be bound."""
        # pynetdicom prints data sets and protocol text; what a person needs, we log ourselves.
        logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
        try:
            self._servers.append(GuardedServer(self._address, self._acceptance(None), self._connections))
            if self._tls is not None:
                address = (self._tls.host, self._tls.port)
                acceptance = self._acceptance(self._tls.context)
                self._servers.append(GuardedServer(address, acceptance, self._connections))
        except OSError:
            for server in self._servers:
                server.stop_accepting()
            self._servers.clear()
            raise
        for number, server in enumerate(self._servers):
            server.start("storage-scp-tls" if number else "storage-scp")

    def stop(self, drain_timeout_s: float) -> None:
        """Stop accepting, let open associations finish for so long, then abort them."""
        if not self._servers:
            return
        for server in self._servers:
            server.stop_accepting()
        self._connections.end_all()
        if not self._associations.wait_until_none(drain_timeout_s):
            self._log.warning("associations_aborted", open=self._associations.by_source())
        for server in self._servers:
            server.abort_all()
        self._servers.clear()

    def _acceptance(self, tls: TlsContext | None) -> Acceptance:
        limits = self._limits
        handlers: list[evt.EventHandlerType] = [
            (evt.EVT_REQUESTED, self._on_requested),
            (evt.EVT_ACCEPTED, self._on_accepted),
            (evt.EVT_C_ECHO, self._on_echo),
        ]
        for service in self._services:
            handlers += service.handlers()
        return Acceptance(
            ae=self._ae,
            handlers=handlers,
            watcher=Watcher(
                self._begin_store, self._on_end, self._on_closed, self._on_violation, self._incidents.mistake
            ),
            limits=MessageLimits(
                store_bytes=self._admission.max_instance_bytes + _ANSWERED_OVER_LIMIT_BYTES,
                other_bytes=limits.max_message_bytes,
                stall_s=limits.idle_timeout_s,
            ),
            association_timeout_s=limits.association_timeout_s,
            storage_classes=self._storage_classes,
            tls=tls,
        )

    # -- associations -------------------------------------------------------------------------

    def _on_requested(self, event: Event) -> None:
        """Accept or reject, before negotiation. Whatever fails here, rejects."""
        association = cast(GuardedAssociation, event.assoc)
        call = _call(association)
        try:
            call = replace(call, certificate=_certificate(association))
            found = self._gate.decide(call)
            if isinstance(found, KnownPeer):
                self._offer(association, found)
        except Exception as error:  # noqa: BLE001 - nobody gets in by a mistake of ours
            self._incidents.mistake(error)
            found = self._gate.failed(call)
        if isinstance(found, Refusal):
            association.acse.send_reject(found.result, found.source, found.diagnostic)
            association.kill()  # waits until the A-ASSOCIATE-RJ is out
            return
        association.caller = found
        self._connections.associated(association)
        self._log.info("association_opened", source=found.name, address=association.address)

    def _offer(self, association: GuardedAssociation, peer: KnownPeer) -> None:
        """Give pynetdicom what it is to negotiate."""
        proposals, request = association.proposals, association.requestor.primitive
        offered = negotiation.offer(proposals, self._contexts, self._storage_classes, peer)
        association.acceptor.supported_contexts = offered
        if request is not None:
            request.presentation_context_definition_list = negotiation.requested(proposals, offered)

    def _on_accepted(self, event: Event) -> None:
        """Where not all presentation contexts were accepted: say why."""
        association = cast(GuardedAssociation, event.assoc)
        peer = association.caller
        refused = negotiation.refused(association, association.proposals, self._contexts)
        if peer is not None and refused:
            is_useless = not association.accepted_contexts
            self._gate.narrowed(_call(association), peer, refused, is_useless=is_useless)

    def _on_end(self, association: GuardedAssociation) -> None:
        source = self._associations.source_of(association)
        if source is not None:
            ending = "released" if association.is_released else "aborted"
            self._log.info("association_ended", source=source, ending=ending)
            if association.is_idle_expired:
                self._note_silence(source, association.address)
        self._associations.closed(association)
        for service in self._services:
            service.ended(association)
        self._connections.ended(association, association.address, association.cut)

    def _note_silence(self, source: str, address: str) -> None:
        limit = f"{self._limits.idle_timeout_s:g} s"
        reason = (
            f"{source}: nothing happened on the association for {limit} (dicom.idle_timeout), so we aborted "
            "it: look whether the calling system is stuck or its network is broken; one that keeps "
            "associations open on purpose needs a longer time."
        )
        advice = (
            f"Your system ({address}) had an association open with our DICOM node and sent nothing for "
            f"{limit}, so we aborted it. Please let it release associations that it does not use."
        )
        who = {"source": source, "address": address}
        self._incidents.note("association", "IDLE_TIMEOUT", reason, who, advice)

    def _on_closed(self, association: GuardedAssociation) -> None:
        self._connections.closed(association)
        for server in self._servers:
            server.closed(association)

    def _on_violation(self, association: GuardedAssociation, violation: Violation) -> None:
        source, address = self._associations.source_of(association), association.address
        subject = "instance" if violation.name == "INSTANCE_TOO_LARGE" else "association"
        reason = f"{source or address}: {violation.reason}"
        self._incidents.note(subject, violation.name, reason, {"source": source or "", "address": address})

    def _on_crowded(self, address: str, limit: str) -> None:
        reason = (
            f"{address} has connections without an association; over the limit of {limit}, the oldest is "
            "closed: find out what connects there."
        )
        self._incidents.note("association", "TOO_MANY_CONNECTIONS", reason, {"address": address})

    # -- services -----------------------------------------------------------------------------

    def _on_echo(self, event: Event) -> int:  # noqa: ARG002 - the signature is pynetdicom's
        return SUCCESS

    def _begin_store(
        self, association: GuardedAssociation, context: Context, request: Command
    ) -> InstanceReceiver:
        arrival = Arrival(
            source=self._associations.source_of(association) or "",
            source_ae_title=association.requestor.ae_title,
            sop_class_uid=request.sop_class_uid,
            sop_instance_uid=request.sop_instance_uid,
            transfer_syntax_uid=context.transfer_syntax,
        )
        storage_class = context.abstract_syntax if context.abstract_syntax in self._storage_classes else None
        return InstanceReceiver(self._admission, arrival, storage_class, self._log)


def _call(association: GuardedAssociation) -> Call:
    """Who calls, without the certificate that was shown."""
    request = cast(A_ASSOCIATE, association.requestor.primitive)
    return Call(
        association=association,
        called_ae_title=request.called_ae_title or "",
        calling_ae_title=request.calling_ae_title or "",
        address=association.address,
        secure=association.secure_socket is not None,
        application_context=str(request.application_context_name),
    )


def _certificate(association: GuardedAssociation) -> PeerCertificate | None:
    connection = association.secure_socket
    return peer_certificate(connection) if isinstance(connection, ssl.SSLSocket) else None
