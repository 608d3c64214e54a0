"""HTTP connections with bounds: how many, how long a request may take to begin, how large its head may be."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

MAX_HEAD_BYTES = 16384
MAX_CONNECTIONS = 256
MAX_CONNECTIONS_PER_ADDRESS = 64
HEAD_TIMEOUT_S = 10.0
LET_IN = "let_in"
"""In the state of a request's scope, true while the request of a known client is being served: its connection
makes room for nobody. How many of these there are, is for those to bound who let them in."""


class GuardedProtocol(H11Protocol):
    """HTTP/1.1 of uvicorn, which has no deadline for a request that never ends its head.

    Where there are too many connections, in all or of one address, one that nobody has let in makes room for
    a new one, whatever it is doing: waiting, sending what is not read, not reading its answer. So strangers,
    however many and however slow, keep nobody out: who means it is served within milliseconds.
    """

    _head_timer: asyncio.TimerHandle | None = None
    _since_s = 0.0
    """When it came, or when its last request was answered."""
    _has_made_room = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A new connection: it must begin a request soon."""
        super().connection_made(transport)
        self._since_s = self.loop.time()
        self._watch_head()
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
        self._since_s = self.loop.time()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP; after an answer has begun there is nothing left to say."""
        try:
            super().send_400_response(msg)
        except h11.LocalProtocolError:
            self.transport.abort()

    @property
    def address(self) -> str:
        """Of the client."""
        return self.client[0] if self.client else ""

    @property
    def is_waiting(self) -> bool:
        """No request is under way."""
        cycle = cast("RequestResponseCycle | None", self.cycle)
        return cycle is None or cycle.response_complete

    @property
    def is_let_in(self) -> bool:
        """A request of a known client is being served."""
        return not self.is_waiting and self.cycle.scope["state"].get(LET_IN, False)

    def _watch_head(self) -> None:
        if not self.is_waiting:
            self._disarm()
        elif self._head_timer is None and not self.transport.is_closing():
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
        """End the oldest connection of an address that has too many, else of the one that has most."""
        staying = [each for each in cast("set[GuardedProtocol]", self.connections) if not each._has_made_room]
        strangers = [each for each in staying if not each.is_let_in]
        counts = Counter(each.address for each in strangers)
        crowded = self.address
        if counts[crowded] <= MAX_CONNECTIONS_PER_ADDRESS:
            if len(staying) <= MAX_CONNECTIONS:
                return
            crowded = counts.most_common(1)[0][0]
        oldest = min((each for each in strangers if each.address == crowded), key=lambda each: each._since_s)
        oldest._has_made_room = True
        oldest.transport.abort()
