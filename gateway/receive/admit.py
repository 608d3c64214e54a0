"""Admission: bytes and their peer → spool → journal → receipt. THE durability point.

When :meth:`Admission.admit` returns, the instance survives a power cut and may be acknowledged.
Every rejection is written down in the journal, without any patient attribute.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from structlog.typing import FilteringBoundLogger

from gateway import failpoint
from gateway.clock import Clock
from gateway.errors import OutOfResources, Rejected
from gateway.header import InstanceHeader
from gateway.journal import Journal
from gateway.journal.records import NewInstance, Receipt
from gateway.receive.part10 import file_header
from gateway.receive.tags import read_header
from gateway.receive.text import printable
from gateway.spool import Bytes, Spool
from gateway.uids import is_uid


@dataclass(frozen=True)
class AdmissionLimits:
    """What is taken in: size of one data set, and the space that must stay on the disk."""

    max_instance_bytes: int = 2 * 1024**3
    keep_free_bytes: int = 512 * 1024**2
    refuse_over_fraction: float = 0.95


@dataclass(frozen=True)
class Arrival:
    """What the protocol says about an instance, before its data set is looked at.

    ``source`` is the name of the configured peer; the UIDs are those of the command set.
    """

    source: str
    source_ae_title: str
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str


class Admission:
    """Takes instances in; safe to call from the threads of several associations."""

    def __init__(
        self,
        spool: Spool,
        journal: Journal,
        clock: Clock,
        log: FilteringBoundLogger,
        limits: AdmissionLimits | None = None,
    ) -> None:
        self._spool = spool
        self._journal = journal
        self._clock = clock
        self._log = log
        self._limits = limits or AdmissionLimits()

    @property
    def max_instance_bytes(self) -> int:
        """The longest data set that is taken."""
        return self._limits.max_instance_bytes

    def admit(self, data_set: Bytes, arrival: Arrival) -> Receipt:
        """Make an encoded data set durable, byte for byte as it was received.

        Raises Rejected (with the DIMSE status to answer) or OutOfResources (0xA700); nothing of
        the instance is kept then.
        """
        try:
            header = self._check(data_set, arrival)
            receipt = self._keep(data_set, header, arrival)
        except Rejected as rejection:
            self._record(rejection, arrival, len(data_set))
            raise
        failpoint.reach("admit.committed")
        return receipt

    def _check(self, data_set: Bytes, arrival: Arrival) -> InstanceHeader:
        size = len(data_set)
        if size > self._limits.max_instance_bytes:
            raise Rejected(
                "INSTANCE_TOO_LARGE",
                f"The data set has {size >> 20} MiB and admission.max_instance_size is "
                f"{self._limits.max_instance_bytes >> 20} MiB.",
            )
        for name, uid in (("Class", arrival.sop_class_uid), ("Instance", arrival.sop_instance_uid)):
            if not is_uid(uid):
                raise Rejected(
                    "UID_INVALID",
                    f"Affected SOP {name} UID is '{printable(uid)}', which is not a UID (PS3.5 9.1).",
                    0xA900,
                )
        header = read_header(data_set, arrival.transfer_syntax_uid)
        found = (header.sop_class_uid, header.sop_instance_uid)
        if found != (arrival.sop_class_uid, arrival.sop_instance_uid):
            raise Rejected(
                "IDENTITY_MISMATCH",
                f"The request names {arrival.sop_instance_uid} of class {arrival.sop_class_uid}; the data "
                f"set is {found[1]} of class {found[0]}.",
                0xA900,
            )
        self._spool.check_space(self._limits.keep_free_bytes, self._limits.refuse_over_fraction, size)
        return header

    def _keep(self, data_set: Bytes, header: InstanceHeader, arrival: Arrival) -> Receipt:
        meta = file_header(
            header.sop_class_uid,
            header.sop_instance_uid,
            arrival.transfer_syntax_uid,
            arrival.source_ae_title,
        )
        stored = self._spool.store(data_set, meta)
        instance = NewInstance(
            header=header,
            transfer_syntax_uid=arrival.transfer_syntax_uid,
            digest=stored.digest,
            path=stored.path,
            size_bytes=stored.size_bytes,
            source=arrival.source,
        )
        try:
            return self._journal.record_instance(instance, self._clock.now_s())
        except sqlite3.Error as error:
            # The file stays without a row: garbage for the next start.
            raise OutOfResources(
                "JOURNAL_UNAVAILABLE", f"The journal could not be written ({error}): check its disk."
            ) from error

    def _record(self, rejection: Rejected, arrival: Arrival, size_bytes: int) -> None:
        details = {
            "source": arrival.source,
            "sop_class_uid": printable(arrival.sop_class_uid),
            "sop_instance_uid": printable(arrival.sop_instance_uid),
            "transfer_syntax_uid": printable(arrival.transfer_syntax_uid),
            "size_bytes": size_bytes,
            "dimse_status": f"{rejection.dimse_status:04X}",
        }
        self._log.warning("instance_rejected", name=rejection.name, reason=rejection.reason, **details)
        try:
            self._journal.record("instance", rejection.name, rejection.reason, self._clock.now_s(), details)
        except sqlite3.Error as error:
            self._log.error("journal_unavailable", reason=str(error))
