"""The end of a connection after our last PDU (PS3.8 9.2.3, state 13).

A close with unread bytes resets the connection, and an A-ABORT that the peer has not read yet could be
lost. So a little of what still comes is read and dropped; whoever sends more than that has to look for
our answer by himself. After 2 s the connection is closed in any case.
"""

from __future__ import annotations

import select
import time

from gateway.receive.association.inbound import Inbound, Interrupted
from gateway.receive.association.violations import Violation
from gateway.receive.association.wakeup import Bell
from gateway.receive.association.wire import PeerSocket

LINGER_S = 2.0
LINGER_BYTES = 512 << 10


class Lingering:
    """Begins by telling the peer that nothing more comes from us; ``bell`` ends a wait early."""

    def __init__(self, peer: PeerSocket, inbound: Inbound, bell: Bell) -> None:
        self._peer = peer
        self._inbound = inbound
        self._bell = bell
        self._until_s = time.monotonic() + LINGER_S
        self._left_bytes = LINGER_BYTES
        self._poll = select.poll()
        self._poll.register(peer.fileno(), select.POLLIN)
        self._poll.register(bell.fileno(), select.POLLIN)
        inbound.drop()
        inbound.allow(LINGER_S)
        peer.end_sending()

    def is_over(self) -> bool:
        """Wait for what happens next; whether the connection is to be closed now."""
        left_s = self._until_s - time.monotonic()
        if left_s <= 0:
            return True
        try:
            return self._waited(left_s)
        except (OSError, Interrupted, Violation):
            return True

    def _waited(self, left_s: float) -> bool:
        is_reading = self._left_bytes > 0
        if not (is_reading and self._peer.has_decrypted):
            if not self._bell.wait(self._poll, left_s):
                return False
            if not is_reading:
                return True  # the peer has closed, or at least its sending half
        self._left_bytes -= len(self._inbound.take(self._left_bytes))
        if self._left_bytes <= 0:
            self._poll.modify(self._peer.fileno(), select.POLLRDHUP)
        return False
