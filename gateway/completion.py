"""When is a series complete? By evidence: nothing new for a while and no open association.

Pure. DICOM has no "end of series" in C-STORE, so the gateway waits until the source is quiet and
has hung up. A series that never comes to rest is taken as it is after ``at_most``, and said to be
incomplete.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

_LOOK_AGAIN_S = 1.0  # an association may end at any moment, and nobody tells us


class Arrivals(Protocol):
    """What is known of a series that may still grow; times in seconds since 1970 UTC."""

    @property
    def source(self) -> str:
        """Name of the peer that sends it."""
        ...

    @property
    def instance_count(self) -> int:
        """Instances so far."""
        ...

    @property
    def opened_at(self) -> float:
        """When its first instance arrived."""
        ...

    @property
    def last_instance_at(self) -> float:
        """When its newest instance arrived."""
        ...


@dataclass(frozen=True)
class CompletionRules:
    """Nothing new for ``quiet_for_s``; or ``at_most_s`` since the series was opened."""

    quiet_for_s: float
    at_most_s: float


@dataclass(frozen=True)
class Complete:
    """The series is complete; ``evidence`` says why, with ``reason`` as a sentence."""

    evidence: Mapping[str, bool | int | float | str]


@dataclass(frozen=True)
class Wait:
    """Not yet; look again at ``until_s`` (seconds since 1970 UTC)."""

    until_s: float
    reason: str


def decide(
    series: Arrivals,
    open_associations: int,
    now_s: float,
    rules: CompletionRules,
    listening_since_s: float = 0.0,
) -> Complete | Wait:
    """Decide whether a series is complete at ``now_s``.

    Before ``listening_since_s`` (the start of the gateway) nobody could reach us, so that the
    silence until then is no evidence.
    """
    restarted = listening_since_s > series.last_instance_at
    quiet_since_s = max(series.last_instance_at, listening_since_s)
    quiet_s = now_s - quiet_since_s
    quiet_at_s = quiet_since_s + rules.quiet_for_s
    deadline_s = max(series.opened_at, listening_since_s) + rules.at_most_s
    counted = f"{series.instance_count} instance{'' if series.instance_count == 1 else 's'}"
    if now_s >= quiet_at_s and not open_associations:
        since = " since the gateway was started" if restarted else ""
        reason = f"{counted}; quiet for {quiet_s:.1f} s{since}, no open association from {series.source}."
        return Complete(_evidence(series, open_associations, now_s, rules, reason, incomplete=False))
    if now_s >= deadline_s:
        reason = (
            f"{counted} after {now_s - series.opened_at:.0f} s, the longest that a series may take "
            f"({rules.at_most_s:g} s); taken as it is and possibly incomplete: the last instance came "
            f"{now_s - series.last_instance_at:.1f} s ago, open associations from {series.source}: "
            f"{open_associations}."
        )
        return Complete(_evidence(series, open_associations, now_s, rules, reason, incomplete=True))
    if now_s < quiet_at_s:
        reason = f"{counted}; quiet for {quiet_s:.1f} s, {rules.quiet_for_s:g} s are needed."
        return Wait(min(quiet_at_s, deadline_s), reason)
    plural = "" if open_associations == 1 else "s"
    reason = f"{counted}; {series.source} still has {open_associations} open association{plural}."
    return Wait(min(now_s + _LOOK_AGAIN_S, deadline_s), reason)


def _evidence(
    series: Arrivals,
    open_associations: int,
    now_s: float,
    rules: CompletionRules,
    reason: str,
    *,
    incomplete: bool,
) -> dict[str, bool | int | float | str]:
    return {
        "reason": reason,
        "incomplete": incomplete,
        "instances": series.instance_count,
        "quiet_s": round(now_s - series.last_instance_at, 3),
        "age_s": round(now_s - series.opened_at, 3),
        "open_associations": open_associations,
        "quiet_for_s": rules.quiet_for_s,
        "at_most_s": rules.at_most_s,
    }
