"""A network as a model: a volume goes in, labels on its own grid come out, with a pause after each tile.

The order of work: channels → axes → crop → resample and change values → exact size → pad to a tile → tiles →
sums of scores (:mod:`ai.inference.ring`) → labels on the source grid (:mod:`ai.inference.labels`) → axes
back → last changes (:mod:`ai.inference.after`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ai.errors import ModelError
from ai.inference import after, ladder, precision
from ai.inference.forward import answer
from ai.inference.labels import Painter
from ai.inference.memory import estimate_bytes
from ai.inference.precision import Numerics
from ai.inference.prepare import Prepared, prepare
from ai.inference.ring import NearestLabels, ScoresNotFinite, Sums, WeightedSums
from ai.inference.tiling import importance
from ai.model import ModelSpec, Prediction, RunContext, Step, Steps
from ai.model.recipe import Recipe
from ai.volume import LabelArray, Volume

Forward = Callable[[Tensor], Tensor]
"""``(batch, channels, x, y, z)``, in 2D ``(batch, channels, rows, columns)``, to scores ``(batch, classes,
*same)`` on the same device. One that also has ``pieces`` answers with rests (:mod:`ai.inference.forward`)."""

_PREPARED = 0.05  # of the time, roughly
_TILED = 0.95


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Networks:
    """The trained part of a model.

    Attributes
    ----------
    forwards
        Folds; their scores are averaged.
    weight_bytes
        What they hold on the device.
    dtype
        What they take; ``any`` where torch may autocast to what is quickest.
    close
        Gives the memory back.
    move
        Brings them to another device, so that the CPU can take over when a GPU has too little memory; None:
        they cannot be moved.
    """

    forwards: tuple[Forward, ...]
    weight_bytes: int
    dtype: Literal["float32", "float16", "bfloat16", "any"] = "any"
    close: Callable[[], None] = _nothing
    move: Callable[[str], None] | None = None


class NetworkModel:
    """Networks, run as a recipe says (see :class:`ai.model.Model`)."""

    def __init__(self, spec: ModelSpec, recipe: Recipe, networks: Networks, device: str) -> None:
        self._spec = spec
        self._recipe = recipe
        self._networks = networks
        self._device = device

    @property
    def spec(self) -> ModelSpec:
        """The card."""
        return self._spec

    @property
    def recipe(self) -> Recipe:
        """How the networks are fed and read."""
        return self._recipe

    @property
    def device(self) -> str:
        """Where it runs."""
        return self._device

    @property
    def weight_bytes(self) -> int:
        """Memory of the networks."""
        return self._networks.weight_bytes

    def needed_bytes(self, shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> int:
        """What the card has measured, or :func:`ai.inference.memory.estimate_bytes`."""
        if self._spec.memory_bytes is not None:
            return self._spec.memory_bytes
        channels = len(self._spec.accepts.channels) + self._recipe.grid.masks
        classes = len(self._recipe.output.channels or self._spec.structures) + 1
        forward = self._networks.forwards[0]
        return estimate_bytes(self._recipe, forward, channels, classes, shape, spacing_mm)

    def close(self) -> None:
        """Give back the memory of the networks."""
        self._networks.close()
        self._networks = replace(self._networks, forwards=())

    def steps(self, channels: Sequence[Volume], run: RunContext) -> Steps:
        """Label the image; see :class:`ai.model.Model` and, for a lack of memory, :mod:`ai.inference.ladder`.

        Raises
        ------
        ModelError
            ``CHANNELS_DIFFER``, ``NETWORK_OUTPUT_INVALID``, ``SCORES_NOT_FINITE``, ``OUT_OF_MEMORY``.
        """
        shapes = {volume.voxels.shape for volume in channels}
        if len(shapes) != 1:
            raise ModelError(
                "CHANNELS_DIFFER",
                f"The channels of {self._spec.id} must lie on one grid; they have {shapes}.",
            )
        rungs = ladder.rungs_for(self._device, self._networks.move is not None)
        moved = False

        def attempt(rung: ladder.Rung) -> Steps:
            nonlocal moved
            if rung.moved and self._networks.move is not None:
                self._networks.move("cpu")
                moved = True
            return self._attempt(channels, run, rung)

        try:
            return (yield from ladder.climb(attempt, rungs, run))
        finally:
            if moved and self._networks.move is not None:
                self._networks.move(self._device)

    def _attempt(self, channels: Sequence[Volume], run: RunContext, rung: ladder.Rung) -> Steps:
        """One run on one rung; sums that went beyond float16 are made again in float32."""
        device = "cpu" if rung.moved else self._device
        numerics = precision.choose(self._recipe.precision, self._networks.dtype, device, run.deterministic)
        try:
            return (yield from self._run(channels, numerics, rung))
        except ScoresNotFinite:
            if not numerics.spare:
                raise _not_finite(self._spec.id) from None
        try:
            return (yield from self._run(channels, replace(numerics, sums=torch.float32, spare=False), rung))
        except ScoresNotFinite:
            raise _not_finite(self._spec.id) from None

    def _run(self, channels: Sequence[Volume], numerics: Numerics, rung: ladder.Rung) -> Steps:
        yield Step("prepare", 0.0)
        batch = 1 if rung.single else self._recipe.tiles.batch
        prepared = prepare(channels, self._recipe, numerics.device, batch)
        yield Step("prepare", _PREPARED)
        work = _Work(
            self._recipe, self._networks, prepared, numerics, "cpu" if rung.host else numerics.device
        )
        count = len(prepared.plan.batches)
        for index in range(count):
            for _ in work.tiles(index):
                yield Step("tiles", _PREPARED + (_TILED - _PREPARED) * index / count)
            yield Step("tiles", _PREPARED + (_TILED - _PREPARED) * (index + 1) / count)
        geometry = channels[0].geometry
        labels = work.labels(channels[0].voxels.shape)
        voxel_ml = math.prod(geometry.spacing_mm) / 1000.0
        after.finish(labels, self._recipe.after, voxel_ml)
        yield Step("done", 1.0)
        return Prediction(
            labels, work.scalars(), work.confidence(), self._facts(prepared, numerics, work.sums_type, rung)
        )

    def _facts(
        self, prepared: Prepared, numerics: Numerics, sums: torch.dtype, rung: ladder.Rung
    ) -> dict[str, object]:
        plan = prepared.plan
        return {
            "precision": numerics.network,
            "sums": str(sums).removeprefix("torch."),
            "deterministic": numerics.deterministic,
            "memory_rung": rung.number,
            "network_grid": list(prepared.grid),
            "crop": [[part.start, part.stop] for part in prepared.box],
            "tile": list(plan.tile),
            "tiles": plan.tiles,
            "networks": len(self._networks.forwards),
        }


class _Work:
    """One run under way: the image, the sums of scores, the label map that is being painted."""

    def __init__(
        self, recipe: Recipe, networks: Networks, prepared: Prepared, numerics: Numerics, sums_device: str
    ) -> None:
        self._recipe = recipe
        self._networks = networks
        self._prepared = prepared
        self._numerics = numerics
        self._device = sums_device
        self._sums: Sums | None = None
        self.sums_type = numerics.sums
        self._numbers: Tensor | None = None
        shape = tuple(part.stop - part.start for part in prepared.box)
        self._target = torch.zeros(shape, dtype=torch.uint8, device=sums_device)
        ring = prepared.plan.ring
        order = (ring, *(axis for axis in range(3) if axis != ring))
        ways = [prepared.ways[axis] for axis in order]
        tile = prepared.plan.tile[ring] + len(prepared.plan.batches[0]) - 1
        self._painter = Painter(recipe.output, ways, self._target.permute(order), tile)

    def tiles(self, index: int) -> Generator[None, None, None]:
        """Run one batch of tiles, with rests, and paint the planes that it finished."""
        plan = self._prepared.plan
        places = plan.batches[index]
        scores = yield from answer(
            self._networks.forwards, self._prepared.image, places, plan.tile, self._recipe, self._numerics
        )
        if self._recipe.output.kind == "scalar":
            total = scores.float().flatten(1).sum(0)
            self._numbers = total if self._numbers is None else self._numbers + total
            return
        sums = self._sums = self._sums or self._empty(scores.shape[1])
        for place, part in zip(places, scores, strict=True):
            sums.add(place, part)
        last = index + 1 == len(plan.batches)
        ahead = plan.shape[plan.ring] if last else plan.batches[index + 1][0][plan.ring]
        self._painter.paint(sums, ahead)
        if not last:
            sums.advance(min(ahead, self._painter.next))

    def labels(self, shape: tuple[int, ...]) -> LabelArray:
        """The label map on the grid of the source."""
        found = np.zeros(shape, np.uint8)
        self._prepared.orientation.apply(found)[self._prepared.box] = self._target.cpu().numpy()
        return found

    def scalars(self) -> dict[str, float]:
        """Mean of the network's numbers over the tiles, by name."""
        if self._numbers is None:
            return {}
        values = (self._numbers / self._prepared.plan.tiles).tolist()
        return dict(zip(self._recipe.output.scalars, values, strict=True))

    def confidence(self) -> dict[int, float]:
        """Mean margin by structure number."""
        return self._painter.confidence()

    def _empty(self, classes: int) -> Sums:
        plan = self._prepared.plan
        weights = importance(plan.tile, self._recipe.tiles)
        if self._recipe.output.kind == "labels":
            return NearestLabels(plan, weights, self._device)
        planes = math.prod(plan.shape) // plan.shape[plan.ring] * plan.depth
        self.sums_type = self._numerics.sums_for(planes * classes)
        return WeightedSums(plan, weights, classes, self.sums_type, self._device)


def _not_finite(model: str) -> ModelError:
    return ModelError(
        "SCORES_NOT_FINITE",
        f"The network of {model} answered with values that are no numbers; try precision: float32 in its "
        "recipe, and check its intensity operations against those of its training.",
    )
