"""Whatever is proposed, our shortened request is negotiated to what pynetdicom makes of the whole one."""

from __future__ import annotations

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.presentation import PresentationContext, build_context, negotiate_as_acceptor

from gateway.receive.association import negotiation
from gateway.receive.association.association_request import Proposal, read_association_request
from gateway.receive.calls import KnownPeer
from tests.hostile import wire
from tests.hostile.wire import Context

CLASSES = [f"1.2.840.10008.5.1.4.1.1.{number}" for number in range(1, 6)]
SYNTAXES = ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.90", "1.2.3.4", "1.2.3.04"]
ROLES = st.sampled_from([None, False, True])

proposals = st.lists(
    st.tuples(st.sampled_from(CLASSES), st.lists(st.sampled_from(SYNTAXES), min_size=1, max_size=7)),
    min_size=1,
    max_size=128,
)
supported = st.dictionaries(
    st.sampled_from(CLASSES),
    st.tuples(st.lists(st.sampled_from(SYNTAXES), min_size=1, max_size=5, unique=True), ROLES, ROLES),
)
roles = st.dictionaries(st.sampled_from(CLASSES), st.tuples(st.booleans(), st.booleans()))


def outcome(
    requested: list[PresentationContext], ours: list[PresentationContext], asked: dict[str, tuple[bool, bool]]
) -> tuple[list[Any], list[Any]]:
    contexts, items = negotiate_as_acceptor(requested, ours, asked)  # type: ignore[arg-type]
    return (
        [
            (c.context_id, c.abstract_syntax, c.transfer_syntax, c.result, bool(c.as_scu), bool(c.as_scp))
            for c in contexts
        ],
        [(item.sop_class_uid, item.scu_role, item.scp_role) for item in items],
    )


def make_contexts(
    table: dict[str, tuple[list[str], bool | None, bool | None]],
) -> dict[str, PresentationContext]:
    made = {}
    for uid, (syntaxes, scu_role, scp_role) in table.items():
        made[uid] = build_context(uid, list(syntaxes))
        made[uid].scu_role, made[uid].scp_role = scu_role, scp_role
    return made


@given(proposals, supported, roles, st.sets(st.sampled_from(CLASSES)))
@example([(CLASSES[0], [SYNTAXES[1], SYNTAXES[0]])] * 128, {CLASSES[0]: (SYNTAXES, True, True)}, {}, set())
@example([(CLASSES[0], ["1.2.3.4"])], {}, {}, set())
def test_the_outcome_is_that_of_the_whole_request(
    proposed: list[tuple[str, list[str]]],
    table: dict[str, tuple[list[str], bool | None, bool | None]],
    asked: dict[str, tuple[bool, bool]],
    storage_classes: set[str],
) -> None:
    ids = range(1, 2 * len(proposed), 2)
    pdu = wire.associate_rq(
        [
            Context(number, uid.encode(), [each.encode() for each in syntaxes])
            for number, (uid, syntaxes) in zip(ids, proposed, strict=True)
        ]
    )
    contexts = make_contexts(table)
    peer = KnownPeer("ct", "CT", "192.0.2.1", storage_classes=(CLASSES[0], CLASSES[1]))
    whole = A_ASSOCIATE_RQ()
    whole.decode(pdu)
    allowed = [c for uid, c in contexts.items() if uid not in storage_classes or peer.takes(uid)]
    expected = outcome(whole.to_primitive().presentation_context_definition_list, allowed, asked)

    request = read_association_request(pdu[6:])
    offered = negotiation.offer(request.proposals, contexts, storage_classes, peer)
    assert outcome(negotiation.requested(request.proposals, offered), offered, asked) == expected
    assert request.proposals == tuple(
        Proposal(number, uid, tuple(dict.fromkeys(syntaxes)))
        for number, (uid, syntaxes) in zip(ids, proposed, strict=True)
    )


@given(st.permutations([b"1.2.3.4.5", b"1.2.3.4\0", b"1.2.3.4", b""]), st.integers(0, 4))
def test_names_are_read_as_pynetdicom_reads_them_wherever_the_abstract_syntax_stands(
    names: list[bytes], position: int
) -> None:
    items = [wire.item(0x40, name) for name in names]
    items.insert(position, wire.item(0x30, CLASSES[0].encode() + b"\0"))
    context = wire.item(0x20, b"\x01\0\0\0" + b"".join(items))
    pdu = wire.associate_rq([], further=context)
    whole = A_ASSOCIATE_RQ()
    whole.decode(pdu)
    (theirs,) = whole.to_primitive().presentation_context_definition_list
    (ours,) = read_association_request(pdu[6:]).proposals
    assert (ours.abstract_syntax, list(ours.transfer_syntaxes)) == (
        theirs.abstract_syntax,
        theirs.transfer_syntax,
    )
