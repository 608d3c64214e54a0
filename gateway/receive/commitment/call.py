"""The association that we open to a peer, for its reports of storage commitment (PS3.4 J.3.3)."""

from __future__ import annotations

import socket
from contextlib import suppress

from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.association import Association

from gateway.errors import PeerError, breaks_protocol
from gateway.receive.commitment.bounded_call import bound
from gateway.receive.commitment.link import (
    PUSH_MODEL,
    TRANSFER_SYNTAXES,
    Exchange,
    Report,
    ReportAddress,
    is_alive,
    not_accepted,
    pdu_bytes,
)
from gateway.receive.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

_CONNECT_S = 10.0
_RELEASE_S = 5.0
_ABORT_S = 2.0


class ReportCall:
    """Opened once for all that a peer is to be told; ended after a report that got no answer."""

    def __init__(self, calling_ae_title: str, exchange: Exchange, timeout_s: float) -> None:
        self._calling = calling_ae_title
        self._exchange = exchange
        self._timeout_s = timeout_s
        self._association: Association | None = None

    def open(self, address: ReportAddress) -> None:
        """Open it, unless it is open. Raises PeerError; see :func:`open_call`."""
        if self._association is None or not is_alive(self._association):
            self._end(politely=False)
            self._association = open_call(address, self._calling, self._exchange, self._timeout_s)

    def tell(self, address: ReportAddress, report: Report) -> None:
        """See :meth:`Exchange.tell`."""
        assert self._association is not None  # noqa: S101 - opened before
        try:
            self._exchange.tell(self._association, str(address), report, self._timeout_s)
        except PeerError as error:
            if error.name != "REPORT_REFUSED":  # that was an answer
                self._end(politely=False)
            raise

    def close(self) -> None:
        """Release it."""
        self._end(politely=True)

    def _end(self, *, politely: bool) -> None:
        association, self._association = self._association, None
        if association is not None:
            end(association, politely=politely)


def open_call(
    address: ReportAddress, calling_ae_title: str, exchange: Exchange, timeout_s: float
) -> Association:
    """An association that we request as SCP of the class: the role is proposed (PS3.7 D.3.3.4).

    Raises PeerError: PEER_UNREACHABLE, ASSOCIATION_REJECTED, NO_PRESENTATION_CONTEXT,
    MAXIMUM_LENGTH_TOO_SMALL, PEER_BREAKS_PROTOCOL.
    """
    entity = _entity(calling_ae_title, timeout_s)
    opened: list[Association] = []
    try:
        association = entity.associate(
            address.host,
            address.port,
            contexts=[build_context(PUSH_MODEL, list(TRANSFER_SYNTAXES))],
            ae_title=address.ae_title,
            ext_neg=[build_role(PUSH_MODEL, scu_role=False, scp_role=True)],
            evt_handlers=[
                (evt.EVT_CONN_OPEN, bound, [timeout_s]),
                (evt.EVT_CONN_OPEN, lambda event: opened.append(event.assoc)),
                (evt.EVT_DIMSE_RECV, exchange.on_message),
            ],
        )
    except OSError as error:  # the name of the host is not known
        sentence = f"The host name of {address} cannot be resolved: check host, or the DNS."
        raise PeerError("PEER_UNREACHABLE", sentence, retryable=True) from error
    except Exception as error:  # pynetdicom raises many types where it trusts a peer
        if not opened:  # no peer had a part in that
            raise
        end(opened[0], politely=False)
        what = f"did during A-ASSOCIATE what DICOM does not foresee ({type(error).__name__})"
        raise breaks_protocol(str(address), what) from error
    if not association.is_established:
        raise _not_established(association, address, calling_ae_title)
    try:
        pdu_bytes(association, str(address))
    except PeerError:
        end(association, politely=True)
        raise
    return association


def _entity(calling_ae_title: str, timeout_s: float) -> AE:
    entity = AE(calling_ae_title)
    entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    entity.acse_timeout = entity.dimse_timeout = timeout_s
    entity.network_timeout = max(2 * timeout_s, 60.0)
    entity.connection_timeout = min(timeout_s, _CONNECT_S)
    return entity


def end(association: Association, *, politely: bool) -> None:
    """Release or abort it; in bounded time, whatever the peer does and whichever thread of it has died.

    pynetdicom's own ``release`` waits for its association thread for ever, and ``abort`` for the upper layer.
    """
    layer = association.dul
    if politely and is_alive(association):
        association.acse.send_release()
        layer.join(_RELEASE_S)
    if layer.is_alive() and layer.to_provider_queue.empty():  # else the peer does not even read
        association.abort(block=False)
        layer.join(_ABORT_S)
    if layer.is_alive():
        layer.kill_dul()
        wire = layer.socket.socket if layer.socket is not None else None
        with suppress(OSError):
            if wire is not None:
                wire.shutdown(socket.SHUT_RDWR)  # whatever it waits for ends
        layer.join(_ABORT_S)
    association.is_established = False
    if layer.socket is not None:
        layer.socket._shutdown_socket()


def _not_established(association: Association, address: ReportAddress, calling: str) -> PeerError:
    if association.is_rejected:
        reason = getattr(association.acceptor.primitive, "reason_str", "")
        sentence = (
            f"{address} rejected the association for a report of storage commitment ({reason}): ask its "
            f"administrator to take such associations from {calling}."
        )
        return PeerError("ASSOCIATION_REJECTED", sentence, retryable=True)
    if association.rejected_contexts:
        return PeerError("NO_PRESENTATION_CONTEXT", not_accepted(str(address)), retryable=True)
    sentence = (
        f"{address} asked for storage commitment and cannot be called for the report: check its host and "
        "port under peers, and that it listens there."
    )
    return PeerError("PEER_UNREACHABLE", sentence, retryable=True)
