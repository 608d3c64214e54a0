"""Verdicts and decisions as records: what the journal keeps, and ``explain`` reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ai.geometry import NotAVolume, Part
from gateway.journal.records import NewJob
from gateway.routing import RouteResult, Routing

Record = dict[str, Any]

_TOLD = 5  # parts whose sentences are repeated for the whole series


@dataclass(frozen=True)
class Outcome:
    """What was decided about one part of a series, and why."""

    part: Part
    routing: Routing
    name: str
    reason: str
    job: NewJob | None = None
    refused: bool = False

    @property
    def images(self) -> int:
        """Number of image planes that the part has; those that are left out of a volume do not count."""
        geometry = self.part.geometry
        return len(self.part.frames if isinstance(geometry, NotAVolume) else geometry.frames)

    @property
    def identity(self) -> Record:
        """Which part it is, for its records."""
        return {"key": self.part.key, "label": self.part.label, "images": self.images}


def series_reason(outcomes: Sequence[Outcome]) -> str:
    """The reason for the whole series: that of its only part, or one sentence for each of the first parts."""
    if len(outcomes) == 1:
        return outcomes[0].reason
    told = [f"{o.part.label}: {o.name}: {o.reason}" for o in outcomes[:_TOLD]]
    return _in_parts(told, len(outcomes))


def verdict_record(outcomes: Sequence[Outcome]) -> Record:
    """The verdict on the geometry, and on that of each part.

    Of a series in several parts the verdict is the one that all parts have, else FIXED; its code is that of
    the first part if all are refused, else SPLIT.
    """
    parts = [{**o.identity, **_geometry_record(o.part)} for o in outcomes]
    if len(outcomes) == 1:
        return {**_geometry_record(outcomes[0].part), "parts": parts}
    if not parts:
        return {**_verdict("NOT_ASSESSED", "NOT_ASSESSED", "The geometry was not assessed."), "parts": []}
    verdicts = {part["verdict"] for part in parts}
    verdict = verdicts.pop() if len(verdicts) == 1 else "FIXED"
    code = parts[0]["code"] if verdict == "REFUSED" else "SPLIT"
    told = [f"{part['label']}: {part['code']}: {part['reason']}" for part in parts[:_TOLD]]
    return {**_verdict(verdict, code, _in_parts(told, len(parts))), "parts": parts}


def decision_record(name: str, outcomes: Sequence[Outcome], *, live: bool) -> Record:
    """What was decided, with every route that was looked at, for the series and for each part.

    Of a series in several parts the routes and the model stand in the records of the parts alone.
    """
    parts = [{**o.identity, **_outcome_record(o)} for o in outcomes]
    status = "live" if live else "shadow"
    if len(outcomes) == 1:
        return {**_outcome_record(outcomes[0]), "status": status, "parts": parts}
    reason = series_reason(outcomes) if outcomes else ""
    return {
        **_choice(Routing(None, ()), None),
        "name": name,
        "reason": reason,
        "status": status,
        "parts": parts,
    }


def _outcome_record(outcome: Outcome) -> Record:
    return {"name": outcome.name, "reason": outcome.reason, **_choice(outcome.routing, outcome.job)}


def _choice(routing: Routing, job: NewJob | None) -> Record:
    return {
        "routes": [_route_record(result) for result in routing.results],
        "chosen": routing.chosen.name if routing.chosen else None,
        "action": routing.chosen.action if routing.chosen else None,
        "model": job.model if job else None,
        "card": job.card if job else None,
        "priority": job.priority if job else None,
        "destinations": list(job.destinations) if job else [],
    }


def _route_record(result: RouteResult) -> Record:
    conditions = [
        {"condition": c.name, "wanted": c.wanted, "seen": c.seen, "matched": c.matched}
        for c in result.conditions
    ]
    return {"name": result.route.name, "matched": result.matched, "conditions": conditions}


def _geometry_record(part: Part) -> Record:
    geometry = part.geometry
    if isinstance(geometry, NotAVolume):
        return _verdict("REFUSED", str(geometry.code), geometry.reason, numbers=dict(geometry.numbers))
    return _verdict(
        str(geometry.verdict),
        str(geometry.code),
        geometry.reason,
        shape=list(geometry.shape),
        spacing_mm=[round(each, 4) for each in geometry.spacing_mm],
        notes=[{"code": str(note.code), "text": note.text} for note in geometry.notes],
    )


def _verdict(verdict: str, code: str, reason: str, **details: Any) -> Record:
    empty: Record = {"numbers": {}, "shape": None, "spacing_mm": None, "notes": []}
    return {"verdict": verdict, "code": code, "reason": reason, **empty, **details}


def _in_parts(told: Sequence[str], count: int) -> str:
    more = f" And {count - len(told)} more parts." if count > len(told) else ""
    return f"{count} parts. {' '.join(told)}{more}"
