"""The worker's end of the model process: asks it for predictions as if the model were here."""

from __future__ import annotations

import json
import os
import queue
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ai.errors import AiError, ModelError, SeriesRefused
from ai.model import ModelSpec, Prediction, Progress
from ai.volume import Volume
from gateway.errors import ModelFault, RunCancelled
from gateway.modelhost.process import Answer, ModelProcess
from gateway.modelhost.protocol import Load, Loaded, Predict, Predicted, Refused, Stepped
from gateway.modelhost.share import describe, labels_in, lend, lend_volume

_LOOK_EVERY_S = 0.2
_MOST_RESTARTS = 5
_LONGEST_REASON = 600
_MOST_FACTS_BYTES = 1 << 20
_LOOKS = int(120 / _LOOK_EVERY_S)  # the process is there by then


class ModelUnavailable(AiError):
    """The model cannot be loaded: jobs for it wait."""


@dataclass(frozen=True)
class ModelClient:
    """A model in the model process (see :class:`ai.model.Predictor`); several threads may ask at once.

    Attributes
    ----------
    check
        Called while waiting; what it raises ends the run there too.
    """

    spec: ModelSpec
    card: str
    folders: tuple[str, ...]
    process: ModelProcess
    priority: str = "normal"
    check: Callable[[], None] = lambda: None

    @property
    def device(self) -> str:
        """Where it runs."""
        return self.process.device

    def load(self, *, pinned: bool = False) -> None:
        """Make it warm; raises ModelUnavailable, or ModelFault when the process ends over it."""
        for _ in range(_MOST_RESTARTS):
            number = self._next_number()
            request = Load(number, self.card, self.folders, self.spec.digest, pinned)
            answers = self.process.submit(request, self.card)
            if self._wait(number, answers, lambda _stage, _fraction: None) is not None:
                return
        raise _restarted_too_often()

    def predict(self, channels: Sequence[Volume], progress: Progress) -> Prediction:
        """Run it to the end.

        When another run ends the process, this one begins again in the next.

        Raises
        ------
        ModelError, SeriesRefused
            By the name that the model gave.
        ModelUnavailable
            It cannot be loaded.
        ModelFault
            MODEL_CRASHED, MODEL_HUNG: this run ended the model process. MODEL_FAILED, OUT_OF_MEMORY,
            NOT_ENOUGH_MEMORY: it lives on.
        """
        shape = channels[0].voxels.shape
        handles: list[int] = []
        try:
            for volume in channels:
                handles.append(lend_volume(volume))
            handles.append(lend(channels[0].voxels.size))
            for _ in range(_MOST_RESTARTS):
                number = self._next_number()
                infos = tuple(describe(volume) for volume in channels)
                request = Predict(number, self.card, self.folders, self.spec.digest, self.priority, infos)
                answers = self.process.submit(request, self.card, tuple(handles))
                answer = self._wait(number, answers, progress)
                if isinstance(answer, Predicted):
                    _check_facts(request.card, answer)
                    confidence = {int(key): value for key, value in answer.confidence.items()}
                    labels = labels_in(handles[-1], shape)
                    return Prediction(labels, answer.scalars, confidence, answer.facts)
        finally:
            for handle in handles:
                os.close(handle)
        raise _restarted_too_often()

    def _next_number(self) -> int:
        """Wait for the process, and take a number for a request; ModelUnavailable if there is none."""
        for _ in range(_LOOKS):
            if self.process.wait_for_hello(_LOOK_EVERY_S) is not None:
                return self.process.new_number()
            self.check()
        sentence = f"The model process does not start: {self.process.trouble}."
        raise ModelUnavailable("MODEL_PROCESS_DOWN", sentence)

    def _wait(
        self, number: int, answers: queue.SimpleQueue[Answer], progress: Progress
    ) -> Loaded | Predicted | None:
        """The answer; None when the process ended over another run."""
        try:
            while True:
                try:
                    answer = answers.get(timeout=_LOOK_EVERY_S)
                except queue.Empty:
                    self.check()
                    continue
                if isinstance(answer, Stepped):
                    progress(answer.stage, answer.fraction)
                elif isinstance(answer, Refused):
                    raise _error(answer)
                elif isinstance(answer, Loaded | Predicted):
                    return answer
                elif answer.blamed:
                    raise ModelFault(answer.name, answer.reason)
                else:
                    return None
        finally:
            self.process.forget(number)


def _restarted_too_often() -> ModelFault:
    sentence = f"The model process ended {_MOST_RESTARTS} times over other runs while this one was in it."
    return ModelFault("MODEL_RESTARTED", sentence)


def _check_facts(card: str, answer: Predicted) -> None:
    """They go into the journal: text that can be written, and not too much of it."""
    try:
        written = json.dumps([answer.scalars, answer.facts], ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        sentence = f"The model {card} told facts of its run that are no JSON."
        raise ModelError("MODEL_OUTPUT_INVALID", sentence) from None
    if len(written) > _MOST_FACTS_BYTES:
        sentence = (
            f"The model {card} told {len(written)} bytes of facts of its run; {_MOST_FACTS_BYTES} are kept."
        )
        raise ModelError("MODEL_OUTPUT_INVALID", sentence)


def _error(answer: Refused) -> Exception:
    """What a model says goes into the journal: a name, and one sentence."""
    code = answer.code if re.fullmatch(r"[A-Z][A-Z0-9_]{2,39}", answer.code) else "MODEL_FAILED"
    reason = " ".join("".join(c if c.isprintable() else " " for c in answer.reason).split())[:_LONGEST_REASON]
    match answer.kind:
        case "model":
            return ModelUnavailable(code, reason)
        case "run" | "memory" if answer.kind == "run" or code == "NOT_ENOUGH_MEMORY":
            return ModelError(code, reason)
        case "series":
            return SeriesRefused(code, reason)
        case "cancelled":
            return RunCancelled(code, reason)
        case _:
            return ModelFault(code, reason)
