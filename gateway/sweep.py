"""The sweeper: series that have come to rest → geometry verdict → route → job, in one transaction.

Only series revisions that are still receiving are looked at. Everything that was considered is
stored with the decision, so that ``explain`` reads records and recomputes nothing.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from structlog.typing import FilteringBoundLogger

from ai.geometry import NotAVolume, SliceHeader, VolumeGeometry, assess
from gateway import completion, failpoint
from gateway.clock import Clock
from gateway.completion import CompletionRules, Wait
from gateway.errors import LostRace
from gateway.header import Facts, series_facts
from gateway.journal import Journal
from gateway.journal.records import Member, NewJob, ReceivingSeries, SeriesDecision
from gateway.routing import Route, RouteResult, Routing, first_match

OWN_MANUFACTURER = "DICOM AI Gateway"
"""Manufacturer (0008,0070) of every result that a gateway makes; such series are never processed."""

_NO_OWN_INSTANCES = (
    "Every SOP Instance UID of this series was received before in another series, so nothing here can be "
    "processed: correct the UIDs at the sender."
)
_SHORTEST_WAIT_S = 0.05
_LONGEST_WAIT_S = 60.0
_AFTER_ERROR_S = 5.0

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


class Sweeper:
    """Decides the series that are complete. One per gateway; the caller owns the loop::

        while not stop.wait(sweeper.wait_s()):
            sweeper.sweep_once()

    Parameters
    ----------
    open_associations
        Peer name → number of its associations that are open now.
    """

    def __init__(
        self,
        journal: Journal,
        open_associations: Callable[[str], int],
        rules: SweepRules,
        clock: Clock,
        log: FilteringBoundLogger,
    ) -> None:
        self._journal = journal
        self._open_associations = open_associations
        self._rules = rules
        self._clock = clock
        self._log = log
        self._seen: dict[int, tuple[int, float]] = {}
        self._wait_s = _SHORTEST_WAIT_S
        self._started_s = clock.monotonic_s()

    def wait_s(self) -> float:
        """Seconds until the next sweep is due.

        A series that arrives meanwhile cannot be complete before ``quiet_for``, so no wake-up call
        is needed.
        """
        return self._wait_s

    def sweep_once(self) -> int:
        """Look at every receiving series once; returns how many were decided.

        A journal that cannot be read or written now (full disk) is tried again a little later.
        """
        try:
            return self._sweep()
        except sqlite3.Error as error:
            self._log.error("journal_unavailable", reason=f"{error}; the sweep is tried again.")
            self._wait_s = _AFTER_ERROR_S
            return 0

    def _sweep(self) -> int:
        decided = 0
        wait_s = min(self._rules.completion.quiet_for_s, _LONGEST_WAIT_S)
        receiving = self._journal.receiving_series()
        self._seen = {series.id: self._first_seen(series) for series in receiving}
        for series in receiving:
            now_s = self._now_s(series)
            open_associations = self._open_associations(series.source)
            listening_since_s = now_s - (self._clock.monotonic_s() - self._started_s)
            outcome = completion.decide(
                series, open_associations, now_s, self._rules.completion, listening_since_s
            )
            if isinstance(outcome, Wait):
                wait_s = min(wait_s, outcome.until_s - now_s)
            elif self._decide(series, outcome.evidence):
                decided += 1
        self._wait_s = max(wait_s, _SHORTEST_WAIT_S)
        return decided

    def _decide(self, series: ReceivingSeries, evidence: Mapping[str, Any]) -> bool:
        """Decide one complete series; False if an instance arrived at the last moment."""
        is_ours = self._journal.is_own_result_series(series.series_instance_uid)
        members = self._journal.members(series.id)
        try:
            decision = consider(series, members, evidence, self._rules, is_ours=is_ours)
        except Exception as error:  # noqa: BLE001 - one strange series must not stop all the others
            self._log.exception("series_not_assessed", series=series.series_instance_uid)
            reason = f"The gateway failed to assess the series ({type(error).__name__}); please report it."
            decision = _without_routing("ASSESSMENT_FAILED", reason, evidence, self._rules, refused=True)
        failpoint.reach("sweep.before_decision")
        try:
            job_id = self._journal.decide_series(series, decision, self._clock.now_s())
        except LostRace:
            return False
        failpoint.reach("sweep.decided")
        self._log.info(
            "series_decided",
            series=series.series_instance_uid,
            revision=series.revision,
            instances=series.instance_count,
            decision=decision.name,
            reason=decision.reason,
            job=job_id,
        )
        return True

    def _first_seen(self, series: ReceivingSeries) -> tuple[int, float]:
        """The instance count, and the monotonic time at which we first saw it."""
        count, at_s = self._seen.get(series.id, (-1, 0.0))
        if count == series.instance_count:
            return count, at_s
        return series.instance_count, self._clock.monotonic_s()

    def _now_s(self, series: ReceivingSeries) -> float:
        """Now; if the wall clock was set back before the newest instance, counted on from there."""
        now_s = self._clock.now_s()
        if now_s >= series.last_instance_at:
            return now_s
        return series.last_instance_at + self._clock.monotonic_s() - self._seen[series.id][1]


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
        return _without_routing("NO_OWN_INSTANCES", _NO_OWN_INSTANCES, evidence, rules, refused=True)
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
    return _without_routing("OWN_RESULT", reason, evidence, rules, refused=False)


def _without_routing(
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
