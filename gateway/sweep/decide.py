"""What is decided about a complete series, with its reasons. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ai.geometry import NotAVolume, SliceHeader, VolumeGeometry, assess
from gateway.completion import CompletionRules
from gateway.header import Facts, series_facts
from gateway.journal.records import Member, NewJob, ReceivingSeries, SeriesDecision
from gateway.routing import Route, RouteResult, Routing, first_match

OWN_MANUFACTURER = "DICOM AI Gateway"
"""Manufacturer (0008,0070) of every result that a gateway makes; such series are never processed."""

_NO_OWN_INSTANCES = (
    "Every SOP Instance UID of this series was received before in another series, so nothing here can be "
    "processed: correct the UIDs at the sender."
)

Record = dict[str, Any]


@dataclass(frozen=True)
class SweepRules:
    """What the sweeper decides by.

    Attributes
    ----------
    cards
        Name of a model in the configuration → name of its card.
    live
        False is shadow mode: models run, results are kept, nothing is sent.
    """

    completion: CompletionRules
    routes: tuple[Route, ...]
    cards: Mapping[str, str]
    live: bool


def consider(
    series: ReceivingSeries,
    members: Sequence[Member],
    evidence: Mapping[str, Any],
    rules: SweepRules,
    *,
    is_ours: bool,
) -> SeriesDecision:
    """Everything that is decided about a complete series, with its reasons. Pure."""
    if is_ours or any(_text(m.facts, "Manufacturer") == OWN_MANUFACTURER for m in members):
        return _own_result(evidence, rules)
    if not members:
        return without_routing("NO_OWN_INSTANCES", _NO_OWN_INSTANCES, evidence, rules, refused=True)
    geometry = assess([slice_header(member) for member in members])
    if isinstance(geometry, VolumeGeometry):
        kept = set(geometry.sop_instance_uids)
        considered = [m.facts for m in members if m.sop_instance_uid in kept]
    else:
        considered = [m.facts for m in members]
    routing = first_match(rules.routes, series_facts(considered, series.source))
    return _decision(geometry, routing, evidence, rules)


def _decision(
    geometry: VolumeGeometry | NotAVolume, routing: Routing, evidence: Mapping[str, Any], rules: SweepRules
) -> SeriesDecision:
    route = routing.chosen
    verdict = _verdict_record(geometry)
    job: NewJob | None = None
    refused = False
    if route is None:
        name = "NO_ROUTE_MATCHED"
        reason = (
            f"None of the configured routes matched ({len(rules.routes)}). {routing.nearest_miss()}".strip()
        )
    elif route.action == "ignore" or route.model is None:
        name = "ROUTE_IGNORES"
        given = f": {route.reason}" if route.reason else " by configuration"
        reason = f"Route {route.name} ignores the series{given}. {routing.nearest_miss()}".strip()
    elif isinstance(geometry, NotAVolume):
        name, refused = str(geometry.code), True
        reason = f"Route {route.name} matched, but the series is not a volume: {geometry.reason}"
    else:
        destinations = route.send if rules.live else ()
        job = NewJob(route.model, rules.cards[route.model], destinations)
        name = "ROUTE_MATCHED"
        reason = f"Route {route.name}: run model {route.model}, {_sending(route, rules)}."
    record = _decision_record(name, reason, routing, job, rules)
    return SeriesDecision(evidence, verdict, record, name, reason, job, refused)


def _sending(route: Route, rules: SweepRules) -> str:
    if not route.send:
        return "the route names no destination, so results are kept and sent nowhere"
    targets = ", ".join(route.send)
    if rules.live:
        return f"send results to {targets}"
    return f"shadow mode: results are kept, nothing is sent to {targets}"


def _own_result(evidence: Mapping[str, Any], rules: SweepRules) -> SeriesDecision:
    reason = "The series was made by a DICOM AI Gateway; own results are never processed (loop guard)."
    return without_routing("OWN_RESULT", reason, evidence, rules, refused=False)


def without_routing(
    name: str, reason: str, evidence: Mapping[str, Any], rules: SweepRules, *, refused: bool
) -> SeriesDecision:
    """A decision for which neither geometry nor routes were used."""
    verdict = _verdict("NOT_ASSESSED", "NOT_ASSESSED", "The geometry was not assessed.")
    record = _decision_record(name, reason, Routing(None, ()), None, rules)
    return SeriesDecision(evidence, verdict, record, name, reason, None, refused)


def _decision_record(
    name: str, reason: str, routing: Routing, job: NewJob | None, rules: SweepRules
) -> Record:
    return {
        "name": name,
        "reason": reason,
        "routes": [_route_record(result) for result in routing.results],
        "chosen": routing.chosen.name if routing.chosen else None,
        "action": routing.chosen.action if routing.chosen else None,
        "model": job.model if job else None,
        "card": job.card if job else None,
        "destinations": list(job.destinations) if job else [],
        "status": "live" if rules.live else "shadow",
    }


def _route_record(result: RouteResult) -> Record:
    conditions = [
        {"condition": c.name, "wanted": c.wanted, "seen": c.seen, "matched": c.matched}
        for c in result.conditions
    ]
    return {"name": result.route.name, "matched": result.matched, "conditions": conditions}


def _verdict_record(geometry: VolumeGeometry | NotAVolume) -> Record:
    if isinstance(geometry, NotAVolume):
        return _verdict("REFUSED", str(geometry.code), geometry.reason, numbers=dict(geometry.numbers))
    slices, rows, columns = geometry.shape
    spacing_mm = [round(each, 4) for each in geometry.spacing_mm]
    reason = (
        f"One regular volume: {slices} slices of {rows} × {columns}, {spacing_mm[0]:.2f} mm apart, "
        f"pixels {spacing_mm[1]:.3f} × {spacing_mm[2]:.3f} mm."
    )
    notes = [{"code": str(note.code), "text": note.text} for note in geometry.notes]
    shape = [slices, rows, columns]
    return _verdict("ACCEPTED", "ACCEPTED", reason, shape=shape, spacing_mm=spacing_mm, notes=notes)


def _verdict(verdict: str, code: str, reason: str, **details: Any) -> Record:
    empty: Record = {"numbers": {}, "shape": None, "spacing_mm": None, "notes": []}
    return {"verdict": verdict, "code": code, "reason": reason, **empty, **details}


def slice_header(member: Member) -> SliceHeader:
    """What geometry may know of an instance; a malformed number counts as absent."""
    facts = member.facts
    position = _numbers(facts, "ImagePositionPatient", 3)
    orientation = _numbers(facts, "ImageOrientationPatient", 6)
    spacing = _numbers(facts, "PixelSpacing", 2)
    thickness = _numbers(facts, "SliceThickness", 1)
    return SliceHeader(
        sop_instance_uid=member.sop_instance_uid,
        rows=_integer(facts, "Rows"),
        columns=_integer(facts, "Columns"),
        position_mm=(position[0], position[1], position[2]) if position else None,
        orientation=_six(orientation) if orientation else None,
        pixel_spacing_mm=(spacing[0], spacing[1]) if spacing else None,
        frame_of_reference_uid=_text(facts, "FrameOfReferenceUID"),
        number_of_frames=_integer(facts, "NumberOfFrames") or 1,
        image_type=facts.get("ImageType", ()),
        slice_thickness_mm=thickness[0] if thickness else None,
    )


def _text(facts: Facts, keyword: str) -> str | None:
    value = facts.get(keyword)
    return value[0].strip() if value and value[0].strip() else None


def _integer(facts: Facts, keyword: str) -> int | None:
    numbers = _numbers(facts, keyword, 1)
    return int(numbers[0]) if numbers and numbers[0].is_integer() and numbers[0] > 0 else None


def _numbers(facts: Facts, keyword: str, count: int) -> tuple[float, ...] | None:
    value = facts.get(keyword, ())
    try:
        numbers = tuple(float(part) for part in value)
    except ValueError:
        return None
    return numbers if len(numbers) == count and all(math.isfinite(n) for n in numbers) else None


def _six(numbers: Sequence[float]) -> tuple[float, float, float, float, float, float]:
    a, b, c, d, e, f = numbers
    return (a, b, c, d, e, f)
