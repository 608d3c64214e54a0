"""The socket of an association: reads into a buffer of ours, acknowledges at once, never waits for ever."""

from __future__ import annotations

import socket
import ssl
import struct
import time
from contextlib import suppress

from pynetdicom.association import Association
from pynetdicom.transport import AssociationSocket

SLICE_S = 1.0
"""A read returns at least so often, so that whoever waits can look around."""

_SEND_BUFFER_BYTES = 64 << 10
"""Answers are short; a peer that reads none fills no megabytes of the kernel, and is noticed early."""


class PeerSocket(AssociationSocket):
    """A connected socket, plain or TLS.

    A sender that leaves Nagle's algorithm on (DCMTK) holds the last segment of a PDU back until the
    one before is acknowledged, and Linux delays that by 40 ms; so every read asks for an
    acknowledgement first (TCP_QUICKACK, tcp(7); the kernel forgets it again).
    """

    def __init__(self, association: Association, connection: socket.socket, send_timeout_s: float) -> None:
        super().__init__(association, client_socket=connection)
        self._connection = connection
        self._is_tls = isinstance(connection, ssl.SSLSocket)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        if self._is_tls:
            connection.settimeout(SLICE_S)
        else:
            # The kernel keeps the time; Python would poll before every read.
            connection.setblocking(True)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(SLICE_S))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(send_timeout_s))
        self._send_timeout_s = send_timeout_s

    def fileno(self) -> int:
        """Of the socket."""
        return self._connection.fileno()

    @property
    def has_decrypted(self) -> bool:
        """TLS has bytes for us that poll() does not know of."""
        return isinstance(self._connection, ssl.SSLSocket) and self._connection.pending() > 0

    def receive_into(self, view: memoryview) -> int:
        """Wait at most :data:`SLICE_S`; the number of bytes, 0 if none came.

        Raises ConnectionError when the peer has closed, OSError when the connection is broken.
        """
        connection = self._connection
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            count = connection.recv_into(view)
        except (BlockingIOError, TimeoutError):
            return 0
        if not count:
            raise ConnectionAbortedError("the peer closed the connection")
        return count

    def send(self, bytestream: bytes) -> None:
        """Send all of it in one write, or put Evt17 (connection closed) into the event queue.

        The peer has the time of the timeout to take all of it, not for every piece.
        """
        until_s = time.monotonic() + self._send_timeout_s
        try:
            if self._is_tls:
                self._connection.settimeout(self._send_timeout_s)
            sent = self._connection.send(bytestream)
            while sent < len(bytestream):
                if time.monotonic() > until_s:
                    raise TimeoutError("the peer takes no answers")
                sent += self._connection.send(memoryview(bytestream)[sent:])
            if self._is_tls:
                self._connection.settimeout(SLICE_S)
        except OSError:
            self.event_queue.put("Evt17")

    def end_sending(self) -> None:
        """Tell the peer that nothing more comes; over TLS it learns that from the close."""
        if not self._is_tls:
            with suppress(OSError):
                self._connection.shutdown(socket.SHUT_WR)

    def _shutdown_socket(self) -> None:
        """Close it in any case; pynetdicom's own leaves it open if the peer was quicker."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        with suppress(OSError):
            self._connection.close()


def _timeval(seconds: float) -> bytes:
    whole = int(seconds)
    return struct.pack("ll", whole, int((seconds - whole) * 1_000_000))
