"""When is a series complete? By evidence: nothing new for a while and no open association.

Pure. DICOM has no "end of series" in C-STORE, so the gateway waits until the source is quiet and
has hung up. A source that asks for storage commitment of all that there is of a series, and sends no
more of it for a moment, has finished it, and nothing else is waited for. A series that never comes to
rest is taken as it is after ``at_most``, and said to be incomplete.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

_LOOK_AGAIN_S = 1.0  # an association may end at any moment, and nobody tells us
_COMMITTED_QUIET_S = 2.0  # some sources ask after every instance, the first one included


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

    @property
    def committed_at(self) -> float | None:
        """When storage commitment of all its instances was asked for, and none was missing."""
        ...

    @property
    def committed_count(self) -> int | None:
        """How many they were then."""
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
    if _is_committed(series):
        asked_s = now_s - (series.committed_at or 0.0)
        if 0 <= asked_s < _COMMITTED_QUIET_S:
            reason = (
                f"{_counted(series)}; {series.source} asked for storage commitment of exactly these: "
                f"complete if nothing comes for {_COMMITTED_QUIET_S:g} s, as some ask after every instance."
            )
            return Wait(now_s - asked_s + _COMMITTED_QUIET_S, reason)
        reason = (
            f"{_counted(series)}; {series.source} asked for storage commitment of exactly these, and all are "
            "here: nothing more is waited for."
        )
        return Complete(_evidence(series, open_associations, now_s, rules, reason, incomplete=False))
    restarted = listening_since_s > series.last_instance_at
    quiet_since_s = max(series.last_instance_at, listening_since_s)
    quiet_s = now_s - quiet_since_s
    quiet_at_s = quiet_since_s + rules.quiet_for_s
    deadline_s = max(series.opened_at, listening_since_s) + rules.at_most_s
    counted = _counted(series)
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


def _is_committed(series: Arrivals) -> bool:
    """Whether the request is about the series as it is now: with a later instance it says nothing."""
    if series.committed_at is None or series.committed_at < series.last_instance_at:
        return False
    return series.committed_count == series.instance_count


def _counted(series: Arrivals) -> str:
    return f"{series.instance_count} instance{'' if series.instance_count == 1 else 's'}"


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
