"""Storage and Verification SCU (PS3.4 Annexes A and B): encoded files to one peer, as they are.

Each file is proposed in exactly the transfer syntax that it is stored in, one presentation
context per (SOP class, transfer syntax), and its data set is sent unchanged.
"""

from __future__ import annotations

import socket
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydicom.filereader import read_file_meta_info
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.pdu import A_ABORT_RQ
from pynetdicom.presentation import PresentationContext, build_context

from gateway.errors import PeerError
from gateway.retry import Answer, classify_store_status

# Only this module sends C-STORE requests: read the data set from the file, PDU by PDU, undecoded.
_config.STORE_SEND_CHUNKED_DATASET = True

VERIFICATION = ("1.2.840.10008.1.1", "1.2.840.10008.1.2")
_MOST_CONTEXTS = 128  # context ids are the odd numbers 1 to 255 (PS3.8 9.3.2.2)
_LONGEST_CONNECT_S = 10.0
_SLOWEST_BYTES_PER_S = 250_000

ContextKey = tuple[str, str]
"""SOP class UID and transfer syntax UID."""


@dataclass(frozen=True)
class Address:
    """A peer that we call. ``name`` is for messages: the peer's name in the configuration."""

    name: str
    ae_title: str
    host: str
    port: int

    def __str__(self) -> str:
        place = f"{self.ae_title}@{self.host}:{self.port}"
        return place if self.name == place else f"{self.name} ({place})"


@dataclass(frozen=True)
class StoredObject:
    """A Part 10 file, with what its file meta information says."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str

    @property
    def context(self) -> ContextKey:
        """The presentation context that it needs."""
        return self.sop_class_uid, self.transfer_syntax_uid


def read_stored_object(path: Path) -> StoredObject:
    """Read the file meta information of a Part 10 file; ValueError if it is none."""
    try:
        meta = read_file_meta_info(path)
        return StoredObject(
            path=path,
            sop_class_uid=str(meta.MediaStorageSOPClassUID),
            sop_instance_uid=str(meta.MediaStorageSOPInstanceUID),
            transfer_syntax_uid=str(meta.TransferSyntaxUID),
        )
    except Exception as error:  # pydicom raises many types on hostile bytes
        raise ValueError(f"{path.name} is not a DICOM file with file meta information") from error


class StorageSCU:
    """One association; ``with StorageSCU(address, "AIGW", contexts, 60.0) as scu: scu.store(…)``.

    Every failure is a PeerError with a name and a sentence that says what to do. ``retryable`` is
    False only when the peer does not want this very object.
    """

    def __init__(
        self, address: Address, calling_ae_title: str, contexts: Collection[ContextKey], timeout_s: float
    ) -> None:
        self.address = address
        self.contexts = frozenset(contexts)
        self._calling = calling_ae_title
        self._timeout_s = timeout_s
        self._connected = False
        self._association = self._associate()
        self._message_id = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the association."""
        if self._association.is_established:
            self._association.release()

    @property
    def is_established(self) -> bool:
        """False once the association has ended, by whomever."""
        return bool(self._association.is_established)

    def accepts(self, context: ContextKey) -> bool:
        """Whether the peer accepted a presentation context."""
        accepted = self._association.accepted_contexts
        return any((c.abstract_syntax, c.transfer_syntax[0]) == context for c in accepted)

    def echo(self) -> None:
        """C-ECHO (PS3.4 Annex A); raises PeerError unless the answer is 0000."""
        status = self._answer(self._association.send_c_echo(self._next_message_id()), "C-ECHO")
        if status != 0x0000:
            sentence = f"{self.address} answered C-ECHO with status 0x{status:04X}."
            raise PeerError("ECHO_REFUSED", sentence, retryable=False)

    def store(self, stored: StoredObject) -> int:
        """C-STORE one file (PS3.4 Annex B); returns the status if the peer has the object now.

        Raises
        ------
        PeerError
            NO_PRESENTATION_CONTEXT, SOP_CLASS_NOT_SUPPORTED, PEER_BUSY, OBJECT_REFUSED,
            ASSOCIATION_ABORTED or PEER_SILENT.
        """
        if not self.accepts(stored.context):
            raise PeerError(
                "NO_PRESENTATION_CONTEXT",
                f"{self.address} does not accept SOP class {stored.sop_class_uid} in transfer syntax "
                f"{stored.transfer_syntax_uid}: ask its administrator to allow it.",
                retryable=True,
            )
        size_bytes = stored.path.stat().st_size
        self._association.dimse_timeout = self._timeout_s + size_bytes / _SLOWEST_BYTES_PER_S
        try:
            response = self._association.send_c_store(stored.path, self._next_message_id())
        except (RuntimeError, OSError) as error:  # it ended between two objects
            raise self._ended("C-STORE") from error
        status = self._answer(response, "C-STORE")
        self._check(status, stored)
        return status

    def _check(self, status: int, stored: StoredObject) -> None:
        what = (
            f"{self.address} answered C-STORE of SOP class {stored.sop_class_uid} with status 0x{status:04X}"
        )
        match classify_store_status(status):
            case Answer.STORED:
                return
            case Answer.BUSY:
                sentence = f"{what} (out of resources or processing failure): it is tried again."
                raise PeerError("PEER_BUSY", sentence, retryable=True)
            case Answer.NOT_CONFIGURED:
                sentence = f"{what}: ask its administrator to allow this SOP class and {self._calling}."
                raise PeerError("SOP_CLASS_NOT_SUPPORTED", sentence, retryable=True)
            case Answer.REFUSED:
                sentence = f"{what}: it does not want this object; its log says why."
                raise PeerError("OBJECT_REFUSED", sentence, retryable=False)

    def _answer(self, response: Any, service: str) -> int:
        if "Status" not in response:
            raise self._ended(service)
        return int(response.Status)

    def _ended(self, service: str) -> PeerError:
        """Why there was no answer. When the peer is silent, it is we who abort."""
        if not self._we_aborted:
            sentence = f"{self.address} ended the association during {service}: its log may say why."
            return PeerError("ASSOCIATION_ABORTED", sentence, retryable=True)
        limit_s = self._association.dimse_timeout or self._timeout_s
        sentence = f"{self.address} did not answer {service} in {limit_s:.0f} s."
        return PeerError("PEER_SILENT", sentence, retryable=True)

    def _next_message_id(self) -> int:
        self._message_id = self._message_id % 65535 + 1
        return self._message_id

    # -- opening --------------------------------------------------------------------------------

    def _associate(self) -> Association:
        entity = AE(ae_title=self._calling)
        entity.acse_timeout = entity.dimse_timeout = self._timeout_s
        entity.network_timeout = max(self._timeout_s, 60.0)
        entity.connection_timeout = min(self._timeout_s, _LONGEST_CONNECT_S)
        self._we_aborted = False
        try:
            association = entity.associate(
                self.address.host,
                self.address.port,
                contexts=_presentation_contexts(self.contexts),
                ae_title=self.address.ae_title,
                evt_handlers=[
                    (evt.EVT_CONN_OPEN, self._on_open),
                    (evt.EVT_PDU_SENT, self._on_sent),
                    (evt.EVT_PDU_RECV, _acknowledge_quickly),
                ],
            )
        except OSError as error:  # the name of the host is not known
            sentence = f"The host name of {self.address} cannot be resolved: check host, or the DNS."
            raise PeerError("PEER_UNREACHABLE", sentence, retryable=True) from error
        if not association.is_established:
            raise self._not_established(association)
        _give_answers_back(association)
        return association

    def _on_open(self, event: evt.Event) -> None:
        self._connected = True
        _option(event.assoc, socket.TCP_NODELAY)

    def _on_sent(self, event: evt.Event) -> None:
        self._we_aborted = self._we_aborted or isinstance(event.pdu, A_ABORT_RQ)
        _acknowledge_quickly(event)

    def _not_established(self, association: Association) -> PeerError:
        if not self._connected:
            sentence = (
                f"Nobody listens at {self.address}, or the network does not lead there: "
                "check host and port, and that the system runs."
            )
            return PeerError("PEER_UNREACHABLE", sentence, retryable=True)
        if association.is_rejected:
            return self._rejected(association.acceptor.primitive)
        if association.rejected_contexts:
            sentence = (
                f"{self.address} accepts none of the presentation contexts: ask its administrator to allow "
                f"{', '.join(sorted({str(c.abstract_syntax) for c in association.rejected_contexts}))}."
            )
            return PeerError("NO_PRESENTATION_CONTEXT", sentence, retryable=True)
        sentence = f"{self.address} took the connection but did not answer as a DICOM node: check the port."
        return PeerError("ASSOCIATION_ABORTED", sentence, retryable=True)

    def _rejected(self, answer: Any) -> PeerError:
        """PS3.8 Table 9-21: result, source, reason."""
        asks = {
            (1, 3): f"ask its administrator to register our AE title {self._calling}",
            (1, 7): f"check the AE title {self.address.ae_title} in our configuration",
        }.get((answer.result_source, answer.diagnostic), "it is tried again later")
        kind = "transient" if answer.result == 2 else "permanent"
        sentence = f"{self.address} rejected the association ({kind}: {answer.reason_str}): {asks}."
        return PeerError("ASSOCIATION_REJECTED", sentence, retryable=True)


def _presentation_contexts(keys: Collection[ContextKey]) -> list[PresentationContext]:
    if len(keys) > _MOST_CONTEXTS:
        raise ValueError(f"{len(keys)} presentation contexts; an association has at most {_MOST_CONTEXTS}")
    return [build_context(sop_class, transfer_syntax) for sop_class, transfer_syntax in sorted(keys)]


def _give_answers_back(association: Association) -> None:
    """pynetdicom's thread may have taken an answer already when it is paused: it would drop it."""
    serve = association._serve_request

    def serve_or_give_back(msg: Any, context_id: int) -> None:
        if getattr(msg, "Status", None) is None:
            serve(msg, context_id)
        else:
            association.dimse.msg_queue.put((context_id, msg))

    association._serve_request = serve_or_give_back  # type: ignore[method-assign]


def _acknowledge_quickly(event: evt.Event) -> None:
    """Many peers write an answer in two pieces and wait for our TCP acknowledgement in between."""
    _option(event.assoc, socket.TCP_QUICKACK)


def _option(association: Association, option: int) -> None:
    wrapped = association.dul.socket
    if wrapped is not None and wrapped.socket is not None:
        wrapped.socket.setsockopt(socket.IPPROTO_TCP, option, 1)
