"""Damaged streams against the running node: association requests, messages and data sets."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from tests.builders import ct_series
from tests.fuzz import seeds
from tests.fuzz.mutation import INTERESTING
from tests.fuzz.targets import SYNTAXES
from tests.gateway_process import wait_until
from tests.hostile import wire
from tests.hostile.node import HostileNode
from tests.hostile.peer import Gone, RawPeer
from tests.peers import encoded

STREAMS = int(os.environ.get("AIGW_FUZZ_STREAMS", "600"))
"""10,000 and more in `make soak`."""
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
    wait_until(node.is_calm, 30, "threads and descriptors as before")
    assert node.grown_mib < 60
