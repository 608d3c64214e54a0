"""HTTPS: the handshake before each HTTP connection, with a deadline, and only so many under way at a time."""

from __future__ import annotations

import asyncio
import ssl
from asyncio.sslproto import SSLProtocol
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

from gateway.receive.sockets import caller_address
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
        self.shaking: dict[_Handshake, asyncio.Transport] = {}  # the oldest first

    def __call__(self, **given: Any) -> asyncio.BaseProtocol:
        """As uvicorn makes an HTTP protocol."""
        http = _SecureHttp(**given)
        handshake = _Handshake(http, self)
        http.on_made = lambda: self.shaking.pop(handshake, None)
        return handshake

    def began(self, handshake: _Handshake, transport: asyncio.Transport) -> None:
        """One more; where there are too many, the oldest of the address that has most makes room for it.

        Whoever means it shakes hands within milliseconds, and a crowd of one address ends its own.
        """
        self.shaking[handshake] = transport
        if len(self.shaking) > MAX_HANDSHAKES:
            ((crowded, _),) = Counter(each.address for each in self.shaking).most_common(1)
            oldest = next(each for each in self.shaking if each.address == crowded)
            self.shaking.pop(oldest).abort()


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
        self.address = "an unknown address"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101
        if peer_name := transport.get_extra_info("peername"):
            self.address = caller_address(peer_name)
        self._door.began(self, transport)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Say why, if that was during the handshake."""
        was_shaking = self._door.shaking.pop(self, None) is not None
        if was_shaking and isinstance(exc, ssl.SSLError | ConnectionAbortedError):  # the latter: too slow
            self._door.on_failure(self.address, exc)
        super().connection_lost(exc)
