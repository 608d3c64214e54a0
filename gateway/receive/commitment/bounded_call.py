"""Bounds what a peer may send on an association that we open and on which we expect next to nothing.

pynetdicom reads as many bytes as a PDU header announces, up to 4 GB, for as long as the peer takes, and keeps
the fragments of a message that never ends. All that we expect is the answer to the association request and to
a few reports.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable
from typing import Any

from pynetdicom import evt

MOST_PDU_BYTES = 1 << 20
MOST_BYTES = 8 << 20
"""Of one association: the answers to ten thousand reports."""

_CHUNK_BYTES = 64 << 10

Receive = Callable[[int], bytearray]


def bound(event: evt.Event, timeout_s: float) -> None:
    """Handler of EVT_CONN_OPEN: from now on, more or slower is a broken connection (Evt17, PS3.8 9.2)."""
    peer: Any = event.assoc.dul.socket
    peer.socket.settimeout(timeout_s)  # of a write
    peer.recv = bounded(peer.socket, timeout_s)


def bounded(connection: socket.socket, timeout_s: float) -> Receive:
    """What AssociationSocket.recv does: so many bytes, fewer only where the connection has ended.

    Raises OSError (EMSGSIZE) instead of reading too much, and TimeoutError when they do not come in time.
    """
    received = 0

    def receive(count: int) -> bytearray:
        nonlocal received
        received += count
        if count > MOST_PDU_BYTES or received > MOST_BYTES:
            raise OSError(errno.EMSGSIZE, "The peer sends more than answers to reports")
        data = bytearray()
        deadline_s = time.monotonic() + timeout_s
        try:
            while len(data) < count:
                connection.settimeout(max(deadline_s - time.monotonic(), 0.001))
                part = connection.recv(min(count - len(data), _CHUNK_BYTES))
                if not part:
                    break
                data += part
                if time.monotonic() > deadline_s:
                    raise TimeoutError("The peer sends too slowly")
        finally:
            connection.settimeout(timeout_s)
        return data

    return receive
