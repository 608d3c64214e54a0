"""Which presentation contexts a peer is offered, and what is said about those that it does not get.

pynetdicom negotiates. It is given every proposal with the one transfer syntax that it would choose,
so that it does not read and check thousands of names only to drop them; the outcome is the same.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache

from pydicom.uid import UID
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context

from gateway.receive.association.association_request import Proposal
from gateway.receive.calls import KnownPeer
from gateway.receive.text import printable

_MOST_SHOWN = 20
_BECAUSE = {3: "the SOP class is not taken", 4: "none of the transfer syntaxes is taken"}  # PS3.8 Table 9-18


def offer(
    proposals: Iterable[Proposal],
    contexts: Mapping[str, PresentationContext],
    storage_classes: Collection[str],
    peer: KnownPeer,
) -> list[PresentationContext]:
    """Of what a peer proposes, what it may use: the supported contexts of its association."""
    proposed = dict.fromkeys(each.abstract_syntax for each in proposals)
    return [
        contexts[uid]
        for uid in proposed
        if uid in contexts and (uid not in storage_classes or peer.takes(uid))
    ]


def requested(
    proposals: Iterable[Proposal], offered: Iterable[PresentationContext]
) -> list[PresentationContext]:
    """The proposals, each with one transfer syntax: the first of ours that is proposed (PS3.8 9.3.3.2).

    Where none of ours is proposed, its first one: that is what a refusal names.
    """
    ours: dict[str, tuple[str, ...]] = {
        str(each.abstract_syntax): tuple(each.transfer_syntax) for each in offered
    }
    chosen: dict[tuple[tuple[str, ...], tuple[str, ...]], str] = {}
    found = []
    for each in proposals:
        question = (ours.get(each.abstract_syntax, ()), each.transfer_syntaxes)
        if question not in chosen:
            chosen[question] = _choose(*question)
        context = copy.copy(_context(each.abstract_syntax, chosen[question]))
        context.context_id = each.context_id
        found.append(context)
    return found


def refused(association: Association, proposals: Iterable[Proposal]) -> list[str]:
    """A sentence for each presentation context that was not accepted, the first 20."""
    syntaxes = {each.context_id: each.transfer_syntaxes for each in proposals}
    return [
        f"{_named(each.abstract_syntax)} with "
        f"{', '.join(map(_named, syntaxes.get(each.context_id or 0, ())))}: "
        f"{_BECAUSE.get(each.result or 0, 'the roles do not fit')}"
        for each in association.rejected_contexts[:_MOST_SHOWN]
    ]


def none_accepted(source: str, sentences: Sequence[str]) -> str:
    """Why an association is of no use, and what to do."""
    first = f" The first: {sentences[0]}." if sentences else ""
    return (
        f"{source} proposed presentation contexts of which we take none: compare the SOP classes and "
        f"transfer syntaxes with dicom.storage_classes and peers.{source}.storage_classes.{first}"
    )


def _choose(ours: Sequence[str], proposed: Sequence[str]) -> str:
    among = set(proposed)
    return next((each for each in ours if each in among), proposed[0])


@lru_cache(maxsize=1024)
def _context(abstract_syntax: str, transfer_syntax: str) -> PresentationContext:
    """To be copied: negotiation only reads the list of transfer syntaxes."""
    return build_context(abstract_syntax, transfer_syntax)


def _named(uid: object) -> str:
    """Keyword (or UID) for a log; what a peer sends need not be a UID."""
    text = str(uid)
    return UID(text).keyword or printable(text)
