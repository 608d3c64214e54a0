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
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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
    return Starlette(
        routes=[
            Route("/health/live", live),
            Route("/health/ready", ready),
            Route("/metrics", scrape),
            *further,
        ],
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False),
            Middleware(UnreadBodies),
        ],
    )


class UnreadBodies:
    """Closes the connection after an answer that did not wait for the request's body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on; watch whether the body was read."""
        has_body = any(
            name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0 "))
            for name, value in scope.get("headers", ())
        )
        is_read = not has_body

        async def watched_receive() -> Message:
            nonlocal is_read
            message = await receive()
            is_read = is_read or not message.get("more_body", False)
            return message

        async def watched_send(message: Message) -> None:
            if message["type"] == "http.response.start" and not is_read:
                fields = [each for each in message.get("headers", ()) if each[0] != b"connection"]
                message = {**message, "headers": [*fields, (b"connection", b"close")]}
            await send(message)

        await self._app(scope, watched_receive, watched_send)
