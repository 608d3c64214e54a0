"""Claiming the next delivery of a destination, and ending those that nobody needs any more."""

from __future__ import annotations

from gateway.journal.claim import superseded
from gateway.journal.connection import Transaction
from gateway.journal.edges import failure_columns, take_edge
from gateway.journal.records import ClaimedDelivery
from gateway.states import DELIVERY, DeliveryEvent, DeliveryState


def claim_delivery(
    work: Transaction, destination: str, at: float, longest_wait_s: float
) -> ClaimedDelivery | None:
    """See :meth:`gateway.journal.journal.Journal.claim_delivery`."""
    _supersede(work, destination, at)
    due = {"destination": destination, "at": at, "longest_wait_s": longest_wait_s}
    row = work.one("next_delivery", due)
    if row is None:
        return None
    work.run("count_attempt", {"id": row["id"]})
    delivery = work.one("delivery_to_send", {"id": row["id"]})
    assert delivery is not None  # noqa: S101 - selected in this transaction
    reason = f"Attempt {delivery['attempts']} to {destination}."
    take_edge(work, DELIVERY, row["id"], (DeliveryState.PENDING, DeliveryEvent.CLAIMED), reason, at)
    return ClaimedDelivery(**dict(delivery))


def _supersede(work: Transaction, destination: str, at: float) -> None:
    for row in work.run("outdated_deliveries", {"destination": destination}).fetchall():
        failure = superseded(row)
        edge = (DeliveryState.PENDING, DeliveryEvent.SUPERSEDED)
        take_edge(work, DELIVERY, row["id"], edge, failure.reason, at)
        work.run("close_delivery", {**failure_columns(failure), "id": row["id"], "at": at})
