"""Small exported networks and the cards of pipelines made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from torch.nn.functional import max_pool3d

from ai.model import ModelSpec, find_card, load_card
from tests import small_models
from tests.model_files import COMMON, write_model


class Spots(nn.Module):
    """Dense spots wider than 6 mm and narrower than 30 mm, on a grid of 2 mm: openings of what is dense."""

    def forward(self, image: Tensor) -> Tensor:
        dense = (image > -400.0).float()
        spots = opened(dense, 3) - opened(dense, 15)
        return torch.cat([0.5 - spots, spots - 0.5], 1)


class Front(nn.Module):
    """What is bright in the front half of an axial stack, which runs to the back."""

    def forward(self, image: Tensor) -> Tensor:
        rows = torch.arange(image.shape[3], device=image.device)[:, None]
        front = torch.where(rows < image.shape[3] // 2, 1.0, -1.0)
        bright = torch.minimum(image - 70.0, 100.0 * front)
        return torch.cat([-bright, bright], 1)


class Halves(nn.Module):
    """What is bright, in two classes: the half of the image to the patient's left, and that to the right."""

    def forward(self, image: Tensor) -> Tensor:
        columns = torch.arange(image.shape[4], device=image.device)
        left = torch.where(2 * columns >= image.shape[4], 100.0, -100.0)
        return torch.cat(
            [70.0 - image, torch.minimum(image - 70.0, left), torch.minimum(image - 70.0, -left)], 1
        )


class Bright(nn.Module):
    """What is bright."""

    def forward(self, image: Tensor) -> Tensor:
        return torch.cat([70.0 - image, image - 70.0], 1)


class Floors(nn.Module):
    """What is bright, numbered from above by storeys of 10 voxels of a stack that runs to the feet."""

    def forward(self, image: Tensor) -> Tensor:
        storey = torch.arange(image.shape[2], device=image.device)[:, None, None] // 10
        marks = [torch.minimum(image - 70.0, torch.where(storey == n, 1.0, -1.0)) for n in range(5)]
        return torch.cat([torch.zeros_like(image), *marks], 1)


def opened(mask: Tensor, size: int) -> Tensor:
    """Morphological opening by a cube; outside counts as inside while eroding, as outside while growing."""
    return grown(-grown(-mask, size), size)


def grown(mask: Tensor, size: int) -> Tensor:
    """The highest value within a cube, axis by axis."""
    for axis in range(3):
        kernel = tuple(size if other == axis else 1 for other in range(3))
        mask = max_pool3d(mask, kernel, 1, tuple(length // 2 for length in kernel))
    return mask


def write_network(
    folder: Path, name: str, network: nn.Module, *keys: str, grid: dict[str, Any] | None = None, **more: Any
) -> ModelSpec:
    """A network as ``.pt2`` with its card."""
    return write_model(
        folder,
        name,
        {"network.pt2": small_models.exported(network, torch.zeros(1, 1, 16, 18, 20))},
        loader="graph",
        structures=small_models.structures(*keys),
        graph={"file": "network.pt2"},
        recipe={"grid": {"axes": "SPL", **(grid or {})}, "tiles": {"size": None}, "precision": "float32"},
        **more,
    )


def write_pipeline(
    folder: Path,
    name: str,
    keys: tuple[str, ...],
    stages: list[dict[str, Any]],
    find_in: Path | None = None,
    **more: Any,
) -> ModelSpec:
    """The card of a pipeline, whose stages are pinned as they are in the folder, or ship."""
    folders = (find_in or folder,)
    pinned = [{"digest": find_card(stage["model"], folders).digest, **stage} for stage in stages]
    folder.mkdir(exist_ok=True)
    fields = {
        **COMMON,
        "id": name,
        "loader": "pipeline",
        "structures": small_models.structures(*keys),
        "stages": pinned,
        **more,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(fields, sort_keys=False), encoding="utf-8")
    return load_card(path)
