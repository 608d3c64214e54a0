"""HTTPS: the handshake before each HTTP connection, with a deadline, and only so many under way at a time."""

from __future__ import annotations

import asyncio
import ssl
from asyncio.sslproto import SSLProtocol
from collections.abc import Callable
from typing import Any, cast

from gateway.web.connections import GuardedProtocol

MAX_HANDSHAKES = 64
HANDSHAKE_TIMEOUT_S = 10
_SHUTDOWN_TIMEOUT_S = 2

HandshakeFailed = Callable[[str, OSError], None]
"""Told the address of a client, and what OpenSSL or the connection said."""


class TlsDoor:
    """Makes the protocol of each connection: HTTP inside TLS. What uvicorn has for this knows no deadline of
    ours, no bound, and no new certificate.

    Parameters
    ----------
    context
        Asked for each connection.
    on_failure
        For handshakes that fail; not for clients that close without a word.
    """

    def __init__(self, context: Callable[[], ssl.SSLContext], on_failure: HandshakeFailed) -> None:
        self.context = context
        self.on_failure = on_failure
        self.shaking: dict[asyncio.BaseProtocol, asyncio.Transport] = {}  # the oldest first

    def __call__(self, **given: Any) -> asyncio.BaseProtocol:
        """As uvicorn makes an HTTP protocol."""
        http = _SecureHttp(**given)
        handshake = _Handshake(http, self)
        http.on_made = lambda: self.shaking.pop(handshake, None)
        return handshake


class _SecureHttp(GuardedProtocol):
    """Inside; exists before the handshake, and is connected after it."""

    on_made: Callable[[], object] = staticmethod(lambda: None)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.on_made()
        super().connection_made(transport)


class _Handshake(SSLProtocol):
    """Outside."""

    def __init__(self, http: _SecureHttp, door: TlsDoor) -> None:
        super().__init__(
            asyncio.get_running_loop(),
            http,
            door.context(),
            cast("asyncio.Future[Any]", None),  # nobody waits
            server_side=True,
            ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S,
            ssl_shutdown_timeout=_SHUTDOWN_TIMEOUT_S,
        )
        self._door = door
        self._address = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The oldest one makes room: whoever means it shakes hands within milliseconds."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101
        self._address = str((transport.get_extra_info("peername") or ("an unknown address",))[0])
        shaking = self._door.shaking
        shaking[self] = transport
        if len(shaking) > MAX_HANDSHAKES:
            shaking.pop(next(iter(shaking))).abort()
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Say why, if that was during the handshake."""
        was_shaking = self._door.shaking.pop(self, None) is not None
        if was_shaking and isinstance(exc, ssl.SSLError | ConnectionAbortedError):  # the latter: too slow
            self._door.on_failure(self._address, exc)
        super().connection_lost(exc)
