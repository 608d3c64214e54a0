"""Random patches: cropped, turned, bent, mirrored, and changed in brightness."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from training.hippocampus.cases import CLASSES, PATCH, Case


class Augmenter:
    """Draws patches; all its chances come from one generator."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def patch(self, case: Case) -> tuple[torch.Tensor, torch.Tensor]:
        """One random patch of a padded case: image and labels, both of the shape ``PATCH``."""
        image, labels = self._crop(case)
        if self._chance(0.8):
            image, labels = self._warp(image, labels)
        if self._chance(0.5):  # left and right hippocampus are mirror images
            image, labels = image.flip(0), labels.flip(0)
        return self._intensity(image), labels

    def _between(self, low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand(1, generator=self.generator))

    def _chance(self, probability: float) -> bool:
        return self._between(0.0, 1.0) < probability

    def _crop(self, case: Case) -> tuple[torch.Tensor, torch.Tensor]:
        starts = [
            int(torch.randint(0, have - want + 1, (1,), generator=self.generator))
            for have, want in zip(case.image.shape, PATCH, strict=True)
        ]
        window = tuple(slice(start, start + want) for start, want in zip(starts, PATCH, strict=True))
        return case.image[window], case.labels[window]

    def _warp(self, image: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Rotation to 15°, scale 0.8 to 1.2, shift, and now and then a smooth bend."""
        turn = torch.eye(3)
        for i, j in ((0, 1), (0, 2), (1, 2)):
            angle = math.radians(self._between(-15, 15))
            plane = torch.eye(3)
            plane[i, i] = plane[j, j] = math.cos(angle)
            plane[i, j], plane[j, i] = -math.sin(angle), math.sin(angle)
            turn = turn @ plane
        one_scale = self._between(0.8, 1.2)
        each = self._chance(0.5)
        scale = torch.tensor([self._between(0.8, 1.2) if each else one_scale for _ in range(3)])
        size = torch.tensor(image.shape[::-1]).float()
        matrix = torch.diag(1 / size) @ (turn @ torch.diag(scale)) @ torch.diag(size)
        shift = torch.tensor([[self._between(-0.08, 0.08)] for _ in range(3)])
        grid = F.affine_grid(torch.cat([matrix, shift], 1)[None], [1, 1, *image.shape], align_corners=False)
        if self._chance(0.4):
            bend = torch.randn((1, 3, 5, 6, 5), generator=self.generator) * 0.03
            bend = F.interpolate(bend, size=list(image.shape), mode="trilinear")
            grid = grid + bend.permute(0, 2, 3, 4, 1)
        moved = F.grid_sample(image[None, None], grid, padding_mode="border", align_corners=False)[0, 0]
        one_hot = F.one_hot(labels, CLASSES).permute(3, 0, 1, 2)[None].float()
        soft = F.grid_sample(one_hot, grid, align_corners=False)[0]
        soft[0] += 1 - soft.sum(0)  # outside is background
        return moved, soft.argmax(0)

    def _intensity(self, image: torch.Tensor) -> torch.Tensor:
        if self._chance(0.3):
            image = image + torch.randn(image.shape, generator=self.generator) * self._between(0, 0.15)
        if self._chance(0.3):
            image = image * self._between(0.75, 1.25)
        if self._chance(0.3):
            low, extent = image.min(), image.max() - image.min() + 1e-6
            image = ((image - low) / extent) ** self._between(0.7, 1.5) * extent + low
        if self._chance(0.2):
            image = 0.7 * F.avg_pool3d(image[None, None], 3, 1, 1)[0, 0] + 0.3 * image
        return image
