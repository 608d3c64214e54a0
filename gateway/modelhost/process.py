"""The model process of one device: started, watched, ended when it hangs, and started again."""

from __future__ import annotations

import itertools
import queue
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from gateway.child import describe_ending
from gateway.clock import Clock
from gateway.logs import places
from gateway.modelhost.ending import Ended, account
from gateway.modelhost.protocol import (
    MEMORY_STAGE,
    Begin,
    Cancel,
    Hello,
    Line,
    Load,
    Loaded,
    Message,
    Predict,
    Predicted,
    Refused,
    Stepped,
    Turn,
)
from gateway.modelhost.sandbox import Sandbox, prepare_scratch
from gateway.modelhost.start import HOST_COMMAND, Places, start
from gateway.modelhost.watchdog import Watchdog

_LOOK_EVERY_S = 0.2
_FIRST_BACKOFF_S = 0.2
_LONGEST_BACKOFF_S = 30.0
_LAST_WORDS_S = 5.0
_STARTING = -1  # what it works on before it says hello: the number of no request


Answer = Loaded | Predicted | Refused | Stepped | Ended


@dataclass(frozen=True)
class _Pending:
    card: str
    answers: queue.SimpleQueue[Answer]


class ModelProcess:
    """Starts the process of a device and speaks with it; safe to use from several threads.

    Parameters
    ----------
    begin
        What a fresh process is told.
    step_timeout_s
        See :class:`gateway.modelhost.watchdog.Watchdog`.
    scratch
        The only folder that it may write to; emptied before and after. None: one among the temporary files.
    named
        What it may not read, and what it must be able to.
    """

    def __init__(
        self,
        begin: Begin,
        step_timeout_s: float,
        scratch: Path | None,
        clock: Clock,
        log: FilteringBoundLogger,
        named: Places = Places(),  # noqa: B008 - frozen
        command: Sequence[str] = HOST_COMMAND,
    ) -> None:
        self._named = named
        self._begin = begin
        self._watchdog = Watchdog(step_timeout_s)
        self._scratch = scratch or Path(tempfile.mkdtemp(prefix="aigw-model-"))
        self._clock = clock
        self._log = log
        self._command = command
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._line: Line | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._pending: dict[int, _Pending] = {}
        self._said_hello = threading.Condition(self._lock)
        self._hello: Hello | None = None
        self._last_hello: Hello | None = None
        self._sending = threading.Lock()
        self._stopping = threading.Event()
        self._trouble = "it is still starting"
        self._supervisor = threading.Thread(target=self._supervise, name="model-process", daemon=True)

    def start(self) -> None:
        """Start the process; it lives as long as the thread made here, so as long as we do."""
        self._supervisor.start()

    @property
    def last_hello(self) -> Hello | None:
        """What the process said of itself when it was last there."""
        with self._lock:
            return self._last_hello

    @property
    def device(self) -> str:
        """Where its models run."""
        hello = self.last_hello
        return hello.device if hello else self._begin.device

    @property
    def trouble(self) -> str:
        """How the last one ended, where one has."""
        with self._lock:
            return self._trouble

    def wait_for_hello(self, timeout_s: float) -> Hello | None:
        """Wait until it is there."""
        with self._said_hello:
            self._said_hello.wait_for(lambda: self._hello is not None, timeout_s)
            return self._hello

    def new_number(self) -> int:
        """For the next request."""
        return next(self._numbers)

    def submit(
        self, request: Load | Predict, card: str, handles: tuple[int, ...] = ()
    ) -> queue.SimpleQueue[Answer]:
        """Send a request; its answers come into the queue, and if there is no process that is one."""
        pending = _Pending(card, queue.SimpleQueue())
        with self._lock:
            line = self._line if self._hello else None
            if line is not None:
                self._pending[request.id] = pending
        if line is None:
            pending.answers.put(Ended(False, "MODEL_RESTARTED", "The model process is being started."))
        else:
            self._send(line, request, handles)
        return pending.answers

    def forget(self, number: int) -> None:
        """Nobody waits for this request any more; if it is still under way it is cancelled."""
        with self._lock:
            pending, line = self._pending.pop(number, None), self._line
        if pending is not None and line is not None:
            self._send(line, Cancel(number))

    def stop(self) -> None:
        """End the process, and start no other."""
        self._stopping.set()
        with self._lock:
            process = self._process
        if process is not None:
            process.kill()
        self._supervisor.join(timeout=10.0)
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _send(self, line: Line, message: Message, handles: tuple[int, ...] = ()) -> None:
        """Write to the process; if it is gone, the supervisor notices and answers for it."""
        try:
            with self._sending:
                line.send(message, handles)
        except OSError:
            return

    # -- one process after another ------------------------------------------------------------

    def _supervise(self) -> None:
        backoff_s = _FIRST_BACKOFF_S
        while not self._stopping.is_set():
            try:
                came_up = self._run_one()
            except Exception as error:  # noqa: BLE001 - nobody else would start the next one
                came_up = False
                self._failed(error)
            if self._stopping.is_set():
                return
            backoff_s = _FIRST_BACKOFF_S if came_up else min(backoff_s * 2, _LONGEST_BACKOFF_S)
            self._stopping.wait(backoff_s)

    def _run_one(self) -> bool:
        """One process from start to end; True if it said hello."""
        prepare_scratch(self._scratch)
        process, line = start(self._command, self._scratch, self._named)
        with self._lock:
            self._process, self._line = process, line
            if self._stopping.is_set():
                process.kill()
        self._watchdog.turn(_STARTING, "", self._clock.monotonic_s(), loading=True)
        self._send(line, self._begin)
        hung_for_s, is_understood = None, False
        try:
            hung_for_s = self._listen(line)
            is_understood = True
        finally:
            came_up = self._end_of(process, line, hung_for_s, is_understood=is_understood)
        return came_up

    def _failed(self, error: Exception) -> None:
        if isinstance(error, OSError):
            with self._lock:
                self._trouble = f"it cannot be started ({error.strerror})"
        self._log.error("model_process_failed", error=type(error).__name__, places=places(error))

    def _listen(self, line: Line) -> float | None:
        """Pass answers on until the process is gone (None), or hung for so many seconds.

        What it says may be nonsense, and raise anything.
        """
        while True:
            try:
                message = line.receive(_LOOK_EVERY_S)
            except TimeoutError:
                hung_for_s = self._watchdog.hung_for_s(self._clock.monotonic_s())
                if hung_for_s is not None:
                    return hung_for_s
                continue
            except OSError:
                return None
            if message is None:
                return None
            line.close_handles()  # it has none to give
            self._hear(message)

    def _hear(self, message: Message) -> None:
        now_s = self._clock.monotonic_s()
        if isinstance(message, Hello):
            with self._said_hello:
                is_first = self._last_hello is None
                self._hello = self._last_hello = message
                self._said_hello.notify_all()
            self._watchdog.turn(0, "", now_s)
            self._log_hello(message, is_first=is_first)
        elif isinstance(message, Turn):
            known = self._pending.get(message.id)
            card = known.card if known else message.loading
            self._watchdog.turn(message.id, card, now_s, loading=bool(message.loading), slow=message.slow)
        elif isinstance(message, Stepped):
            self._watchdog.stepped(message.seconds, now_s, starts_again=message.stage == MEMORY_STAGE)
            pending = self._pending.get(message.id)
            if pending is not None:
                pending.answers.put(message)
        elif isinstance(message, Loaded | Predicted | Refused):
            with self._lock:
                pending = self._pending.pop(message.id, None)
            if pending is not None:
                pending.answers.put(message)

    def _end_of(
        self, process: subprocess.Popen[bytes], line: Line, hung_for_s: float | None, *, is_understood: bool
    ) -> bool:
        """Whoever waits is told; the one that was being worked on is blamed."""
        if hung_for_s is None and is_understood:
            try:
                process.wait(timeout=_LAST_WORDS_S)
            except subprocess.TimeoutExpired:
                self._log.error("model_process_closed_its_socket", pid=process.pid)
        process.kill()
        ending = describe_ending(process.wait())
        if not is_understood:
            ending = "a message that is none of its protocol"
        with self._lock:
            orphans, self._pending = self._pending, {}
            came_up = self._hello is not None
            self._process = self._line = self._hello = None
            self._trouble = f"it ended with {ending}"
        with self._sending:
            line.close()
        for number, pending in orphans.items():
            blamed = number == self._watchdog.working_on
            pending.answers.put(Ended(blamed, *account(pending.card, ending, hung_for_s, self._watchdog)))
        if not self._stopping.is_set():
            guilty = orphans.get(self._watchdog.working_on)
            blamed_card = guilty.card if guilty else ""
            self._log.error("model_process_died", ending=ending, hung_for_s=hung_for_s, card=blamed_card)
        self._watchdog.turn(0, "", self._clock.monotonic_s())
        prepare_scratch(self._scratch)
        return came_up

    def _log_hello(self, hello: Hello, *, is_first: bool) -> None:
        self._log.info(
            "model_process_ready", pid=hello.pid, device=hello.device, memory_bytes=hello.memory_bytes
        )
        box = Sandbox(hello.network, hello.writes, hello.reads)
        if is_first:
            say = self._log.info if box.complete else self._log.warning
            say("sandbox", **vars(box))
