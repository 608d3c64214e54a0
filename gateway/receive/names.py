"""Host names of peers to addresses, without letting a caller wait for a slow name server."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

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
    under_way: threading.Event | None = None
    """Set when the answer to the question that is being asked now is there."""

    def is_older(self, fresh_s: float) -> bool:
        return time.monotonic() - self.looked_up_s > fresh_s


class Names:
    """Resolves names in threads of its own, and remembers the last good answer of each.

    :meth:`addresses` gives what is known at once, and renews what is older than a minute behind the back of
    whoever asks. So before a caller is told that its address is wrong, ask :meth:`unsure`, which waits at
    most ``wait_s``, and compare again: its name may be new to us, or it has moved.
    """

    def __init__(self, resolve: Resolve = resolve, wait_s: float = 2.0) -> None:
        self._resolve = resolve
        self._wait_s = wait_s
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}

    def addresses(self, host: str) -> frozenset[IPAddress] | None:
        """The last good answer; None if the name has never been resolved so far."""
        return self.ask(host).addresses

    def unsure(self, hosts: Iterable[str]) -> Sequence[str]:
        """Those without a good answer of the last minute; waits for new ones, at most ``wait_s`` in all."""
        until_s = time.monotonic() + self._wait_s
        entries = {host: self.ask(host) for host in hosts}
        for entry in entries.values():
            under_way = entry.under_way
            if under_way is not None:
                under_way.wait(max(until_s - time.monotonic(), 0.0))
        with self._lock:
            return [host for host, each in entries.items() if each.failed or each.is_older(_FRESH_S)]

    def ask(self, host: str) -> _Entry:
        """Begin to look a name up unless the last answer is fresh; does not wait."""
        with self._lock:
            entry = self._entries.setdefault(host, _Entry())
            if entry.under_way is None and entry.is_older(_FRESH_FAILURE_S if entry.failed else _FRESH_S):
                answered = threading.Event()
                look_up = threading.Thread(
                    target=self._look_up, args=(host, entry, answered), name="names", daemon=True
                )
                with suppress(RuntimeError):  # there is no thread to be had: whoever asks next tries again
                    look_up.start()
                    entry.under_way = answered
        return entry

    def _look_up(self, host: str, entry: _Entry, answered: threading.Event) -> None:
        found: frozenset[IPAddress] | None = None
        try:
            found = self._resolve(host)
        except (OSError, ValueError):
            pass
        finally:
            with self._lock:  # which whoever started us holds until under_way is set
                entry.failed = found is None
                entry.addresses = found if found is not None else entry.addresses
                entry.looked_up_s = time.monotonic()
                entry.under_way = None
            answered.set()
