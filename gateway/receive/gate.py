"""Decides on an association before it is negotiated: who calls, and whether there is room."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Mapping, Sequence

from gateway.receive import refusals
from gateway.receive.associations import OpenAssociations
from gateway.receive.callers import Callers
from gateway.receive.calls import Call, KnownPeer, Node, Refusal
from gateway.receive.records import Incidents
from gateway.receive.text import printable
from gateway.receive.tls.certificates import PeerCertificate

__all__ = ["Call", "Callers", "Gate", "KnownPeer", "Node", "Refusal", "RefusalLog"]

GRACE_S = 0.25
"""Where there is no room, so long an association may take to end: senders abort or close, and call again."""

_MOST_REMEMBERED = 1000


class RefusalLog:
    """Writes refused associations down."""

    def __init__(self, incidents: Incidents) -> None:
        self._incidents = incidents

    def note(self, refusal: Refusal, call: Call) -> None:
        """Write a refusal down."""
        who = {
            "source": refusal.peer,
            "address": call.address,
            "called": printable(call.called_ae_title.strip()),
            "calling": printable(call.calling_ae_title.strip()),
        }
        if call.certificate is not None:
            who["certificate"] = refusals.describe(call.certificate)
        self._incidents.note("association", refusal.name, refusal.reason, who, refusal.advice)


class Gate:
    """Takes or refuses a call; thread-safe.

    Parameters
    ----------
    max_associations
        Open at the same time, of all peers. Where several may call, one without a limit of its own takes
        at most all but one place (all but two of eight or more), so that others can still get in.
    associations
        Where what is taken is registered.
    """

    def __init__(
        self,
        callers: Callers,
        max_associations: int,
        associations: OpenAssociations,
        written: RefusalLog,
    ) -> None:
        self._callers = callers
        self._max_associations = max_associations
        self._associations = associations
        self._written = written
        self._deciding = threading.Lock()
        self._seen: dict[str, PeerCertificate] = {}
        self._narrowed: dict[Hashable, None] = {}  # in order of arrival
        reserve = 0 if callers.only_one or max_associations < 3 else 1 if max_associations < 8 else 2
        self._most_of_one = max_associations - reserve

    def failed(self, call: Call) -> Refusal:
        """Refuse a call that could not be decided on, and write that down."""
        refusal = refusals.internal_error(self._callers.node, call)
        self._written.note(refusal, call)
        return refusal

    def narrowed(self, call: Call, peer: KnownPeer, refused: Sequence[str], *, is_useless: bool) -> None:
        """Write down which presentation contexts were not accepted; ``refused``: why, one by one.

        ``is_useless``: none was. Where some were, it is written once for each peer and answer: many systems
        propose more than they ever send.
        """
        if is_useless:
            self._written.note(refusals.nothing_accepted(self._callers.node, call, peer, refused), call)
        elif self._is_news(peer.name, tuple(refused)):
            self._written.note(refusals.partly_accepted(self._callers.node, call, peer, refused), call)

    def _is_news(self, *what: Hashable) -> bool:
        with self._deciding:
            if what in self._narrowed:
                return False
            self._narrowed[what] = None
            if len(self._narrowed) > _MOST_REMEMBERED:  # whoever is new each time hides no other
                del self._narrowed[next(iter(self._narrowed))]
            return True

    def decide(self, call: Call) -> KnownPeer | Refusal:
        """Take the call and register its association, or refuse it and write that down."""
        found = self._callers.identify(call)
        if isinstance(found, KnownPeer):
            peer, refusal = found, self._take(found, call)
            if refusal is not None and self._associations.wait_for(
                lambda: self._has_room(peer, call), GRACE_S
            ):
                refusal = self._take(peer, call)
            if refusal is None:
                return peer
            found = refusal
        self._written.note(found, call)
        return found

    def _take(self, peer: KnownPeer, call: Call) -> Refusal | None:
        with self._deciding:
            refusal = self._limit(peer, call)
            if refusal is None:
                self._associations.opened(call.association, peer.name)
                if call.certificate is not None and peer.is_configured:
                    self._seen[peer.name] = call.certificate
            return refusal

    def _has_room(self, peer: KnownPeer, call: Call) -> bool:
        return self._limit(peer, call) is None

    def certificates_seen(self) -> Mapping[str, PeerCertificate]:
        """Configured peer → the certificate that it showed last."""
        with self._deciding:
            return dict(self._seen)

    def _limit(self, peer: KnownPeer, call: Call) -> Refusal | None:
        opened, node = self._associations.by_source(), self._callers.node
        total = sum(opened.values())
        if peer.is_configured:
            of_peer = opened.get(peer.name, 0)
        else:  # whoever calls from one address may call itself anything
            of_peer = sum(count for name, count in opened.items() if name.endswith(f"@{peer.host}"))
        if peer.max_associations and of_peer >= peer.max_associations:
            limit = peer.max_associations
            return refusals.too_many_of_peer(node, call, peer, of_peer, limit, self._max_associations)
        if total >= self._max_associations:
            return refusals.too_many(node, call, peer, total, self._max_associations)
        if not peer.max_associations and of_peer >= self._most_of_one:
            limit = self._most_of_one
            return refusals.too_many_of_peer(node, call, peer, of_peer, limit, self._max_associations)
        return None
