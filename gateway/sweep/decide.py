"""What is decided about a complete series, part by part, with its reasons. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ai.geometry import FrameRef, Needs, NotAVolume, Part, VolumeGeometry, assess, unfit
from ai.source import Header, slice_headers
from gateway.completion import CompletionRules
from gateway.header import Facts, series_facts
from gateway.journal.profiles import Profiles
from gateway.journal.records import Member, NewJob, ReceivingSeries, SeriesDecision
from gateway.routing import Route, Routing, first_match
from gateway.sweep.records import Outcome, decision_record, series_reason, verdict_record

OWN_MANUFACTURER = "DICOM AI Gateway"
"""Manufacturer (0008,0070) of every result that a gateway makes; such series are never processed."""

_NO_OWN_INSTANCES = (
    "Every SOP Instance UID of this series was received before in another series, so nothing here can be "
    "processed: correct the UIDs at the sender."
)


@dataclass(frozen=True)
class SweepRules:
    """What the sweeper decides by.

    Attributes
    ----------
    cards
        Name of a model in the configuration → name of its card.
    needs
        The same names → what the model asks of a volume. A model whose card cannot be read is missing: its
        jobs wait for the card.
    live
        False is shadow mode: models run, results are kept, nothing is sent.
    profiles
        How each destination wants its results.
    """

    completion: CompletionRules
    routes: tuple[Route, ...]
    cards: Mapping[str, str]
    needs: Mapping[str, Needs]
    live: bool
    profiles: Profiles = field(default_factory=Profiles)


def consider(
    series: ReceivingSeries,
    members: Sequence[Member],
    evidence: Mapping[str, Any],
    rules: SweepRules,
    *,
    is_ours: bool,
) -> SeriesDecision:
    """Everything that is decided about a complete series, with its reasons. Pure.

    Each part of the series has a verdict, and a route and a job of its own.
    """
    if is_ours or any(OWN_MANUFACTURER in m.facts.get("Manufacturer", ()) for m in members):
        return _own_result(evidence, rules)
    if not members:
        return without_routing("NO_OWN_INSTANCES", _NO_OWN_INSTANCES, evidence, rules, refused=True)
    headers = {member.sop_instance_uid: source_header(member) for member in members}
    digests = {member.sop_instance_uid: member.digest for member in members}
    parts = assess([plane for header in headers.values() for plane in slice_headers(header)])
    outcomes = [_outcome(part, headers, digests, series.source, rules) for part in parts]
    leading = next(
        (o for o in outcomes if o.job), next((o for o in outcomes if o.refused), outcomes[0])
    )  # what says most about the series: a job, else a refusal
    return SeriesDecision(
        evidence=evidence,
        verdict=verdict_record(outcomes),
        decision=decision_record(leading.name, outcomes, live=rules.live),
        name=leading.name,
        reason=series_reason(outcomes),
        jobs=tuple(o.job for o in outcomes if o.job),
        refused=leading.refused,
    )


def without_routing(
    name: str, reason: str, evidence: Mapping[str, Any], rules: SweepRules, *, refused: bool
) -> SeriesDecision:
    """A decision for which neither geometry nor routes were used."""
    record = {**decision_record(name, (), live=rules.live), "reason": reason}
    return SeriesDecision(evidence, verdict_record(()), record, name, reason, (), refused)


def source_header(member: Member) -> Header:
    """What the journal keeps of an instance, as the reader of headers gave it."""
    identity = {"SOPClassUID": (member.sop_class_uid,), "SOPInstanceUID": (member.sop_instance_uid,)}
    return Header({**member.facts, **identity}, member.frames)


def _own_result(evidence: Mapping[str, Any], rules: SweepRules) -> SeriesDecision:
    reason = "The series was made by a DICOM AI Gateway; own results are never processed (loop guard)."
    return without_routing("OWN_RESULT", reason, evidence, rules, refused=False)


def _outcome(
    part: Part, headers: Mapping[str, Header], digests: Mapping[str, str], source: str, rules: SweepRules
) -> Outcome:
    geometry = part.geometry
    frames = geometry.frames if isinstance(geometry, VolumeGeometry) else part.frames
    routing = first_match(rules.routes, series_facts((_facts_of(f, headers) for f in frames), source))
    route = routing.chosen
    if route is None:
        tried = f"None of the configured routes matched ({len(rules.routes)}). {routing.nearest_miss()}"
        return Outcome(part, routing, "NO_ROUTE_MATCHED", tried.strip())
    if route.action == "ignore" or route.model is None:
        given = f": {route.reason}" if route.reason else " by configuration"
        reason = f"Route {route.name} ignores the series{given}. {routing.nearest_miss()}"
        return Outcome(part, routing, "ROUTE_IGNORES", reason.strip())
    if isinstance(geometry, NotAVolume):
        reason = f"Route {route.name} matched, but the images are not a volume: {geometry.reason}"
        return Outcome(part, routing, str(geometry.code), reason, refused=True)
    needs = rules.needs.get(route.model)
    misfit = unfit(geometry, needs) if needs else None
    if misfit is not None:
        reason = f"Route {route.name} matched, but model {route.model} does not take it: {misfit.reason}"
        return Outcome(part, routing, str(misfit.code), reason, refused=True)
    return _wanted(part, geometry, route, routing, digests, rules)


def _wanted(
    part: Part,
    geometry: VolumeGeometry,
    route: Route,
    routing: Routing,
    digests: Mapping[str, str],
    rules: SweepRules,
) -> Outcome:
    assert route.model is not None  # noqa: S101 - a route that processes names its model
    reason = f"Route {route.name}: run model {route.model}, {_sending(route, rules)}."
    job = NewJob(
        model=route.model,
        card=rules.cards[route.model],
        destinations=route.send if rules.live else (),
        reason=reason,
        part=part.key,
        input_digest=_input_digest(geometry, digests),
        priority=route.priority,
    )
    return Outcome(part, routing, "ROUTE_MATCHED", reason, job)


def _facts_of(frame: FrameRef, headers: Mapping[str, Header]) -> Facts:
    """What a route may see of one image plane: facts of its instance, and over them those of its frame."""
    header = headers[frame.sop_instance_uid]
    if frame.frame_number > len(header.frames):
        return header.facts
    return {**header.facts, **header.frames[frame.frame_number - 1]}


def _input_digest(geometry: VolumeGeometry, digests: Mapping[str, str]) -> str:
    """Identity of the image planes of a part: parts of one multi-frame image differ in their frames."""
    numbers: dict[str, list[int]] = {}
    for frame in geometry.frames:
        numbers.setdefault(frame.sop_instance_uid, []).append(frame.frame_number)
    lines = sorted(f"{uid} {digests[uid]}{_frames_text(found)}\n" for uid, found in numbers.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _frames_text(numbers: Sequence[int]) -> str:
    return "" if list(numbers) == [1] else f" {','.join(map(str, sorted(numbers)))}"


def _sending(route: Route, rules: SweepRules) -> str:
    if not route.send:
        return "the route names no destination, so results are kept and sent nowhere"
    targets = ", ".join(route.send)
    if rules.live:
        return f"send results to {targets}"
    return f"shadow mode: results are kept, nothing is sent to {targets}"
