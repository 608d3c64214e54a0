"""Health and metrics over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from gateway.web.unread import UnreadBodies

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Check:
    """One thing that must hold for the node to be ready; ``reason`` says what is known about it."""

    ok: bool
    reason: str


Checks = Callable[[], Mapping[str, Check]]


def make_app(
    checks: Checks, metrics: Callable[[], bytes], listen_host: str, further: Sequence[BaseRoute] = ()
) -> Starlette:
    """The application.

    ``GET /health/live`` is 200 while the process serves at all; ``GET /health/ready`` is 200 when
    every check holds and 503 otherwise, with the reasons; ``GET /metrics`` is for Prometheus; ``further``
    are routes of others. No body is read but by those.
    A listener on loopback answers to loopback names only, so that no web page of another site can
    reach it through the name system (DNS rebinding).
    """

    async def live(_: Request) -> Response:  # in no thread: those may all be busy with the other answers
        return JSONResponse({"status": "alive"})

    def ready(_: Request) -> Response:
        found = checks()
        is_ready = all(check.ok for check in found.values())
        body = {
            "status": "ready" if is_ready else "not ready",
            "checks": {k: asdict(v) for k, v in found.items()},
        }
        return JSONResponse(body, status_code=200 if is_ready else 503)

    def scrape(_: Request) -> Response:
        return Response(metrics(), media_type=CONTENT_TYPE_LATEST)

    hosts = [*_LOOPBACK, "[::1]"] if listen_host in _LOOPBACK else ["*"]
    app = Starlette(
        routes=[
            Route("/health/live", live),
            Route("/health/ready", ready),
            Route("/metrics", scrape),
            *further,
        ],
        middleware=[
            Middleware(UnreadBodies),
            Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False),
        ],
    )
    app.router.redirect_slashes = False  # to where the Host field says: a redirect of anybody's choice
    return app
