"""HTTP connections with bounds: how many, how long a request may take to begin, and what its parts may cost.

The web thread serves everybody, and each piece that h11 finds takes its time: so a head has few fields, a
chunk is no crumb, and a body that nobody wants any more is not parsed.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from typing import cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from gateway.receive.sockets import caller_address

MAX_HEAD_BYTES = 16384
MAX_HEAD_FIELDS = 100
MIN_CHUNK_BYTES = 64
"""On average, over any few hundred chunks (RFC 9112 section 7.1) of a body."""
MAX_CONNECTIONS = 256
MAX_CONNECTIONS_PER_ADDRESS = 64
HEAD_TIMEOUT_S = 10.0
LET_IN = "let_in"
"""In the state of a request's scope, true while the request of a known client is being served: its connection
makes room for nobody. How many of these there are, is for those to bound who let them in."""
BROKEN = "broken"
"""In the same state: why the rest of a body that was let in cannot be read. Its application answers that."""
_SPARE_CHUNKS = 256
_LINGER_S = 3.0
_READ_BYTES, _STRANGERS_READ_BYTES = 1 << 18, 1 << 14
_MAX_UNWANTED_BYTES = 64 << 20
_LAST_CHUNK = b"\r\n0\r\n\r\n"


class BoundedConnection(h11.Connection):
    """HTTP/1.1 of h11, which bounds a head only while its end has not come, and no number of chunks."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER, MAX_HEAD_BYTES)
        self.refusal: str | None = None
        self._spare_chunks = float(_SPARE_CHUNKS)

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """As h11. Raises h11.RemoteProtocolError; ``refusal`` then says why, if it was a bound of ours."""
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._spare_chunks = _SPARE_CHUNKS
            if is_too_large(event):
                self._refuse(f"Send at most {MAX_HEAD_FIELDS} header fields, {MAX_HEAD_BYTES} bytes in all.")
        elif isinstance(event, h11.Data):
            spare = self._spare_chunks - event.chunk_start + len(event.data) / MIN_CHUNK_BYTES
            self._spare_chunks = min(spare, _SPARE_CHUNKS)
            if spare < 0:
                self._refuse(f"Send chunks of {MIN_CHUNK_BYTES} bytes or more.")
        return event

    def _refuse(self, reason: str) -> None:
        self.refusal = reason
        raise h11.RemoteProtocolError(reason)


class GuardedProtocol(H11Protocol):
    """HTTP/1.1 of uvicorn, which has no deadline for a request that never ends its head.

    Where there are too many connections, in all or of one address, one that nobody has let in makes room for
    a new one, whatever it is doing: waiting, sending what is not read, not reading its answer. So strangers,
    however many and however slow, keep nobody out: who means it is served within milliseconds.
    """

    conn: BoundedConnection
    _head_timer: asyncio.TimerHandle | None = None
    _since_s = 0.0
    """When it came, or when its last request was answered."""
    _has_made_room = False
    _is_broken = False
    _unwanted_bytes = 0
    _tail = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A new connection: it must begin a request soon."""
        super().connection_made(transport)
        self.conn = BoundedConnection()
        if self.client is not None:
            self.client = (caller_address(self.client), self.client[1])
        self._since_s = self.loop.time()
        self._bound_reads()
        self._watch_head()
        self._make_room()

    def data_received(self, data: bytes) -> None:
        """Bytes of a head, or of a body."""
        if self._is_broken:  # nothing that follows can be understood
            return
        if self._is_unwanted:
            self._read_over(data)
            return
        super().data_received(data)
        self._bound_reads()
        self._watch_head()

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client sends no more. It may still wait for the answer to a request that is complete.

        Inside TLS there is no such thing: asyncio ends the connection.
        """
        if self.scheme == "https" or self.is_waiting or self.cycle.more_body:
            return False
        self.cycle.keep_alive = False
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self._disarm()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """From now on the client may keep the connection for its next request, for a short time."""
        super().on_response_complete()
        self._since_s = self.loop.time()
        self._bound_reads()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP; after an answer has begun there is nothing left to say."""
        self._is_broken = True
        if self.is_let_in:  # its application knows what it has taken before
            self.cycle.scope["state"][BROKEN] = self.conn.refusal or msg
            self.cycle.message_event.set()
            return
        try:
            self._answer_400((self.conn.refusal or msg).encode("ascii"))
        except h11.LocalProtocolError:
            self.transport.abort()
        if not self.is_waiting:  # the application has nobody left to answer, and need not fail at it
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def _answer_400(self, text: bytes) -> None:
        """Close our half only: a connection that is closed with bytes unread is reset, often unanswered."""
        fields = {"Content-Type": "text/plain", "Content-Length": str(len(text)), "Connection": "close"}
        head = h11.Response(status_code=400, headers=list(fields.items()), reason=b"Bad Request")
        events = (head, h11.Data(data=text), h11.EndOfMessage())
        self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))
        if self.transport.can_write_eof():
            with suppress(OSError):  # the client has gone already
                self.transport.write_eof()
            self.loop.call_later(_LINGER_S, self.transport.abort)
        else:  # inside TLS
            self.transport.close()

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

    @property
    def _is_unwanted(self) -> bool:
        """What comes is the rest of a body in chunks whose request is being answered already."""
        if self.is_waiting or not self.cycle.response_started or self.conn.their_state is not h11.SEND_BODY:
            return False
        return any(name == b"transfer-encoding" for name, _ in self.headers)

    def _read_over(self, data: bytes) -> None:
        """Only the end of such a body matters: then the connection can close, and the answer arrives."""
        self._unwanted_bytes += len(data)
        self._tail = (self._tail + data[-len(_LAST_CHUNK) :])[-len(_LAST_CHUNK) :]
        if self._tail == _LAST_CHUNK or self._unwanted_bytes > _MAX_UNWANTED_BYTES:
            self.cycle.more_body = False
            self.cycle.message_event.set()

    def _bound_reads(self) -> None:
        """So that a stranger's bytes cannot hold up the others for long; inside TLS it changes nothing."""
        self.transport.max_size = _READ_BYTES if self.is_let_in else _STRANGERS_READ_BYTES  # type: ignore[attr-defined]

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


def is_too_large(request: h11.Request) -> bool:
    """Whether the head of a request has too many fields, or too many bytes."""
    fields = request.headers.raw_items()
    size = len(request.method) + len(request.target) + sum(len(name) + len(value) for name, value in fields)
    return len(fields) > MAX_HEAD_FIELDS or size > MAX_HEAD_BYTES
