"""N-EVENT-REPORT on an association: one that the peer opened, or one that we open (PS3.4 J.3.3).

A report is made by the thread that waits for its answer, and queued in one piece, so that no fragments of two
messages are mixed (PS3.7 6.3.1). Where the peer has requests of its own, the association's thread queues it,
between two of them. That thread never waits for the answer: it is handed over when it arrives.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import cast

from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dimse_messages import N_EVENT_REPORT_RQ, N_EVENT_REPORT_RSP
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.presentation import PresentationContext

from gateway.errors import PeerError, breaks_protocol
from gateway.receive.association.acceptor import GuardedAssociation
from gateway.receive.association.dul import UpperLayer

PUSH_MODEL = "1.2.840.10008.1.20.1"
PUSH_MODEL_INSTANCE = "1.2.840.10008.1.20.1.1"
"""SOP Class, and the one SOP Instance of it that everybody knows (PS3.4 J.3.5)."""

ALL_COMMITTED, FAILURES_EXIST = 1, 2
"""Event Type ID (PS3.4 Table J.3-2)."""

TRANSFER_SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
LEAST_PDU_BYTES = 4096
"""A peer that takes only shorter ones (DCMTK allows none) would have a report in millions of fragments."""

_MOST_PDU_BYTES = 128 << 10  # also for a peer that takes any
_LOOK_S = 0.1
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

        Raises PeerError: ASSOCIATION_ENDED, PEER_SILENT, NO_PRESENTATION_CONTEXT, MAXIMUM_LENGTH_TOO_SMALL,
        PEER_BREAKS_PROTOCOL, REPORT_REFUSED.
        """
        context_id, explicit_vr = _context(association, who)
        most_bytes = pdu_bytes(association, who)
        number = next(self._numbers) % 65535 + 1
        request = N_EVENT_REPORT()
        request.MessageID = number
        request.AffectedSOPClassUID = UID(PUSH_MODEL)
        request.AffectedSOPInstanceUID = UID(PUSH_MODEL_INSTANCE)
        request.EventTypeID = report.event_type
        request.EventInformation = BytesIO(report.encoded(explicit_vr))
        message = N_EVENT_REPORT_RQ()
        message.primitive_to_message(request)
        fragments = list(message.encode_msg(context_id, most_bytes))
        key = (association, number)
        answer: queue.SimpleQueue[int] = queue.SimpleQueue()
        with self._lock:
            self._waiting[key] = answer
        try:
            if isinstance(association, GuardedAssociation):
                association.between_requests(partial(self._send_if_awaited, key, fragments))
            else:
                _queue(association, fragments)
            _check(_wait(association, who, answer, timeout_s), who)
        finally:
            with self._lock:
                del self._waiting[key]

    def _send_if_awaited(self, key: tuple[Association, int], fragments: Sequence[P_DATA]) -> None:
        """Unless nobody waits for the answer any more."""
        with self._lock:
            is_awaited = key in self._waiting
        if is_awaited and key[0].is_established:
            _queue(key[0], fragments)


def _context(association: Association, who: str) -> tuple[int, bool]:
    """Its ID, and whether it is explicit VR little endian, else implicit (PS3.8 9.3.3.2)."""
    context = commitment_context(association)
    if context is None or context.context_id is None:
        raise PeerError("NO_PRESENTATION_CONTEXT", not_accepted(who), retryable=True)
    if not context.transfer_syntax or context.transfer_syntax[0] not in TRANSFER_SYNTAXES:
        raise breaks_protocol(who, "accepted its context for reports without a transfer syntax of ours")
    return context.context_id, context.transfer_syntax[0] == ExplicitVRLittleEndian


def pdu_bytes(association: Association, who: str) -> int:
    """The longest P-DATA-TF PDU for a report; raises PeerError: MAXIMUM_LENGTH_TOO_SMALL.

    What the peer has announced is believed (Maximum Length Received, PS3.8 D.1); 0 is no limit.
    """
    announced = association.dimse.maximum_pdu_size
    if announced and announced < LEAST_PDU_BYTES:
        raise PeerError(
            "MAXIMUM_LENGTH_TOO_SMALL",
            f"{who} takes PDUs of {announced} bytes at most, and a report of storage commitment needs "
            f"{LEAST_PDU_BYTES}: ask its administrator to raise its maximum PDU length.",
            retryable=True,
        )
    return min(announced or _MOST_PDU_BYTES, _MOST_PDU_BYTES)


def _queue(association: Association, fragments: Sequence[P_DATA]) -> None:
    """All at once: the thread that sends them answers C-STOREs when the queue is empty."""
    waiting = association.dul.to_provider_queue
    with waiting.mutex:
        waiting.queue.extend(fragments)
        waiting.unfinished_tasks += len(fragments)


def _wait(association: Association, who: str, answer: queue.SimpleQueue[int], timeout_s: float) -> int:
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        is_open = is_alive(association)
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


def is_alive(association: Association) -> bool:
    """Whether something can come of it: pynetdicom calls one established whose thread has died."""
    return bool(association.is_established) and association.dul.is_alive()


def quiet_s(association: Association) -> float:
    """Seconds since the peer has sent anything; 0 in the middle of a message. Of one that it opened."""
    layer = cast(UpperLayer, association.dul)
    left_s = layer.idle_left_s()
    return 0.0 if left_s == float("inf") else float(layer._idle_timer.timeout or 0.0) - float(left_s)


def not_accepted(who: str) -> str:
    """What to do when the class was not accepted."""
    return (
        f"{who} does not accept Storage Commitment Push Model with us as SCP (role selection): ask its "
        "administrator to allow reports on an association of their own."
    )
