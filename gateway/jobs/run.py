"""One job, in the worker: stored instances → ``ai`` → result files that are durable.

With :mod:`gateway.modelhost`, the only module of the gateway that imports ``ai`` in full.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from ai.errors import AiError
from ai.model import ModelSpec, find_card
from ai.pipeline import RunOptions, report_not_run, run_series
from ai.quality import reasons
from ai.results.context import Predecessor
from ai.results.write import ResultFile
from gateway import failpoint
from gateway.clock import Clock
from gateway.errors import ModelFault, OutOfResources, RunCancelled
from gateway.jobs.cards import Cards
from gateway.jobs.damage import damaged_among, failure
from gateway.jobs.messages import Done, Failed, JobRequest, Progress, Ready, WorkerEvent, WorkerSettings
from gateway.journal.records import Failure, NewResult
from gateway.logs import places
from gateway.modelhost.client import ModelClient, ModelUnavailable
from gateway.modelhost.process import ModelProcess
from gateway.modelhost.sandbox import Sandbox
from gateway.spool import Spool

Send = Callable[[WorkerEvent], None]

_RESTARTED = "MODEL_RESTARTED"


class Runner:
    """Runs jobs with the models of one model process; ``run`` may be called from several threads."""

    def __init__(
        self, settings: WorkerSettings, process: ModelProcess, clock: Clock, log: FilteringBoundLogger
    ) -> None:
        self._settings = settings
        self._process = process
        self._log = log
        self._cards = Cards(settings.cards, settings.card_folders, self._load, clock)

    def look_at_cards(self) -> bool:
        """Load what is new or changed; a card that cannot be loaded is a problem, not an end."""
        return self._cards.look()

    def ready(self) -> Ready:
        """What the worker can do."""
        hello = self._process.last_hello
        box = Sandbox(hello.network, hello.writes, hello.reads).describe() if hello else ""
        others = hello.further_devices if hello else ()
        return Ready(os.getpid(), self._process.device, self._cards.states(), others, box)

    def run(self, request: JobRequest, send: Send, cancelled: threading.Event) -> Done | Failed:
        """Run one job; every error becomes a named failure, and says whether trying again can help."""
        lease_id = request.lease_id
        failpoint.reach("worker.started")
        try:
            return self._run(request, send, cancelled)
        except ModelUnavailable as error:
            waits = self._cards.failed(request.card, error)
            if waits:
                send(self.ready())
            return Failed(lease_id, error.code, error.reason, retryable=False, blameless=waits)
        except AiError as error:
            return Failed(lease_id, error.code, error.reason, retryable=False)
        except ModelFault as error:
            return Failed(
                lease_id, error.name, error.reason, retryable=True, blameless=error.name == _RESTARTED
            )
        except (OutOfResources, RunCancelled) as error:
            return Failed(lease_id, error.name, error.reason, retryable=True)
        except Exception as error:  # noqa: BLE001 - one series must not end the worker
            self._log.error("job_error", job=request.job_id, error=type(error).__name__, places=places(error))
            return _unforeseen(lease_id, error, self._settings.memory_limit_bytes)

    def _run(self, request: JobRequest, send: Send, cancelled: threading.Event) -> Done | Failed:
        def check() -> None:
            if cancelled.is_set():
                raise RunCancelled("CANCELLED", "The run was cancelled.")

        def progress(stage: str, fraction: float) -> None:
            check()
            send(Progress(request.lease_id, stage, fraction))

        damaged = damaged_among(request.files, check)
        if request.reports is not None and len(damaged) < len(request.files):
            return _report(request, request.reports, damaged)
        if damaged:
            return failure(request.lease_id, request.files, damaged)
        model = self._client(request, check)
        outcome = run_series([Path(file) for file in request.files], model, _options(request), progress)
        failpoint.reach("worker.segmented")
        check()
        results = _store_all(request, outcome.results)
        return Done(request.lease_id, results, dict(outcome.run), reasons(outcome.run))

    def _client(self, request: JobRequest, check: Callable[[], None]) -> ModelClient:
        try:
            spec = _find(request)
        except AiError as error:
            raise ModelUnavailable(error.code, error.reason) from error
        return ModelClient(spec, request.card, request.card_folders, self._process, request.priority, check)

    def _load(self, card: str, spec: ModelSpec) -> None:
        """Make a configured model warm; one over which the process ends cannot be loaded."""
        client = ModelClient(spec, card, self._settings.card_folders, self._process)
        try:
            client.load(pinned=card in self._settings.pinned)
        except ModelFault as error:
            raise ModelUnavailable(error.name, f"{error.reason}.") from error


def _report(request: JobRequest, reported: Failure, damaged: Sequence[str]) -> Done:
    """Say in a report that the model was not run to an end; nothing is run. What is whole will do for it."""
    files = [Path(file) for file in request.files if file not in damaged]
    reports = report_not_run(files, _find(request), reported.name, reported.reason, _options(request))
    return Done(request.lease_id, _store_all(request, reports), {"reports": asdict(reported)})


def _find(request: JobRequest) -> ModelSpec:
    return find_card(request.card, [Path(folder) for folder in request.card_folders])


def _options(request: JobRequest) -> RunOptions:
    return RunOptions(
        created_at=datetime.fromtimestamp(request.created_at_s, tz=UTC).astimezone(),
        series_number_base=request.series_number_base,
        software_version=request.software_version,
        revision=request.revision,
        part_key=request.part,
        profiles=request.profiles,
        predecessors={key: Predecessor(**asdict(sent)) for key, sent in request.predecessors.items()},
    )


def _store_all(request: JobRequest, files: Sequence[ResultFile]) -> tuple[NewResult, ...]:
    spool = Spool(Path(request.results_root))
    results = tuple(_store(spool, result) for result in files)
    failpoint.reach("worker.results_written")
    return results


def _store(spool: Spool, result: ResultFile) -> NewResult:
    """Make an encoded result durable."""
    stored = spool.store(result.content)
    return NewResult(
        kind=result.kind,
        sop_class_uid=result.sop_class_uid,
        sop_instance_uid=result.sop_instance_uid,
        series_instance_uid=result.series_instance_uid,
        transfer_syntax_uid=result.transfer_syntax_uid,
        path=stored.path,
        digest=stored.digest,
        size_bytes=stored.size_bytes,
        number=result.number,
        profiles=result.profiles,
    )


def _unforeseen(lease_id: str, error: Exception, memory_limit_bytes: int | None) -> Failed:
    """An error without a name; its text may quote a header, so only its type is kept."""
    kind = type(error).__name__
    if isinstance(error, MemoryError):
        sentence = f"The memory of the worker was not enough for this series ({kind})."
        if memory_limit_bytes is not None:
            sentence += f" workers.memory_limit is {memory_limit_bytes / 2**30:.1f} GiB."
        return Failed(lease_id, "OUT_OF_MEMORY", sentence, retryable=True)
    if isinstance(error, OSError):
        sentence = f"Reading or writing failed ({error.strerror or kind}): check the disk of data_dir."
        return Failed(lease_id, "DISK_ERROR", sentence, retryable=True)
    sentence = f"The worker failed with {kind}; its log has the place (event job_error)."
    return Failed(lease_id, "WORKER_ERROR", sentence, retryable=True)
