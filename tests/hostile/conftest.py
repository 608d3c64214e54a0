"""One running node for all modules that want it configured alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.hostile.node import HostileNode


@pytest.fixture(scope="session")
def start_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], HostileNode]]:
    """The node that treats unknown callers so; at the very end it must be as good as at the start."""
    nodes: dict[str, HostileNode] = {}
    with ExitStack() as stack:

        def start(unknown_callers: str) -> HostileNode:
            if unknown_callers not in nodes:
                made = HostileNode(tmp_path_factory.mktemp("hostile"), unknown_callers)
                nodes[unknown_callers] = stack.enter_context(made)
            return nodes[unknown_callers]

        yield start
        for each in nodes.values():
            each.finish()


@pytest.fixture(scope="module")
def node(request: pytest.FixtureRequest, start_node: Callable[[str], HostileNode]) -> HostileNode:
    """The node under attack."""
    return start_node(getattr(request.module, "UNKNOWN_CALLERS", "reject"))


@pytest.fixture(autouse=True)
def _is_unhurt(node: HostileNode) -> Iterator[None]:
    """After every attack a good peer is served, and all is as it was when the node started."""
    node.begin()
    yield
    node.is_unhurt()
