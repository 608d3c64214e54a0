"""Dice of held-out cases, predicted as the bundle predicts: MONAI's sliding window."""

from __future__ import annotations

import torch
from monai.inferers.utils import sliding_window_inference
from torch import nn

from training.hippocampus.cases import CLASSES, PATCH, Case


@torch.no_grad()
def predict(network: nn.Module, case: Case, device: str) -> torch.Tensor:
    """Label map of a case, ``(x, y, z)``."""
    scores = sliding_window_inference(
        case.image[None, None].to(device), PATCH, 4, network, overlap=0.5, mode="gaussian"
    )
    return scores[0].argmax(0).cpu()


def dice(case: Case, labels: torch.Tensor) -> list[float]:
    """Dice of each structure, background left out."""
    return [_dice(labels == number, case.labels == number) for number in range(1, CLASSES)]


def _dice(one: torch.Tensor, other: torch.Tensor) -> float:
    voxels = int(one.sum() + other.sum())
    return 1.0 if voxels == 0 else 2.0 * int((one & other).sum()) / voxels
