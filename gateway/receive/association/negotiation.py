"""Which presentation contexts a peer is offered, and what is said about those that it does not get.

pynetdicom negotiates. It is given every proposal with the one transfer syntax that it would choose,
so that it does not read and check thousands of names only to drop them; the outcome is the same.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from functools import lru_cache

from pydicom.uid import UID
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context

from gateway.receive.association.association_request import Proposal
from gateway.receive.calls import KnownPeer
from gateway.receive.text import printable

_MOST_SHOWN, _MOST_SYNTAXES_SHOWN = 5, 3
_NO_SUCH_CLASS = 3  # result of a presentation context, PS3.8 Table 9-18
_BECAUSE = {_NO_SUCH_CLASS: "the SOP class is not taken", 4: "none of the transfer syntaxes is taken"}


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


def refused(association: Association, proposals: Iterable[Proposal], contexts: Container[str]) -> list[str]:
    """Why presentation contexts were not accepted, the first five; ``contexts`` are those of any peer."""
    syntaxes = {each.context_id: each.transfer_syntaxes for each in proposals}
    rejected = association.rejected_contexts
    sentences = [
        f"{_named(each.abstract_syntax)} with {_list(syntaxes.get(each.context_id or 0, ()))}: "
        f"{_why(each, contexts)}"
        for each in rejected[:_MOST_SHOWN]
    ]
    more = len(rejected) - _MOST_SHOWN
    return [*sentences, f"and {more} more"] if more > 0 else sentences


def _why(context: PresentationContext, contexts: Container[str]) -> str:
    because = _BECAUSE.get(context.result or 0, "the roles do not fit")
    if context.result == _NO_SUCH_CLASS and str(context.abstract_syntax) in contexts:
        return f"{because} from this system"
    return because


def _list(syntaxes: Sequence[str]) -> str:
    shown = ", ".join(map(_named, syntaxes[:_MOST_SYNTAXES_SHOWN]))
    more = len(syntaxes) - _MOST_SYNTAXES_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


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
