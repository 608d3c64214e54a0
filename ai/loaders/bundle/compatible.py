"""Run a bundle's own MONAI transforms and inferer in memory, on a tensor that knows its affine.

What reads and writes files is left out of the chain; all else is MONAI's, in MONAI's order.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.compose import Compose
from monai.transforms.spatial.array import SpatialResample
from torch import Tensor

from ai.errors import ModelError
from ai.loaders.bundle.scripts import Scripts
from ai.loaders.bundle.stepwise import stepwise
from ai.model import ModelSpec, Prediction, RunContext, Step, Steps
from ai.volume import LabelArray, Volume

Forward = Callable[[Tensor], Tensor]
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_NETWORK_SHARE = 0.8  # of the time of a run, for progress
_COPIES = 4  # of the image and of each class that MONAI's transforms hold at once


@dataclass(frozen=True)
class Parts:
    """What the bundle's configuration makes.

    Attributes
    ----------
    inferer
        Called with (inputs, network); None: the network sees the whole image.
    load_keys, image_key
        Where images go, and where the network's input comes from.
    regions
        Channels of the answer overlap and are painted in the order of structure numbers.
    channels
        Channel to structure number; None: the usual ones, see :func:`decide`.
    reason
        Why the transforms were not translated.
    """

    preprocessing: Any
    inferer: Any
    postprocessing: Any
    load_keys: tuple[str, ...]
    image_key: str
    regions: bool
    channels: tuple[int, ...] | None
    reason: str
    scripts: Scripts


@dataclass(frozen=True)
class CompatibleModel:
    """A bundle whose transforms MONAI runs (see :class:`ai.model.Model`)."""

    spec: ModelSpec
    device: str
    parts: Parts
    forward: Forward
    weight_bytes: int
    release: Callable[[], None]

    def needed_bytes(self, shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> int:  # noqa: ARG002
        """Image and scores of every class on the source grid in float32, a few times over."""
        if self.spec.memory_bytes is not None:
            return self.spec.memory_bytes
        per_voxel = len(self.spec.accepts.channels) + len(self.spec.structures) + 1
        return math.prod(shape) * 4 * per_voxel * _COPIES

    def close(self) -> None:
        """Give back the weights."""
        self.release()

    @torch.no_grad()
    def _apply(self, transform: Any, data: dict[str, Any]) -> dict[str, Any]:
        with self.parts.scripts.importable(), torch.no_grad():
            try:
                changed: dict[str, Any] = transform(data)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:
                raise _failed(self.spec, type(transform).__name__, error) from error
        return changed

    def steps(self, channels: Sequence[Volume], run: RunContext) -> Steps:
        """Preprocess, infer tile by tile, postprocess; a pause after each transform and each tile."""
        data = as_tensors(channels, self.parts.load_keys, self.parts.image_key)
        for transform in listed(self.parts.preprocessing):
            yield Step("preprocess", 0.0)
            data = self._apply(transform, data)
        image = data[self.parts.image_key]
        scores = yield from self._infer(torch.as_tensor(image).to(self.device)[None], run)
        data["pred"] = _like(scores, image)
        for transform in listed(self.parts.postprocessing):
            yield Step("postprocess", 0.1 + _NETWORK_SHARE)
            data = self._apply(transform, data)
        found = on_source(data["pred"], channels[0])
        yield Step("done", 1.0)
        labels = decide(found, self.parts.regions, self.parts.channels, len(self.spec.structures))
        facts = {"transforms": "MONAI", "not_translated_because": self.parts.reason}
        return Prediction(labels, facts=facts)

    def _infer(self, inputs: Tensor, run: RunContext) -> Generator[Step, None, Tensor]:
        """The network's answer, ``(channels, x, y, z)``; a step for each call of the network."""
        inferer = _on_rung(self.parts.inferer, run.rung)
        calls = _number_of_calls(inferer, inputs.shape[2:])

        def work(pause: Callable[[], None]) -> Tensor:
            def network(batch: Tensor, *_: Any, **__: Any) -> Tensor:
                pause()
                deterministic = torch.backends.cudnn.flags(
                    enabled=True, benchmark=not run.deterministic, deterministic=run.deterministic
                )
                with deterministic, self.parts.scripts.importable():  # not while it rests: others may need it
                    return self.forward(batch)

            with torch.no_grad():
                answer = network(inputs) if inferer is None else inferer(inputs, network)
            return _first(answer)

        for done, _ in enumerate(tiles := stepwise(work)):
            yield Step("network", 0.1 + _NETWORK_SHARE * min(1.0, done / calls))
        return tiles.result[0]


def as_tensors(channels: Sequence[Volume], load_keys: Sequence[str], image_key: str) -> dict[str, Any]:
    """Images as a bundle loads them from NIfTI: ``(channel, x, y, z)``, float32, with a RAS+ affine."""
    arrays = [np.asarray(volume.voxels, np.float32).transpose(2, 1, 0) for volume in channels]
    affine = ras_affine(channels[0])
    if len(load_keys) == 1:
        return {load_keys[0]: _tensor(np.stack(arrays), affine)}
    if len(load_keys) != len(arrays):
        raise ModelError(
            "MODEL_CARD_INVALID",
            f"The bundle loads {len(load_keys)} images ({', '.join(load_keys)}), and the card has "
            f"{len(arrays)} channels; {image_key} is made of all of them.",
        )
    return {key: _tensor(array[None], affine) for key, array in zip(load_keys, arrays, strict=True)}


def ras_affine(volume: Volume) -> npt.NDArray[np.float64]:
    """4 × 4: index (column, row, slice) to RAS+ millimetres, as NIfTI has it."""
    return np.asarray(_LPS_TO_RAS @ volume.geometry.index_to_lps[:, [2, 1, 0, 3]], np.float64)


def _tensor(array: npt.NDArray[np.float32], affine: npt.NDArray[np.float64]) -> MetaTensor:
    shape = np.asarray(array.shape[1:])
    meta = {
        "affine": torch.from_numpy(affine.copy()),
        "original_affine": torch.from_numpy(affine.copy()),
        "spatial_shape": shape,
        "space": "RAS",
        "original_channel_dim": "no_channel" if array.shape[0] == 1 else 0,
        "filename_or_obj": "series",
    }
    return MetaTensor(torch.from_numpy(np.ascontiguousarray(array)), meta=meta)


def listed(transforms: Any) -> list[Any]:
    """The single transforms, where pausing between them changes nothing."""
    if transforms is None:
        return []
    if type(transforms) is Compose and not transforms.lazy:
        return list(transforms.transforms)
    return [transforms]


def on_source(found: Tensor, volume: Volume) -> npt.NDArray[np.float32]:
    """An answer on the grid of the volume, ``(channels, slices, rows, columns)``.

    A bundle that does not invert its transforms leaves its answer on its own grid; as when MONAI saves such
    an answer, it is then resampled by nearest neighbour.
    """
    slices, rows, columns = volume.voxels.shape
    affine = torch.from_numpy(ras_affine(volume))
    found = found if found.ndim == 4 else found[None]
    if isinstance(found, MetaTensor):
        same = tuple(found.shape[1:]) == (columns, rows, slices)
        if not (same and torch.allclose(found.affine.double().cpu(), affine, atol=1e-3)):
            resample = SpatialResample(mode="nearest", padding_mode="zeros")
            found = resample(found, dst_affine=affine, spatial_size=(columns, rows, slices))
    array = torch.as_tensor(found).detach().cpu().float().numpy()
    if array.shape[1:] != (columns, rows, slices):
        raise ModelError(
            "MODEL_OUTPUT_INVALID",
            f"The bundle's answer has {array.shape[1:]} voxels and says not where; the image has "
            f"{(columns, rows, slices)}.",
        )
    return array.transpose(0, 3, 2, 1)


def decide(
    found: npt.NDArray[np.float32], regions: bool, channels: tuple[int, ...] | None, structures: int
) -> LabelArray:
    """A label map of the card's numbers, from labels, from one channel a class, or from regions.

    Parameters
    ----------
    found
        ``(channels, slices, rows, columns)``: one channel of labels, or scores, or regions of 0 and 1.
    channels
        Structure number of each channel. None: channel n of regions is structure n + 1, else structure n.

    Raises
    ------
    ModelError
        ``MODEL_OUTPUT_INVALID``: other channels or labels than the card has; ``SCORES_NOT_FINITE``.
    """
    count = found.shape[0]
    if not all(np.isfinite(channel).all() for channel in found):
        raise ModelError("SCORES_NOT_FINITE", "The bundle answers with values that are no numbers.")
    if regions:
        return _painted(found, channels, structures)
    most = len(channels) if channels else structures + 1
    if count not in (1, most):
        raise _other_channels(count, f"{most}, background among them")
    classes = found[0] if count == 1 else found.argmax(0)
    whole = np.rint(classes).astype(np.int64)
    if whole.min(initial=0) < 0 or whole.max(initial=0) >= most:
        raise ModelError(
            "MODEL_OUTPUT_INVALID",
            f"The bundle answers with labels {whole.min()} to {whole.max()}; the card knows 0 to {most - 1}.",
        )
    table = np.asarray(channels if channels else range(most), np.uint8)
    return np.ascontiguousarray(table[whole])


def _painted(found: npt.NDArray[np.float32], channels: tuple[int, ...] | None, structures: int) -> LabelArray:
    """Regions one over the other in the order of their numbers; channels left out are none."""
    count, numbers = len(found), channels or tuple(range(1, structures + 1))
    if count < len(numbers) or (channels is None and count > len(numbers)):
        raise _other_channels(count, str(len(numbers)))
    labels = np.zeros(found.shape[1:], np.uint8)
    for number, channel in sorted((number, channel) for channel, number in enumerate(numbers) if number):
        labels[found[channel] >= 0.5] = number
    return labels


def _other_channels(count: int, wanted: str) -> ModelError:
    return ModelError(
        "MODEL_OUTPUT_INVALID",
        f"The bundle answers with {count} channels; the card knows {wanted}: name each in bundle.channels.",
    )


def _like(scores: Tensor, image: Any) -> Tensor:
    """The answer with the place and the history of the image, so that Invertd knows what to undo."""
    if not isinstance(image, MetaTensor):
        return scores
    return MetaTensor(
        scores, meta=copy.deepcopy(image.meta), applied_operations=copy.deepcopy(image.applied_operations)
    )


def _first(answer: Any) -> Tensor:
    """The first image of the batch, without what MONAI's inferer says beside it."""
    while isinstance(answer, (list, tuple)):
        answer = answer[0]
    if not isinstance(answer, Tensor):
        raise ModelError(
            "MODEL_OUTPUT_INVALID", f"The network answers with {type(answer).__name__}, no tensor."
        )
    return torch.as_tensor(answer)[0]


def _on_rung(inferer: Any, rung: int) -> Any:
    """With less memory: one tile at a time, then scores in host memory."""
    if rung == 0 or not hasattr(inferer, "sw_batch_size"):
        return inferer
    smaller = copy.copy(inferer)
    smaller.sw_batch_size = 1
    if rung > 1:
        smaller.device = torch.device("cpu")
    return smaller


def _number_of_calls(inferer: Any, shape: Sequence[int]) -> int:
    """How often a sliding window asks the network, for progress; 1 for other inferers."""
    roi, overlap = getattr(inferer, "roi_size", None), getattr(inferer, "overlap", 0.0)
    if roi is None:
        return 1
    sizes = list(roi) if isinstance(roi, (list, tuple)) else [roi] * len(shape)
    overlaps = list(overlap) if isinstance(overlap, (list, tuple)) else [overlap] * len(shape)
    tiles = 1
    for length, size, part in zip(shape, sizes, overlaps, strict=False):
        tile = min(size, length) if size and size > 0 else length
        interval = max(1, int(tile * (1 - part)))
        tiles *= math.ceil((length - tile) / interval) + 1
    return max(1, math.ceil(tiles / max(1, getattr(inferer, "sw_batch_size", 1))))


def _failed(spec: ModelSpec, what: str, error: Exception) -> ModelError:
    reason = " ".join(str(error.__cause__ or error).split())[:300]
    return ModelError("MODEL_RUN_FAILED", f"Model {spec.id} {spec.version}: its {what} failed: {reason}.")
