"""Ports for the servers of the tests, from a range that no client is given a port of."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator

import pytest

needs_both_families = pytest.mark.skipif(
    not socket.has_dualstack_ipv6(), reason="this machine has no socket for IPv6 and IPv4 together"
)

# Linux gives clients 32768 to 60999. A port of those that was free a moment ago may be some connection's
# own when the server under test asks for it; below, only another server can have it.
_FIRST, _END = 20_000, 32_000


def _ports() -> Iterator[int]:
    """Every port of the range in turn, so that one process never names the same one twice in a while."""
    start = random.Random(f"{os.getpid()} {os.environ.get('PYTEST_XDIST_WORKER')}").randrange(_END - _FIRST)
    while True:
        for step in range(_END - _FIRST):
            yield _FIRST + (start + step) % (_END - _FIRST)


_TURN = _ports()


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on now."""
    for port in _TURN:
        with socket.socket() as probe:
            # As a server does it: the waiting ends of old connections are no obstacle.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("the range has no end")
