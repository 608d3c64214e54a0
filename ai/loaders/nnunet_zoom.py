"""A volume brought to another spacing before a model sees it, and labels brought back, as TotalSegmentator
does it: first and last voxel centres coincide, linear there, nearest neighbour back
(``resampling.py``, ``scipy.ndimage.zoom``), values as whole numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from ai.inference.grid import Line, lines, orientation, resample
from ai.model.recipe import Grid
from ai.volume import LabelArray, Volume

Three = tuple[float, float, float]


@dataclass(frozen=True)
class Zoom:
    """The way from a volume to one of another spacing and back; array order ``(slices, rows, columns)``."""

    grid: Grid
    lines: tuple[Line, Line, Line]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels of the other volume."""
        first, second, third = (line.length for line in self.lines)
        return first, second, third

    def apply(self, volume: Volume, device: str) -> Volume:
        """The volume at the other spacing; the volume itself where nothing changes."""
        if all(line.same for line in self.lines) and not self.grid.truncate:
            return volume
        image = torch.from_numpy(np.ascontiguousarray(volume.voxels)).to(device)
        voxels = resample(image, self.grid, self.lines).cpu().numpy()
        geometry = volume.geometry
        matrix = geometry.index_to_lps.copy()
        steps = [step or 1.0 for step in self.grid.spacing_mm or (1.0, 1.0, 1.0)]
        matrix[:3, :3] *= np.array(steps) / np.linalg.norm(matrix[:3, :3], axis=0)
        origins = matrix[:3, 3] + np.arange(voxels.shape[0])[:, None] * matrix[:3, 0]
        changed = replace(geometry, index_to_lps=matrix, shape=voxels.shape, origins_mm=origins)
        return Volume(voxels, changed, volume.unit)

    def back(self, labels: LabelArray) -> LabelArray:
        """Labels of the other volume on the grid of the first."""
        for axis, line in enumerate(self.lines):
            if not line.same:
                nearest = np.clip(np.floor(line.back() + 0.5).astype(np.intp), 0, line.length - 1)
                labels = labels.take(nearest, axis=axis)
        return labels


def zoom_to(volume: Volume, spacing_mm: float | Three, whole_numbers: bool) -> Zoom:
    """Make the way to a spacing, given as one number or along right-left, anterior-posterior, up-down."""
    lateral, sagittal, vertical = (spacing_mm,) * 3 if isinstance(spacing_mm, int | float) else spacing_mm
    geometry = volume.geometry
    wanted = [0.0, 0.0, 0.0]
    for axis, mm in zip(
        orientation(geometry.index_to_lps, "SAR").axes, (vertical, sagittal, lateral), strict=True
    ):
        wanted[axis] = float(mm)
    grid = Grid(
        spacing_mm=(wanted[0], wanted[1], wanted[2]),
        alignment="centres",
        interpolation="linear",
        truncate=whole_numbers,
    )
    return Zoom(grid, lines(grid, geometry.shape, geometry.spacing_mm))
