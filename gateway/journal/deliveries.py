"""The journal's side of delivery: the outbox."""

from __future__ import annotations

import math
from collections.abc import Mapping

from gateway.journal.edges import failure_columns, take_edge
from gateway.journal.outbox import claim_delivery
from gateway.journal.records import ClaimedDelivery, Failure
from gateway.journal.room import Room
from gateway.states import DELIVERY, DeliveryEvent, DeliveryState


class DeliveryRoom(Room):
    """Results on their way to destinations."""

    def claim_delivery(
        self, destination: str, at: float, longest_wait_s: float = math.inf
    ) -> ClaimedDelivery | None:
        """Take the oldest due delivery of a destination.

        One that would wait for more than ``longest_wait_s`` is due: the clock was set back. Results
        of a series that has a newer revision meanwhile are kept here and not sent any more.
        """
        with self._connection.transaction() as work:
            return claim_delivery(work, destination, at, longest_wait_s)

    def delivery_sent(self, delivery: ClaimedDelivery, reason: str, at: float) -> None:
        """The destination stored it."""
        with self._connection.transaction() as work:
            take_edge(work, DELIVERY, delivery.id, (DeliveryState.SENDING, DeliveryEvent.STORED), reason, at)
            work.run("close_delivery", {**failure_columns(None), "id": delivery.id, "at": at})

    def delivery_postponed(
        self, delivery: ClaimedDelivery, failure: Failure, next_attempt_at: float, at: float
    ) -> None:
        """Not stored this time; due again at ``next_attempt_at``."""
        with self._connection.transaction() as work:
            reason = f"{failure.name}: {failure.reason}"
            take_edge(
                work, DELIVERY, delivery.id, (DeliveryState.SENDING, DeliveryEvent.TRY_AGAIN), reason, at
            )
            work.run(
                "postpone_delivery",
                {**failure_columns(failure), "id": delivery.id, "next_attempt_at": next_attempt_at},
            )

    def delivery_dead(self, delivery: ClaimedDelivery, failure: Failure, at: float) -> None:
        """Given up; a person must look at it."""
        with self._connection.transaction() as work:
            reason = f"{failure.name}: {failure.reason}"
            take_edge(work, DELIVERY, delivery.id, (DeliveryState.SENDING, DeliveryEvent.GAVE_UP), reason, at)
            work.run("close_delivery", {**failure_columns(failure), "id": delivery.id, "at": at})

    def waiting_deliveries(self) -> Mapping[str, int]:
        """Destination → deliveries that wait for it."""
        return {row["destination"]: row["n"] for row in self._connection.query("waiting_deliveries")}
