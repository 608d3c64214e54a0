"""Bounds what a peer may send on an association that we open and on which we expect next to nothing.

pynetdicom reads as many bytes as a PDU header announces, up to 4 GB, and keeps the fragments of a message
that never ends. All that we expect is the answer to the association request and to a few reports.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

from pynetdicom import evt

MOST_PDU_BYTES = 1 << 20
MOST_BYTES = 8 << 20
"""Of one association: the answers to ten thousand reports."""

Receive = Callable[[int], bytearray]


def bound(event: evt.Event) -> None:
    """Handler of EVT_CONN_OPEN: from now on, more than that is a broken connection (Evt17, PS3.8 9.2)."""
    socket: Any = event.assoc.dul.socket
    socket.recv = bounded(socket.recv)


def bounded(receive: Receive) -> Receive:
    """``receive``, which raises OSError (EMSGSIZE) instead of reading too much."""
    received = 0

    def receive_bounded(count: int) -> bytearray:
        nonlocal received
        received += count
        if count > MOST_PDU_BYTES or received > MOST_BYTES:
            raise OSError(errno.EMSGSIZE, "The peer sends more than answers to reports")
        return receive(count)

    return receive_bounded
