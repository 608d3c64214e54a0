"""One part of a STOW-RS request: a DICOM file on its way to admission."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from gateway.errors import Rejected
from gateway.journal.records import Receipt
from gateway.receive.admit import Admission, Intake
from gateway.receive.arrival import Arrival, Note
from gateway.receive.callers import KnownPeer
from gateway.receive.stow.multipart_header import parse_media_type
from gateway.receive.stow.part10_stream import IDENTITY_BYTES, FileMeta, Part10Reader, first_identity
from gateway.receive.stow.request import DICOM, StowRefused, check_media_type
from gateway.receive.stow.response import DUPLICATE_KEPT, Failed, Stored
from gateway.uids import is_uid

_PLAIN_ENCODINGS = frozenset({"binary", "8bit", "7bit", "identity"})
_CLASS_REFUSED, _SYNTAX_REFUSED = 0x0122, 0xC122


@dataclass(frozen=True)
class Taken:
    """What is taken, and from whom."""

    peer: KnownPeer
    sop_classes: frozenset[str]
    transfer_syntaxes: frozenset[str]
    study_instance_uid: str | None = None


class WrongMedia(Rejected):
    """The part is no DICOM file by its own header fields."""


class Part:
    """One DICOM file on its way to admission.

    ``begin``, ``write`` and ``finish`` raise Rejected or OutOfResources, which are written down then, or
    OSError; after that nothing but ``failed`` may be called.
    """

    def __init__(self, admission: Admission, taken: Taken, note: Note) -> None:
        self._admission = admission
        self._taken = taken
        self._note = note
        self._reader = Part10Reader()
        self._first = bytearray()
        self._intake: Intake | None = None
        self._arrival = arrival_of(taken)
        self._size_bytes = 0

    def begin(self, fields: Mapping[str, str]) -> None:
        """Its header fields: only DICOM files, not encoded."""
        with self._noted():
            try:
                check_media_type(parse_media_type(fields.get("content-type", DICOM)).name)
            except StowRefused as refusal:
                raise WrongMedia(refusal.name, refusal.reason) from refusal
            for name in ("content-transfer-encoding", "content-encoding"):
                if fields.get(name, "binary").lower() not in _PLAIN_ENCODINGS:
                    raise WrongMedia("PART_ENCODING_REFUSED", f"A part has a {name}: send it as it is.")

    def write(self, data: memoryview | bytes) -> None:
        """Its next bytes."""
        self._size_bytes += len(data)
        if self._intake is None:
            with self._noted():
                data = self._reader.feed(data)
                taken = data[: IDENTITY_BYTES - len(self._first)]
                self._first += taken
                data = data[len(taken) :]
                is_known = self._identify(is_complete=False)
            if is_known:
                self._intake = self._admitted()
        if self._intake is not None and len(data):
            self._intake.write(data)

    def finish(self) -> Stored:
        """It is complete: make it durable."""
        if self._intake is None:
            with self._noted():
                self._reader.finish()
                self._identify(is_complete=True)
            self._intake = self._admitted()
        receipt = self._intake.finish()
        uids = (self._arrival.sop_class_uid, self._arrival.sop_instance_uid)
        return Stored(*uids, DUPLICATE_KEPT if receipt is Receipt.CONFLICT else None)

    def failed(self, rejection: Rejected) -> Failed:
        """What the answer says of it; nothing of it is kept."""
        if self._intake is not None:
            self._intake.discard()
        uids = (self._arrival.sop_class_uid, self._arrival.sop_instance_uid)
        comment = f"{rejection.name}: {rejection.reason}"
        status = 415 if isinstance(rejection, WrongMedia) else 409
        return Failed(rejection.dimse_status, comment, *uids, http_status=status)

    def note(self, rejection: Rejected) -> None:
        """Write down why it is not taken, where admission does not do so."""
        self._note(rejection, self._arrival, self._size_bytes)

    @contextmanager
    def _noted(self) -> Iterator[None]:
        """Around all that is found before admission is asked."""
        try:
            yield
        except Rejected as rejection:
            self.note(rejection)
            raise

    def _identify(self, *, is_complete: bool) -> bool:
        """Find out what comes; False if more bytes are needed for that."""
        meta = self._reader.meta
        if meta is None:
            return False
        self._arrival = arrival_of(self._taken, meta)
        if meta.transfer_syntax_uid not in self._taken.transfer_syntaxes:
            sentence = f"The transfer syntax {meta.transfer_syntax_uid} is not taken: send another one."
            raise Rejected("TRANSFER_SYNTAX_REFUSED", sentence, _SYNTAX_REFUSED)
        identity = first_identity(bytes(self._first), meta.transfer_syntax_uid)
        if identity is None and not is_complete:
            return False
        if identity is not None and all(map(is_uid, identity)):
            meta = FileMeta(*identity, meta.transfer_syntax_uid)
            self._arrival = arrival_of(self._taken, meta)
        self._check_class(meta.sop_class_uid)
        return True

    def _admitted(self) -> Intake:
        intake = self._admission.begin(self._arrival, self._note)
        intake.write(bytes(self._first))
        self._first.clear()
        return intake

    def _check_class(self, sop_class_uid: str) -> None:
        peer = self._taken.peer
        if sop_class_uid not in self._taken.sop_classes:
            sentence = f"The SOP class {sop_class_uid} is not taken: add it to dicom.storage_classes."
        elif not peer.takes(sop_class_uid):
            sentence = (
                f"The SOP class {sop_class_uid} is not taken from {peer.name}: see its storage_classes."
            )
        else:
            return
        raise Rejected("SOP_CLASS_REFUSED", sentence, _CLASS_REFUSED)


def arrival_of(taken: Taken, meta: FileMeta | None = None) -> Arrival:
    """What is known of a part before it is admitted."""
    return Arrival(
        source=taken.peer.name,
        source_ae_title=taken.peer.ae_title,
        sop_class_uid=meta.sop_class_uid if meta else "",
        sop_instance_uid=meta.sop_instance_uid if meta else "",
        transfer_syntax_uid=meta.transfer_syntax_uid if meta else "",
        study_instance_uid=taken.study_instance_uid,
    )
