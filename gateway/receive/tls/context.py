"""DICOM over TLS: the BCP 195 profile (PS3.15 B.12; RFC 8996, RFC 9325), with files that may change.

TLS 1.2 and 1.3, suites with ECDHE and AEAD only, no compression, no renegotiation, no resumption (what a
certificate may, is asked anew each time), our order of suites. Groups are OpenSSL's: X25519, P-256, X448,
P-521, P-384 and the finite field ones of RFC 7919. Python's ssl sets one group (set_ecdh_curve) or none, and
one would keep out peers that only have another; a list needs set_groups of Python 3.15.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from contextlib import closing, suppress

from gateway.receive.calls import Call, Node, Refusal
from gateway.receive.sockets import caller_address
from gateway.receive.tls import refusals as tls_refusals
from gateway.receive.tls.certificates import PeerCertificate, decode_der
from gateway.receive.tls.source import TlsSource

__all__ = ["HandshakeFailed", "TlsContext", "peer_certificate"]

_TLS_HANDSHAKE_RECORD = 0x16
_LINGER_S = 2.0
_LINGER_BYTES = 256 << 10
"""More than an A-ASSOCIATE-RQ with 128 presentation contexts."""


class HandshakeFailed(ConnectionError):
    """The connection is no TLS connection of a trusted peer; it is closed, and that is written down."""


class TlsContext:
    """Makes TLS connections of accepted ones.

    Parameters
    ----------
    source
        Whether clients without certificate are let in; those that should have one are refused by the gate.
    note
        Where failed handshakes are written down (``RefusalLog.note``).
    """

    def __init__(self, source: TlsSource, node: Node, note: Callable[[Refusal, Call], None]) -> None:
        self._source = source
        self._node = node
        self._note = note

    def wrap(self, connection: socket.socket, timeout_s: float) -> ssl.SSLSocket:
        """Shake hands; blocks for at most ``timeout_s`` in all. For the thread of the connection.

        The connection is handed over: the result has its timeout; after an error it is closed.

        Raises
        ------
        HandshakeFailed
            Already written down by name, except for a peer that closes without having sent a byte.
        """
        began_s, usual_timeout_s = time.monotonic(), connection.gettimeout()
        call = Call(None, "", "", _address(connection), secure=True)
        context = self._source.context()
        wrapped: socket.socket = connection
        try:
            connection.settimeout(timeout_s)
            first = connection.recv(1, socket.MSG_PEEK)
            if not first:
                raise HandshakeFailed("closed without a byte")
            if first[0] != _TLS_HANDSHAKE_RECORD:
                raise self._failed(tls_refusals.plain_connection(self._node, call, first[0]), call)
            wrapped = context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
            wrapped.settimeout(max(began_s + timeout_s - time.monotonic(), 0.001))
            wrapped.do_handshake()  # its timeout is one for all reads and writes together
            wrapped.settimeout(usual_timeout_s)
        except HandshakeFailed:
            wrapped.close()
            raise
        except TimeoutError as error:
            wrapped.close()
            raise self._failed(tls_refusals.timeout(self._node, call, timeout_s), call) from error
        except OSError as error:
            try:
                failure = self._failed(tls_refusals.failed(self._node, call, error), call)
            finally:
                _close_gently(wrapped)
            raise failure from error
        return wrapped

    def _failed(self, refusal: Refusal, call: Call) -> HandshakeFailed:
        self._note(refusal, call)
        return HandshakeFailed(refusal.name)


def peer_certificate(connection: ssl.SSLSocket) -> PeerCertificate | None:
    """The certificate that the peer showed, and that was verified; None if it showed none."""
    der = connection.getpeercert(binary_form=True)
    return decode_der(der) if der else None


def _close_gently(connection: socket.socket) -> None:
    """Close, but so that the peer reads our alert first, for up to 2 s.

    In TLS 1.3 a client may have sent its request before we look at its certificate, and a close with bytes
    unread resets the connection: the peer then learns that it broke off, and not why (RFC 1122 4.2.2.13).
    """
    until_s, left = time.monotonic() + _LINGER_S, _LINGER_BYTES
    with closing(connection), suppress(OSError):
        connection.shutdown(socket.SHUT_WR)  # it is a plain socket from here on
        while left > 0 and (left_s := until_s - time.monotonic()) > 0:
            connection.settimeout(left_s)
            count = len(connection.recv(min(left, 16384)))
            if not count:
                return
            left -= count


def _address(connection: socket.socket) -> str:
    try:
        return caller_address(connection.getpeername())
    except OSError:  # it is gone already
        return "an unknown address"
