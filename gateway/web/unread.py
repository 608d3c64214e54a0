"""Answers that do not wait for the body of their request, and arrive all the same."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LINGER_S = 3.0
_LINGER_BYTES = 64 << 20


class UnreadBodies:
    """Reads over what is under way after an answer that did not wait for it, then closes the connection.

    A connection that is closed with bytes unread is reset, and many clients then see no answer at all.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on; watch whether the body was read."""
        is_read = not _has_body(scope)

        async def watched_receive() -> Message:
            nonlocal is_read
            message = await receive()
            is_read = is_read or not message.get("more_body", False)
            return message

        async def watched_send(message: Message) -> None:
            if is_read:
                await send(message)
            elif message["type"] == "http.response.start":
                fields = [each for each in message.get("headers", ()) if each[0] != b"connection"]
                await send({**message, "headers": [*fields, (b"connection", b"close")]})
            elif message.get("more_body", False):
                await send(message)
            else:
                await send({**message, "more_body": True})
                await _linger(receive)
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        await self._app(scope, watched_receive, watched_send)


def _has_body(scope: Scope) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0 "))
        for name, value in scope.get("headers", ())
    )


async def _linger(receive: Receive) -> None:
    count = 0
    try:
        async with asyncio.timeout(_LINGER_S):
            while count < _LINGER_BYTES:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
                count += len(message.get("body", b""))
    except (TimeoutError, asyncio.CancelledError):  # the server stops: the answer is out
        return
