"""One prediction in the model process: its voxels, its steps, its rung of the memory ladder, its end."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from ai.errors import AiError, ModelError, SeriesRefused
from ai.model import Model, Prediction, RunContext, Step, Steps
from ai.volume import Volume
from gateway.modelhost.answers import Answers
from gateway.modelhost.memory import gib, is_lack_of_memory
from gateway.modelhost.protocol import Predict, Predicted, Refused, encode
from gateway.modelhost.share import as_array, borrow_volume

LAST_RUNG = 3
"""Of :data:`ai.inference.ladder.RUNGS`: everything on the CPU."""


class Run:
    """A prediction that was asked for; ``steps`` is None until it has begun.

    Attributes
    ----------
    alone
        It once had too little memory: it waits until no other run is under way.
    waits_for
        The runs beside which it had no place when it was last tried; none of them: it has not been.
    """

    def __init__(
        self, request: Predict, handles: tuple[int, ...], answers: Answers, *, deterministic: bool
    ) -> None:
        self.request = request
        self.steps: Steps | None = None
        self.alone = False
        self.waits_for: frozenset[int] = frozenset()
        self._needed_bytes: int | None = None
        self._model: Model | None = None
        self._handles = handles
        self._answers = answers
        self._context = RunContext(deterministic)

    @property
    def id(self) -> int:
        """The worker's number for it."""
        return self.request.id

    @property
    def rung(self) -> int:
        """Of the memory ladder, 0 is the fastest."""
        return self._context.rung

    @property
    def slow(self) -> bool:
        """Whether its steps are those of a CPU."""
        return self._model is None or not self._model.device.startswith("cuda") or self.rung >= LAST_RUNG

    def needed_bytes(self, model: Model) -> int:
        """What the model expects to take for this image; it is asked once."""
        if self._needed_bytes is None:
            first = self.request.channels[0]
            self._needed_bytes = model.needed_bytes(first.shape, first.spacing_mm)
        return self._needed_bytes

    def begin(self, model: Model) -> None:
        """Make the first channel's grid the model's; nothing is computed yet."""
        self._model = model
        volumes = self._volumes()
        if model.spec.loader == "pipeline":
            self._context.shared = self._answers.of(volumes)
        self.steps = model.steps(volumes, self._context)

    def step(self) -> Step | Predicted:
        """The next piece of work; what the model raises comes through."""
        assert self.steps is not None  # noqa: S101 - begun before it is stepped
        try:
            return next(self.steps)
        except StopIteration as end:
            return self._finish(end.value)

    def start_again(self, rung: int) -> None:
        """Forget what was done; the next begin is on that rung."""
        self.stop()
        self._context.rung = rung

    def stop(self) -> None:
        """End the steps, so that their memory is free."""
        if self.steps is not None:
            self.steps.close()
        self.steps, self._model = None, None

    def close(self) -> None:
        """The end: nothing of it is kept."""
        try:
            self.stop()
        finally:
            for handle in self._handles:
                os.close(handle)
            self._handles = ()

    def _volumes(self) -> list[Volume]:
        infos = self.request.channels
        return [borrow_volume(handle, info) for handle, info in zip(self._handles, infos, strict=False)]

    def _finish(self, prediction: Prediction) -> Predicted:
        shape = self.request.channels[0].shape
        labels = np.asarray(prediction.labels)
        if labels.shape != shape or labels.dtype != np.uint8:
            raise ModelError(
                "MODEL_OUTPUT_INVALID",
                f"The model {self.request.card} answered with {labels.dtype} {labels.shape} for {shape}.",
            )
        as_array(self._handles[-1], shape, "uint8")[...] = labels
        run_facts = {"deterministic": self._context.deterministic, "memory_rung": self.rung}
        answer = Predicted(
            self.id,
            _numbers(prediction.scalars),
            _numbers({str(number): value for number, value in prediction.confidence.items()}),
            {**run_facts, **prediction.facts},
        )
        try:
            encode(answer)
        except (TypeError, ValueError):
            sentence = f"The model {self.request.card} told facts of its run that are no JSON."
            raise ModelError("MODEL_OUTPUT_INVALID", sentence) from None
        return answer


def refusal(number: int, error: BaseException, *, attended: bool = False) -> Refused:
    """How the worker hears of an error; the text of one without a name may quote the image: it stays here,
    unless who asks has the image too.
    """
    if isinstance(error, SeriesRefused):
        return Refused(number, "series", error.code, error.reason)
    if isinstance(error, AiError):
        return Refused(number, "run", error.code, error.reason)
    if is_lack_of_memory(error):
        return Refused(number, "memory", "OUT_OF_MEMORY", "Memory does not suffice.")
    kind = type(error).__name__
    if attended:
        return Refused(number, "error", "MODEL_FAILED", f"{kind}: {str(error).partition(chr(10))[0]}")
    sentence = f"The model failed with {kind}; the log has the place (event model_error)."
    return Refused(number, "error", "MODEL_FAILED", sentence)


def out_of_memory(run: Run, device: str) -> Refused:
    """Every rung was tried."""
    size = " × ".join(map(str, run.request.channels[0].shape))
    sentence = f"The memory of {device} was not enough for {run.request.card} on {size} voxels, "
    sentence += f"not even on rung {run.rung} of the memory ladder."
    return Refused(run.id, "memory", "OUT_OF_MEMORY", sentence)


def too_large(run: Run, device: str, needed_bytes: int, free_bytes: int) -> Refused:
    """It was not tried: the estimate is far above what there is."""
    size = " × ".join(map(str, run.request.channels[0].shape))
    sentence = f"{run.request.card} needs about {gib(needed_bytes)} for {size} voxels, and {device} has "
    sentence += f"{gib(free_bytes)} for it; run it on a larger device, or raise workers.model_memory."
    return Refused(run.id, "memory", "NOT_ENOUGH_MEMORY", sentence)


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()}
