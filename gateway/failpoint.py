"""Named places where the crash tests kill the process, to prove that nothing is lost there.

Set ``AIGW_TEST_FAILPOINT=name:n`` and the process dies by SIGKILL when it reaches ``name`` for
the n-th time. With ``AIGW_TEST_FAILPOINT_ONCE=file`` only the first process that gets there dies,
and leaves that file behind. Without the variables a call costs one comparison.
"""

from __future__ import annotations

import itertools
import os
import signal
from pathlib import Path
from typing import Final

POINTS: Final = (
    "spool.written",
    "spool.file_synced",
    "spool.renamed",
    "spool.directory_synced",
    "admit.committed",
    "sweep.before_decision",
    "sweep.decided",
    "dispatch.claimed",
    "dispatch.results_received",
    "dispatch.finished",
    "dispatch.gave_up",
    "worker.started",
    "worker.segmented",
    "worker.results_written",
    "deliver.claimed",
    "deliver.accepted_by_peer",
    "deliver.recorded",
    "commitment.asked",
    "commitment.claimed",
    "commitment.told",
)

_name, _, _count = os.environ.get("AIGW_TEST_FAILPOINT", "").partition(":")
_hits = itertools.count(1)


def reach(point: str) -> None:
    """Die here if the environment asks for it."""
    if point == _name and next(_hits) == int(_count or 1) and _first_to_die():
        os.kill(os.getpid(), signal.SIGKILL)


def _first_to_die() -> bool:
    marker = os.environ.get("AIGW_TEST_FAILPOINT_ONCE")
    if marker is None:
        return True
    try:
        Path(marker).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
