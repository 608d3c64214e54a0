"""Phantoms and networks of the inference benchmark."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ai.geometry import FrameRef, VolumeGeometry
from ai.model import ModelSpec
from ai.volume import Volume

CLASSES = 14
TILE = (96, 96, 96)
OVERLAP = 0.25
WINDOW = (-1000.0, 1000.0)
_DISTURBANCE = 0.3


def geometry(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> VolumeGeometry:
    """An axial stack, slices upwards."""
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2] = spacing_mm
    affine[3, 3] = 1.0
    frames = tuple(FrameRef(f"2.25.{index}") for index in range(shape[0]))
    return VolumeGeometry(affine, shape, frames, np.arange(shape[0])[:, None] * affine[:3, 0], "2.25.1")


def phantom(
    shape: tuple[int, int, int], spacing_mm: tuple[float, float, float], structures: int, seed: int = 1
) -> tuple[Volume, npt.NDArray[np.uint8]]:
    """A body ellipse on 40 % of the field of view with organs of values of their own, noise, and a table.

    The noise is less than half the distance of their values.

    Returns
    -------
    The volume in HU, int16, and its true labels.
    """
    rng = np.random.default_rng(seed)
    coarse = tuple(-(-length // 4) for length in shape)
    z, y, x = (
        np.linspace(-1, 1, n).reshape([-1 if a == axis else 1 for a in range(3)])
        for axis, n in enumerate(coarse)
    )
    inside = np.broadcast_to((y / 0.61) ** 2 + (x / 0.84) ** 2 < 1, coarse)
    labels = np.zeros(coarse, np.uint8)
    for number in range(1, structures + 1):  # ellipsoids, later ones on top
        centre = rng.uniform((-0.9, -0.45, -0.65), (0.9, 0.45, 0.65))
        radii = rng.uniform(0.08, 0.3 if structures < 50 else 0.15, 3)
        distance = sum(((axis - c) / r) ** 2 for axis, c, r in zip((z, y, x), centre, radii, strict=True))
        labels[(distance < 1) & inside] = number
    fine = tuple(slice(0, length) for length in shape)
    labels = np.kron(labels, np.ones((4, 4, 4), np.uint8))[fine]
    body = np.kron(inside, np.ones((4, 4, 4), np.bool_))[fine]
    values = organ_hu(structures)
    voxels = np.full(shape, -1000, np.int16)
    voxels[body] = values[labels[body]]
    rows = shape[1]
    voxels[:, int(rows * 0.86) : int(rows * 0.86) + 4] = -100  # the shell of a table
    voxels += rng.normal(0, 2 if structures > 50 else 12, shape).astype(np.int16)
    return Volume(voxels, geometry(shape, spacing_mm)), labels


def organ_hu(structures: int) -> npt.NDArray[np.int16]:
    """Value of each structure; 0, the background inside the body, is soft tissue."""
    values = np.linspace(-800, 950, structures + 2)
    apart = values[np.argsort(np.abs(values))[2:]]  # none of them near soft tissue
    return np.concatenate([[0], np.sort(apart)]).astype(np.int16)


class UNet(nn.Module):
    """nnU-Net's plain encoder and decoder: two convolutions for each stage, instance norm, leaky ReLU.

    Its weights are random. So that its labels are organs and not noise, in which every rounding would flip
    voxels, its scores are added to those of a known rule as a disturbance.
    """

    def __init__(self, features: tuple[int, ...] = (16, 32, 64, 128), classes: int = CLASSES) -> None:
        super().__init__()
        before = (1, *features[:-1])
        self.down = nn.ModuleList(
            nn.Sequential(_layer(i, o, 1 if stage == 0 else 2), _layer(o, o, 1))
            for stage, (i, o) in enumerate(zip(before, features, strict=True))
        )
        pairs = list(zip(features[:0:-1], features[-2::-1], strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose3d(i, o, 2, 2) for i, o in pairs)
        self.join = nn.ModuleList(nn.Sequential(_layer(2 * o, o, 1), _layer(o, o, 1)) for _, o in pairs)
        self.head = nn.Conv3d(features[0], classes, 1)
        self.values = Quantiser(classes - 1, slope=40.0)

    def forward(self, tile: Tensor) -> Tensor:
        """``(batch, 1, x, y, z)`` to scores."""
        known, skips = self.values(tile), []
        for stage in self.down:
            tile = stage(tile)
            skips.append(tile)
        for up, join, skip in zip(self.up, self.join, skips[-2::-1], strict=True):
            tile = join(torch.cat((up(tile), skip), 1))
        return known + _DISTURBANCE * self.head(tile)


def _layer(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(inputs, outputs, 3, stride, 1), nn.InstanceNorm3d(outputs, affine=True), nn.LeakyReLU(0.01)
    )


class Quantiser(nn.Module):
    """The rule that the structure whose value is nearest wins; air and soft tissue are background."""

    def __init__(self, structures: int, slope: float) -> None:
        super().__init__()
        low, high = WINDOW
        values = np.concatenate([[WINDOW[0]], organ_hu(structures)[1:].astype(np.float64)])
        centres = torch.tensor((values - low) / (high - low), dtype=torch.float32)
        self.register_buffer("centres", centres.view(1, -1, 1, 1, 1))
        self._tissue = (0.0 - low) / (high - low)
        self._slope = slope

    def forward(self, tile: Tensor) -> Tensor:
        """``(batch, 1, x, y, z)`` to scores, at least −8."""
        scores = (tile.float() - self.centres).abs_()
        scores[:, :1] = torch.minimum(scores[:, :1], (tile - self._tissue).abs())
        return scores.mul_(-self._slope).clamp_(min=-8.0)


def card(classes: int) -> ModelSpec:
    """A card for a network that only this benchmark knows."""
    return ModelSpec.model_validate(
        {
            "id": "benchmark",
            "version": "1",
            "title": "Benchmark",
            "loader": "network",
            "algorithm": "benchmark",
            "manufacturer": "benchmark",
            "intended_use": "benchmark",
            "limits": [],
            "references": [],
            "licence": {"spdx": "Apache-2.0", "commercial": "yes"},
            "accepts": {"modalities": ["CT"]},
            "network": {"name": "none", "weights": ["none"]},
            "recipe": {"tiles": {"size": None}},
            "structures": [{"number": n, "key": f"s{n}", "label": f"S{n}"} for n in range(1, classes)],
        }
    )
