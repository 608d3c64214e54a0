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
from gateway.web.connections import LET_IN

T = TypeVar("T")

STUDIES = "/dicom-web/studies"
_DOORS = 4
_MIN_BYTES_PER_S = 1024
_LINGER_S = 3.0
_LINGER_BYTES = 64 << 20


class _Gone(Exception):
    """The client has closed the connection."""


def stow_routes(service: StowService) -> list[Route]:
    """The routes of the Store transaction (PS3.18 Table 10.5.1-1)."""
    endpoint = StowEndpoint(service)
    return [
        Route(STUDIES, endpoint, methods=["POST"]),
        Route(f"{STUDIES}/{{study}}", endpoint, methods=["POST"]),
    ]


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
            request = await _run(self._doors, lambda: self._service.open(head))
        except StowRefused as refusal:
            await _answer(refuse(refusal), receive, send, is_read=False)
            return
        scope["state"][LET_IN] = True
        try:
            answer, is_read = await self._store(request, head, receive)
        finally:
            scope["state"][LET_IN] = False
        if answer is not None:
            await _answer(answer, receive, send, is_read=is_read)

    async def _store(
        self, request: StoreRequest, head: StoreHead, receive: Receive
    ) -> tuple[Answer | None, bool]:
        """Take the body in; the answer (None: nobody is there to hear it), and whether all was read."""
        error: GatewayError | None = None
        is_read, is_gone = False, False
        try:
            async for chunk in _chunks(receive, self._service.limits.idle_timeout_s):
                await _run(self._workers, lambda chunk=chunk: request.feed(chunk))  # type: ignore[misc]
            is_read = True
            await _run(self._workers, request.finish)
        except StowRefused as refusal:
            error = refusal
        except _Gone:
            error = GatewayError(
                "CLIENT_GONE", "The client closed the connection before the end of its request."
            )
            is_gone = True
        finally:
            # Also when we are cancelled; it waits for a call that is still under way in its thread.
            closing = self._workers.submit(request.close)
        await asyncio.wrap_future(closing)
        if error is not None:
            broken = error
            await _run(self._doors, lambda: self._service.broken_off(broken, head, request))
        return None if is_gone else request.answer(error), is_read


def head_of(scope: Scope) -> StoreHead:
    """A request without its body, from the ASGI scope."""
    fields: dict[str, tuple[str, ...]] = {}
    for name, value in scope["headers"]:
        key = name.decode("latin-1").lower()
        fields[key] = (*fields.get(key, ()), value.decode("latin-1"))
    client = scope.get("client") or ("0.0.0.0", 0)  # noqa: S104 - no listener: an address that is nobody's
    return StoreHead(str(client[0]), fields, scope.get("path_params", {}).get("study"))


async def _chunks(receive: Receive, idle_timeout_s: float) -> AsyncIterator[bytes]:
    """The body as it comes. Raises StowRefused (408) for a client that is too slow, _Gone for one that left.

    Only time that we waited for the client counts, not what our disk took.
    """
    clock = asyncio.get_running_loop().time
    waited_s, count = 0.0, 0
    while True:
        asked_s = clock()
        try:
            async with asyncio.timeout(idle_timeout_s):
                message = await receive()
        except TimeoutError as error:
            raise _too_slow(f"sent nothing for {idle_timeout_s:g} s (web.stow.idle_timeout)") from error
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


async def _answer(answer: Answer, receive: Receive, send: Send, *, is_read: bool) -> None:
    """Send an answer. If the body was not read, read over what is under way, so that the answer arrives.

    A connection that is closed with bytes unread is reset, and many clients then see no answer at all.
    """
    headers = {**answer.headers, "Content-Length": str(len(answer.body)), "Cache-Control": "no-store"}
    if not is_read:
        headers["Connection"] = "close"
    fields = [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in headers.items()]
    start: Message = {"type": "http.response.start", "status": answer.status, "headers": fields}
    await send(start)
    await send({"type": "http.response.body", "body": answer.body, "more_body": not is_read})
    if not is_read:
        await _linger(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _linger(receive: Receive) -> None:
    count = 0
    try:
        async with asyncio.timeout(_LINGER_S):
            while count < _LINGER_BYTES:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
                count += len(message.get("body", b""))
    except TimeoutError:
        return


async def _run(pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(pool, work)


def _too_slow(what: str) -> StowRefused:
    return StowRefused("CLIENT_TOO_SLOW", f"The client {what}: send again.", 408)
