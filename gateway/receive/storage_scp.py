"""The storage SCP: C-ECHO and C-STORE from configured peers (PS3.4 annexes A and B).

0000 is answered only after :meth:`gateway.receive.admit.Admission.admit` returned.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import traceback
from collections.abc import Sequence
from typing import Literal

from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event
from pynetdicom.presentation import PresentationContext
from structlog.typing import FilteringBoundLogger

from gateway.clock import Clock
from gateway.errors import Rejected
from gateway.journal import Journal
from gateway.receive.admit import Admission, Arrival
from gateway.receive.associations import OpenAssociations
from gateway.receive.callers import Callers, KnownPeer, Refusal
from gateway.receive.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from gateway.receive.text import ascii_text, printable
from gateway.receive.transport import GuardedServer

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
CANNOT_UNDERSTAND = 0xC000
_TRANSIENT, _PRESENTATION_PROVIDER, _LOCAL_LIMIT = 2, 3, 2
_ANSWERED_OVER_LIMIT_BYTES = 16 << 20  # a little too long gets a status; longer ends the association
_ERROR_COMMENT_CHARACTERS = 64  # VR LO, (0000,0902)


class StorageSCP:
    """Listens for associations; one thread pair per association (pynetdicom).

    Parameters
    ----------
    ae_title
        Ours; no other called AE title is answered.
    host, port
        Where to listen; port 0 takes a free one, see :attr:`port`.
    peers
        The configured peers that may send to us.
    unknown_callers
        Whether callers that are no configured peer are taken.
    max_associations
        Open at the same time; one more is rejected as transient.
    max_pdu_bytes
        The longest P-DATA-TF that a peer may send.
    idle_timeout_s
        A peer that is silent for so long loses its association.
    contexts
        From :func:`gateway.receive.contexts.storage_contexts`.
    """

    def __init__(
        self,
        *,
        ae_title: str,
        host: str,
        port: int,
        peers: Sequence[KnownPeer],
        unknown_callers: Literal["reject", "accept"],
        max_associations: int,
        max_pdu_bytes: int,
        idle_timeout_s: float,
        contexts: Sequence[PresentationContext],
        admission: Admission,
        associations: OpenAssociations,
        journal: Journal,
        clock: Clock,
        log: FilteringBoundLogger,
    ) -> None:
        self._address = (host, port)
        self._callers = Callers(ae_title, peers, unknown_callers)
        self._max_associations = max_associations
        self._idle_timeout_s = idle_timeout_s
        self._contexts = list(contexts)
        self._admission = admission
        self._associations = associations
        self._journal = journal
        self._clock = clock
        self._log = log
        self._gate = threading.Lock()
        self._server: GuardedServer | None = None
        self._ae = AE(ae_title)
        self._ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        self._ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        self._ae.maximum_pdu_size = max_pdu_bytes
        # Ours is the limit that answers; this one also counts connections that never say hello.
        self._ae.maximum_associations = 4 * max_associations
        self._ae.network_timeout = idle_timeout_s
        self._ae.dimse_timeout = idle_timeout_s
        self._ae.acse_timeout = min(idle_timeout_s, 30.0)

    @property
    def port(self) -> int:
        """The port that we listen on; known after :meth:`start`."""
        if self._server is None:
            raise RuntimeError("the storage SCP is not started")
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Bind and accept; raises OSError if the address cannot be bound."""
        # pynetdicom prints data sets and protocol text; what a person needs, we log ourselves.
        logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
        self._server = GuardedServer(
            self._ae,
            self._address,
            self._contexts,
            [
                (evt.EVT_REQUESTED, self._on_requested),
                (evt.EVT_C_ECHO, self._on_echo),
                (evt.EVT_C_STORE, self._on_store),
            ],
            on_end=self._on_end,
            on_overrun=self._on_overrun,
            max_message_bytes=self._admission.max_instance_bytes + _ANSWERED_OVER_LIMIT_BYTES,
            receive_timeout_s=self._idle_timeout_s,
        )
        threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.1},
            name="storage-scp",
            daemon=True,
        ).start()

    def stop(self, drain_timeout_s: float) -> None:
        """Stop accepting, let open associations finish for so long, then abort them."""
        server = self._server
        if server is None:
            return
        server.stop_accepting()
        if not self._associations.wait_until_none(drain_timeout_s):
            self._log.warning("associations_aborted", open=self._associations.by_source())
        # A connection that never asked for an association has no A-ABORT; it ends with the process.
        established = [a for a in server.active_associations if a.is_established]
        for association in established:
            association.abort()
        for association in established:
            association.join(timeout=5.0)
        self._server = None

    # -- associations -------------------------------------------------------------------------

    def _on_requested(self, event: Event) -> None:
        """Accept or reject, before negotiation. Whatever fails here, rejects."""
        try:
            refusal = self._admit_association(event.assoc)
        except Exception:
            self._reject(event.assoc, _internal_refusal())
            raise
        if refusal is not None:
            self._note_refusal(refusal)
            self._reject(event.assoc, refusal)

    def _admit_association(self, association: Association) -> Refusal | None:
        request = association.requestor.primitive
        if request is None:
            raise ValueError("pynetdicom asked about an association without a request")
        address = association.requestor.address
        called, calling = request.called_ae_title or "", request.calling_ae_title or ""
        caller = self._callers.identify(called, calling, address)
        if isinstance(caller, Refusal):
            return caller
        with self._gate:
            count = self._associations.count()
            if count >= self._max_associations:
                return Refusal(
                    "TOO_MANY_ASSOCIATIONS",
                    f"{caller} called while {count} associations were open and dicom.max_associations is "
                    f"{self._max_associations}: the calling system should try again.",
                    _TRANSIENT,
                    _PRESENTATION_PROVIDER,
                    _LOCAL_LIMIT,
                )
            self._associations.opened(association, caller)
        self._log.info("association_opened", source=caller, address=address)
        return None

    def _note_refusal(self, refusal: Refusal) -> None:
        self._record("association", refusal.name, refusal.reason)

    def _record(self, subject: str, name: str, reason: str) -> None:
        self._log.warning(f"{subject}_rejected", name=name, reason=reason)
        try:
            self._journal.record(subject, name, reason, self._clock.now_s())
        except sqlite3.Error as error:
            self._log.error("journal_unavailable", reason=str(error))

    def _reject(self, association: Association, refusal: Refusal) -> None:
        association.acse.send_reject(refusal.result, refusal.source, refusal.diagnostic)
        association.kill()  # waits until the A-ASSOCIATE-RJ is out

    def _on_end(self, association: Association) -> None:
        source = self._associations.source_of(association)
        if source is not None:
            ending = "released" if association.is_released else "aborted"
            self._log.info("association_ended", source=source, ending=ending)
        self._associations.closed(association)

    def _on_overrun(self, association: Association) -> None:
        source = self._associations.source_of(association) or ""
        reason = (
            f"{source} sent more than {self._admission.max_instance_bytes >> 20} MiB "
            "(admission.max_instance_size) in one message; the association was aborted."
        )
        self._record("instance", "INSTANCE_TOO_LARGE", reason)

    # -- services -----------------------------------------------------------------------------

    def _on_echo(self, event: Event) -> int:  # noqa: ARG002 - the signature is pynetdicom's
        return SUCCESS

    def _on_store(self, event: Event) -> Dataset:
        """Answer a C-STORE: exactly one status, never an exception (pynetdicom would say C211)."""
        try:
            receipt = self._admit_instance(event)
        except Rejected as rejection:
            return _status(rejection.dimse_status, f"{rejection.name}: {rejection.reason}")
        except OSError as error:
            self._log.error("store_failed", reason=error.strerror or type(error).__name__)
            return _status(OUT_OF_RESOURCES, "DISK_ERROR: the gateway cannot store now, send again later.")
        except Exception as error:  # noqa: BLE001 - the peer must get an answer that we chose
            # Names and places only: the text of an unforeseen exception may quote the data set.
            frames = [f"{f.name}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)]
            self._log.error("store_failed", error=type(error).__name__, frames=frames)
            return _status(CANNOT_UNDERSTAND, "INTERNAL_ERROR: see the log of the gateway.")
        self._log.debug("instance_admitted", receipt=receipt)
        return _status(SUCCESS)

    def _admit_instance(self, event: Event) -> str:
        request, context = event.request, event.context
        if not isinstance(request, C_STORE) or request.DataSet is None:
            raise Rejected("EMPTY_DATA_SET", "The request has no data set.")
        sop_class_uid = str(request.AffectedSOPClassUID)
        if sop_class_uid != context.abstract_syntax:
            raise Rejected(
                "SOP_CLASS_NOT_NEGOTIATED",
                f"The request is for {printable(sop_class_uid)} in a presentation context for "
                f"{context.abstract_syntax}.",
                0x0122,
            )
        arrival = Arrival(
            source=self._associations.source_of(event.assoc) or "",
            source_ae_title=event.assoc.requestor.ae_title,
            sop_class_uid=sop_class_uid,
            sop_instance_uid=str(request.AffectedSOPInstanceUID),
            transfer_syntax_uid=str(context.transfer_syntax),
        )
        return self._admission.admit(request.DataSet.getbuffer(), arrival)


def _internal_refusal() -> Refusal:
    return Refusal("INTERNAL_ERROR", "The gateway could not decide; see its log.", _TRANSIENT, 1, 1)


def _status(code: int, comment: str = "") -> Dataset:
    """Status (0000,0900) and Error Comment (0000,0902) of a response."""
    status = Dataset()
    status.Status = code
    if comment:
        status.ErrorComment = ascii_text(comment, _ERROR_COMMENT_CHARACTERS)
    return status
