"""N-EVENT-REPORT on an association: one that the peer opened, or one that we open (PS3.4 J.3.3).

A report is queued by the association's own thread, between two requests of the peer, and in one piece, so
that no fragments of two messages are mixed (PS3.7 6.3.1). That thread never waits for the answer: the peer
may go on with requests of its own, and the answer is handed over when it arrives.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.association import Association
from pynetdicom.dimse_messages import N_EVENT_REPORT_RQ, N_EVENT_REPORT_RSP
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.presentation import PresentationContext

from gateway.errors import PeerError
from gateway.receive.association.dul import UpperLayer
from gateway.receive.commitment.bounded_call import bound
from gateway.receive.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

PUSH_MODEL = "1.2.840.10008.1.20.1"
PUSH_MODEL_INSTANCE = "1.2.840.10008.1.20.1.1"
"""SOP Class, and the one SOP Instance of it that everybody knows (PS3.4 J.3.5)."""

ALL_COMMITTED, FAILURES_EXIST = 1, 2
"""Event Type ID (PS3.4 Table J.3-2)."""

TRANSFER_SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
_LOOK_S = 0.1
_CONNECT_S = 10.0
_STATUS_KEYWORD, _ANSWERED_KEYWORD = "Status", "MessageIDBeingRespondedTo"
_ARRIVED = frozenset({0x0000, 0x0001, 0x0107, 0x0116})
_TRY_AGAIN = frozenset({0x0110, 0x0122, 0x0124, 0x0211, 0x0213})


@dataclass(frozen=True)
class ReportAddress:
    """Where a peer takes reports. ``name`` is that of the peer in the configuration."""

    name: str
    ae_title: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.name} ({self.ae_title}@{self.host}:{self.port})"


@dataclass(frozen=True)
class Report:
    """Event Type ID, and the Event Information in explicit or implicit VR little endian."""

    event_type: int
    encoded: Callable[[bool], bytes]


class Exchange:
    """Sends reports and gives each its answer; one for all associations."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[tuple[Association, int], queue.SimpleQueue[int]] = {}
        self._numbers = itertools.count(1)

    def on_message(self, event: evt.Event) -> None:
        """Handler of EVT_DIMSE_RECV: hands the status of an N-EVENT-REPORT response to who waits for it."""
        if not isinstance(event.message, N_EVENT_REPORT_RSP):
            return
        command = event.message.command_set
        number, status = command.get(_ANSWERED_KEYWORD), command.get(_STATUS_KEYWORD)
        with self._lock:
            answer = self._waiting.get((event.assoc, number))
        if answer is not None and status is not None:
            answer.put(int(status))

    def tell(self, association: Association, who: str, report: Report, timeout_s: float) -> None:
        """Send a report; returns when it was acknowledged. Not from the association's own thread.

        Raises PeerError: ASSOCIATION_ENDED, PEER_SILENT, NO_PRESENTATION_CONTEXT, REPORT_REFUSED.
        """
        context = commitment_context(association)
        if context is None or context.context_id is None:
            raise PeerError("NO_PRESENTATION_CONTEXT", _not_accepted(who), retryable=True)
        number = next(self._numbers) % 65535 + 1
        request = N_EVENT_REPORT()
        request.MessageID = number
        request.AffectedSOPClassUID = UID(PUSH_MODEL)
        request.AffectedSOPInstanceUID = UID(PUSH_MODEL_INSTANCE)
        request.EventTypeID = report.event_type
        explicit_vr = context.transfer_syntax[0] == ExplicitVRLittleEndian
        request.EventInformation = BytesIO(report.encoded(explicit_vr))
        key = (association, number)
        answer: queue.SimpleQueue[int] = queue.SimpleQueue()
        with self._lock:
            self._waiting[key] = answer
        try:
            errand = _Errand(association, request, context.context_id)
            association.dimse.msg_queue.put((context.context_id, errand))  # type: ignore[arg-type]
            _check(_wait(association, who, answer, timeout_s), who)
        finally:
            with self._lock:
                del self._waiting[key]


class _Errand:
    """Something that an association's thread does when it looks for the next message of the peer.

    pynetdicom asks every message whether it is a request; for this one, asking is the occasion to send.
    """

    msg_type = "N-EVENT-REPORT"

    def __init__(self, association: Association, request: N_EVENT_REPORT, context_id: int) -> None:
        self._association = association
        self._request = request
        self._context_id = context_id

    @property
    def is_valid_request(self) -> bool:
        """Send; False: there is nothing to serve."""
        if self._association.is_established:
            _send_whole(self._association, self._request, self._context_id)
        return False


def _send_whole(association: Association, request: N_EVENT_REPORT, context_id: int) -> None:
    """Queue every fragment at once: the thread that sends them answers C-STOREs when the queue is empty."""
    message = N_EVENT_REPORT_RQ()
    message.primitive_to_message(request)
    fragments = list(message.encode_msg(context_id, association.dimse.maximum_pdu_size))
    waiting = association.dul.to_provider_queue
    with waiting.mutex:
        waiting.queue.extend(fragments)
        waiting.unfinished_tasks += len(fragments)
    if isinstance(association.dul, UpperLayer):
        association.dul.look()


def _wait(association: Association, who: str, answer: queue.SimpleQueue[int], timeout_s: float) -> int:
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        is_open = bool(association.is_established)
        try:
            return answer.get(timeout=_LOOK_S) if is_open else answer.get_nowait()
        except queue.Empty:
            if not is_open:
                sentence = f"{who} ended the association before it answered the report."
                raise PeerError("ASSOCIATION_ENDED", sentence, retryable=True) from None
    sentence = f"{who} did not answer the report in {timeout_s:.0f} s."
    raise PeerError("PEER_SILENT", sentence, retryable=True)


def _check(status: int, who: str) -> None:
    """Raise PeerError unless the status says that the report has arrived (PS3.7 10.1.1.1.8)."""
    if status in _ARRIVED or status & 0xF000 == 0xB000:
        return
    raise PeerError(
        "REPORT_REFUSED",
        f"{who} answered the report of storage commitment with status 0x{status:04X}: its log may say why.",
        retryable=status in _TRY_AGAIN,
    )


def commitment_context(association: Association) -> PresentationContext | None:
    """The accepted presentation context of the class, if there is one."""
    return next((c for c in association.accepted_contexts if c.abstract_syntax == PUSH_MODEL), None)


def quiet_s(association: Association) -> float:
    """Seconds since the peer has sent anything; 0 in the middle of a message."""
    layer = association.dul
    left_s = layer.idle_left_s() if isinstance(layer, UpperLayer) else layer._idle_timer.remaining
    return 0.0 if left_s == float("inf") else float(layer._idle_timer.timeout or 0.0) - float(left_s)


class ReportCall:
    """The association that we open to a peer, once for all that it is to be told."""

    def __init__(self, calling_ae_title: str, exchange: Exchange, timeout_s: float) -> None:
        self._calling = calling_ae_title
        self._exchange = exchange
        self._timeout_s = timeout_s
        self._association: Association | None = None

    def open(self, address: ReportAddress) -> None:
        """Open it, unless it is open. Raises PeerError; see :func:`open_call`."""
        if self._association is None or not self._association.is_established:
            self._association = open_call(address, self._calling, self._exchange, self._timeout_s)

    def tell(self, address: ReportAddress, report: Report) -> None:
        """See :meth:`Exchange.tell`."""
        assert self._association is not None  # noqa: S101 - opened before
        self._exchange.tell(self._association, str(address), report, self._timeout_s)

    def close(self) -> None:
        """Release it."""
        if self._association is not None and self._association.is_established:
            self._association.release()
        self._association = None


def open_call(
    address: ReportAddress, calling_ae_title: str, exchange: Exchange, timeout_s: float
) -> Association:
    """An association that we request as SCP of the class: the role is proposed (PS3.7 D.3.3.4).

    Raises PeerError: PEER_UNREACHABLE, ASSOCIATION_REJECTED, NO_PRESENTATION_CONTEXT.
    """
    entity = AE(calling_ae_title)
    entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    entity.acse_timeout = entity.dimse_timeout = timeout_s
    entity.network_timeout = max(2 * timeout_s, 60.0)
    entity.connection_timeout = min(timeout_s, _CONNECT_S)
    try:
        association = entity.associate(
            address.host,
            address.port,
            contexts=[build_context(PUSH_MODEL, list(TRANSFER_SYNTAXES))],
            ae_title=address.ae_title,
            ext_neg=[build_role(PUSH_MODEL, scu_role=False, scp_role=True)],
            evt_handlers=[(evt.EVT_CONN_OPEN, bound), (evt.EVT_DIMSE_RECV, exchange.on_message)],
        )
    except OSError as error:  # the name of the host is not known
        sentence = f"The host name of {address} cannot be resolved: check host, or the DNS."
        raise PeerError("PEER_UNREACHABLE", sentence, retryable=True) from error
    if association.is_established:
        return association
    raise _not_established(association, address, calling_ae_title)


def _not_established(association: Association, address: ReportAddress, calling: str) -> PeerError:
    if association.is_rejected:
        reason = getattr(association.acceptor.primitive, "reason_str", "")
        sentence = (
            f"{address} rejected the association for a report of storage commitment ({reason}): ask its "
            f"administrator to take such associations from {calling}."
        )
        return PeerError("ASSOCIATION_REJECTED", sentence, retryable=True)
    if association.rejected_contexts:
        return PeerError("NO_PRESENTATION_CONTEXT", _not_accepted(str(address)), retryable=True)
    sentence = (
        f"{address} asked for storage commitment and cannot be called for the report: check its host and "
        "port under peers, and that it listens there."
    )
    return PeerError("PEER_UNREACHABLE", sentence, retryable=True)


def _not_accepted(who: str) -> str:
    return (
        f"{who} does not accept Storage Commitment Push Model with us as SCP (role selection): ask its "
        "administrator to allow reports on an association of their own."
    )
