"""What a loaded model is: steps that can be paused, cancelled and watched."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ai.model.card import ModelSpec
from ai.volume import LabelArray, Volume

Progress = Callable[[str, float], None]
"""Called with (stage, fraction done 0..1); may raise to cancel the run."""


@dataclass(frozen=True)
class Step:
    """A sign of life between two pieces of work: nothing is lost if the model rests here, or ends."""

    stage: str
    fraction: float


@dataclass(frozen=True)
class Prediction:
    """What a model found.

    Attributes
    ----------
    labels
        uint8 ``(slices, rows, columns)`` on the grid of the first channel, numbers of the card, 0 background.
    scalars
        Numbers about the whole image, by name.
    confidence
        Mean margin between the best and the second best class in each structure, 0..1, where it was
        measured; by structure number.
    facts
        How it was done, JSON types only, for ``run.json``: precision, tiles, crop, rung of the memory ladder.
    """

    labels: LabelArray
    scalars: Mapping[str, float] = field(default_factory=dict)
    confidence: Mapping[int, float] = field(default_factory=dict)
    facts: Mapping[str, object] = field(default_factory=dict)


@dataclass
class RunContext:
    """What a run is given besides the image.

    Attributes
    ----------
    deterministic
        The same bits for the same input on the same machine, even where that is slower.
    shared
        Answers of other models on this very image, by ``(model id, digest)``: a localiser runs once.
    rung
        Of the memory ladder (:mod:`ai.inference.ladder`), 0 is the fastest; whoever met a lack of memory
        tries again one higher.
    """

    deterministic: bool = False
    shared: MutableMapping[tuple[str, str], Prediction] = field(default_factory=dict)
    rung: int = 0


Steps = Generator[Step, None, Prediction]


class Model(Protocol):
    """A model ready to run on one device."""

    @property
    def spec(self) -> ModelSpec:
        """The card."""
        ...

    @property
    def device(self) -> str:
        """Where it runs: ``cpu``, ``cuda:0`` …"""
        ...

    @property
    def weight_bytes(self) -> int:
        """Memory that it holds while it is warm."""
        ...

    def needed_bytes(self, shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> int:
        """Estimate of the device memory that a run takes above the weights, for a volume of that grid."""
        ...

    def steps(self, channels: Sequence[Volume], run: RunContext) -> Steps:
        """Label the image, pausing between pieces of work.

        ``channels`` are images on one grid, as many as the card names, the first one the reference.
        """
        ...

    def close(self) -> None:
        """Give back the memory; the model is not used afterwards."""
        ...


class Predictor(Protocol):
    """A model to be asked for a whole prediction, in this process or in another."""

    @property
    def spec(self) -> ModelSpec:
        """The card."""
        ...

    @property
    def device(self) -> str:
        """Where it runs."""
        ...

    def predict(self, channels: Sequence[Volume], progress: Progress) -> Prediction:
        """Run it to the end."""
        ...


def run_to_end(model: Model, channels: Sequence[Volume], progress: Progress, run: RunContext) -> Prediction:
    """Drive a model's steps; what ``progress`` raises ends them."""
    steps = model.steps(channels, run)
    try:
        while True:
            step = next(steps)
            progress(step.stage, step.fraction)
    except StopIteration as end:
        prediction: Prediction = end.value
        return prediction
    finally:
        steps.close()
