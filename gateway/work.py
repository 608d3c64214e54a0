"""The worker: reads series, asks its model process for labels, measures and writes results.

Started by the gateway as ``python -m gateway.work PARENT_PID``, one for each device; not meant for people. It
reads requests from its standard input and answers on its standard output (:mod:`gateway.jobs.messages`).
Both are taken away from the rest of the process first, so a stray ``print`` cannot disturb them.
It never opens the journal, it never loads a model (:mod:`gateway.modelhost` does), and it may die at any
time: the journal knows what it was doing.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from pathlib import Path
from typing import BinaryIO

from structlog.typing import FilteringBoundLogger

from gateway import logs
from gateway.child import limit_memory, live_with
from gateway.clock import SystemClock
from gateway.jobs.messages import (
    Cancel,
    Heartbeat,
    JobRequest,
    Request,
    WorkerEvent,
    WorkerSettings,
    decode_request,
    encode,
)

_OOM_SCORE = 500
_LOOK_AT_CARDS_S = 5.0


class Line:
    """The worker's end of the protocol; safe to send on from several threads."""

    def __init__(self, incoming: BinaryIO, outgoing: BinaryIO) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._lock = threading.Lock()
        self.leases: tuple[str, ...] = ()

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
        try:
            for line in self._incoming:
                requests.put(decode_request(line))
        finally:
            os._exit(0)

    def beat(self, every_s: float) -> None:
        """Body of the heartbeat thread."""
        pause = threading.Event()
        while not pause.wait(every_s):
            self.send(Heartbeat(self.leases))


def main() -> None:
    """Serve requests until the input ends."""
    live_with(int(sys.argv[1]) if len(sys.argv) > 1 else os.getppid(), _OOM_SCORE)
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
    Worker(line, settings, log).serve(requests)


class Worker:
    """Jobs, each in a thread of its own: one, and one more that overtakes it in the model process."""

    def __init__(self, line: Line, settings: WorkerSettings, log: FilteringBoundLogger) -> None:
        from gateway.jobs.run import Runner  # imports ai: only after the heartbeat has started
        from gateway.modelhost.process import ModelProcess
        from gateway.modelhost.protocol import Begin
        from gateway.modelhost.start import Places

        begin = Begin(
            device=settings.device,
            memory_bytes=settings.model_memory_bytes,
            memory_limit_bytes=settings.memory_limit_bytes,
            deterministic=settings.deterministic,
        )
        scratch = Path(settings.scratch) if settings.scratch else None
        clock = SystemClock()
        places = Places(settings.hidden, settings.card_folders)
        process = ModelProcess(begin, settings.step_timeout_s, scratch, clock, log, places)
        process.start()
        self._runner = Runner(settings, process, clock, log)
        self._line = line
        self._lock = threading.Lock()
        self._cancelled: dict[str, threading.Event] = {}

    def serve(self, requests: queue.SimpleQueue[Request]) -> None:
        """Warm the models, then take job after job."""
        self._runner.look_at_cards()
        self._line.send(self._runner.ready())
        threading.Thread(target=self._watch_cards, name="cards", daemon=True).start()
        while True:
            request = requests.get()
            if isinstance(request, JobRequest):
                cancelled = self._enter(request.lease_id)
                threading.Thread(target=self._run, args=(request, cancelled), name="job", daemon=True).start()
            elif isinstance(request, Cancel):
                with self._lock:
                    if request.lease_id in self._cancelled:
                        self._cancelled[request.lease_id].set()

    def _run(self, request: JobRequest, cancelled: threading.Event) -> None:
        answer = self._runner.run(request, self._line.send, cancelled)
        with self._lock:
            del self._cancelled[request.lease_id]
            self._line.leases = tuple(self._cancelled)
        self._line.send(answer)

    def _enter(self, lease_id: str) -> threading.Event:
        with self._lock:
            cancelled = self._cancelled[lease_id] = threading.Event()
            self._line.leases = tuple(self._cancelled)
        return cancelled

    def _watch_cards(self) -> None:
        """Body of the thread that sees a model repaired or replaced."""
        pause = threading.Event()
        while not pause.wait(_LOOK_AT_CARDS_S):
            if self._runner.look_at_cards():
                self._line.send(self._runner.ready())


def take_over_standard_streams() -> Line:
    """Keep descriptors 0 and 1 for the protocol; everybody else gets /dev/null and stderr."""
    incoming, outgoing = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return Line(incoming, outgoing)


if __name__ == "__main__":
    main()
