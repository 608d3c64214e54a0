"""An instance as the protocol announces it, and whether its data set is what was announced."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gateway.errors import Rejected
from gateway.header import InstanceHeader
from gateway.receive.text import uid_text
from gateway.uids import is_uid


@dataclass(frozen=True)
class Arrival:
    """What the protocol says about an instance, before its data set is looked at.

    ``source`` is the name of the configured peer; the UIDs are those of the command set, or of the file meta
    information. ``study_instance_uid`` is the only study that the request is for, or None.
    """

    source: str
    source_ae_title: str
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    study_instance_uid: str | None = None


Note = Callable[[Rejected, Arrival, int], None]
"""Writes down why an instance is not taken, what is known of it, and how many bytes of it came."""


def check_uids(arrival: Arrival) -> None:
    """What was announced are UIDs. Raises Rejected (UID_INVALID; 0xA900)."""
    for name, uid in (("Class", arrival.sop_class_uid), ("Instance", arrival.sop_instance_uid)):
        if not is_uid(uid):
            raise Rejected(
                "UID_INVALID",
                f"Affected SOP {name} UID is '{uid_text(uid)}', which is not a UID (PS3.5 9.1).",
                0xA900,
            )


def check_identity(header: InstanceHeader, arrival: Arrival) -> None:
    """The data set is what the protocol said. Raises Rejected (IDENTITY_MISMATCH, STUDY_MISMATCH; 0xA900)."""
    found = (header.sop_class_uid, header.sop_instance_uid)
    if found != (arrival.sop_class_uid, arrival.sop_instance_uid):
        raise Rejected(
            "IDENTITY_MISMATCH",
            f"The request names {arrival.sop_instance_uid} of class {arrival.sop_class_uid}; the data "
            f"set is {found[1]} of class {found[0]}.",
            0xA900,
        )
    if arrival.study_instance_uid not in (None, header.study_instance_uid):
        raise Rejected(
            "STUDY_MISMATCH",
            f"The request is for the study {arrival.study_instance_uid}; the instance belongs to "
            f"{header.study_instance_uid}.",
            0xA900,
        )
