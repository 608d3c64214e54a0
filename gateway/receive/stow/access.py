"""Who may store over HTTP: bearer token or basic credentials, and address, against the configured peers.

A proxy between the client and us would be the client: its address is the one that counts.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field

from gateway.receive.calls import KnownPeer
from gateway.receive.names import Names
from gateway.receive.places import Places
from gateway.receive.stow.request import RETRY_AFTER_S, StoreHead, StowRefused

CHALLENGE = 'Bearer realm="aigw", Basic realm="aigw", charset="UTF-8"'
_MAX_CREDENTIALS_CHARACTERS = 4096


@dataclass(frozen=True)
class WebPeer:
    """A source that may store over HTTP, with a bearer token, or a user and a password."""

    peer: KnownPeer
    token: str | None = field(default=None, repr=False)
    user: str | None = None
    password: str | None = field(default=None, repr=False)


class WebCallers:
    """Decides who is asking. Comparisons take the same time for every wrong credential."""

    def __init__(self, peers: Sequence[WebPeer], names: Names | None = None) -> None:
        self._names = names or Names()
        self._secrets = [(each.peer, _digest(secret)) for each in peers for secret in _secrets(each)]
        self._places = {each.peer.name: Places.of(each.peer) for each in peers}
        for host in {host for places in self._places.values() for host in places.hosts}:
            self._names.ask(host)

    @property
    def only_one(self) -> bool:
        """True if nobody else could ever store."""
        return len(self._places) <= 1

    def identify(self, head: StoreHead) -> KnownPeer:
        """The peer whose credentials a request has. Raises StowRefused (401, 403, 404, or 503)."""
        if not self._secrets:
            raise StowRefused(
                "STOW_NOT_CONFIGURED",
                "No peer may store over HTTP: give one with role source a web.token, or web.user and "
                "web.password, under peers.",
                404,
            )
        given = _credentials(head)
        if given is None:
            raise _unauthorized("CREDENTIALS_MISSING", "The request has no usable Authorization")
        digest, found = _digest(given), None
        for peer, secret in self._secrets:  # to the end, whoever it is
            if hmac.compare_digest(secret, digest):
                found = peer
        if found is None:
            raise _unauthorized("CREDENTIALS_WRONG", "The credentials of the request are of no peer")
        self._check_address(found, head.address)
        return found

    def _check_address(self, peer: KnownPeer, address: str) -> None:
        places = self._places[peer.name]
        if places.hold(address, self._names):
            return
        hosts = self._names.unsure(places.hosts)
        if places.hold(address, self._names):
            return
        if hosts:
            raise StowRefused(
                "HOST_NAME_NOT_RESOLVED",
                f"{', '.join(hosts)} (host or addresses of {peer.name} under peers) cannot be resolved now: "
                "look at the name server, or configure addresses.",
                503,
                retry_after_s=RETRY_AFTER_S,
            )
        raise StowRefused(
            "ADDRESS_NOT_ALLOWED",
            f"{peer.name} stored over HTTP from {address}, which is none of its addresses: correct host or "
            f"addresses of {peer.name} under peers, or store from there.",
            403,
        )


def _secrets(each: WebPeer) -> list[bytes]:
    found = []
    if each.token:
        found.append(b"bearer " + each.token.encode())
    if each.user and each.password:
        found.append(b"basic " + f"{each.user}:{each.password}".encode())
    return found


def _credentials(head: StoreHead) -> bytes | None:
    """What the Authorization field carries (RFC 6750 2.1, RFC 7617 2), after the name of its scheme."""
    scheme, _, rest = (head.one("authorization") or "").partition(" ")
    rest = rest.strip()
    if not rest or len(rest) > _MAX_CREDENTIALS_CHARACTERS:
        return None
    if scheme.lower() == "bearer":
        return b"bearer " + rest.encode("latin-1", "replace")
    if scheme.lower() == "basic":
        try:
            return b"basic " + base64.b64decode(rest, validate=True)
        except (binascii.Error, ValueError):
            return None
    return None


def _digest(secret: bytes) -> bytes:
    """Of equal length whatever it is of, so that a comparison tells nothing about lengths."""
    return hashlib.sha256(secret).digest()


def _unauthorized(name: str, what: str) -> StowRefused:
    return StowRefused(
        name,
        f"{what}: send the bearer token, or user and password, that the gateway has for this system (web of "
        "a peer in its configuration).",
        401,
        challenge=CHALLENGE,
    )
