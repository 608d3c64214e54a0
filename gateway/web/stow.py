"""``POST /dicom-web/studies[/{study}]``: HTTP around :class:`gateway.receive.stow.service.StowService`.

The disk is touched in threads only, one call at a time for each request: while one chunk is being written the
next one is read, and then the client has to wait. So a request holds a few hundred kilobytes, however fast
it comes and however slow the disk is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from gateway.errors import GatewayError
from gateway.receive.stow.request import StoreHead, StowRefused
from gateway.receive.stow.response import Answer, refuse
from gateway.receive.stow.service import StowService
from gateway.receive.stow.store import StoreRequest
from gateway.web.connections import BROKEN, LET_IN

T = TypeVar("T")

DICOM_WEB = "/dicom-web"
STUDIES = f"{DICOM_WEB}/studies"
_OTHER = "other"
_DOORS = 4
_MIN_BYTES_PER_S = 1024
_LOOK_S = 0.25
"""How long we wait for a client until we look whether the gateway stops."""


class _Gone(Exception):
    """The client has closed the connection."""


def stow_routes(service: StowService) -> list[Route]:
    """The Store transaction (PS3.18 Table 10.5.1-1), and a route that refuses all others by name."""
    endpoint = StowEndpoint(service)
    store = [STUDIES, f"{STUDIES}/", f"{STUDIES}/{{study}}", f"{STUDIES}/{{study}}/"]
    return [Route(path, endpoint) for path in (*store, f"{DICOM_WEB}/{{{_OTHER}:path}}")]


class StowEndpoint:
    """An ASGI application that stores."""

    def __init__(self, service: StowService) -> None:
        self._service = service
        # Who may come in is decided beside those who are in: no flood of strangers holds these up.
        self._doors = ThreadPoolExecutor(_DOORS, thread_name_prefix="stow-door")
        self._workers = ThreadPoolExecutor(service.limits.max_requests, thread_name_prefix="stow")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        head = head_of(scope)
        try:
            request = await self._open(scope, head)
        except StowRefused as refusal:
            await _answer(refuse(refusal), send)
            return
        scope["state"][LET_IN] = True
        try:
            answer = await self._store(request, head, receive, lambda: self._check(scope))
        finally:
            scope["state"][LET_IN] = False
        if answer is not None:
            await _answer(answer, send)

    async def _open(self, scope: Scope, head: StoreHead) -> StoreRequest:
        """Let a request in. Raises StowRefused, which is written down then."""
        wrong = _wrong_target(scope)
        if wrong is None:
            return await _run(self._doors, lambda: self._service.open(head))
        await _run(self._doors, lambda: self._service.refused(wrong, head))
        raise wrong

    def _check(self, scope: Scope) -> None:
        """Raises StowRefused if no more of a body can come, or may."""
        self._service.check_cut_off()
        if why := scope["state"].get(BROKEN):
            raise StowRefused("HTTP_MALFORMED", f"The body is no HTTP (RFC 9112 7.1). {why}", 400)

    async def _store(
        self, request: StoreRequest, head: StoreHead, receive: Receive, check: Callable[[], None]
    ) -> Answer | None:
        """Take the body in; the answer, or None if nobody is there to hear it."""
        error: GatewayError | None = None
        is_gone = False
        try:
            async for chunk in _chunks(receive, self._service.limits.idle_timeout_s, check):
                await _run(self._workers, lambda chunk=chunk: request.feed(chunk))  # type: ignore[misc]
            await _run(self._workers, request.finish)
        except StowRefused as refusal:
            error = refusal
        except _Gone:
            error = GatewayError(
                "CLIENT_GONE",
                "The connection ended before the request did: its client, or something between, closed it.",
            )
            is_gone = True
        finally:
            # Also when we are cancelled; it waits for a call that is still under way in its thread.
            closing = self._workers.submit(request.close)
        await asyncio.wrap_future(closing)
        if error is not None:
            broken = error
            await _run(self._doors, lambda: self._service.broken_off(broken, head, request))
        return None if is_gone else request.answer(error)


def head_of(scope: Scope) -> StoreHead:
    """A request without its body, from the ASGI scope."""
    found: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    fields = {name: tuple(values) for name, values in found.items()}
    client = scope.get("client") or ("0.0.0.0", 0)  # noqa: S104 - no listener: an address that is nobody's
    return StoreHead(str(client[0]), fields, scope.get("path_params", {}).get("study"))


def _wrong_target(scope: Scope) -> StowRefused | None:
    """Why this is no Store transaction at all."""
    what = f"Images are stored by POST to {STUDIES} or {STUDIES}/{{study}}, and nothing else is served here."
    if _OTHER in scope.get("path_params", {}):
        return StowRefused("RESOURCE_UNKNOWN", what, 404)
    return None if scope["method"] == "POST" else StowRefused("METHOD_NOT_ALLOWED", what, 405)


async def _chunks(receive: Receive, idle_timeout_s: float, check: Callable[[], None]) -> AsyncIterator[bytes]:
    """The body as it comes. Raises StowRefused (408) for a client that is too slow, _Gone for one that left.

    Only time that we waited for the client counts, not what our disk took. ``check`` is asked all the time,
    and what it raises ends the body.
    """
    clock = asyncio.get_running_loop().time
    waited_s, count = 0.0, 0
    while True:
        asked_s = clock()
        message = await _message(receive, idle_timeout_s, check)
        waited_s += clock() - asked_s
        if message["type"] == "http.disconnect":
            raise _Gone
        chunk: bytes = message.get("body", b"")
        count += len(chunk)
        if count < _MIN_BYTES_PER_S * (waited_s - idle_timeout_s):
            raise _too_slow(f"sent less than {_MIN_BYTES_PER_S} bytes a second")
        if chunk:
            yield chunk
        if not message.get("more_body", False):
            return


async def _message(receive: Receive, idle_timeout_s: float, check: Callable[[], None]) -> Message:
    """What comes next; no message is lost when the wait for it is cut short."""
    clock = asyncio.get_running_loop().time
    until_s = clock() + idle_timeout_s
    while True:
        check()
        try:
            async with asyncio.timeout(min(_LOOK_S, until_s - clock())):
                return await receive()
        except TimeoutError as error:
            if clock() >= until_s:
                raise _too_slow(f"sent nothing for {idle_timeout_s:g} s (web.stow.idle_timeout)") from error


async def _answer(answer: Answer, send: Send) -> None:
    headers = {**answer.headers, "Content-Length": str(len(answer.body)), "Cache-Control": "no-store"}
    fields = [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": fields})
    await send({"type": "http.response.body", "body": answer.body, "more_body": False})


async def _run(pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(pool, work)


def _too_slow(what: str) -> StowRefused:
    return StowRefused("CLIENT_TOO_SLOW", f"The client {what}: send again.", 408)
