"""The worker: one process with warm models that runs one job at a time.

Started by the gateway as ``python -m gateway.work PARENT_PID``; not meant for people. It reads
requests from its standard input and answers on its standard output (:mod:`gateway.jobs.messages`).
Both are taken away from the rest of the process first, so a stray ``print`` cannot disturb them.
It never opens the journal, and it may die at any time: the journal knows what it was doing.
"""

from __future__ import annotations

import ctypes
import os
import queue
import resource
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from structlog.typing import FilteringBoundLogger

from gateway import logs
from gateway.jobs.messages import (
    Heartbeat,
    JobRequest,
    Request,
    WorkerEvent,
    WorkerSettings,
    decode_request,
    encode,
)

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_OOM_SCORE = "500"
_NICENESS = 5  # the receiver answers peers while a model uses every core


class Line:
    """The worker's end of the protocol; safe to send on from several threads."""

    def __init__(self, incoming: BinaryIO, outgoing: BinaryIO) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._lock = threading.Lock()
        self.lease_id = ""

    def send(self, event: WorkerEvent) -> None:
        """Write one event. A broken pipe ends the process: nobody waits for us any more."""
        with self._lock:
            try:
                self._outgoing.write(encode(event))
                self._outgoing.flush()
            except OSError:
                os._exit(0)

    def read_into(self, requests: queue.SimpleQueue[Request]) -> None:
        """Body of the reading thread: requests to the queue; the end of input ends the process."""
        for line in self._incoming:
            requests.put(decode_request(line))
        os._exit(0)

    def beat(self, every_s: float) -> None:
        """Body of the heartbeat thread."""
        pause = threading.Event()
        while not pause.wait(every_s):
            self.send(Heartbeat(self.lease_id))


def main() -> None:
    """Serve requests until the input ends."""
    _die_with_parent(int(sys.argv[1]) if len(sys.argv) > 1 else os.getppid())
    line = take_over_standard_streams()
    log = logs.configure("worker")
    requests: queue.SimpleQueue[Request] = queue.SimpleQueue()
    threading.Thread(target=line.read_into, args=(requests,), name="requests", daemon=True).start()
    settings = requests.get()
    if not isinstance(settings, WorkerSettings):
        raise SystemExit("the first message must be the settings")
    if settings.memory_limit_bytes is not None:
        limit_memory(settings.memory_limit_bytes)
    threading.Thread(target=line.beat, args=(settings.heartbeat_s,), name="heartbeat", daemon=True).start()
    serve_requests(line, settings, requests, log)


def serve_requests(
    line: Line,
    settings: WorkerSettings,
    requests: queue.SimpleQueue[Request],
    log: FilteringBoundLogger,
) -> None:
    """Warm the models, then run job after job."""
    from gateway.jobs.run import Runner  # imports torch: only after the heartbeat has started

    runner = Runner(settings, log)
    line.send(runner.warm())
    while True:
        request = requests.get()
        if isinstance(request, JobRequest):
            line.lease_id = request.lease_id
            line.send(runner.run(request, line.send))
            line.lease_id = ""


def limit_memory(most_bytes: int) -> None:
    """Refuse this process more writable memory than that; it sees a MemoryError then, and lives on."""
    resource.setrlimit(resource.RLIMIT_DATA, (most_bytes, most_bytes))


def take_over_standard_streams() -> Line:
    """Keep descriptors 0 and 1 for the protocol; everybody else gets /dev/null and stderr."""
    incoming, outgoing = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return Line(incoming, outgoing)


def _die_with_parent(parent_pid: int) -> None:
    """End when the gateway ends, however it ends; be the first that the kernel takes for memory."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(0)
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signal_number, signal.SIG_IGN)  # the gateway decides when we end
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold patient data
    os.nice(_NICENESS)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)


if __name__ == "__main__":
    main()
