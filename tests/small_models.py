"""Small models for tests of slices, pipelines and radiographs; see also :mod:`tests.model_files`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ai.geometry import VolumeGeometry
from ai.model import Model, ModelSpec, Prediction, RunContext, find_card, run_to_end
from ai.volume import Volume
from tests.model_files import COMMON
from tests.runs import even_geometry


def structures(*keys: str) -> list[dict[str, object]]:
    """Entries of a card for rows of the code table."""
    return [
        {"number": number, "key": key, "label": key.replace("_", " ").capitalize()}
        for number, key in enumerate(keys, start=1)
    ]


def card(name: str, *keys: str, **sections: object) -> ModelSpec:
    """A card in memory."""
    fields = {**COMMON, "id": name, "loader": "classical", "structures": structures(*keys), **sections}
    return ModelSpec.model_validate(fields)


def finder(folder: Path) -> Callable[[str], ModelSpec]:
    """Finds cards in a folder, then those that ship."""
    return lambda name: find_card(name, (folder,))


def exported(network: nn.Module, example: Tensor) -> bytes:
    """A network as ``.pt2`` for any batch and any size of image."""
    free = {axis: torch.export.Dim.AUTO for axis in range(example.ndim) if axis != 1}
    buffer = BytesIO()
    torch.export.save(torch.export.export(network.eval(), (example,), dynamic_shapes=(free,)), buffer)
    return buffer.getvalue()


def grid(index_to_lps: npt.NDArray[np.float64], shape: Sequence[int]) -> VolumeGeometry:
    """An even stack on a grid, without a source."""
    slices, rows, columns = shape
    return even_geometry(index_to_lps, (slices, rows, columns))


def volume_of(voxels: npt.NDArray[Any], spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Volume:
    """An axial volume, head first, its first voxel at the origin."""
    matrix = np.zeros((4, 4))
    matrix[[2, 1, 0], [0, 1, 2]] = spacing_mm
    matrix[3, 3] = 1.0
    return Volume(voxels, grid(matrix, voxels.shape))


def predict(model: Model, *channels: Volume, run: RunContext | None = None) -> Prediction:
    """Run a model to the end, and make sure that its progress only goes up, from 0 to 1."""
    fractions: list[float] = []

    def heard(_stage: str, fraction: float) -> None:
        fractions.append(fraction)

    found = run_to_end(model, channels, heard, run or RunContext())
    assert fractions == sorted(fractions)
    assert fractions[0] >= 0.0
    assert fractions[-1] == 1.0
    return found
