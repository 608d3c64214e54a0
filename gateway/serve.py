"""The gateway process: receiver, sweeper, dispatcher, senders and web around one journal.

It never imports torch; the model runs in the worker process that the executor supervises.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import TypeVar

from structlog.typing import FilteringBoundLogger

from gateway import __version__
from gateway.clock import Clock
from gateway.control import Desk
from gateway.deliver.send import Sender
from gateway.errors import GatewayError, OutOfResources
from gateway.jobs.dispatch import Dispatcher
from gateway.jobs.executor import LocalExecutor
from gateway.journal import Journal
from gateway.process import Crew, lock_data_dir
from gateway.receive.admit import Admission, AdmissionLimits
from gateway.receive.associations import OpenAssociations
from gateway.receive.callers import KnownPeer
from gateway.receive.contexts import storage_contexts
from gateway.receive.storage_scp import StorageSCP
from gateway.settings.model import Settings
from gateway.settings.runtime import cards, profiles, why_held
from gateway.settings.wiring import dispatch_settings, sender_settings, sweep_rules, worker_settings
from gateway.spool import Spool
from gateway.sweep import Sweeper
from gateway.web.app import Check, make_app
from gateway.web.metrics import Metrics
from gateway.web.server import WebServer

T = TypeVar("T")

_WATCH_S = 0.5
_AFTER_DRAIN_S = 5.0


def serve(
    settings: Settings, clock: Clock, log: FilteringBoundLogger, stopping: threading.Event | None = None
) -> int:
    """Run until SIGTERM, SIGINT or ``stopping``; returns 0, or 1 when a part of the gateway failed.

    Raises
    ------
    GatewayError
        DATA_DIR_IN_USE, DATA_DIR_UNUSABLE, JOURNAL_UNUSABLE, PORT_NOT_FREE: it could not start.
    """
    stopping = stopping or threading.Event()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopping.set())
    os.umask(0o077)
    with ExitStack() as stack:
        stack.enter_context(lock_data_dir(settings.data_dir))
        try:
            node = Node(settings, clock, log, stopping)
        except sqlite3.OperationalError as error:  # the disk is full, or the file is not ours
            sentence = (
                f"{settings.data_dir / 'journal.db'} cannot be used ({error}): check its disk and owner."
            )
            raise GatewayError("JOURNAL_UNUSABLE", sentence) from error
        except sqlite3.DatabaseError as error:
            sentence = (
                f"{settings.data_dir / 'journal.db'} cannot be used ({error}): restore it from a backup."
            )
            raise GatewayError("JOURNAL_UNUSABLE", sentence) from error
        except OSError as error:
            sentence = f"{error.filename or settings.data_dir} cannot be used: {error.strerror}."
            raise GatewayError("DATA_DIR_UNUSABLE", sentence) from error
        stack.callback(node.close)
        node.start()
        node.watch()
        return node.stop()


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
        self._spool = Spool(settings.data_dir / "spool")
        self._results = Spool(settings.data_dir / "results")
        self._clock = clock
        self._recover()
        self._associations = OpenAssociations()
        self._scp = self._make_scp()
        self._executor = LocalExecutor(worker_settings(settings), log)
        dispatch = dispatch_settings(settings, self._spool.root, self._results.root)
        self._dispatcher = Dispatcher(self._journal, self._executor, dispatch, clock, log)
        self._senders = [
            Sender(self._journal, each, clock, log) for each in sender_settings(settings, self._results.root)
        ]
        self._sweeper = Sweeper(
            self._journal, self._spool.root, self._associations.count, sweep_rules(settings), clock, log
        )
        self._web: WebServer | None = None

    def start(self) -> None:
        """Open every listener, then start every thread, then say that we are ready."""
        settings = self._settings
        web = _bind("web.listen", lambda: WebServer(settings.web.listen.host, settings.web.listen.port))
        self._web = web
        _bind("dicom.listen", self._scp.start)
        web.start(make_app(self._checks, self._metrics().text, settings.web.listen.host))
        self._executor.start()
        drain_s = settings.drain_timeout
        self._crew.start("dispatcher", lambda: self._dispatcher.run(self._stopping, drain_s))
        self._crew.start("sweeper", self._sweep)
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
        self._log.info("stopping", drain_timeout_s=drain_s)
        deadline_s = self._clock.monotonic_s() + drain_s + _AFTER_DRAIN_S
        self._scp.stop(drain_s)
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
            desk = Desk(settings.data_dir, self._journal, profiles(settings), self._clock, self._log)
        except OSError as error:
            reason = f"{settings.data_dir} takes no socket ({error.strerror}): `aigw results` cannot ask us."
            self._log.error("control_not_open", reason=reason)
            return
        self._crew.start("desk", partial(desk.run, self._stopping))

    def _sweep(self) -> None:
        while not self._stopping.wait(self._sweeper.wait_s()):
            self._sweeper.sweep_once()

    def _recover(self) -> None:
        """After a crash: files without a row are garbage, rows without a file are an alarm."""
        jobs, deliveries = self._journal.recover(self._clock.now_s())
        instances, results = self._journal.known_paths()
        garbage = self._spool.remove_garbage(instances) + self._results.remove_garbage(results)
        self._log.info("recovered", jobs_requeued=jobs, deliveries_requeued=deliveries, files_removed=garbage)
        for subject, spool, known in (
            ("instance", self._spool, instances),
            ("result", self._results, results),
        ):
            missing = spool.missing(known)
            if missing:
                reason = (
                    f"{len(missing)} of {len(known)} files that the journal knows are gone from "
                    f"{spool.root}: check its disk and restore them from a backup, or send the series again."
                )
                name = f"{subject.upper()}_FILE_MISSING"
                self._log.critical(name, reason=reason, first=missing[0])
                self._journal.record(subject, name, reason, self._clock.now_s(), {"paths": missing[:100]})

    def _make_scp(self) -> StorageSCP:
        settings = self._settings
        dicom, admission = settings.dicom, settings.admission
        limits = AdmissionLimits(
            max_instance_bytes=admission.max_instance_size,
            keep_free_bytes=admission.keep_free,
            refuse_over_fraction=admission.refuse_when_disk_over,
        )
        sources = [(n, p) for n, p in settings.peers.items() if "source" in p.roles]
        return StorageSCP(
            ae_title=dicom.ae_title,
            host=dicom.listen.host,
            port=dicom.listen.port,
            peers=[KnownPeer(name, peer.ae_title, peer.host) for name, peer in sources],
            unknown_callers=dicom.unknown_callers,
            max_associations=dicom.max_associations,
            max_pdu_bytes=dicom.max_pdu,
            idle_timeout_s=dicom.idle_timeout,
            contexts=storage_contexts(further=dicom.storage_classes),
            admission=Admission(self._spool, self._journal, self._clock, self._log, limits),
            associations=self._associations,
            journal=self._journal,
            clock=self._clock,
            log=self._log,
        )

    def _checks(self) -> Mapping[str, Check]:
        worker = self._executor.health()
        models = f"{worker.device}: {', '.join(worker.models) or 'no models configured'}. {worker.reason}"
        models = f"{models.strip()} {worker.sandbox}".strip()
        holds = [f"{failure.name}: {failure.reason}" for failure in self._journal.holds().values()]
        all_wait = bool(holds) and len(holds) >= len(set(cards(self._settings).values()))
        listening = not self._stopping.is_set()
        return {
            "receiver": Check(listening, "listening" if listening else "the gateway is stopping"),
            "disk": self._disk_check(),
            "worker": Check(worker.ready, models if worker.ready else worker.reason),
            "models": Check(not all_wait, " ".join(holds) or "every model can run"),
        }

    def _disk_check(self) -> Check:
        admission = self._settings.admission
        try:
            self._spool.check_space(admission.keep_free, admission.refuse_when_disk_over)
        except OutOfResources as error:
            return Check(False, f"instances are refused: {error.reason}")
        return Check(True, "instances are taken")

    def _metrics(self) -> Metrics:
        return Metrics(
            counts=self._journal.counts,
            holds=self._journal.holds,
            worker_ready=lambda: self._executor.health().ready,
            open_associations=self._associations.count,
            data_dir=self._settings.data_dir,
            version=__version__,
        )


def _bind(setting: str, listen: Callable[[], T]) -> T:
    try:
        return listen()
    except OSError as error:
        raise GatewayError(
            "PORT_NOT_FREE",
            f"{setting} cannot be used: {error.strerror}. Stop what listens there, or correct host and port.",
        ) from error
