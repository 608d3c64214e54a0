"""One job, in the worker: stored instances → ``ai`` → result files that are durable.

The only module of the gateway that imports ``ai`` in full.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from ai.errors import AiError
from ai.loaders import InProcess, choose_device, load_model
from ai.model import Model, find_card
from ai.pipeline import ResultFile, RunOptions, run_series
from gateway import failpoint
from gateway.errors import OutOfResources
from gateway.jobs.messages import Done, Failed, JobRequest, Progress, Ready, WorkerEvent, WorkerSettings
from gateway.journal.records import NewResult
from gateway.logs import places
from gateway.spool import Spool


class Runner:
    """Warm models and one job at a time."""

    def __init__(self, settings: WorkerSettings, log: FilteringBoundLogger) -> None:
        self._settings = settings
        self._log = log
        self._models: dict[tuple[str, str], Model] = {}
        self._device = choose_device(settings.device)

    def warm(self) -> Ready:
        """Load every configured model; a card that cannot be loaded is a problem, not an end."""
        loaded, problems = [], []
        for card in self._settings.cards:
            try:
                self._model(card, self._settings.card_folders)
            except AiError as error:
                problems.append(f"{error.code}: {error.reason}")
            else:
                loaded.append(card)
        return Ready(os.getpid(), self._device, tuple(loaded), tuple(problems))

    def run(self, request: JobRequest, send: Callable[[WorkerEvent], None]) -> Done | Failed:
        """Run one job; every error becomes a named failure, and says whether trying again can help."""
        lease_id = request.lease_id
        failpoint.reach("worker.started")
        try:
            return self._run(request, send)
        except AiError as error:
            return Failed(lease_id, error.code, error.reason, retryable=False)
        except OutOfResources as error:
            return Failed(lease_id, error.name, error.reason, retryable=True)
        except Exception as error:  # noqa: BLE001 - one series must not end the worker
            self._log.error("job_error", job=request.job_id, error=type(error).__name__, places=places(error))
            return _unforeseen(lease_id, error, self._device, self._settings.memory_limit_bytes)

    def _run(self, request: JobRequest, send: Callable[[WorkerEvent], None]) -> Done:
        def progress(stage: str, fraction: float) -> None:
            send(Progress(request.lease_id, stage, fraction))

        options = RunOptions(
            created_at=datetime.fromtimestamp(request.created_at_s, tz=UTC).astimezone(),
            series_number_base=request.series_number_base,
            software_version=request.software_version,
            revision=request.revision,
            part_key=request.part,
        )
        model = self._model(request.card, request.card_folders)
        outcome = run_series([Path(file) for file in request.files], InProcess(model), options, progress)
        failpoint.reach("worker.segmented")
        spool = Spool(Path(request.results_root))
        results = tuple(_store(spool, result) for result in outcome.results)
        failpoint.reach("worker.results_written")
        return Done(request.lease_id, results, dict(outcome.run))

    def _model(self, card: str, folders: Sequence[str]) -> Model:
        spec = find_card(card, [Path(folder) for folder in folders])
        key = (spec.digest, self._device)
        if key not in self._models:
            self._models[key] = load_model(spec, self._device)
        return self._models[key]


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
    )


def _unforeseen(lease_id: str, error: Exception, device: str, memory_limit_bytes: int | None) -> Failed:
    """An error without a name; its text may quote a header, so only its type is kept."""
    kind = type(error).__name__
    if isinstance(error, MemoryError) or kind == "OutOfMemoryError":
        _release_memory(device)
        sentence = f"The memory of {device} was not enough for this series ({kind})."
        if memory_limit_bytes is not None:
            sentence += f" workers.memory_limit is {memory_limit_bytes / 2**30:.1f} GiB."
        return Failed(lease_id, "OUT_OF_MEMORY", sentence, retryable=True)
    if isinstance(error, OSError):
        sentence = f"Reading or writing failed ({error.strerror or kind}): check the disk of data_dir."
        return Failed(lease_id, "DISK_ERROR", sentence, retryable=True)
    sentence = f"The worker failed with {kind}; its log has the place (event job_error)."
    return Failed(lease_id, "WORKER_ERROR", sentence, retryable=True)


def _release_memory(device: str) -> None:
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()
