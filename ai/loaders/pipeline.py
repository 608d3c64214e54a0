"""Models made of models: localise, crop, segment, put back; or one model within what another has found.

The stages of a card are other cards. Each sees the whole image, or the box around what an earlier stage has
found, as a volume of its own in its place in the patient. What they find is painted on one label map in the
order in which they run (that of the card, but each after the stage that it lies inside): where two find
something in one voxel, the later one counts; several keys painted as one make a union.

A pipeline is pinned as a whole: its card names the digest of each stage's card, which pins the files.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np

from ai.errors import ModelError
from ai.geometry import Vector
from ai.inference.crop_volume import Box, Mask, box_of, crop_volume, grown_box, near, whole_box, within_box
from ai.loaders import Find, load_model
from ai.loaders.stages import channel_indices, check_pipeline, running_order
from ai.model import Model, ModelSpec, Prediction, RunContext, Stage, Step, Steps, check_output
from ai.volume import LabelArray, Volume


def load(spec: ModelSpec, device: str, find: Find) -> Pipeline:
    """Load every model of a pipeline, each once; see :func:`ai.loaders.load_model`.

    Raises
    ------
    ModelError
        ``MODEL_CARD_INVALID`` for stages that do not fit together, ``MODEL_STAGE_NOT_PINNED``,
        ``MODEL_STAGE_CHANGED``, and what finding and loading the models of the stages raises.
    """
    cards = {stage.name: find(stage.model) for stage in spec.stages}
    check_pipeline(spec, cards)
    models: dict[str, Model] = {}
    with ExitStack() as undo:
        for card in cards.values():
            if card.id not in models:
                models[card.id] = load_model(card, device, _without(find, spec))
                undo.callback(models[card.id].close)
        undo.pop_all()
    stages = tuple((stage, models[cards[stage.name].id]) for stage in running_order(spec))
    return Pipeline(spec, device, stages)


def _without(find: Find, outer: ModelSpec) -> Find:
    """A way to find cards that refuses a pipeline inside itself."""

    def inner(name: str) -> ModelSpec:
        if name == outer.id:
            raise ModelError(
                "MODEL_CARD_INVALID", f"The pipeline {name} is a stage of itself, through another pipeline."
            )
        return find(name)

    return inner


@dataclass(frozen=True)
class _Found:
    """What a stage found: its labels in a box of the whole image, None where it did not run."""

    box: Box
    labels: LabelArray | None


@dataclass
class _Tally:
    """What a run gathers from its stages."""

    labels: LabelArray
    found: dict[str, _Found] = field(default_factory=dict)
    scalars: dict[str, float] = field(default_factory=dict)
    confidence: dict[int, float] = field(default_factory=dict)
    facts: list[dict[str, object]] = field(default_factory=list)


@dataclass(frozen=True)
class Pipeline:
    """The stages of a card with their models, in the order in which they run (:class:`ai.model.Model`)."""

    spec: ModelSpec
    device: str
    stages: tuple[tuple[Stage, Model], ...]

    @property
    def weight_bytes(self) -> int:
        """The sum of its models, all of which stay warm."""
        return sum(model.weight_bytes for model in self._models())

    def needed_bytes(self, shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> int:
        """The most that one of its models needs: they run one after the other.

        How small the box of a later stage will be is not known before; the whole image is an upper bound.
        """
        return max(model.needed_bytes(shape, spacing_mm) for model in self._models())

    def close(self) -> None:
        """Give back the memory of every model."""
        for model in self._models():
            model.close()

    def steps(self, channels: Sequence[Volume], run: RunContext) -> Steps:
        """Run the stages one after the other; see :class:`ai.model.Model`."""
        tally = _Tally(np.zeros(channels[0].voxels.shape, np.uint8))
        for index, (stage, model) in enumerate(self.stages):
            share = _Share(index / len(self.stages), 1.0 / len(self.stages))
            yield Step(stage.name, share.fraction(0.0))
            found, prediction, fact = yield from self._stage(stage, model, channels, run, tally, share)
            tally.found[stage.name] = found
            tally.facts.append(fact)
            if prediction is not None:
                self._paint(stage, model, found, prediction, tally)
        yield Step("done", 1.0)
        return Prediction(tally.labels, tally.scalars, tally.confidence, {"stages": tally.facts})

    def _stage(
        self,
        stage: Stage,
        model: Model,
        channels: Sequence[Volume],
        run: RunContext,
        tally: _Tally,
        share: _Share,
    ) -> Generator[Step, None, tuple[_Found, Prediction | None, dict[str, object]]]:
        """Run one stage in its box; without a region nothing is there to be found."""
        card = model.spec
        fact: dict[str, object] = {
            "name": stage.name, "model": card.id, "version": card.version, "digest": card.digest,
        }  # fmt: skip
        box = self._box(stage, channels[0], tally)
        if box is None:
            fact["skipped"] = f"the region was not found by the stage {stage.inside}"
            return _Found(whole_box(channels[0].geometry.shape), None), None, fact
        wanted = channel_indices(self.spec, card)
        if stage.inside is None:
            prediction, shared = yield from _shared(model, [channels[i] for i in wanted], run, share)
            fact["shared"] = shared
        else:
            crops = [crop_volume(channels[i], box) for i in wanted]
            alone = RunContext(run.deterministic, rung=run.rung)  # no other model's answer is on this crop
            prediction = yield from _run(model, crops, alone, share)
            run.rung = max(run.rung, alone.rung)
            fact["box"] = [[side.start, side.stop] for side in box]
        labels = prediction.labels
        if stage.within_mm is not None:
            region = _region_in(box, self._region(stage, tally), channels[0].geometry.shape)
            labels = yield from _dropped_outside(
                labels, region, stage.within_mm, channels[0].geometry.spacing_mm, share
            )
        return _Found(box, labels), prediction, {**fact, **prediction.facts}

    def _box(self, stage: Stage, image: Volume, tally: _Tally) -> Box | None:
        """Where a stage looks; None when the region that it looks in was not found."""
        geometry = image.geometry
        if stage.inside is None:
            return whole_box(geometry.shape)
        offset, region = self._region(stage, tally)
        tight = None if region is None else box_of(region)
        if tight is None:
            return None
        return grown_box(within_box(tight, offset), stage.margin_mm, geometry.spacing_mm, geometry.shape)

    def _region(self, stage: Stage, tally: _Tally) -> tuple[Box, Mask | None]:
        """The structures of another stage that make the region, as a mask in a box."""
        host = next(model for other, model in self.stages if other.name == stage.inside)
        found = tally.found[stage.inside or ""]
        if found.labels is None:
            return found.box, None
        if not stage.region:
            return found.box, found.labels > 0
        numbers = [n for s in host.spec.structures if s.key in stage.region for n in s.numbers]
        return found.box, np.isin(found.labels, numbers)

    def _paint(
        self, stage: Stage, model: Model, found: _Found, prediction: Prediction, tally: _Tally
    ) -> None:
        """Put what is kept of a stage on the result, over what lies there; a whole before its parts."""
        target = tally.labels[found.box]
        own, numbers = model.spec.numbers(), self.spec.numbers()
        inside = {structure.key: structure.numbers for structure in model.spec.structures}
        for key, name in sorted(stage.keep.items(), key=lambda kept: -len(inside[kept[0]])):
            if found.labels is not None:
                target[np.isin(found.labels, inside[key])] = numbers[name]
            if own[key] in prediction.confidence:
                measured = prediction.confidence[own[key]]
                tally.confidence[numbers[name]] = min(measured, tally.confidence.get(numbers[name], 1.0))
        tally.scalars.update({f"{stage.name}.{name}": x for name, x in prediction.scalars.items()})

    def _models(self) -> Sequence[Model]:
        """Each model once."""
        return list({id(model): model for _, model in self.stages}.values())


@dataclass(frozen=True)
class _Share:
    """The part of the progress that one stage makes."""

    start: float
    length: float

    def fraction(self, own: float) -> float:
        """Progress of the whole at a fraction of the stage."""
        return self.start + self.length * min(max(own, 0.0), 1.0)


def _shared(
    model: Model, channels: Sequence[Volume], run: RunContext, share: _Share
) -> Generator[Step, None, tuple[Prediction, bool]]:
    """The answer of a model on the whole image: what it or another pipeline was told before, or a new one."""
    key = (model.spec.id, model.spec.digest)
    if key in run.shared:
        return run.shared[key], True
    prediction = yield from _run(model, channels, run, share)
    run.shared[key] = prediction
    return prediction, False


def _run(
    model: Model, channels: Sequence[Volume], run: RunContext, share: _Share
) -> Generator[Step, None, Prediction]:
    """Drive a model's steps as part of the whole's; its fractions never go back."""
    steps, reached = model.steps(channels, run), 0.0
    try:
        while True:
            step = next(steps)
            reached = max(reached, step.fraction)
            yield Step(step.stage, share.fraction(reached))
    except StopIteration as end:
        prediction: Prediction = end.value
    finally:
        steps.close()
    check_output(model.spec, channels[0], prediction.labels)
    return prediction


def _region_in(box: Box, found: tuple[Box, Mask | None], shape: tuple[int, int, int]) -> Mask:
    """A region, known in a box of its own, in another box."""
    offset, region = found
    whole = np.zeros(shape, np.bool_)
    if region is not None:
        whole[offset] = region
    return whole[box]


def _dropped_outside(
    labels: LabelArray,
    region: Mask,
    distance_mm: float,
    spacing_mm: Vector,
    share: _Share,
) -> Generator[Step, None, LabelArray]:
    """Labels without what lies farther from a region than a distance."""
    kept = labels.copy()
    for slab, inside in near(region, distance_mm, spacing_mm):
        yield Step("within the region", share.fraction(1.0))
        kept[slab][~inside] = 0
    return kept
