"""Who may open an association: called AE title, calling AE title and address against the peers."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gateway.receive.text import printable


@dataclass(frozen=True)
class KnownPeer:
    """A configured peer with role source. ``host`` is an address or a name that resolves to some."""

    name: str
    ae_title: str
    host: str


@dataclass(frozen=True)
class Refusal:
    """Why an association is rejected; the numbers are those of A-ASSOCIATE-RJ (PS3.8 Table 9-21)."""

    name: str
    reason: str
    result: int
    source: int
    diagnostic: int


class Callers:
    """Decides who is calling.

    Parameters
    ----------
    ae_title
        Ours: the only called AE title that we answer to.
    peers
        Several may share an AE title when their hosts differ.
    unknown_callers
        ``accept`` takes anybody who knows our AE title, under the name ``AE@address``.
    """

    def __init__(
        self, ae_title: str, peers: Sequence[KnownPeer], unknown_callers: Literal["reject", "accept"]
    ) -> None:
        self._ae_title = ae_title.strip()
        self._peers = tuple(peers)
        self._unknown_callers = unknown_callers

    def identify(self, called: str, calling: str, address: str) -> str | Refusal:
        """The name of the peer that is calling from ``address``, or why it is refused."""
        called, calling = called.strip(), calling.strip()
        if called != self._ae_title:
            return Refusal(
                "CALLED_AE_TITLE_NOT_RECOGNISED",
                f"'{printable(calling)}' at {address} called '{printable(called)}' and this is "
                f"'{self._ae_title}': set our AE title to {self._ae_title} at the calling system.",
                1, 1, 7,
            )  # fmt: skip
        titled = [peer for peer in self._peers if peer.ae_title.strip() == calling]
        for peer in titled:
            if _same_host(peer.host, address):
                return peer.name
        if self._unknown_callers == "accept":
            return f"{printable(calling)}@{address}"
        if titled:
            hosts = ", ".join(peer.host for peer in titled)
            return Refusal(
                "ADDRESS_NOT_ALLOWED",
                f"'{printable(calling)}' called from {address} and is configured at {hosts}: correct the "
                f"host of {', '.join(peer.name for peer in titled)} under peers, or call from there.",
                1, 1, 3,
            )  # fmt: skip
        return Refusal(
            "CALLING_AE_TITLE_NOT_RECOGNISED",
            f"'{printable(calling)}' at {address} is no configured source: add a peer with this AE title, "
            f"host {address} and role source, or correct the AE title at the calling system.",
            1, 1, 3,
        )  # fmt: skip


def _same_host(host: str, address: str) -> bool:
    wanted = _plain(address)
    try:
        return _plain(host) == wanted
    except ValueError:  # a name
        pass
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return any(_plain(str(entry[4][0])) == wanted for entry in found)


def _plain(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address without zone; IPv4 where it is IPv4 mapped into IPv6."""
    plain = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(plain, ipaddress.IPv6Address) and plain.ipv4_mapped is not None:
        return plain.ipv4_mapped
    return plain
