"""Where a peer may call from: its host and further addresses, ranges and names."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Self

from gateway.receive.calls import KnownPeer
from gateway.receive.names import Names, plain_address

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Places:
    """Ranges of addresses, and names that resolve to some."""

    networks: tuple[Network, ...]
    hosts: tuple[str, ...]

    @classmethod
    def of(cls, peer: KnownPeer) -> Self:
        """Those that are configured for a peer."""
        networks, hosts = [], []
        for place in (peer.host, *peer.addresses):
            try:
                networks.append(parse_range(place))
            except ValueError:
                hosts.append(place)
        return cls(tuple(networks), tuple(hosts))

    def hold(self, address: str, names: Names) -> bool:
        """Whether an address is one of them, as far as is known now: see :meth:`Names.unsure`."""
        try:
            caller = plain_address(address)
        except ValueError:
            return False
        if any(caller in network for network in self.networks):
            return True
        return any(caller in (names.addresses(host) or ()) for host in self.hosts)


def parse_range(text: str) -> Network:
    """A range such as ``10.1.0.0/16``, or one address as the range of itself.

    Raises
    ------
    ValueError
        It is neither, so a name; or bits are set beyond the length of the prefix.
    """
    return ipaddress.ip_network(text if "/" in text else plain_address(text))
