"""Settings of the web face: health, metrics, STOW-RS."""

from __future__ import annotations

from pydantic import Field

from gateway.settings.section import Listen, PathName, Section, SizeLimit, Timeout


class Stow(Section):
    """What STOW-RS takes in one request, from a peer with ``web``."""

    max_instances: int = Field(default=10_000, ge=1)
    max_request: SizeLimit = 16 * 1024**3
    max_requests: int = Field(default=8, ge=1)
    """At the same time; further ones get 503."""
    idle_timeout: Timeout = 30.0
    """A client that sends nothing for so long is cut off."""


class WebTls(Section):
    """HTTPS on ``web.listen``: PEM files, read anew when they change. Clients need no certificate."""

    certificate: PathName
    """Ours, followed by the intermediate ones."""
    key: PathName


class Web(Section):
    """Health, metrics and STOW-RS."""

    listen: Listen = Listen(host="127.0.0.1", port=8080)
    tls: WebTls | None = None
    stow: Stow = Stow()
