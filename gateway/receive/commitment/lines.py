"""Associations that peers have opened, on which a report of storage commitment can be told."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from pynetdicom.association import Association

from gateway.receive.commitment.link import quiet_s

QUIET_S = 0.2
"""A peer that has sent nothing for so long after its request may be waiting for the report."""

_QUIET_ON_ANOTHER_S = 1.0  # an association that was opened later, on which nothing was asked


@dataclass(eq=False)
class Line:
    """An open association with an accepted context for storage commitment.

    Attributes
    ----------
    asked
        Requests that were made on it.
    tried
        Requests whose report was tried on it: once is enough.
    """

    association: Association
    source: str
    asked: set[int] = field(default_factory=set)
    tried: set[int] = field(default_factory=set)


class Lines:
    """A thread-safe register of them."""

    def __init__(self, quiet: Callable[[Association], float] = quiet_s) -> None:
        self._quiet_s = quiet
        self._lock = threading.Lock()
        self._lines: dict[Association, Line] = {}

    def opened(self, association: Association, source: str) -> None:
        """A peer opened it."""
        with self._lock:
            self._lines[association] = Line(association, source)

    def asked(self, association: Association, commitment_id: int) -> None:
        """A request was made on it, perhaps once more."""
        with self._lock:
            line = self._lines.get(association)
            if line is not None:
                line.asked.add(commitment_id)
                line.tried.discard(commitment_id)

    def ended(self, association: Association) -> None:
        """It is gone; one that was never there is fine."""
        with self._lock:
            self._lines.pop(association, None)

    def sources(self) -> set[str]:
        """Peers that have one open."""
        with self._lock:
            return {line.source for line in self._lines.values()}

    def find(self, commitment_id: int, source: str, *, any_of_source: bool) -> Line | None:
        """Where the report can be told: where it was asked for, else (if so wanted) on any of the peer."""
        with self._lock:
            lines = [
                each
                for each in self._lines.values()
                if each.source == source
                and commitment_id not in each.tried
                and each.association.is_established
            ]
        asked = next((each for each in lines if commitment_id in each.asked), None)
        return asked or (lines[-1] if lines and any_of_source else None)

    def is_quiet(self, line: Line, commitment_id: int) -> bool:
        """Whether the peer seems to wait: one that is sending would not understand a report in between."""
        needed_s = QUIET_S if commitment_id in line.asked else _QUIET_ON_ANOTHER_S
        return self._quiet_s(line.association) >= needed_s
