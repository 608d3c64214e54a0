"""Settings to the narrow values that the rooms below receive."""

from __future__ import annotations

from ai.profile import Profile
from gateway.completion import CompletionRules
from gateway.journal.profiles import Profiles
from gateway.routing import Route, parse_condition
from gateway.settings.model import ResultProfile, Settings


def completion_rules(settings: Settings) -> CompletionRules:
    """When a series is complete."""
    return CompletionRules(settings.completion.quiet_for, settings.completion.at_most)


def routes(settings: Settings) -> tuple[Route, ...]:
    """The routing rules, in order."""
    return tuple(
        Route(
            name=route.name,
            conditions=tuple(c for name, value in route.when.items() for c in parse_condition(name, value)),
            model=route.model,
            send=route.send,
            action=route.action,
            reason=route.reason,
            priority=route.priority,
        )
        for route in settings.routes
    )


def profiles(settings: Settings) -> Profiles:
    """How each destination wants its results written."""
    peers = settings.peers.items()
    return Profiles({name: _profile(peer.results) for name, peer in peers if "destination" in peer.roles})


def _profile(results: ResultProfile) -> Profile:
    values = results.model_dump(exclude={"max_frames", "max_segments"})
    return Profile(
        **values,
        maximum_frames=results.max_frames or None,
        maximum_segments=results.max_segments or None,
    )


def why_held(settings: Settings, destination: str) -> str:
    """Why nothing is sent to a destination with this configuration; empty when it is sent."""
    if settings.results.status == "shadow":
        return "held: results.status is shadow, so nothing is sent"
    peer = settings.peers.get(destination)
    if peer is None or "destination" not in peer.roles or peer.port is None:
        return (
            f"held: the configuration has no peer {destination} with the role destination; "
            "put it back and restart the gateway to have it sent"
        )
    return ""


def cards(settings: Settings) -> dict[str, str]:
    """Model name to card name."""
    return {name: choice.card for name, choice in settings.models.items()}
