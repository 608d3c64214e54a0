"""Storage and Verification SCU (PS3.4 Annexes A and B): encoded files to one peer, as they are.

Each file is proposed in exactly the transfer syntax that it is stored in, one presentation
context per (SOP class, transfer syntax), and its data set is sent unchanged.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from pydicom.dataset import Dataset
from pydicom.filereader import read_file_meta_info
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_ECHO, C_STORE
from pynetdicom.pdu import A_ABORT_RQ
from pynetdicom.presentation import PresentationContext, build_context

from gateway.deliver.answers import Answers, Request, take_only_answers
from gateway.deliver.negotiation import check_acceptance, not_established, not_listening
from gateway.errors import PeerError, breaks_protocol
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
        host = f"[{self.host}]" if ":" in self.host else self.host
        place = f"{self.ae_title}@{host}:{self.port}"
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
        self._opened: Association | None = None
        self._answers = Answers()
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

    def echo(self) -> None:
        """C-ECHO (PS3.4 Annex A); raises PeerError unless the answer is 0000."""
        status = self._ask(C_ECHO, VERIFICATION, self._association.send_c_echo)
        if status != 0x0000:
            sentence = f"{self.address} answered C-ECHO with status 0x{status:04X}."
            raise PeerError("ECHO_REFUSED", sentence, retryable=False)

    def store(self, stored: StoredObject) -> int:
        """C-STORE one file (PS3.4 Annex B); returns the status if the peer has the object now.

        Raises
        ------
        PeerError
            NO_PRESENTATION_CONTEXT, SOP_CLASS_NOT_SUPPORTED, PEER_BUSY, OBJECT_REFUSED,
            ASSOCIATION_ABORTED, PEER_SILENT, PEER_BREAKS_PROTOCOL or FILE_NOT_READABLE.
        """

        def send(message_id: int) -> Dataset:
            size_bytes = stored.path.stat().st_size
            self._association.dimse_timeout = self._timeout_s + size_bytes / _SLOWEST_BYTES_PER_S
            return self._association.send_c_store(stored.path, message_id)

        try:
            status = self._ask(C_STORE, stored.context, send)
        except OSError as error:
            sentence = f"{stored.path.name} could not be read ({error.strerror}): check the disk."
            raise PeerError("FILE_NOT_READABLE", sentence, retryable=True) from error
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

    def _ask(
        self, service: type[C_ECHO] | type[C_STORE], context: ContextKey, send: Callable[[int], Dataset]
    ) -> int:
        """Make a request, with a Message ID that no other has here; returns the status of its answer.

        Raises PeerError, and OSError for a file of ours. Half a message ends the association.
        """
        name = service.__name__.replace("_", "-")
        context_id = self._context_id(context)
        if context_id is None:
            raise self._not_accepted(context)
        self._message_id = self._message_id % 65535 + 1
        self._answers.await_answer(Request(service, context_id, self._message_id))
        try:
            answer = send(self._message_id)
        except OSError:
            self._abort()
            raise
        except RuntimeError as error:  # it ended between two requests
            raise self._ended(name) from error
        except Exception as error:  # pynetdicom raises many types where it trusts a peer
            self._abort()
            raise self._surprised(name, error) from error
        if "Status" in answer:
            return int(answer.Status)
        if self._answers.has_answered:
            raise breaks_protocol(str(self.address), f"answered {name} without a valid status (PS3.7 C)")
        raise self._ended(name)

    def _context_id(self, context: ContextKey) -> int | None:
        accepted = self._association.accepted_contexts
        found = (c.context_id for c in accepted if (c.abstract_syntax, c.transfer_syntax[0]) == context)
        return next(found, None)

    def _not_accepted(self, context: ContextKey) -> PeerError:
        return PeerError(
            "NO_PRESENTATION_CONTEXT",
            f"{self.address} does not accept SOP class {context[0]} in transfer syntax {context[1]}: ask its "
            "administrator to allow it.",
            retryable=True,
        )

    def _surprised(self, during: str, error: Exception) -> PeerError:
        what = f"did during {during} what DICOM does not foresee ({type(error).__name__})"
        return breaks_protocol(str(self.address), what)

    def _ended(self, service: str) -> PeerError:
        """Why there was no answer. When the peer is silent, it is we who abort."""
        if not self._we_aborted:
            sentence = f"{self.address} ended the association during {service}: its log may say why."
            return PeerError("ASSOCIATION_ABORTED", sentence, retryable=True)
        limit_s = self._association.dimse_timeout or self._timeout_s
        sentence = f"{self.address} did not answer {service} in {limit_s:.0f} s."
        if dropped := self._answers.dropped:
            sentence += f" It sent {dropped} other messages, which answer nothing that was asked."
        return PeerError("PEER_SILENT", sentence, retryable=True)

    def _abort(self) -> None:
        if self._opened is not None:
            self._opened.abort()

    # -- opening --------------------------------------------------------------------------------

    def _associate(self) -> Association:
        entity = AE(ae_title=self._calling)
        entity.acse_timeout = entity.dimse_timeout = self._timeout_s
        entity.network_timeout = max(self._timeout_s, 60.0)
        entity.connection_timeout = min(self._timeout_s, _LONGEST_CONNECT_S)
        self._we_aborted = False
        who, contexts = str(self.address), _presentation_contexts(self.contexts)
        try:
            association = entity.associate(
                self.address.host,
                self.address.port,
                contexts=contexts,
                ae_title=self.address.ae_title,
                evt_handlers=[
                    (evt.EVT_CONN_OPEN, self._on_open),
                    (evt.EVT_PDU_SENT, self._on_sent),
                    (evt.EVT_PDU_RECV, _acknowledge_quickly),
                ],
            )
            if association.is_established:
                check_acceptance(association, who)
                return association
        except OSError as error:  # the name of the host is not known
            sentence = f"The host name of {who} cannot be resolved: check host, or the DNS."
            raise PeerError("PEER_UNREACHABLE", sentence, retryable=True) from error
        except PeerError:
            self._abort()
            raise
        except Exception as error:
            if self._opened is None:  # no peer had a part in that
                raise
            self._abort()
            raise self._surprised("A-ASSOCIATE", error) from error
        if self._opened is None:
            raise not_listening(who)
        raise not_established(association, who, self.address.ae_title, self._calling)

    def _on_open(self, event: evt.Event) -> None:
        self._opened = event.assoc
        self._answers = take_only_answers(event.assoc)
        _option(event.assoc, socket.TCP_NODELAY)

    def _on_sent(self, event: evt.Event) -> None:
        self._we_aborted = self._we_aborted or isinstance(event.pdu, A_ABORT_RQ)
        _acknowledge_quickly(event)


def _presentation_contexts(keys: Collection[ContextKey]) -> list[PresentationContext]:
    if len(keys) > _MOST_CONTEXTS:
        raise ValueError(f"{len(keys)} presentation contexts; an association has at most {_MOST_CONTEXTS}")
    return [build_context(sop_class, transfer_syntax) for sop_class, transfer_syntax in sorted(keys)]


def _acknowledge_quickly(event: evt.Event) -> None:
    """Many peers write an answer in two pieces and wait for our TCP acknowledgement in between."""
    _option(event.assoc, socket.TCP_QUICKACK)


def _option(association: Association, option: int) -> None:
    wrapped = association.dul.socket
    if wrapped is not None and wrapped.socket is not None:
        wrapped.socket.setsockopt(socket.IPPROTO_TCP, option, 1)
