"""What makes the gateway one process: the lock on its data folder, and threads that fail together."""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from structlog.typing import FilteringBoundLogger

from gateway.errors import GatewayError
from gateway.logs import places

_LOCK_LOOK_S = 0.05


class Crew:
    """The threads of the gateway. One that crashes ends the process: half a gateway helps nobody."""

    def __init__(self, log: FilteringBoundLogger, stopping: threading.Event) -> None:
        self._log = log
        self._stopping = stopping
        self._threads: list[threading.Thread] = []
        self.failed = False

    def start(self, name: str, body: Callable[[], None]) -> None:
        """Run ``body`` in a thread."""
        thread = threading.Thread(target=self._run, args=(name, body), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def report(self, part: str) -> None:
        """A part has failed: end the process."""
        self.failed = True
        self._log.critical("part_failed", part=part, action="the gateway stops; its supervisor restarts it")
        self._stopping.set()

    def join(self, remaining_s: Callable[[], float]) -> None:
        """Wait for all threads."""
        for thread in self._threads:
            thread.join(timeout=max(remaining_s(), 0.0))
            if thread.is_alive():
                self._log.error("part_did_not_stop", part=thread.name)

    def _run(self, name: str, body: Callable[[], None]) -> None:
        try:
            body()
        except Exception as error:  # noqa: BLE001 - whatever it was, the process must not live on
            self._log.critical("part_crashed", part=name, error=type(error).__name__, places=places(error))
            self.report(name)


def lock_data_dir(data_dir: Path, wait_s: float = 0.0) -> ExitStack:
    """Create the data folder (mode 0700) and hold its lock; the kernel lets go when we end.

    A gateway that was killed while it started a child may leave the lock to that child for a moment: whoever
    may be started again at once waits for it. Raises GatewayError: DATA_DIR_UNUSABLE, DATA_DIR_IN_USE.
    """
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = (data_dir / "lock").open("a")
    except OSError as error:
        raise GatewayError(
            "DATA_DIR_UNUSABLE", f"data_dir {data_dir} cannot be used: {error.strerror}."
        ) from error
    stack = ExitStack()
    stack.enter_context(handle)
    waiting, left_s = threading.Event(), wait_s
    while not _is_locked(handle):
        if left_s <= 0:
            stack.close()
            raise GatewayError(
                "DATA_DIR_IN_USE",
                f"Another gateway is running on data_dir {data_dir}: stop it, or give this one another "
                "folder.",
            )
        waiting.wait(_LOCK_LOOK_S)
        left_s -= _LOCK_LOOK_S
    return stack


def _is_locked(handle: IO[str]) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
