"""Host names of peers to addresses, without letting a caller wait for a slow name server."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str], frozenset[IPAddress]]

_FRESH_S = 60.0
_FRESH_FAILURE_S = 10.0


def plain_address(text: str) -> IPAddress:
    """An address without zone; IPv4 where it is IPv4 mapped into IPv6. Raises ValueError if it is none."""
    plain = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(plain, ipaddress.IPv6Address) and plain.ipv4_mapped is not None:
        return plain.ipv4_mapped
    return plain


def is_loopback(host: str) -> bool:
    """Whether a listener at this address or name can only be reached from this machine."""
    try:
        return plain_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def resolve(host: str) -> frozenset[IPAddress]:
    """Every address of a name; blocks as long as the system's resolver does. Raises OSError."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return frozenset(plain_address(str(entry[4][0])) for entry in found)


@dataclass
class _Entry:
    addresses: frozenset[IPAddress] | None = None
    """The last good answer."""
    looked_up_s: float = float("-inf")
    failed: bool = False
    answered: threading.Event = field(default_factory=threading.Event)
    under_way: bool = False


class Names:
    """Resolves names in threads of its own, and remembers the last good answer of each.

    Only the first question about a name waits, at most ``wait_s``. Later ones get what is known at once,
    and an answer that is older than a minute is renewed behind their back.
    """

    def __init__(self, resolve: Resolve = resolve, wait_s: float = 2.0) -> None:
        self._resolve = resolve
        self._wait_s = wait_s
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}

    def addresses(self, host: str) -> frozenset[IPAddress] | None:
        """The addresses of a name; None if it has never been resolved so far."""
        entry = self.ask(host)
        if entry.addresses is None and not entry.failed:
            entry.answered.wait(self._wait_s)
        return entry.addresses

    def ask(self, host: str) -> _Entry:
        """Begin to look a name up unless the last answer is fresh; does not wait."""
        with self._lock:
            entry = self._entries.setdefault(host, _Entry())
            age_s = time.monotonic() - entry.looked_up_s
            if not entry.under_way and age_s > (_FRESH_FAILURE_S if entry.failed else _FRESH_S):
                entry.under_way = True
                threading.Thread(target=self._look_up, args=(host, entry), name="names", daemon=True).start()
        return entry

    def _look_up(self, host: str, entry: _Entry) -> None:
        try:
            found = self._resolve(host)
        except (OSError, ValueError):
            found = None
        with self._lock:
            entry.failed = found is None
            entry.addresses = found if found is not None else entry.addresses
            entry.looked_up_s = time.monotonic()
            entry.under_way = False
        entry.answered.set()
