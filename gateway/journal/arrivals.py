"""Instances that arrive on several associations at once, entered in one commit.

A commit waits for the disk. Threads that call meanwhile queue up behind the lock; the one that gets it next
enters everything that waits, its own instance among it, in one transaction. A thread that is alone commits at
once: nobody waits for company.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from gateway.journal.connection import WriteConnection
from gateway.journal.enter import Row, enter, instance_row
from gateway.journal.records import Duplicates, NewInstance, Receipt


@dataclass(slots=True, eq=False)
class _Arrival:
    row: Row
    duplicates: Duplicates
    receipt: Receipt | None = None
    error: BaseException | None = None

    @property
    def is_entered(self) -> bool:
        return self.receipt is not None or self.error is not None


class Arrivals:
    """Enters instances; safe to call from several threads."""

    def __init__(self, connection: WriteConnection) -> None:
        self._connection = connection
        self._waiting: deque[_Arrival] = deque()
        self._turn = threading.Lock()

    def enter(self, instance: NewInstance, at: float, duplicates: Duplicates) -> Receipt:
        """Enter an instance; when this returns, it is committed. Raises what entering it raised."""
        arrival = _Arrival(instance_row(instance, at), duplicates)
        self._waiting.append(arrival)
        with self._turn:
            if not arrival.is_entered:
                self._enter_waiting()
        if arrival.error is not None:
            raise arrival.error
        assert arrival.receipt is not None  # noqa: S101 - entered, without an error
        return arrival.receipt

    def _enter_waiting(self) -> None:
        """Enter all that wait, in order of arrival; where one of them fails, each on its own."""
        together: list[_Arrival] = []
        try:
            with self._connection.transaction() as work:
                together.extend(self._drained())
                receipts = [enter(work, each.row, each.duplicates) for each in together]
        except BaseException as error:  # noqa: BLE001 - given to whom it concerns
            together.extend(self._drained())
            if len(together) == 1:
                together[0].error = error
                return
            for each in together:
                self._enter_alone(each)
            return
        for each, receipt in zip(together, receipts, strict=True):
            each.receipt = receipt

    def _drained(self) -> Iterator[_Arrival]:
        while self._waiting:
            yield self._waiting.popleft()

    def _enter_alone(self, arrival: _Arrival) -> None:
        try:
            with self._connection.transaction() as work:
                receipt = enter(work, arrival.row, arrival.duplicates)
        except BaseException as error:  # noqa: BLE001 - raised where it was asked for
            arrival.error = error
        else:
            arrival.receipt = receipt
