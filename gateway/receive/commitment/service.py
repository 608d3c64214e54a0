"""Storage Commitment Push Model as SCP: N-ACTION from known peers (PS3.4 annex J).

0000 is answered only after the request is durable in the journal; the report follows, see
:mod:`gateway.receive.commitment.reporter`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import build_context, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import N_ACTION
from pynetdicom.presentation import PresentationContext
from structlog.typing import FilteringBoundLogger

from gateway import failpoint
from gateway.clock import Clock
from gateway.errors import OutOfResources, RefusedByState, Rejected
from gateway.journal import Journal
from gateway.journal.commitment_records import NewCommitment
from gateway.logs import places
from gateway.receive.associations import OpenAssociations
from gateway.receive.commitment.check import examine
from gateway.receive.commitment.codec import INVALID_ARGUMENT, RESOURCE_LIMITATION, read_request
from gateway.receive.commitment.lines import QUIET_S, Lines
from gateway.receive.commitment.link import (
    PUSH_MODEL,
    PUSH_MODEL_INSTANCE,
    TRANSFER_SYNTAXES,
    Exchange,
    commitment_context,
)
from gateway.receive.records import Incidents
from gateway.receive.text import ascii_text, printable, uid_text

_SUCCESS, _PROCESSING_FAILURE, _NO_SUCH_INSTANCE, _NO_SUCH_CLASS = 0x0000, 0x0110, 0x0112, 0x0118
_NO_SUCH_ACTION, _NOT_AUTHORISED = 0x0123, 0x0124
_REQUEST_STORAGE_COMMITMENT = 1  # Action Type ID, PS3.4 Table J.3-1
_MOST_OPEN_REQUESTS = 1000  # of one peer; more means that it cannot be told, or does not listen
_ERROR_COMMENT_CHARACTERS = 64
_STATE_STATUS = {"TRANSACTION_UID_IN_USE": INVALID_ARGUMENT, "TOO_MANY_OPEN_REQUESTS": RESOURCE_LIMITATION}


class StorageCommitment:
    """A service of the receiver; see :class:`gateway.receive.services.Service`.

    Parameters
    ----------
    spool_root
        Where the files of the instances are.
    check_space
        Raises OutOfResources if the disk would be too full with so many bytes more.
    lines, exchange
        Shared with the reporter.
    on_request
        Called after each request: a series may be complete now.
    """

    def __init__(
        self,
        journal: Journal,
        spool_root: Path,
        check_space: Callable[[int], None],
        associations: OpenAssociations,
        lines: Lines,
        exchange: Exchange,
        incidents: Incidents,
        clock: Clock,
        log: FilteringBoundLogger,
        on_request: Callable[[], None],
    ) -> None:
        self._journal = journal
        self._spool_root = spool_root
        self._check_space = check_space
        self._associations = associations
        self._lines = lines
        self._exchange = exchange
        self._clock = clock
        self._log = log
        self._on_request = on_request
        self._incidents = incidents

    def contexts(self) -> list[PresentationContext]:
        """The class, of which the requestor is SCU and we are SCP; other roles are not accepted."""
        context = build_context(PUSH_MODEL, list(TRANSFER_SYNTAXES))
        context.scu_role, context.scp_role = True, False
        return [context]

    def handlers(self) -> list[evt.EventHandlerType]:
        """What pynetdicom calls."""
        return [
            (evt.EVT_ESTABLISHED, self._on_established),
            (evt.EVT_N_ACTION, self._on_action),
            (evt.EVT_DIMSE_RECV, self._exchange.on_message),
        ]

    def ended(self, association: Association) -> None:
        """An association is gone: nothing more can be told on it."""
        self._lines.ended(association)

    def _on_established(self, event: evt.Event) -> None:
        source = self._associations.source_of(event.assoc)
        if source is not None and commitment_context(event.assoc) is not None:
            self._lines.opened(event.assoc, source)

    def _on_action(self, event: evt.Event) -> tuple[Dataset, None]:
        """Answer an N-ACTION: exactly one status, never an exception."""
        source = self._associations.source_of(event.assoc) or ""
        try:
            self._take(event, source)
        except Rejected as rejection:
            details = {"source": source, "dimse_status": f"{rejection.dimse_status:04X}"}
            reason = f"{source}: {rejection.reason}"
            self._incidents.note("commitment", rejection.name, reason, details)
            return _status(rejection.dimse_status, f"{rejection.name}: {rejection.reason}"), None
        except Exception as error:  # noqa: BLE001 - the peer must get an answer that we chose
            self._log.error("commitment_failed", error=type(error).__name__, places=places(error))
            return _status(_PROCESSING_FAILURE, "INTERNAL_ERROR: see the log of the gateway."), None
        return _status(_SUCCESS), None

    def _take(self, event: evt.Event, source: str) -> None:
        """Enter the request. Raises Rejected with the status to answer (PS3.7 10.1.4.1.10)."""
        data = _action_information(event, source)
        explicit_vr = event.context.transfer_syntax == ExplicitVRLittleEndian
        request = read_request(data, explicit_vr=explicit_vr)
        new = NewCommitment(
            source, str(event.assoc.requestor.ae_title).strip(), request.transaction_uid, request.references
        )
        try:
            self._check_space(len(data))
            outcome = examine(self._journal, self._spool_root, source, request.references)
            now_s = self._clock.now_s()
            commitment_id = self._journal.ask_commitment(
                new, outcome, now_s + QUIET_S, now_s, _MOST_OPEN_REQUESTS
            )
        except RefusedByState as error:
            raise Rejected(error.name, error.reason, _STATE_STATUS[error.name]) from error
        except OutOfResources as error:
            raise Rejected(error.name, error.reason, RESOURCE_LIMITATION) from error
        except sqlite3.Error as error:
            raise Rejected(
                "JOURNAL_UNAVAILABLE",
                f"The journal could not be written ({error}): check its disk.",
                _PROCESSING_FAILURE,
            ) from error
        failpoint.reach("commitment.asked")
        self._lines.asked(event.assoc, commitment_id)
        self._on_request()
        self._log.info(
            "commitment_asked", source=source, commitment=commitment_id, instances=len(request.references)
        )


def _action_information(event: evt.Event, source: str) -> memoryview:
    """The data set of a request that we serve at all."""
    request = event.request
    if not source:
        raise Rejected("SOURCE_UNKNOWN", "The association belongs to no known peer.", _NOT_AUTHORISED)
    if not isinstance(request, N_ACTION) or event.context.abstract_syntax != PUSH_MODEL:
        context = printable(str(event.context.abstract_syntax))
        raise Rejected(
            "SOP_CLASS_NOT_NEGOTIATED", f"N-ACTION in a presentation context for {context}.", _NO_SUCH_CLASS
        )
    if str(request.RequestedSOPInstanceUID) != PUSH_MODEL_INSTANCE:
        raise Rejected(
            "NO_SUCH_SOP_INSTANCE",
            f"Requested SOP Instance UID is {uid_text(str(request.RequestedSOPInstanceUID))}; Storage "
            f"Commitment Push Model has one instance, {PUSH_MODEL_INSTANCE} (PS3.4 J.3.5).",
            _NO_SUCH_INSTANCE,
        )
    if request.ActionTypeID != _REQUEST_STORAGE_COMMITMENT:
        raise Rejected(
            "NO_SUCH_ACTION",
            f"Action Type ID is {request.ActionTypeID}; the class has {_REQUEST_STORAGE_COMMITMENT}, Request "
            "Storage Commitment.",
            _NO_SUCH_ACTION,
        )
    return request.ActionInformation.getbuffer() if request.ActionInformation else memoryview(b"")


def _status(code: int, comment: str = "") -> Dataset:
    status = Dataset()
    status.Status = code
    if comment:
        status.ErrorComment = ascii_text(comment, _ERROR_COMMENT_CHARACTERS)
    return status
