"""What a quality rule found, and what that means for the results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """What a finding means. SUSPECT is sent with its reason; FAIL holds the results back."""

    PASS = "PASS"  # noqa: S105 - no password
    PARTIAL = "PARTIAL"
    SUSPECT = "SUSPECT"
    FAIL = "FAIL"


GRAVITY = tuple(Verdict)
"""From the best to the gravest."""


@dataclass(frozen=True)
class Finding:
    """One rule held against one structure, pair or order.

    Attributes
    ----------
    structures
        Keys.
    value
        The number that was held against the bounds; None where the rule is no number.
    reason
        A sentence with the number and the bound.
    """

    structures: tuple[str, ...]
    rule: str
    verdict: Verdict
    reason: str
    value: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "structures": list(self.structures), "verdict": str(self.verdict)}


def worst(run: Mapping[str, Any]) -> Verdict:
    """The gravest verdict of a run, from what ``run.json`` says; PASS where nothing was checked."""
    verdicts = {Verdict(row["verdict"]) for row in run.get("quality", ())}
    return max(verdicts, key=GRAVITY.index, default=Verdict.PASS)


def reasons(run: Mapping[str, Any], verdict: Verdict = Verdict.FAIL) -> tuple[str, ...]:
    """The sentences of the findings of one verdict."""
    return tuple(row["reason"] for row in run.get("quality", ()) if row["verdict"] == verdict)
