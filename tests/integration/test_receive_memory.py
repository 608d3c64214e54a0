"""The node's memory while long instances arrive; benchmarks/receive_memory.py has the long version."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.receive_memory import MB, peak_while_receiving, warm_up
from benchmarks.receive_peers import Durable

ASSOCIATIONS = 6
_MOST_GROWTH_MB = 24.0


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Durable]:
    """``aigw serve``, warm: threads and caches that it makes once are there."""
    with Durable(tmp_path_factory.mktemp("memory") / "node") as running:
        assert isinstance(running, Durable)
        warm_up(running, ASSOCIATIONS)
        yield running


def test_memory_stays_flat_while_several_associations_send_long_instances(node: Durable) -> None:
    peak = peak_while_receiving(node, [60 * MB] * ASSOCIATIONS, seed=1)
    assert peak.growth_mb < _MOST_GROWTH_MB, peak


def test_one_long_instance_is_never_in_memory_whole(node: Durable) -> None:
    peak = peak_while_receiving(node, [300 * MB], seed=2)
    assert peak.growth_mb < _MOST_GROWTH_MB, peak


def test_what_was_sent_is_stored_in_full(node: Durable) -> None:
    """The two tests before would pass if the node threw everything away."""
    folder: Path = node.node.data / "spool" / "objects"
    sizes = sorted(path.stat().st_size // MB for path in folder.glob("*/*.dcm"))
    assert sizes[-1] == 300
    assert sizes[-1 - ASSOCIATIONS : -1] == [60] * ASSOCIATIONS
