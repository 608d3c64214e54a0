"""Listening sockets, and the addresses of those who connect there."""

from __future__ import annotations

import ipaddress
import socket

from gateway.receive.names import plain_address

_ANY_IPV6 = ipaddress.IPv6Address("::")


def listen(host: str, port: int, backlog: int) -> socket.socket:
    """A listening socket at an address, or at the IPv4 one of a name if it has one. Raises OSError.

    At ``::`` it takes IPv4 too, where the system can.
    """
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    is_ipv4 = any(entry[0] == socket.AF_INET for entry in found)
    family = socket.AF_INET if is_ipv4 else socket.AF_INET6
    is_dual = _is_any_ipv6(host) and socket.has_dualstack_ipv6()
    return socket.create_server((host, port), family=family, backlog=backlog, dualstack_ipv6=is_dual)


def caller_address(peer_name: tuple[str, int] | tuple[str, int, int, int]) -> str:
    """IP address of a connected peer as it is compared, counted and logged: no zone, and IPv4 as IPv4.

    ``peer_name`` is what ``accept`` and ``getpeername`` give: at ``::``, ``::ffff:192.0.2.1`` for IPv4.
    """
    return str(plain_address(peer_name[0]))


def _is_any_ipv6(host: str) -> bool:
    try:
        return plain_address(host) == _ANY_IPV6
    except ValueError:
        return False
