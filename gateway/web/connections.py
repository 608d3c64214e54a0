"""HTTP connections with bounds: how many, how long a request may take to begin, how large its head may be."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

MAX_HEAD_BYTES = 16384
MAX_CONNECTIONS = 256
HEAD_TIMEOUT_S = 10.0


class GuardedProtocol(H11Protocol):
    """HTTP/1.1 of uvicorn, which has no deadline for a request that never ends its head.

    When all connections are taken, the one that has waited longest for a request makes room for a new one: so
    idle connections, however many, keep nobody out.
    """

    _head_timer: asyncio.TimerHandle | None = None
    _waiting_since_s = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A new connection: it must begin a request soon."""
        super().connection_made(transport)
        self._watch_head()
        if len(self.connections) > MAX_CONNECTIONS:
            self._make_room()

    def data_received(self, data: bytes) -> None:
        """Bytes of a head, or of a body."""
        super().data_received(data)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self._disarm()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """From now on the client may keep the connection for its next request, for a short time."""
        super().on_response_complete()
        self._waiting_since_s = self.loop.time()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP; after an answer has begun there is nothing left to say."""
        try:
            super().send_400_response(msg)
        except h11.LocalProtocolError:
            self.transport.abort()

    @property
    def is_waiting(self) -> bool:
        """No request is under way."""
        cycle = cast("RequestResponseCycle | None", self.cycle)
        return cycle is None or cycle.response_complete

    def _watch_head(self) -> None:
        if not self.is_waiting:
            self._disarm()
        elif self._head_timer is None and not self.transport.is_closing():
            self._waiting_since_s = self.loop.time()
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._head_is_late)

    def _disarm(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.is_waiting:
            self.transport.abort()

    def _make_room(self) -> None:
        waiting: list[Any] = [each for each in self.connections if getattr(each, "is_waiting", False)]
        oldest = min(waiting, key=lambda each: each._waiting_since_s, default=self)
        oldest.transport.abort()
