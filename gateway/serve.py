"""The gateway process: receiver, sweeper, dispatcher, senders and web around one journal.

It never imports torch; the model runs in the worker process that the executor supervises.
"""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import threading
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TypeVar

from structlog.typing import FilteringBoundLogger

from gateway import __version__
from gateway.clock import Clock
from gateway.control import Desk
from gateway.control.disk import FlushTime, measure_flush
from gateway.control.status import Listener
from gateway.deliver.send import Sender
from gateway.errors import GatewayError
from gateway.faces import Faces
from gateway.jobs.dispatch import Dispatcher
from gateway.jobs.executor import LocalExecutor
from gateway.journal import Journal
from gateway.parts import make_committing, make_door, make_receiving, make_scp, make_stow
from gateway.process import Crew, lock_data_dir
from gateway.settings.model import Settings
from gateway.settings.runtime import profiles, why_held
from gateway.settings.wiring import dispatch_settings, sender_settings, sweep_rules, worker_settings
from gateway.spool import Spool
from gateway.spool.layout import OBJECTS
from gateway.sweep import Sweeper
from gateway.upkeep import Keeper
from gateway.upkeep.compare import compare_results
from gateway.web.app import make_app
from gateway.web.server import WebServer
from gateway.web.stow import stow_routes

T = TypeVar("T")

_WATCH_S = 0.5
_LOCK_WAIT_S = 2.0
_AFTER_DRAIN_S = 5.0
_DESCRIPTORS = 1 << 16


def serve(
    settings: Settings, clock: Clock, log: FilteringBoundLogger, stopping: threading.Event | None = None
) -> int:
    """Run until SIGTERM, SIGINT or ``stopping``; returns 0, or 1 when a part of the gateway failed.

    Raises
    ------
    GatewayError
        DATA_DIR_IN_USE, DATA_DIR_UNUSABLE, JOURNAL_UNUSABLE, SPOOL_MISSING, PORT_NOT_FREE: no start.
    """
    stopping = stopping or threading.Event()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopping.set())
    os.umask(0o077)
    _allow_descriptors()
    with ExitStack() as stack:
        stack.enter_context(lock_data_dir(settings.data_dir, _LOCK_WAIT_S))
        try:
            node = Node(settings, clock, log, stopping)
        except sqlite3.OperationalError as error:  # the disk is full, or the file is not ours
            sentence = (
                f"{settings.data_dir / 'journal.db'} cannot be used ({error}): check its disk and owner."
            )
            raise GatewayError("JOURNAL_UNUSABLE", sentence) from error
        except sqlite3.DatabaseError as error:
            sentence = (
                f"{settings.data_dir / 'journal.db'} cannot be used ({error}): remove journal.db-wal and "
                "journal.db-shm beside it, and put a backup in its place."
            )
            raise GatewayError("JOURNAL_UNUSABLE", sentence) from error
        except OSError as error:
            sentence = f"{error.filename or settings.data_dir} cannot be used: {error.strerror}."
            raise GatewayError("DATA_DIR_UNUSABLE", sentence) from error
        stack.callback(node.close)
        node.start()
        node.watch()
        return node.stop()


def _allow_descriptors() -> None:
    """As many open files as the system lets us have: of the usual 1024, connections alone may take 600."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Node:
    """Every part of the gateway, wired."""

    def __init__(
        self, settings: Settings, clock: Clock, log: FilteringBoundLogger, stopping: threading.Event
    ) -> None:
        self._settings = settings
        self._log = log
        self._stopping = stopping
        self._crew = Crew(log, stopping)
        self._journal = Journal(settings.data_dir / "journal.db")
        _refuse_without_files(self._journal, settings.data_dir / "spool")
        self._spool = Spool(settings.data_dir / "spool")
        self._results = Spool(settings.data_dir / "results")
        self._clock = clock
        self._recover()
        self._keeper = Keeper(self._spool, self._journal, clock, log, settings.storage.verify_rate)
        self._receiving = make_receiving(settings, self._spool, self._journal, clock, log)
        self._sweeper = Sweeper(
            self._journal,
            self._spool.root,
            self._receiving.open_of,
            sweep_rules(settings),
            clock,
            log,
        )
        commitment, self._commitment_reporter = make_committing(
            settings,
            self._receiving,
            self._spool,
            self._journal,
            self._sweeper.wake,
            self._keeper.examine,
            clock,
            log,
        )
        self._scp = make_scp(settings, self._receiving, (commitment,), log)
        self._stow = make_stow(settings, self._receiving, log)
        self._executor = LocalExecutor(worker_settings(settings), log)
        dispatch = dispatch_settings(settings, self._spool.root, self._results.root)
        self._dispatcher = Dispatcher(
            self._journal, self._executor, dispatch, clock, log, self._keeper.examine
        )
        self._senders = [
            Sender(self._journal, each, clock, log) for each in sender_settings(settings, self._results.root)
        ]
        self._web: WebServer | None = None
        flush = _measured(settings.data_dir, log)
        self._faces = Faces(
            settings, self._journal, self._spool, self._receiving, self._executor, clock, stopping, flush
        )

    def start(self) -> None:
        """Open every listener, then start every thread, then say that we are ready."""
        settings = self._settings
        listen, door = settings.web.listen, make_door(self._receiving)
        web = _bind("web.listen", lambda: WebServer(listen.host, listen.port, door))
        self._web = web
        _bind("dicom.listen or dicom.tls.listen" if settings.dicom.tls else "dicom.listen", self._scp.start)
        faces = self._faces
        web.start(make_app(faces.checks, faces.metrics().text, listen.host, stow_routes(self._stow)))
        self._executor.start()
        drain_s = settings.drain_timeout
        self._crew.start("dispatcher", lambda: self._dispatcher.run(self._stopping, drain_s))
        self._crew.start("sweeper", self._sweep)
        self._crew.start("commitment-reporter", partial(self._commitment_reporter.run, self._stopping))
        if self._receiving.certificates is not None:
            self._crew.start("certificates", partial(self._receiving.certificates.run, self._stopping))
        self._crew.start("keeper", partial(self._keeper.run, self._stopping))
        self._faces.listeners = self._listeners(web.port)
        self._open_desk()
        for number, sender in enumerate(self._senders):
            self._crew.start(f"sender-{number}", partial(sender.run, self._stopping))
        for destination, waiting in self._journal.waiting_deliveries().items():
            if reason := why_held(settings, destination):
                self._log.error("deliveries_held", destination=destination, waiting=waiting, reason=reason)
        self._log.info(
            "ready",
            ae_title=settings.dicom.ae_title,
            dicom_port=self._scp.port,
            dicom_tls_port=self._scp.tls_port if settings.dicom.tls else None,
            http_port=web.port,
            pid=os.getpid(),
            version=__version__,
        )

    def watch(self) -> None:
        """Wait for the end; a part that has died unasked is a reason to end."""
        while not self._stopping.wait(_WATCH_S):
            web_alive = self._web is None or self._web.alive
            if not (self._executor.alive and web_alive):
                self._crew.report("the web server" if not web_alive else "the worker's supervisor")

    def stop(self) -> int:
        """Drain: no new associations, open ones and the running job get their time."""
        drain_s = self._settings.drain_timeout
        self._stow.stop()
        self._log.info("stopping", drain_timeout_s=drain_s)
        deadline_s = self._clock.monotonic_s() + drain_s + _AFTER_DRAIN_S
        self._scp.stop(drain_s)
        if not self._stow.wait_until_none(deadline_s - _AFTER_DRAIN_S - self._clock.monotonic_s()):
            self._log.warning("store_requests_cut_off", open=self._receiving.requests.by_source())
            self._stow.cut_off()
        self._crew.join(lambda: deadline_s - self._clock.monotonic_s())
        self._log.info("stopped", failed=self._crew.failed)
        return 1 if self._crew.failed else 0

    def close(self) -> None:
        """End what is still there; used after an error at start too."""
        self._stopping.set()
        self._executor.stop()
        if self._web is not None:
            self._web.stop()
        self._journal.close()

    # -- parts --------------------------------------------------------------------------------

    def _open_desk(self) -> None:
        """Where `aigw results` asks; a disk that knows no sockets must not keep us from our work."""
        settings = self._settings
        try:
            allowed, status = profiles(settings), self._faces.status
            desk = Desk(settings.data_dir, self._journal, allowed, self._clock, self._log, status)
        except OSError as error:
            reason = f"{settings.data_dir} takes no socket ({error.strerror}): `aigw results` cannot ask us."
            self._log.error("control_not_open", reason=reason)
            return
        self._crew.start("desk", partial(desk.run, self._stopping))

    def _listeners(self, web_port: int) -> list[Listener]:
        dicom, web = self._settings.dicom, self._settings.web
        found = [Listener("dicom", dicom.listen.host, self._scp.port)]
        if dicom.tls is not None:
            found.append(Listener("dicom_tls", dicom.tls.listen.host, self._scp.tls_port))
        return [*found, Listener("web", web.listen.host, web_port)]

    def _sweep(self) -> None:
        while not self._sweeper.wait(self._stopping):
            self._sweeper.sweep_once()

    def _recover(self) -> None:
        """After a crash: what was half done is undone; files and rows are compared later, by the keeper.

        Results are few, and nobody writes any before this returns: theirs are compared here.
        """
        jobs, deliveries = self._journal.recover(self._clock.now_s())
        known = self._journal.result_paths()
        garbage = self._spool.remove_parts() + self._results.remove_parts()
        unclaimed, lost = compare_results(self._results, known, self._clock.now_s())
        garbage += unclaimed
        self._log.info("recovered", jobs_requeued=jobs, deliveries_requeued=deliveries, files_removed=garbage)
        if lost:
            reason = (
                f"{len(lost)} of {len(known)} files that the journal knows are gone from {self._results.root}"
                ": check its disk and restore them from a backup, or send the series again."
            )
            self._log.critical("RESULT_FILE_MISSING", reason=reason, first=lost[0])
            details = {"paths": lost[:100]}
            self._journal.record("result", "RESULT_FILE_MISSING", reason, self._clock.now_s(), details)


def _refuse_without_files(journal: Journal, root: Path) -> None:
    """A disk that is not mounted looks like this: the journal would call every file gone."""
    objects, count = root / OBJECTS, journal.counts()["instance"]["stored"]
    if count and not objects.is_dir():
        raise GatewayError(
            "SPOOL_MISSING",
            f"The journal knows {count} instances and {objects} does not exist: mount its disk. If the "
            "files are lost, make this folder; the gateway then starts and says what has to be sent again.",
        )


def _measured(data_dir: Path, log: FilteringBoundLogger) -> FlushTime | None:
    """How fast the disk is; one that cannot be written says so itself, a moment later."""
    try:
        flush = measure_flush(data_dir)
    except OSError as error:
        log.error("disk_not_measured", reason=error.strerror)
        return None
    log.info(
        "disk_measured",
        flush_ms=round(flush.flush_s * 1000, 2),
        commit_ms=round(flush.commit_s * 1000, 2),
        slices_per_s=round(flush.slices_per_s),
    )
    return flush


def _bind(setting: str, listen: Callable[[], T]) -> T:
    try:
        return listen()
    except OSError as error:
        raise GatewayError(
            "PORT_NOT_FREE",
            f"{setting} cannot be used: {error.strerror}. Stop what listens there, or correct host and port.",
        ) from error
