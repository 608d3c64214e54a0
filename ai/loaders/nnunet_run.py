"""A whole section ``nnunet`` of a card as a model: region of interest, spacing, cascade, parts, their merge.

The order is TotalSegmentator's (``python_api.py``, ``nnunet.py``): crop to what a localiser found, bring to
a spacing, run the parts, paint one over the other, bring the labels back, put them into the whole image.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ai.inference.after import finish
from ai.inference.crop_volume import Box, box_of, crop_volume, near, whole_box
from ai.loaders.nnunet_bodies import clip_bodies, finish_bodies
from ai.loaders.nnunet_zoom import Zoom, zoom_to
from ai.model import Model, ModelSpec, Prediction, RunContext, Step, Steps
from ai.model.nnunet import NnUnet
from ai.volume import LabelArray, Volume

Running = Generator[Step, None, Prediction]


@dataclass(frozen=True)
class Previous:
    """The first stage of a cascade, and which of its labels the second is given."""

    model: Model
    foreground: tuple[int, ...]


@dataclass(frozen=True)
class NnUnetModel:
    """A section of a card, ready to run on one device (see :class:`ai.model.Model`).

    Attributes
    ----------
    identity
        Stands for the section and its files: a localiser's answer is shared by it between models.
    """

    spec: ModelSpec
    device: str
    section: NnUnet
    identity: str
    parts: tuple[Model, ...]
    previous: Previous | None = None
    localiser: NnUnetModel | None = None
    clip: NnUnetModel | None = None

    @property
    def weight_bytes(self) -> int:
        """Of all its networks, which stay warm together."""
        return sum(model.weight_bytes for model in self._models())

    def needed_bytes(self, shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> int:
        """The most that one of its networks needs: they run one after the other.

        How small the region of interest will be is not known before; the whole image is an upper bound.
        """
        wanted = self.section.resample_mm
        seen, step = shape, spacing_mm
        if wanted is not None:  # which axis is which is not known here: the finest is an upper bound
            finest = wanted if isinstance(wanted, int | float) else min(wanted)
            seen = _three([max(1, round(n * mm / finest)) for n, mm in zip(shape, spacing_mm, strict=True)])
            step = (finest, finest, finest)
        inside = [*self.parts, *([self.previous.model] if self.previous else [])]
        needs = [model.needed_bytes(seen, step) for model in inside]
        needs += [model.needed_bytes(shape, spacing_mm) for model in (self.localiser, self.clip) if model]
        return max(needs)

    def close(self) -> None:
        """Give back the memory of every network."""
        for model in self._models():
            model.close()

    def steps(self, channels: Sequence[Volume], run: RunContext) -> Steps:
        """Label the image; see :class:`ai.model.Model`."""
        prediction = yield from self._whole(channels, run, _Share())
        yield Step("done", 1.0)
        return prediction

    def _models(self) -> list[Model]:
        nested: list[Model] = [model for model in (self.localiser, self.clip) if model is not None]
        return [*self.parts, *([self.previous.model] if self.previous else []), *nested]

    def _whole(self, channels: Sequence[Volume], run: RunContext, share: _Share) -> Running:
        """On the whole image: find the region, look there, put back."""
        shape = channels[0].geometry.shape
        inner, box, found = share, whole_box(shape), None
        if self.localiser is not None and self.section.crop is not None:
            early, inner = share.split(0.3)
            found = yield from _shared(self.localiser, channels, run, early)
            tight = box_of(np.isin(found.labels, self.section.crop.labels))
            if tight is None:
                return Prediction(np.zeros(shape, np.uint8), facts={"region": "not found"})
            box = grown(tight, self.section.crop.margin_mm, channels[0])
        if self.clip is not None:
            inner, late = inner.split(0.6)
        alone = run if box == whole_box(shape) else RunContext(run.deterministic, rung=run.rung)
        prediction = yield from self._inside([crop_volume(c, box) for c in channels], alone, inner)
        run.rung = max(run.rung, alone.rung)
        labels = np.zeros(shape, np.uint8)
        labels[box] = prediction.labels
        if found is not None:
            yield from self._drop_outside(labels, found.labels, channels[0], inner)
        facts = {**prediction.facts, "region": [[side.start, side.stop] for side in box]}
        if self.clip is not None and self.section.vertebral_bodies is not None:
            bounds = yield from _shared(self.clip, channels, run, late)
            rule, spacing_mm = self.section.vertebral_bodies, channels[0].geometry.spacing_mm
            labels = clip_bodies(labels, bounds.labels == rule.clip_label, rule.clip_grow_mm, spacing_mm)
        return Prediction(labels, prediction.scalars, prediction.confidence, facts)

    def _inside(self, channels: Sequence[Volume], run: RunContext, share: _Share) -> Running:
        """Within the region: at its spacing, all parts, merged."""
        zooms, seen = self._zoomed(channels)
        if self.previous is not None:
            early, share = share.split(0.3)
            before = yield from _run(self.previous.model, seen, run, early)
            seen = [*seen, *one_hot(before.labels, self.previous.foreground, seen[0])]
        labels = np.zeros(seen[0].geometry.shape, np.uint8)
        gathered = _Gathered()
        for index, part in enumerate(self.parts):
            prediction = yield from _run(part, seen, run, share.part(index, len(self.parts)))
            np.copyto(labels, prediction.labels, where=prediction.labels != 0)
            gathered.add(prediction)
        labels = self._finished(labels, seen[0])
        return Prediction(
            zooms.back(labels) if zooms else labels, gathered.scalars, gathered.confidence, gathered.facts()
        )

    def _zoomed(self, channels: Sequence[Volume]) -> tuple[Zoom | None, list[Volume]]:
        wanted, whole = self.section.resample_mm, self.section.whole_numbers
        if wanted is not None:
            zoom = zoom_to(channels[0], wanted, whole)
            return zoom, [zoom.apply(channel, self.device) for channel in channels]
        if whole and self.section.crop is not None:
            return None, [_whole_numbers(channel) for channel in channels]
        return None, list(channels)

    def _finished(self, labels: LabelArray, seen: Volume) -> LabelArray:
        """What is done to merged labels where the networks saw the image."""
        if self.section.vertebral_bodies is not None:
            labels = finish_bodies(labels, seen, self.section.vertebral_bodies)
        if self.section.after:
            finish(labels, self.section.after, math.prod(seen.geometry.spacing_mm) / 1000.0)
        return labels

    def _drop_outside(
        self, labels: LabelArray, found: LabelArray, image: Volume, share: _Share
    ) -> Generator[Step, None, None]:
        """What lies too far from what the localiser found, in place."""
        rule = self.section.crop
        if rule is None or not rule.within:
            return
        region = np.isin(found, rule.within)
        for slab, inside in near(region, rule.within_mm, image.geometry.spacing_mm):
            yield Step("within the region", share.fraction(1.0))
            labels[slab][~inside] = 0


@dataclass
class _Gathered:
    """What the parts say besides their labels."""

    scalars: dict[str, float] = field(default_factory=dict)
    confidence: dict[int, float] = field(default_factory=dict)
    parts: list[dict[str, object]] = field(default_factory=list)

    def add(self, prediction: Prediction) -> None:
        self.scalars.update(prediction.scalars)
        self.confidence.update(prediction.confidence)
        self.parts.append(dict(prediction.facts))

    def facts(self) -> dict[str, object]:
        return self.parts[0] if len(self.parts) == 1 else {"parts": self.parts}


@dataclass(frozen=True)
class _Share:
    """The part of the progress that a piece of work makes."""

    start: float = 0.0
    length: float = 0.999

    def fraction(self, own: float) -> float:
        return round(self.start + self.length * min(max(own, 0.0), 1.0), 6)  # sums of shares never go back

    def part(self, index: int, count: int) -> _Share:
        return _Share(self.start + self.length * index / count, self.length / count)

    def split(self, first: float) -> tuple[_Share, _Share]:
        length = self.length * first
        return _Share(self.start, length), _Share(self.start + length, self.length - length)


def grown(box: Box, margin_mm: float, image: Volume) -> Box:
    """A box with a margin of whole voxels, rounded down as TotalSegmentator does, within the image."""
    sides = [
        slice(max(0, side.start - int(margin_mm / mm)), min(length, side.stop + int(margin_mm / mm)))
        for side, mm, length in zip(box, image.geometry.spacing_mm, image.geometry.shape, strict=True)
    ]
    return sides[0], sides[1], sides[2]


def one_hot(labels: LabelArray, foreground: Sequence[int], like: Volume) -> list[Volume]:
    """One mask of 0 and 1 for each label, as volumes on the grid of another."""
    return [Volume((labels == label).astype(np.int16), like.geometry, "") for label in foreground]


def _shared(model: NnUnetModel, channels: Sequence[Volume], run: RunContext, share: _Share) -> Running:
    """What a section finds in the whole image, once for all models that ask for the same."""
    key = ("nnunet", model.identity)
    if key not in run.shared:
        run.shared[key] = yield from model._whole(channels, run, share)
    return run.shared[key]


def _run(model: Model, channels: Sequence[Volume], run: RunContext, share: _Share) -> Running:
    """Drive a model's steps as part of the whole's."""
    steps = model.steps(channels, run)
    try:
        while True:
            step = next(steps)
            yield Step(step.stage, share.fraction(step.fraction))
    except StopIteration as end:
        prediction: Prediction = end.value
        return prediction
    finally:
        steps.close()


def _whole_numbers(volume: Volume) -> Volume:
    if volume.voxels.dtype.kind == "i":
        return volume
    return Volume(np.trunc(volume.voxels), volume.geometry, volume.unit)


def _three(values: Sequence[int]) -> tuple[int, int, int]:
    return values[0], values[1], values[2]
