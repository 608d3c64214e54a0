"""DeepMedic with pre-activation blocks, as BLAST-CT has it.

Kamnitsas et al., Med Image Anal 2017;36:61; Monteiro et al., Lancet Digit Health 2020;2:e314.

Paths see the image at scale 5, 3 and 1, each by 3 × 3 × 3 convolutions without padding; their features are
joined at full resolution and classified voxel by voxel. The published program answers for blocks of 30³
voxels, each with its surroundings. The coarse paths sample every fifth and third voxel from the block's
corner on, so blocks of any multiple of 15, beginning at multiples of 15, give the same answers; larger ones
waste less on surroundings.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from itertools import pairwise, product
from math import lcm
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ai.errors import ModelError
from ai.networks.pieces import run

_BLOCK = 90  # voxels of a side, rounded to what the scales allow
_Three = tuple[int, int, int]


class Block(nn.Module):
    """Normalise, activate, convolve without padding; the input is added where the channels agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm3d(inputs)
        self.prelu = nn.PReLU()
        self.conv = nn.Conv3d(inputs, outputs, kernel, bias=False)
        self.margin = kernel // 2

    def forward(self, values: Tensor) -> Tensor:
        """``(batch, inputs, x, y, z)`` to ``(batch, outputs, …)``, smaller by the kernel."""
        result: Tensor = self.conv(self.prelu(self.bn(values)))
        if values.shape[1] == result.shape[1]:
            cut = slice(self.margin, -self.margin if self.margin else None)
            result = result + values[:, :, cut, cut, cut]
        return result


class DeepMedic(nn.Module):
    """The whole network; answers for every voxel of the image, whose edge voxels are repeated outside.

    Parameters
    ----------
    input_channels, num_classes
        Images that go in, classes that come out.
    scale_factors
        Of each path, from coarse to fine.
    feature_maps
        Channels after each convolution of a path.
    fully_connected
        Channels between the joined paths and the classes.
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        scale_factors: Sequence[Sequence[int]] = ((5, 5, 5), (3, 3, 3), (1, 1, 1)),
        feature_maps: Sequence[int] = (30, 30, 40, 40, 40, 40, 50, 50),
        fully_connected: Sequence[int] = (250, 250),
    ) -> None:
        super().__init__()
        self.scales: tuple[_Three, ...] = tuple((int(a), int(b), int(c)) for a, b, c in scale_factors)
        self.depth = len(feature_maps)
        self.classes = num_classes
        channels = (input_channels, *feature_maps)
        self.paths = nn.ModuleList(
            nn.Sequential(*(Block(a, b, 3) for a, b in pairwise(channels))) for _ in self.scales
        )
        joined = (feature_maps[-1] * len(self.scales), *fully_connected, num_classes)
        self.classifier = nn.Sequential(*(Block(a, b, 1) for a, b in pairwise(joined)))

    @property
    def margin(self) -> _Three:
        """Voxels around a block that its answers depend on."""
        return _three(max(scale[axis] for scale in self.scales) * self.depth for axis in range(3))

    @property
    def step(self) -> _Three:
        """Blocks begin at multiples of this."""
        return _three(lcm(*(scale[axis] for scale in self.scales)) for axis in range(3))

    def forward(self, image: Tensor) -> Tensor:
        """``(batch, channels, x, y, z)`` to scores ``(batch, classes, x, y, z)``."""
        return run(self.pieces(image))

    def pieces(self, image: Tensor) -> Generator[None, None, Tensor]:
        """The same, with a rest after each block."""
        size = image.shape[2:]
        block = _three(
            min(max(1, _BLOCK // step), -(-length // step)) * step
            for step, length in zip(self.step, size, strict=True)
        )
        padded = F.pad(image, self._padding(size, block), mode="replicate")
        scores: Tensor | None = None
        for i, j, k in _corners(size, block):
            x, y, z = (
                slice(start, start + length + 2 * around)
                for start, length, around in zip((i, j, k), block, self.margin, strict=True)
            )
            part = self.block(padded[:, :, x, y, z], block)
            if scores is None:
                scores = part.new_empty((image.shape[0], part.shape[1], *size))
            target = scores[:, :, i : i + block[0], j : j + block[1], k : k + block[2]]
            target.copy_(part[:, :, : target.shape[2], : target.shape[3], : target.shape[4]])
            yield
        assert scores is not None  # noqa: S101  (an image has at least one voxel)
        return scores

    def block(self, window: Tensor, block: _Three) -> Tensor:
        """Scores of a block from its window, which is larger by the margin on every side."""
        window = window.contiguous(memory_format=torch.channels_last_3d)
        features = [
            self._path(path, scale, window, block)
            for path, scale in zip(self.paths, self.scales, strict=True)
        ]
        rows = self.step[0]
        return torch.cat(
            [self._classified(features, start, start + rows) for start in range(0, block[0], rows)], dim=2
        )

    def _path(self, path: nn.Module, scale: _Three, window: Tensor, block: _Three) -> Tensor:
        """Features of one scale, at that scale."""
        x, y, z = (
            slice(around - step * self.depth + step // 2, around + length + step * self.depth, step)
            for around, step, length in zip(self.margin, scale, block, strict=True)
        )
        found: Tensor = path(window[:, :, x, y, z])
        return found

    def _classified(self, features: Sequence[Tensor], first: int, stop: int) -> Tensor:
        """Scores of some rows of a block.

        The first layer of the classifier is a sum over the paths, so each path's part of it is computed at
        the path's own scale, and only then repeated to full resolution.
        """
        joined = None
        for index, (found, scale) in enumerate(zip(features, self.scales, strict=True)):
            part = self._entered(found[:, :, first // scale[0] : stop // scale[0]], index)
            for axis, step in enumerate(scale):
                if step > 1:
                    part = part.repeat_interleave(step, dim=axis + 2)
            joined = part if joined is None else joined.add_(part)
        scores: Tensor = self.classifier[1:](joined)
        return scores

    def _entered(self, features: Tensor, index: int) -> Tensor:
        """What the first layer of the classifier makes of the features of one path."""
        layer = self.classifier[0]
        assert isinstance(layer, Block)  # noqa: S101  (it was made as one)
        width = features.shape[1]
        own = slice(index * width, (index + 1) * width)
        norm, mean, variance = layer.bn, layer.bn.running_mean, layer.bn.running_var
        assert mean is not None  # noqa: S101
        assert variance is not None  # noqa: S101
        values = F.batch_norm(
            features, mean[own], variance[own], norm.weight[own], norm.bias[own], eps=norm.eps
        )
        return F.conv3d(layer.prelu(values), layer.conv.weight[:, own])

    def _padding(self, size: Sequence[int], block: _Three) -> list[int]:
        """Edge voxels to repeat, last axis first, as :func:`torch.nn.functional.pad` wants them."""
        sides: list[int] = []
        for length, part, around in zip(reversed(size), reversed(block), reversed(self.margin), strict=True):
            sides += [around, around + -(-length // part) * part - length]
        return sides


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under our names: BLAST-CT says ``path(5, 5, 5)0`` and counts its sampling as layers."""
    result = {}
    for name, value in state.items():
        head, _, rest = name.partition(".")
        if head.startswith("path"):
            number = head.rpartition(")")[2]
            layer, _, what = rest.removeprefix("path.").partition(".")
            result[f"paths.{number}.{int(layer) - 1}.{what}"] = value
        else:
            result[name.replace("fully_connected.", "classifier.")] = value
    return result


def arguments_of(config: Mapping[str, Any], name: str) -> dict[str, object]:
    """What ``config.json`` of BLAST-CT says about the network.

    Raises
    ------
    ModelError
        ``MODEL_FILE_UNREADABLE`` when it describes another network.
    """
    try:
        data, found = config["data"], config["model"]["DeepMedic"]
        given = {"input_channels": data["input_channels"], "num_classes": data["num_classes"]}
        known = ("scale_factors", "feature_maps", "fully_connected")
        return {**given, **{key: found[key] for key in known if key in found}}
    except (KeyError, TypeError) as error:
        raise ModelError("MODEL_FILE_UNREADABLE", f"{name} describes no DeepMedic: {error!r}.") from error


def _corners(size: Sequence[int], block: _Three) -> Iterator[_Three]:
    ranges = [range(0, length, part) for length, part in zip(size, block, strict=True)]
    return ((x, y, z) for x, y, z in product(*ranges))


def _three(values: Iterator[int] | Sequence[int]) -> _Three:
    first, second, third = values
    return (first, second, third)
