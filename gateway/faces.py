"""What the node shows of itself: health, metrics, status. All of it is asked for, nothing is kept."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence

from gateway import __version__
from gateway.clock import Clock
from gateway.control.disk import FlushTime
from gateway.control.status import CertificateEnd, Json, Listener, NodeView, node_status
from gateway.errors import OutOfResources
from gateway.jobs.executor import LocalExecutor
from gateway.journal import Journal
from gateway.parts import Receiving
from gateway.settings.model import Settings
from gateway.settings.runtime import cards
from gateway.settings.tls_check import warn_before
from gateway.spool import Spool
from gateway.web.app import Check
from gateway.web.metrics import Metrics, Sources


class Faces:
    """Reads the parts of the node; ``flush`` is what was measured of the disk at the start."""

    def __init__(
        self,
        settings: Settings,
        journal: Journal,
        spool: Spool,
        receiving: Receiving,
        executor: LocalExecutor,
        clock: Clock,
        stopping: threading.Event,
        flush: FlushTime | None,
    ) -> None:
        self._settings = settings
        self._journal = journal
        self._spool = spool
        self._receiving = receiving
        self._executor = executor
        self._clock = clock
        self._stopping = stopping
        self._flush = flush
        self._started_s = clock.now_s()
        self.listeners: Sequence[Listener] = ()
        """Known once they listen."""

    def checks(self) -> Mapping[str, Check]:
        """What must hold for the node to be ready."""
        worker = self._executor.health()
        models = f"{worker.device}: {', '.join(worker.models) or 'no models configured'}. {worker.reason}"
        models = f"{models.strip()} {worker.sandbox}".strip()
        holds = [f"{failure.name}: {failure.reason}" for failure in self._journal.holds().values()]
        all_wait = bool(holds) and len(holds) >= len(set(cards(self._settings).values()))
        listening = not self._stopping.is_set()
        disk = self._disk_problem()
        return {
            "receiver": Check(listening, "listening" if listening else "the gateway is stopping"),
            "disk": Check(not disk, disk or "instances are taken"),
            "worker": Check(worker.ready, models if worker.ready else worker.reason),
            "models": Check(not all_wait, " ".join(holds) or "every model can run"),
        }

    def metrics(self) -> Metrics:
        """For Prometheus."""
        tally, flush = self._receiving.tally, self._flush
        sources = Sources(
            counts=self._journal.counts,
            damaged=self._journal.damaged_count,
            holds=self._journal.holds,
            worker_ready=lambda: self._executor.health().ready,
            open_associations=self._receiving.associations.count,
            open_requests=self._receiving.requests.count,
            certificates=self._days_left,
            refusals=self._receiving.incidents.counts,
            source_names=tally.sources,
            instances=tally.instances,
            received_bytes=tally.bytes,
            rejections=tally.rejections,
            store_seconds=tally.durations,
            flush_and_commit_s=lambda: (flush.flush_s, flush.commit_s) if flush else None,
        )
        return Metrics(sources, self._settings.data_dir, __version__)

    def status(self) -> Json:
        """For ``aigw status``."""
        settings, receiving = self._settings, self._receiving
        watch = receiving.certificates
        view = NodeView(
            version=__version__,
            ae_title=settings.dicom.ae_title,
            pid=os.getpid(),
            started_s=self._started_s,
            data_dir=settings.data_dir,
            journal=self._journal,
            max_associations=settings.dicom.max_associations,
            max_requests=settings.web.stow.max_requests,
            warn_before_s=warn_before(settings),
            listeners=lambda: self.listeners,
            associations=receiving.associations.by_source,
            requests=receiving.requests.by_source,
            last_instances=receiving.tally.last_s,
            received=receiving.tally.instances,
            refusals=receiving.incidents.counts,
            rejections=receiving.tally.rejections,
            certificates=self._certificates,
            tls_problem=watch.problem if watch else str,
            disk_problem=self._disk_problem,
            flush=lambda: self._flush,
        )
        return node_status(view, self._clock.now_s())

    def _disk_problem(self) -> str:
        admission = self._settings.admission
        try:
            self._spool.check_space(admission.keep_free, admission.refuse_when_disk_over)
        except OutOfResources as error:
            return f"instances are refused: {error.reason}"
        return ""

    def _certificates(self) -> list[CertificateEnd]:
        watch = self._receiving.certificates
        return [
            CertificateEnd(
                each.kind,
                each.name,
                each.certificate.subject,
                each.certificate.sha256,
                each.certificate.not_after_s,
            )
            for each in (watch.certificates() if watch else ())
        ]

    def _days_left(self) -> list[tuple[str, str, float]]:
        now_s = self._clock.now_s()
        return [(each.kind, each.name, each.days_left(now_s)) for each in self._certificates()]
