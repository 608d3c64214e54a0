"""Exclusive masks on the network's grid, as a cascade of nnU-Nets resamples the labels of its first stage.

Each label's share is interpolated linearly and the highest wins; between equals the label of the nearest
voxel does (``batchgenerators``, ``resize_segmentation``). What lies outside the foreground is a label of its
own there (−1 in ``crop_to_nonzero``), which competes and is then background.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ai.inference import grid as grids
from ai.inference.grid import Line
from ai.model.recipe import Grid

_EQUAL = 2e-6
_OUTSIDE, _BACKGROUND, _FIRST = 0, 1, 2


def exclusive_masks(
    masks: Sequence[npt.NDArray[Any]],
    foreground: npt.NDArray[np.bool_],
    axes: tuple[Line, Line, Line],
    device: str,
) -> Iterator[Tensor]:
    """The masks ``(x, y, z)`` of 0 and 1 on the network's grid, float32, in their order.

    Parameters
    ----------
    foreground
        What is not 0 in the images, holes filled, of the same shape.
    """
    labels = np.where(foreground, np.uint8(_BACKGROUND), np.uint8(_OUTSIDE))
    for index, mask in enumerate(masks):
        labels[np.asarray(mask) != 0] = index + _FIRST
    winner = _resampled(torch.from_numpy(labels).to(device), len(masks) + _FIRST, axes)
    for index in range(len(masks)):
        yield (winner == index + _FIRST).float()


def _resampled(labels: Tensor, count: int, axes: tuple[Line, Line, Line]) -> Tensor:
    """Label numbers on the network's grid."""
    nearest = _on_grid(labels, axes, "nearest").to(labels.dtype)
    winner, best = torch.zeros_like(nearest), torch.full(nearest.shape, -1.0, device=labels.device)
    of_nearest = best.clone()
    for label in range(count):
        share = _on_grid(labels == label, axes, "linear")
        better = share > best + _EQUAL
        winner[better] = label
        of_nearest = torch.where(nearest == label, share, of_nearest)
        best = torch.maximum(best, share)
    return torch.where(of_nearest >= best - _EQUAL, nearest, winner)


def _on_grid(image: Tensor, axes: tuple[Line, Line, Line], kind: grids.Kind) -> Tensor:
    """An image on the network's grid; an axis that goes on its own stays with its nearest plane."""
    way = [line if line.image == "nearest" else replace(line, image=kind) for line in axes]
    return grids.resample(image, Grid(), (way[0], way[1], way[2]))
