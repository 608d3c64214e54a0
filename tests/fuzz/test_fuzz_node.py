"""Damaged streams and damaged instances against the running node, while a good peer stores."""

from __future__ import annotations

import os
import random
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import pytest

from tests.builders import ct_series
from tests.fuzz import instances, seeds
from tests.fuzz.mutation import INTERESTING
from tests.fuzz.targets import SYNTAXES
from tests.hostile import wire
from tests.hostile.node import HostileNode
from tests.hostile.peer import Gone, RawPeer, digest
from tests.peers import encoded

STREAMS = int(os.environ.get("AIGW_FUZZ_STREAMS", "600"))
"""10,000 and more in `make soak`."""
STORES = int(os.environ.get("AIGW_FUZZ_STORES", "2000"))
"""C-STOREs of damaged instances that must be answered; 20,000 in `make soak`."""
SEED = int(os.environ.get("AIGW_FUZZ_SEED", "20261121"))


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostileNode]:
    """As in tests/hostile."""
    with HostileNode(tmp_path_factory.mktemp("fuzz")) as running:
        yield running
        running.finish()


def _damaged(data: bytes, chance: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(chance.randint(1, 5)):
        at = chance.randrange(len(out)) if out else 0
        how = chance.randrange(6)
        if how == 0 and out:
            out[at] = chance.randrange(256)
        elif how == 1:
            out[at : at + 4] = chance.choice(INTERESTING)
        elif how == 2:
            out[at:at] = chance.choice(INTERESTING)
        elif how == 3:
            del out[at : at + chance.randint(1, 30)]
        elif how == 4:
            out[at:at] = out[at : at + chance.randint(1, 60)] * chance.randint(1, 20)
        else:
            del out[at:]
    return bytes(out)


def _stream(chance: random.Random) -> bytes:
    """A connection as it could be right, damaged in one of its layers."""
    layer = chance.choice(["request", "messages", "data set", "all"])
    context = wire.Context(1, wire.CT, tuple(str(syntax).encode() for syntax in SYNTAXES))
    request = wire.associate_rq([context, wire.Context(3, wire.VERIFICATION, (wire.IMPLICIT,))])
    dataset = ct_series((1, 8, 8), seed=chance.randrange(10**9))[0]
    uid, data_set = str(dataset.SOPInstanceUID).encode(), encoded(dataset)
    if layer == "data set":
        data_set = _damaged(chance.choice([data_set, *seeds.data_sets()[SYNTAXES[0]]]), chance)
    body = wire.message(1, wire.c_store_rq(uid), data_set, chance.choice([100, 4000, 16000]))
    body += wire.message(3, wire.c_echo_rq(2)) + wire.release_rq()
    if layer == "request":
        request = _damaged(request, chance)
    elif layer == "messages":
        body = _damaged(body, chance)
    return _damaged(request + body, chance) if layer == "all" else request + body


def _attack(node: HostileNode, number: int) -> None:
    chance = random.Random(SEED + number)
    try:
        with (
            suppress(Gone, ConnectionError),
            RawPeer(node.dicom_port, f"127.0.0.{chance.choice((1, 1, 1, 66))}") as peer,
        ):
            peer.send(_stream(chance))
            peer.socket.shutdown(socket.SHUT_WR)
            peer.until_closed(20)
    except TimeoutError as error:
        raise AssertionError(f"stream {SEED}+{number}: the connection never ended") from error
    except OSError:  # shutdown of what is closed already
        pass


@pytest.mark.timeout(7200)
def test_damaged_streams_neither_break_the_node_nor_what_others_send(node: HostileNode) -> None:
    """Four attack at a time while a good peer stores; the end of the module looks at what is left."""
    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(_attack, node, number) for number in range(STREAMS)]
        for count, each in enumerate(running):
            each.result()
            if count % 50 == 0:
                node.serves(within_s=10)
                node.check_log()
    node.is_unhurt()


# -- damaged instances, on associations that last -------------------------------------------------

ASSOCIATIONS = 4
ANSWERS = {0x0000, 0xA900, 0xC000}
WARM_UP = STORES // 4
MOST_RSS_CHANGE = 0.1


def _store(node: HostileNode, peer: RawPeer, numbers: range) -> Counter[tuple[str, int]]:
    """How often which mutation got which status; what was acknowledged must be intact at the end."""
    answers: Counter[tuple[str, int]] = Counter()
    for number in numbers:
        sent = instances.damaged(number, random.Random(SEED + number))
        what = f"instance {number} of seed {SEED} ({sent.mutation})"
        try:
            status = peer.store(sent.uid, sent.data_set, sent.context_id, sent.sop_class_uid).status
        except Gone as error:
            raise AssertionError(f"{what}: its association was ended") from error
        assert status in ANSWERS, f"{what}: {status:04X}"
        if status == 0:
            node.acknowledged[sent.uid.decode()] = digest(sent.data_set)
        answers[sent.mutation, status] += 1
    return answers


def _store_good(node: HostileNode, stop: threading.Event) -> Counter[int]:
    """One instance after another on one association; how often which status."""
    statuses: Counter[int] = Counter()
    with RawPeer(node.dicom_port) as peer:
        peer.associated()
        while not stop.is_set():
            statuses[node.store_good(peer)] += 1
        peer.release()
    return statuses


@pytest.mark.timeout(7200)
def test_damaged_instances_are_all_answered_and_a_good_peer_loses_none(node: HostileNode) -> None:
    """Memory does not change once all is warm; every acknowledged instance is whole, damaged or good."""
    stop = threading.Event()
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(ASSOCIATIONS + 1))
        stack.callback(stop.set)
        request = wire.associate_rq(instances.contexts())
        peers = [stack.enter_context(RawPeer(node.dicom_port)) for _ in range(ASSOCIATIONS)]
        for peer in peers:
            peer.associated(request)
        good = pool.submit(_store_good, node, stop)

        def attack(begin: int, end: int) -> Counter[tuple[str, int]]:
            parts = [range(begin + i, end, ASSOCIATIONS) for i in range(ASSOCIATIONS)]
            running = [pool.submit(_store, node, *each) for each in zip(peers, parts, strict=True)]
            return sum((each.result() for each in running), Counter())

        answers = attack(0, WARM_UP)
        warm_mib = node.own_mib
        answers += attack(WARM_UP, STORES)
        stop.set()
        statuses = good.result()
        change = node.own_mib / warm_mib - 1
        for peer in peers:
            peer.release()
    assert answers.total() == STORES
    assert {mutation for mutation, _ in answers} == instances.MUTATIONS.keys()
    assert not [status for mutation, status in answers if mutation == "nothing" and status]
    assert statuses.keys() == {0}
    assert statuses.total() >= STORES // 20
    assert abs(change) <= MOST_RSS_CHANGE, f"{warm_mib:.0f} MiB changed by {change:.0%}"
    node.is_unhurt()
    node.check_instances()
