"""How each destination wants its results written."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from ai.profile import DEFAULT_PROFILE, Profile
from gateway.journal.records import Purpose


@dataclass(frozen=True)
class Profiles:
    """The profiles of the destinations, as the configuration has them now; others have the default one.

    Attributes
    ----------
    by_destination
        Name of a peer → its profile.
    """

    by_destination: Mapping[str, Profile] = field(default_factory=dict)

    def of(self, destination: str) -> Profile:
        """The profile of a destination."""
        return self.by_destination.get(destination, DEFAULT_PROFILE)

    def wanted(
        self, destinations: Sequence[str], written: Collection[str] = (), purpose: Purpose = Purpose.RUN
    ) -> tuple[Profile, ...]:
        """Which profiles results must be written in, each once, in the order of the destinations.

        Without a destination (shadow mode) it is the default one. A failure report is written only for those
        that take reports.

        Parameters
        ----------
        written
            Keys of those that have been.
        """
        found = [self.of(destination) for destination in destinations] or [DEFAULT_PROFILE]
        lacking = (each for each in found if each.key not in written)
        return tuple(dict.fromkeys(p for p in lacking if p.report or purpose is Purpose.RUN))

    def report_to(self, destinations: Sequence[str], written: Collection[str]) -> tuple[str, ...]:
        """The destinations that are told of a failure: they take reports, and have no results of the job."""
        told = ((name, self.of(name)) for name in destinations)
        return tuple(name for name, profile in told if profile.report and profile.key not in written)
