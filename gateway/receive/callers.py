"""Who is calling: AE titles, address and certificate of an association against the configured peers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from gateway.receive import refusals
from gateway.receive.calls import APPLICATION_CONTEXT, Call, KnownPeer, Node, Refusal
from gateway.receive.names import Names
from gateway.receive.places import Places
from gateway.receive.text import printable
from gateway.receive.tls.certificates import ExpectedCertificate

__all__ = ["Call", "Callers", "KnownPeer", "Node", "Refusal"]


@dataclass(frozen=True)
class _Bound:
    """A peer with what its settings mean."""

    peer: KnownPeer
    places: Places
    certificate: ExpectedCertificate | None


class Callers:
    """Decides who is calling.

    Parameters
    ----------
    ours
        Our AE title, the only called one that we answer to; a :class:`Node` says the ports too.
    peers
        Several may share an AE title when their addresses or certificates differ. Raises ValueError for
        a certificate that is neither subject nor fingerprint.
    unknown_callers
        ``accept`` takes anybody who knows our AE title, under the name ``AE@address``.
    """

    def __init__(
        self,
        ours: str | Node,
        peers: Sequence[KnownPeer],
        unknown_callers: Literal["reject", "accept"],
        names: Names | None = None,
    ) -> None:
        self.node = Node(ours.strip()) if isinstance(ours, str) else ours
        self._peers = tuple(_bound(peer) for peer in peers)
        self._unknown_callers = unknown_callers
        self._names = names or Names()
        for host in {host for each in self._peers for host in each.places.hosts}:
            self._names.ask(host)  # so that the first caller finds the answer

    @property
    def only_one(self) -> bool:
        """True if nobody else could ever call: one configured peer, and no unknown callers."""
        return len(self._peers) <= 1 and self._unknown_callers == "reject"

    def identify(self, call: Call) -> KnownPeer | Refusal:
        """The peer that is calling, or why it is refused."""
        call = replace(
            call, called_ae_title=call.called_ae_title.strip(), calling_ae_title=call.calling_ae_title.strip()
        )
        if call.application_context != APPLICATION_CONTEXT:
            return refusals.other_application_context(self.node, call)
        if call.called_ae_title != self.node.ae_title:
            return refusals.wrong_called_title(self.node, call)
        titled = [each for each in self._peers if each.peer.ae_title.strip() == call.calling_ae_title]
        placed = self._placed(titled, call)
        unsure: Sequence[str] = ()
        if not placed:
            unsure = self._names.unsure(host for each in titled for host in each.places.hosts)
            placed = self._placed(titled, call)
        reasons = []
        for each in placed:
            reason = self._not_this_one(each, call)
            if reason is None:
                return each.peer
            reasons.append(reason)
        return reasons[0] if reasons else self._none_of_them(call, titled, unsure)

    def _placed(self, titled: Sequence[_Bound], call: Call) -> Sequence[_Bound]:
        """Those that the call may come from by its address."""
        return [each for each in titled if each.places.hold(call.address, self._names)]

    def _not_this_one(self, each: _Bound, call: Call) -> Refusal | None:
        """Why a caller with the right title and address is still not this peer; None if it is."""
        peer, wanted, shown = each.peer, each.certificate, call.certificate
        if not call.secure and (peer.tls == "required" or wanted is not None):
            return refusals.tls_required(self.node, call, peer)
        if wanted is not None and shown is None:
            return refusals.no_certificate(self.node, call, peer)
        if wanted is not None and shown is not None and wanted.matches(shown):
            return None
        if owner := self._owner_of_certificate(call):
            return refusals.other_certificate(self.node, call, owner)
        return refusals.wrong_certificate(self.node, call, peer) if wanted is not None else None

    def _none_of_them(
        self, call: Call, titled: Sequence[_Bound], unsure: Sequence[str]
    ) -> KnownPeer | Refusal:
        """No configured peer with this title calls from there; ``unsure``: names that may hide one."""
        if owner := self._owner_of_certificate(call):
            return refusals.other_certificate(self.node, call, owner)
        if self._unknown_callers == "accept":
            title = printable(call.calling_ae_title)
            return KnownPeer(f"{title}@{call.address}", title, call.address, is_configured=False)
        if not titled:
            return refusals.unknown_title(self.node, call)
        peers = [each.peer for each in titled]
        if unsure:
            return refusals.unresolved_name(self.node, call, peers, unsure)
        return refusals.wrong_address(self.node, call, peers)

    def _owner_of_certificate(self, call: Call) -> KnownPeer | None:
        """The peer whose certificate was shown."""
        shown = call.certificate
        if shown is None:
            return None
        owners = (each.peer for each in self._peers if each.certificate and each.certificate.matches(shown))
        return next(owners, None)


def _bound(peer: KnownPeer) -> _Bound:
    expected = ExpectedCertificate.parse(peer.certificate) if peer.certificate else None
    return _Bound(peer, Places.of(peer), expected)
