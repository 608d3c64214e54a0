"""Admission: bytes and their peer → spool → journal → receipt. THE durability point.

When :meth:`Admission.admit` returns, the instance survives a power cut and may be acknowledged.
Every rejection is written down in the journal, without any patient attribute.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from structlog.typing import FilteringBoundLogger

from gateway import failpoint
from gateway.clock import Clock
from gateway.errors import OutOfResources, Rejected
from gateway.header import InstanceHeader
from gateway.journal import Journal
from gateway.journal.records import Duplicates, NewInstance, Receipt
from gateway.receive.arrival import Arrival, Note, check_identity, check_uids
from gateway.receive.part10 import file_header
from gateway.receive.tags import read_header
from gateway.receive.tally import Tally
from gateway.receive.text import uid_text
from gateway.spool import Bytes, Incoming, Spool, StoredFile

_CHECK_SPACE_EVERY_BYTES = 4 << 20
_DUPLICATE_SOP_INSTANCE = 0x0111  # PS3.7 C.5.6
_REFUSALS = {
    Receipt.REFUSED: (
        "DUPLICATE_SOP_INSTANCE_REFUSED",
        "is here already with other bytes, which are kept (admission.duplicates: refuse): "
        "send it under a UID of its own.",
    ),
    Receipt.RELABELLED: (
        "DUPLICATE_TRANSFER_SYNTAX_REFUSED",
        "is known with the same bytes under another transfer syntax: send it as it was sent first or, "
        "where that was wrong, under a UID of its own.",
    ),
}


@dataclass(frozen=True)
class AdmissionLimits:
    """What is taken in: size of one data set, the space that must stay on the disk, and which duplicates."""

    max_instance_bytes: int = 2 * 1024**3
    keep_free_bytes: int = 512 * 1024**2
    refuse_over_fraction: float = 0.95
    duplicates: Duplicates = Duplicates.KEEP_FIRST


class Admission:
    """Takes instances in; safe to call from the threads of several associations."""

    def __init__(
        self,
        spool: Spool,
        journal: Journal,
        clock: Clock,
        log: FilteringBoundLogger,
        limits: AdmissionLimits | None = None,
        tally: Tally | None = None,
    ) -> None:
        self.spool = spool
        self.tally = tally or Tally()
        self._journal = journal
        self._clock = clock
        self._log = log
        self._limits = limits or AdmissionLimits()

    @property
    def max_instance_bytes(self) -> int:
        """The longest data set that is taken."""
        return self._limits.max_instance_bytes

    def begin(self, arrival: Arrival, note: Note | None = None) -> Intake:
        """Start to take an instance in. Raises Rejected or OutOfResources, which ``note`` writes down."""
        intake = Intake(self, arrival, self._clock.monotonic_s(), note or self.note)
        with intake.recorded():
            check_uids(arrival)
            self.check_space(0)
            intake.open()
        return intake

    def admit(self, data_set: Bytes, arrival: Arrival) -> Receipt:
        """Take in an encoded data set that has arrived in full; see :class:`Intake`."""
        intake = self.begin(arrival)
        intake.write(data_set)
        return intake.finish()

    def count(self, arrival: Arrival, receipt: Receipt, size_bytes: int, began_s: float) -> None:
        """Count an instance that was taken in, for metrics and status."""
        took_s = self._clock.monotonic_s() - began_s
        self.tally.stored(arrival.source, receipt, size_bytes, took_s, self._clock.now_s())

    def check_space(self, further_bytes: int) -> None:
        """Raise OutOfResources if the disk would be too full."""
        self.spool.check_space(self._limits.keep_free_bytes, self._limits.refuse_over_fraction, further_bytes)

    def store(self, incoming: Incoming, header: InstanceHeader, arrival: Arrival) -> Receipt:
        """Keep the file and journal it; then the instance may be acknowledged.

        The digest is held until the row is there: nobody takes the file for garbage meanwhile.
        """
        with self.spool.hold(incoming.digest):
            stored = incoming.keep(partial(self._is_needed, header.sop_instance_uid))
            if stored.repaired:
                self._alarm(stored)
            receipt = self._enter(stored, header, arrival)
            if receipt in _REFUSALS:
                if not stored.was_there:  # its row may be lost, and it may have been acknowledged
                    self.spool.remove(stored.path)
                name, sentence = _REFUSALS[receipt]
                raise Rejected(
                    name, f"SOP Instance {header.sop_instance_uid} {sentence}", _DUPLICATE_SOP_INSTANCE
                )
        return receipt

    def _enter(self, stored: StoredFile, header: InstanceHeader, arrival: Arrival) -> Receipt:
        instance = NewInstance(
            header=header,
            transfer_syntax_uid=arrival.transfer_syntax_uid,
            digest=stored.digest,
            path=stored.path,
            size_bytes=stored.size_bytes,
            source=arrival.source,
        )
        with _named_journal_errors():
            # After one the file stays, perhaps without a row: what SQLite says failed may be there.
            return self._journal.record_instance(instance, self._clock.now_s(), self._limits.duplicates)

    def _is_needed(self, sop_instance_uid: str, path: str) -> bool:
        """Whether a row needs the file that is there; it must be one of the same instance.

        The same bytes can be one instance in Explicit VR and another one in Implicit VR, with one file only.
        """
        with _named_journal_errors():
            rows = self._journal.stored_as(path)
        if any(row.sop_instance_uid != sop_instance_uid for row in rows):
            raise Rejected(
                "BYTES_OF_ANOTHER_INSTANCE",
                f"The data set of SOP Instance {sop_instance_uid} is here already, byte for byte, as another "
                "instance under another transfer syntax: find out what made it, and send it written anew.",
            )
        return bool(rows)

    def _alarm(self, stored: StoredFile) -> None:
        """The file that was there was not what was received; the one that came now takes its place."""
        reason = (
            f"{stored.path} was damaged on the disk and is in spool/quarantine; the same bytes have been "
            "sent again. Check the disk of data_dir."
        )
        self._log.critical("INSTANCE_DAMAGED", reason=reason, path=stored.path)
        try:
            self._journal.quarantine(stored.path, reason, self._clock.now_s())
        except sqlite3.Error as error:
            self._log.error("journal_unavailable", reason=str(error))

    def note(self, rejection: Rejected, arrival: Arrival, size_bytes: int) -> None:
        """Count a rejection and write it down."""
        self.tally.rejected(arrival.source, rejection.name)
        self.record(rejection, arrival, size_bytes)

    def record(self, rejection: Rejected, arrival: Arrival, size_bytes: int) -> None:
        """Write a rejection down, without any patient attribute."""
        details = {
            "source": arrival.source,
            "sop_class_uid": uid_text(arrival.sop_class_uid),
            "sop_instance_uid": uid_text(arrival.sop_instance_uid),
            "transfer_syntax_uid": uid_text(arrival.transfer_syntax_uid),
            "size_bytes": size_bytes,
            "dimse_status": f"{rejection.dimse_status:04X}",
        }
        self._log.warning("instance_rejected", name=rejection.name, reason=rejection.reason, **details)
        try:
            self._journal.record("instance", rejection.name, rejection.reason, self._clock.now_s(), details)
        except sqlite3.Error as error:
            self._log.error("journal_unavailable", reason=str(error))


class Intake:
    """One instance while it arrives: ``write`` its data set, then ``finish`` (or ``discard``).

    Nothing is held in memory: the data set goes to the disk, byte for byte, and is hashed as it comes.
    Every method raises Rejected (with the status to answer) or OutOfResources (0xA700); the rejection is
    recorded then, and nothing of the instance is kept.
    """

    def __init__(self, admission: Admission, arrival: Arrival, began_s: float, note: Note) -> None:
        self._began_s = began_s
        self._admission = admission
        self._arrival = arrival
        self._note = note
        self._incoming: Incoming | None = None
        self._next_check_bytes = _CHECK_SPACE_EVERY_BYTES
        self.size_bytes = 0

    def open(self) -> None:
        """Begin the file."""
        arrival = self._arrival
        meta = file_header(
            arrival.sop_class_uid,
            arrival.sop_instance_uid,
            arrival.transfer_syntax_uid,
            arrival.source_ae_title,
        )
        self._incoming = self._admission.spool.begin(meta)

    def write(self, *chunks: Bytes) -> None:
        """The next bytes of the data set; several chunks cost no more than one.

        What is over the limit is only counted: :meth:`finish` refuses it.
        """
        with self.recorded():
            incoming = self._open_file()
            count = sum(map(len, chunks))
            self.size_bytes += count
            if self.size_bytes > self._admission.max_instance_bytes:
                incoming.discard()
                return
            if self.size_bytes >= self._next_check_bytes:
                self._next_check_bytes = self.size_bytes + _CHECK_SPACE_EVERY_BYTES
                self._admission.check_space(count)
            incoming.write(*chunks)

    def finish(self) -> Receipt:
        """Make it durable; when this returns, the instance survives a power cut and may be acknowledged."""
        limit_bytes = self._admission.max_instance_bytes
        with self.recorded():
            incoming = self._open_file()
            if self.size_bytes > limit_bytes:
                raise Rejected(
                    "INSTANCE_TOO_LARGE",
                    f"The data set has {self.size_bytes} bytes; admission.max_instance_size allows "
                    f"{limit_bytes}.",
                )
            incoming.start_flush()
            with incoming.body() as body:
                header = read_header(body, self._arrival.transfer_syntax_uid)
            check_identity(header, self._arrival)
            receipt = self._admission.store(incoming, header, self._arrival)
        self._admission.count(self._arrival, receipt, self.size_bytes, self._began_s)
        failpoint.reach("admit.committed")
        return receipt

    def discard(self) -> None:
        """The rest will not come: keep nothing."""
        if self._incoming is not None:
            self._incoming.discard()

    def _open_file(self) -> Incoming:
        if self._incoming is None:
            raise RuntimeError("the intake is not open")
        return self._incoming

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Discards on every error, and writes a rejection down."""
        try:
            yield
        except Rejected as rejection:
            self.discard()
            self._note(rejection, self._arrival, self.size_bytes)
            raise
        except BaseException:
            self.discard()
            raise


@contextmanager
def _named_journal_errors() -> Iterator[None]:
    """sqlite3.Error becomes OutOfResources."""
    try:
        yield
    except sqlite3.Error as error:
        raise OutOfResources(
            "JOURNAL_UNAVAILABLE", f"The journal could not be used ({error}): check its disk."
        ) from error
