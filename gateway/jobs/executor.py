"""The executor port, and the one that places jobs on this machine: a worker process for each device.

A slot is a device. It has one job, and at most one more that overtakes it there.
"""

from __future__ import annotations

import queue
import shutil
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from structlog.typing import FilteringBoundLogger

from gateway.jobs.messages import Cancel, Event, JobRequest, Ready, WorkerSettings
from gateway.jobs.worker_process import Health, WorkerProcess

WORKER_COMMAND = (sys.executable, "-m", "gateway.work")


@dataclass(frozen=True)
class Heard:
    """An event of the worker in a slot."""

    slot: int
    event: Event


class Executor(Protocol):
    """Where jobs are run. The dispatcher decides which, and writes down what became of them."""

    def submit(self, slot: int, request: JobRequest, pid: int) -> None:
        """Give a job to the worker that said Ready with this pid; if it is gone, ``Died`` follows."""
        ...

    def cancel(self, slot: int, lease_id: str, pid: int) -> None:
        """Ask that worker to end a job; ``Failed`` with the name CANCELLED follows, unless it was done."""
        ...

    def kill(self, slot: int) -> None:
        """End the worker of a slot; ``Died`` follows, and a fresh worker."""
        ...

    def next_event(self, timeout_s: float) -> Heard | None:
        """The next event of any worker, or None when there is none in time."""
        ...


class LocalExecutor:
    """Worker processes on this machine (see :class:`Executor`).

    Parameters
    ----------
    workers
        One for each device. A first one with the device ``auto`` is followed by one for each further GPU.
    command
        What to start, see :class:`WorkerProcess`.
    """

    def __init__(
        self,
        workers: Sequence[WorkerSettings],
        log: FilteringBoundLogger,
        command: Sequence[str] = WORKER_COMMAND,
    ) -> None:
        self._command = command
        self._log = log
        self._events: queue.SimpleQueue[Heard] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._stopped = False
        self._settings = workers[0]
        self._workers: list[WorkerProcess] = []
        for each in workers:
            self._add(each)

    def start(self) -> None:
        """Start the workers; each becomes ready when its models are loaded."""
        for worker in self._all():
            worker.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """End the workers, and remove what their models have left."""
        with self._lock:
            self._stopped = True
        for worker in self._all():
            worker.stop(timeout_s)
        if self._settings.scratch:
            shutil.rmtree(Path(self._settings.scratch).parent, ignore_errors=True)

    def health(self) -> Health:
        """Of all workers together; ready when one of them takes jobs."""
        found = [worker.health() for worker in self._all()]
        usable = [each for each in found if each.ready] or found
        reasons = dict.fromkeys(each.reason for each in found if each.reason)
        return Health(
            ready=any(each.ready for each in found),
            reason="; ".join(reasons),
            pid=usable[0].pid,
            device=", ".join(each.device for each in usable),
            models=tuple(dict.fromkeys(model for each in usable for model in each.models)),
            sandbox="; ".join(dict.fromkeys(each.sandbox for each in usable if each.sandbox)),
        )

    @property
    def alive(self) -> bool:
        """False when a supervising thread has ended without being asked to."""
        return all(worker.alive for worker in self._all())

    def submit(self, slot: int, request: JobRequest, pid: int) -> None:
        """See :class:`Executor`."""
        self._all()[slot].send(request, pid)

    def cancel(self, slot: int, lease_id: str, pid: int) -> None:
        """See :class:`Executor`."""
        self._all()[slot].send(Cancel(lease_id), pid)

    def kill(self, slot: int) -> None:
        """See :class:`Executor`."""
        self._all()[slot].kill()

    def next_event(self, timeout_s: float) -> Heard | None:
        """See :class:`Executor`."""
        try:
            return self._events.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def _all(self) -> list[WorkerProcess]:
        with self._lock:
            return list(self._workers)

    def _add(self, settings: WorkerSettings) -> WorkerProcess:
        """One more slot; its scratch folder is its own."""
        slot = len(self._workers)
        if settings.scratch:
            settings = replace(settings, scratch=str(Path(settings.scratch).with_name(f"slot-{slot}")))
        worker = WorkerProcess(settings, partial(self._hear, slot), self._log, self._command)
        self._workers.append(worker)
        return worker

    def _hear(self, slot: int, event: Event) -> None:
        self._events.put(Heard(slot, event))
        if isinstance(event, Ready) and event.further_devices:
            with self._lock:
                is_first = len(self._workers) == 1 and not self._stopped
                devices = event.further_devices if is_first else ()
                for device in devices:
                    self._add(replace(self._settings, device=device)).start()
