"""One part of a STOW-RS request: a DICOM file on its way to admission."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gateway.errors import Rejected
from gateway.journal.records import Receipt
from gateway.receive.admit import Admission, Arrival, Intake
from gateway.receive.callers import KnownPeer
from gateway.receive.stow.multipart_header import parse_media_type
from gateway.receive.stow.part10_stream import IDENTITY_BYTES, FileMeta, Part10Reader, first_identity
from gateway.receive.stow.request import DICOM, StowRefused, check_media_type
from gateway.receive.stow.response import DUPLICATE_KEPT, Failed, Stored
from gateway.receive.text import printable
from gateway.uids import is_uid

_PLAIN_ENCODINGS = frozenset({"binary", "8bit", "7bit", "identity"})
_CLASS_REFUSED, _SYNTAX_REFUSED = 0x0122, 0xC122

Note = Callable[[Rejected, Arrival, int], None]
"""Writes down why a part is not taken, what is known of it, and how many bytes of it came."""


@dataclass(frozen=True)
class Taken:
    """What is taken, and from whom."""

    peer: KnownPeer
    sop_classes: frozenset[str]
    transfer_syntaxes: frozenset[str]
    study_instance_uid: str | None = None


class Part:
    """One DICOM file on its way to admission."""

    def __init__(self, admission: Admission, taken: Taken, note: Note) -> None:
        self._admission = admission
        self._taken = taken
        self._note = note
        self._reader = Part10Reader()
        self._first = bytearray()
        self._intake: Intake | None = None
        self._arrival = arrival_of(taken)
        self._size_bytes = 0
        self.stored: Stored | None = None
        self.failure: Failed | None = None

    def begin(self, fields: Mapping[str, str]) -> None:
        """Its header fields: only DICOM files, not encoded."""
        try:
            check_media_type(parse_media_type(fields.get("content-type", DICOM)).name)
        except StowRefused as refusal:
            self._fail(Rejected(refusal.name, refusal.reason), refusal.status)
            return
        for name in ("content-transfer-encoding", "content-encoding"):
            encoding = fields.get(name, "binary").lower()
            if encoding not in _PLAIN_ENCODINGS:
                sentence = f"A part has {name} '{printable(encoding)}': send it as it is."
                self._fail(Rejected("PART_ENCODING_REFUSED", sentence), 415)

    def write(self, data: memoryview | bytes) -> None:
        """Its next bytes."""
        self._size_bytes += len(data)
        if self._intake is None:
            try:
                data = self._reader.feed(data)
                taken = data[: IDENTITY_BYTES - len(self._first)]
                self._first += taken
                data = data[len(taken) :]
                self._begin_intake(is_complete=False)
            except Rejected as rejection:
                self._fail(rejection)
                return
        if self._intake is not None and len(data):
            self._intake.write(data)

    def finish(self) -> None:
        """It is complete: make it durable."""
        if self._intake is None:
            try:
                self._reader.finish()
                self._begin_intake(is_complete=True)
            except Rejected as rejection:
                self._fail(rejection)
                return
        if self._intake is None:
            raise RuntimeError("a data set is complete, and has no intake")
        receipt = self._intake.finish()
        uids = (self._arrival.sop_class_uid, self._arrival.sop_instance_uid)
        self.stored = Stored(*uids, DUPLICATE_KEPT if receipt is Receipt.CONFLICT else None)

    def failed_by(self, rejection: Rejected) -> None:
        """Admission does not take it, and has written down why."""
        uids = (self._arrival.sop_class_uid, self._arrival.sop_instance_uid)
        self.failure = Failed(rejection.dimse_status, f"{rejection.name}: {rejection.reason}", *uids)
        self.discard()

    def discard(self) -> None:
        """The rest will not come."""
        if self._intake is not None:
            self._intake.discard()

    def _begin_intake(self, *, is_complete: bool) -> None:
        """Once it is known what comes. Raises Rejected for what admission is not even asked about."""
        meta = self._reader.meta
        if meta is None:
            return
        self._arrival = arrival_of(self._taken, meta)
        if meta.transfer_syntax_uid not in self._taken.transfer_syntaxes:
            sentence = f"The transfer syntax {meta.transfer_syntax_uid} is not taken: send another one."
            raise Rejected("TRANSFER_SYNTAX_REFUSED", sentence, _SYNTAX_REFUSED)
        identity = first_identity(bytes(self._first), meta.transfer_syntax_uid)
        if identity is None and not is_complete:
            return
        if identity is not None and all(map(is_uid, identity)):
            meta = FileMeta(*identity, meta.transfer_syntax_uid)
            self._arrival = arrival_of(self._taken, meta)
        self._check_class(meta.sop_class_uid)
        intake = self._admission.begin(self._arrival)
        intake.write(bytes(self._first))
        self._intake = intake
        self._first.clear()

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

    def _fail(self, rejection: Rejected, http_status: int = 409) -> None:
        """Not taken, before admission knew of it."""
        self._note(rejection, self._arrival, self._size_bytes)
        uids = (self._arrival.sop_class_uid, self._arrival.sop_instance_uid)
        comment = f"{rejection.name}: {rejection.reason}"
        self.failure = Failed(rejection.dimse_status, comment, *uids, http_status=http_status)


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
