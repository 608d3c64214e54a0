"""One worker process: started, and started again when it dies.

The child runs ``python -m gateway.work`` and speaks :mod:`gateway.jobs.messages` over its standard
streams. It ends with us: its input closes, and the kernel kills it when the thread that started it ends.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from structlog.typing import FilteringBoundLogger

from gateway.child import describe_ending, environment_for_child
from gateway.jobs.messages import Died, Event, Ready, Request, WorkerSettings, decode_event, encode

_FIRST_BACKOFF_S = 0.2
_LONGEST_BACKOFF_S = 30.0
_NO_WAIT_FOR_PIPES_S = 5.0


@dataclass(frozen=True)
class Health:
    """What the health page tells about a worker, or about all of them together."""

    ready: bool
    reason: str
    pid: int | None
    device: str
    models: tuple[str, ...]
    sandbox: str = ""


class WorkerProcess:
    """A worker for one device.

    Parameters
    ----------
    heard
        Called with each event of the worker, in the order in which they come.
    command
        What to start; our process id is added as the last argument.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        heard: Callable[[Event], None],
        log: FilteringBoundLogger,
        command: Sequence[str],
    ) -> None:
        self._command = command
        self._settings = settings
        self._heard = heard
        self._log = log
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._ready: Ready | None = None
        self._reason = "the worker has not been started"
        self._supervisor = threading.Thread(target=self._supervise, name="worker-supervisor", daemon=True)

    def start(self) -> None:
        """Start the worker; it becomes ready when its models are loaded."""
        self._supervisor.start()

    def stop(self, timeout_s: float) -> None:
        """Close the worker's input, which ends it; kill it if it does not end in time."""
        self._stopping.set()
        with self._lock:
            process = self._process
        if process is not None:
            if process.stdin is not None:
                _close(process.stdin)
            try:
                process.wait(timeout=timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
        if self._supervisor.ident is not None:
            self._supervisor.join(timeout=timeout_s)

    def health(self) -> Health:
        """Whether the worker takes jobs, and why not."""
        with self._lock:
            ready, process = self._ready, self._process
            return Health(
                ready=ready is not None and ready.usable,
                reason="; ".join(ready.problems) if ready else self._reason,
                pid=process.pid if process else None,
                device=ready.device if ready else self._settings.device,
                models=ready.models if ready else (),
                sandbox=ready.sandbox if ready else "",
            )

    @property
    def alive(self) -> bool:
        """False when the supervising thread has ended without being asked to."""
        return self._supervisor.is_alive()

    def send(self, request: Request, pid: int) -> None:
        """Say something to the worker that said Ready with this pid; if it is gone, ``Died`` follows."""
        with self._lock:
            process = self._process
        if process is not None and process.pid == pid:
            # A pipe holds 64 KiB: a worker that has stopped reading must not stop us too.
            writer = threading.Thread(target=_write, args=(process, encode(request)), name="job-request")
            writer.daemon = True
            writer.start()

    def kill(self) -> None:
        """End a worker that hangs (SIGKILL); ``Died`` follows, and a fresh worker."""
        with self._lock:
            if self._process is not None:
                self._process.kill()

    def _supervise(self) -> None:
        backoff_s = _FIRST_BACKOFF_S
        while not self._stopping.is_set():
            was_ready, ending = self._run_one()
            self._heard(Died(ending))
            if self._stopping.is_set():
                return
            backoff_s = _FIRST_BACKOFF_S if was_ready else min(backoff_s * 2, _LONGEST_BACKOFF_S)
            self._log.error("worker_died", ending=ending, was_ready=was_ready, restart_in_s=backoff_s)
            self._stopping.wait(backoff_s)

    def _run_one(self) -> tuple[bool, str]:
        """One worker from start to end; returns whether it became ready, and how it ended."""
        try:
            process = subprocess.Popen(
                [*self._command, str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment_for_child(os.environ),
                start_new_session=True,  # a Ctrl-C in the terminal is for the gateway alone
            )
        except OSError as error:
            return False, f"it could not be started: {error.strerror}"
        with self._lock:
            self._process, self._reason = process, "the worker is loading its models"
        self._log.info("worker_started", pid=process.pid, device=self._settings.device)
        _write(process, encode(self._settings))
        was_ready = self._read_events(process)
        process.kill()  # its output is closed: whatever is left of it can only be stuck
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                _close(stream)
        ending = describe_ending(process.returncode)
        with self._lock:
            self._process, self._ready = None, None
            self._reason = f"the worker ended with {ending} and is being started again"
        return was_ready, ending

    def _read_events(self, process: subprocess.Popen[bytes]) -> bool:
        was_ready = False
        assert process.stdout is not None  # noqa: S101 - opened as a pipe
        for line in process.stdout:
            try:
                event = decode_event(line)
            except ValueError:
                self._log.error("worker_message_not_understood", size_bytes=len(line))
                continue
            if isinstance(event, Ready):
                was_ready = True
                with self._lock:
                    self._ready = event
            self._heard(event)
        try:
            process.wait(timeout=_NO_WAIT_FOR_PIPES_S)
        except subprocess.TimeoutExpired:
            self._log.error("worker_closed_its_output", pid=process.pid)
        return was_ready


def _write(process: subprocess.Popen[bytes], line: bytes) -> None:
    assert process.stdin is not None  # noqa: S101 - opened as a pipe
    try:
        process.stdin.write(line)
        process.stdin.flush()
    except (OSError, ValueError):  # it is dying or its input is closed: the supervisor reports it
        return


def _close(stream: object) -> None:
    try:
        stream.close()  # type: ignore[attr-defined]
    except OSError:  # unsent bytes for a process that is gone
        return
