"""Which models are switched off because they end their process, and who goes first in the queue. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.journal.records import Failure

CRASHES_IN_A_ROW = 3
"""On different series, before a model is switched off: one poison series is not the model's fault."""

URGENT_IN_A_ROW = 3
"""Then the oldest job has its turn, so that urgent ones do not keep the others away for good."""


@dataclass
class Breaker:
    """Counts how often a model ended its process on different series without a success in between."""

    _crashed_on: dict[str, list[str]] = field(default_factory=dict)
    _signatures: dict[str, str] = field(default_factory=dict)
    _off: dict[str, Failure] = field(default_factory=dict)

    @property
    def off(self) -> Mapping[str, Failure]:
        """Card → why it is switched off."""
        return self._off

    def crashed(self, card: str, series: str, reason: str) -> bool:
        """A run of the model on a series (its UID) ended its process; True if that switches it off."""
        on = self._crashed_on.setdefault(card, [])
        if series not in on:
            on.append(series)
        if len(on) < CRASHES_IN_A_ROW or card in self._off:
            return False
        sentence = (
            f"The model {card} failed on {len(on)} different series, one after another; the last time: "
            f"{reason} "
            "Its jobs wait until its card or files change, or the gateway is restarted."
        )
        self._off[card] = Failure("MODEL_SWITCHED_OFF", sentence)
        return True

    def worked(self, card: str) -> None:
        """A run of the model ended as it should."""
        self._crashed_on.pop(card, None)

    def seen(self, card: str, signature: str) -> bool:
        """A worker has looked at the model's files; True if it is switched on again because they changed."""
        changed = self._signatures.setdefault(card, signature) != signature
        self._signatures[card] = signature
        if not changed:
            return False
        self._crashed_on.pop(card, None)
        return self._off.pop(card, None) is not None


@dataclass
class Turns:
    """Whose turn it is when jobs are claimed one after another."""

    _urgent: int = 0

    @property
    def oldest_first(self) -> bool:
        """True when urgent jobs have had so many turns that the oldest job has the next one."""
        return self._urgent >= URGENT_IN_A_ROW

    def claimed(self, priority: str) -> None:
        """A job was claimed."""
        self._urgent = self._urgent + 1 if priority == "urgent" else 0
