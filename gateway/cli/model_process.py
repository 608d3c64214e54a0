"""A model that a person tries runs where the node runs models: in the model process, which is closed off.

Where the platform does not allow all of that, it runs nevertheless, as in the node, and a note says so.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

import ai
import gateway
from ai.errors import ModelError
from ai.model import ModelSpec, shipped_card_folder
from gateway.clock import SystemClock
from gateway.errors import GatewayError, ModelFault
from gateway.modelhost.client import ModelClient, ModelUnavailable
from gateway.modelhost.landlock import is_on_the_way
from gateway.modelhost.process import ModelProcess
from gateway.modelhost.protocol import Begin, Hello
from gateway.modelhost.sandbox import CLOSED, NO_PATIENT_FILES, SCRATCH_ONLY
from gateway.modelhost.start import Places
from gateway.settings.model import Workers

if TYPE_CHECKING:
    from gateway.settings import Settings

_LOOK_EVERY_S = 0.1


class ModelHost:
    """The model process of one command; see :func:`model_host`."""

    def __init__(self, process: ModelProcess, *, hides_files: bool) -> None:
        self._process = process
        self._hides_files = hides_files
        self._starting = process.trouble
        self._has_told = False

    def load(self, spec: ModelSpec, folders: Sequence[Path]) -> ModelClient:
        """A model that is ready to be asked; ``folders`` have its card and those of its stages.

        Raises
        ------
        ModelError
            MODEL_CARD_INVALID: the node would not find a card of that name.
        ModelUnavailable
            By the name of what finding and loading raise; MODEL_NOT_LOADED, MODEL_CRASHED, MODEL_HUNG,
            MODEL_PROCESS_DOWN, DEVICE_UNAVAILABLE.
        """
        card = spec.folder.parent / f"{spec.id}.yaml" if spec.folder else None
        if card is not None and not card.is_file():
            reason = f"The card of {spec.id} must be named {card.name}, or the gateway does not find it."
            raise ModelError("MODEL_CARD_INVALID", reason)
        hello = self._hello()
        if not self._has_told:
            self._has_told = True
            _tell_what_is_open(hello, hides_files=self._hides_files)
        places = tuple(str(folder.resolve()) for folder in folders)
        client = ModelClient(spec, spec.id, places, self._process)
        try:
            client.load()
        except ModelFault as error:
            raise ModelUnavailable(error.name, sentence(error)) from error
        return client

    def _hello(self) -> Hello:
        """Wait for the process; one that has ended once already is not waited for again."""
        while (hello := self._process.wait_for_hello(_LOOK_EVERY_S)) is None:
            if self._process.last_hello is None and self._process.trouble != self._starting:
                raise self._not_started()
        return hello

    def _not_started(self) -> ModelUnavailable:
        device, trouble = self._process.device, self._process.trouble
        if device.startswith("cuda"):
            reason = f"The device {device!r} cannot be used: its model process does not start, {trouble}."
            return ModelUnavailable("DEVICE_UNAVAILABLE", reason)
        return ModelUnavailable("MODEL_PROCESS_DOWN", f"The model process does not start: {trouble}.")


@contextmanager
def model_host(
    device: str,
    settings: Settings | None = None,
    *,
    deterministic: bool = False,
    private: Sequence[Path] = (),
    folders: Sequence[Path] = (),
) -> Iterator[ModelHost]:
    """Start the model process of a device; it ends with the block, and with us however we end.

    Parameters
    ----------
    settings
        Of the node, for its ``workers`` and its ``data_dir``; None: the defaults.
    private
        Files and folders that the model must not read: images reach it through shared memory only.
    folders
        Of model cards; they stay readable wherever they are.
    """
    workers = settings.workers if settings else Workers()
    hidden = [path.resolve() for path in (*private, *((settings.data_dir,) if settings else ()))]
    begin = Begin(
        device=device,
        memory_bytes=workers.model_memory or None,
        memory_limit_bytes=workers.memory_limit or None,
        deterministic=deterministic or workers.deterministic,
        attended=True,
    )
    places = Places(tuple(map(str, hidden)), tuple(map(str, _needed(folders, hidden))))
    process = ModelProcess(begin, workers.step_timeout, None, SystemClock(), _silence(), places)
    host = ModelHost(process, hides_files=bool(hidden))
    process.start()
    try:
        yield host
    finally:
        process.stop()


def sentence(error: GatewayError) -> str:
    """Its reason with a full stop."""
    return f"{error.reason.rstrip('.')}."


def _needed(folders: Sequence[Path], hidden: Sequence[Path]) -> list[Path]:
    """What must be readable although it may lie in a hidden folder.

    A folder around something hidden is not named: all that is in it beside that can be read anyway.
    """
    ours = [Path(package.__path__[0]) for package in (gateway, ai)]
    wanted = dict.fromkeys(path.resolve() for path in (*folders, *ours, shipped_card_folder()))
    return [path for path in wanted if not is_on_the_way(path, hidden)]


def _silence() -> structlog.typing.FilteringBoundLogger:
    """What the process does is told by the command itself."""
    level = structlog.make_filtering_bound_logger(logging.CRITICAL)
    log: structlog.typing.FilteringBoundLogger = structlog.wrap_logger(
        structlog.WriteLogger(sys.stderr), wrapper_class=level
    )
    return log


def _tell_what_is_open(hello: Hello, *, hides_files: bool) -> None:
    found = {"network": (hello.network, CLOSED), "writes": (hello.writes, SCRATCH_ONLY)}
    if hides_files:
        found["reads"] = (hello.reads, NO_PATIENT_FILES)
    is_open = [f"{name} {said}" for name, (said, wanted) in found.items() if said != wanted]
    if is_open:
        sys.stderr.write(f"note: the model is not closed off on this machine: {'; '.join(is_open)}\n")
