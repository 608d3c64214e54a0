"""What a peer wants committed is read and compared with its digests before the peer is told.

A peer may delete its images on our word, and a row with a file of the right length does not prove that the
bytes are still those that came. What the operating system has in memory is not read from the disk again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from gateway.clock import Clock
from gateway.errors import OutOfResources
from gateway.journal import Journal

VERIFY_BYTES_PER_S = 128 << 20
"""A series of 200 MB takes two seconds; a slow disk keeps room for what arrives meanwhile."""

_GOOD_FOR_S = 600.0  # a request that could not be told is not read again at every attempt

Examine = Callable[[Sequence[str]], int]
"""Looks at files (paths below the spool), puts damaged ones aside, and returns how many are not whole."""


class Verification:
    """Reads the files of requests, one at a time for all peers.

    Parameters
    ----------
    examine
        Raises OutOfResources if the disk cannot be asked, and sqlite3.Error.
    """

    def __init__(self, journal: Journal, examine: Examine, clock: Clock) -> None:
        self._journal = journal
        self._examine = examine
        self._clock = clock
        self._one_file = threading.Lock()
        self._verified_at_s: dict[int, float] = {}

    def verify(self, commitment_id: int, stopping: threading.Event) -> None:
        """Read every file of a request, unless that was done a moment ago; damage is in the journal then.

        When ``stopping``, it reads on without pauses: a peer waits. Raises sqlite3.Error, and OutOfResources
        (INSTANCE_NOT_VERIFIED) for a file that the disk does not give us.
        """
        if commitment_id in self._recent():
            return
        uids = list(dict.fromkeys(uid for _, uid in self._journal.commitment_references(commitment_id)))
        for kept in self._journal.kept_instances(uids):
            if kept.is_quarantined:
                continue
            with self._one_file:
                self._look_at(kept.path)
                stopping.wait(kept.size_bytes / VERIFY_BYTES_PER_S)
        with self._one_file:
            self._verified_at_s[commitment_id] = self._clock.monotonic_s()

    def _look_at(self, path: str) -> None:
        try:
            self._examine([path])
        except OutOfResources as error:
            why = getattr(error.__cause__, "strerror", None) or error.name
            sentence = (
                f"{path} in the spool cannot be verified ({why}): check the disk of data_dir, and that the "
                "gateway may read and move this file."
            )
            raise OutOfResources("INSTANCE_NOT_VERIFIED", sentence) from error

    def _recent(self) -> dict[int, float]:
        oldest_s = self._clock.monotonic_s() - _GOOD_FOR_S
        with self._one_file:
            self._verified_at_s = {key: at for key, at in self._verified_at_s.items() if at >= oldest_s}
            return self._verified_at_s
