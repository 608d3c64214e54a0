"""View a volume with its axes in anatomical order, and bring a label map back.

Canonical order is (inferior → superior, anterior → posterior, right → left): the array axes nearest to
LPS +z, +y and +x. Only axes are exchanged and reversed, so nothing is interpolated and the way back is
exact; an oblique volume keeps its obliquity in the affine.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt

Affine = npt.NDArray[np.float64]
_WORLD_AXES = (2, 1, 0)  # z, y, x


@dataclass(frozen=True)
class Reorientation:
    """Which array axis becomes which canonical axis, and which of those are reversed."""

    axes: tuple[int, int, int]
    reversed: tuple[bool, bool, bool]

    def apply(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """View of ``(slices, rows, columns)`` in canonical order."""
        return array.transpose(self.axes)[self._steps()]

    def affine(self, index_to_lps: Affine, shape: tuple[int, ...]) -> Affine:
        """Affine of canonical indices to LPS millimetres; ``shape`` is that of the original array."""
        step = np.zeros((4, 4))
        step[3, 3] = 1.0
        for new, (old, backwards) in enumerate(zip(self.axes, self.reversed, strict=True)):
            step[old, new] = -1.0 if backwards else 1.0
            step[old, 3] = shape[old] - 1 if backwards else 0.0
        return np.asarray(index_to_lps @ step, np.float64)

    def _steps(self) -> tuple[slice, ...]:
        return tuple(slice(None, None, -1 if backwards else 1) for backwards in self.reversed)


def reorientation(index_to_lps: Affine) -> Reorientation:
    """The reorientation to canonical order of a grid."""
    matrix = index_to_lps[:3, :3]
    cosines = matrix / np.linalg.norm(matrix, axis=0)
    axes = max(permutations(range(3)), key=lambda order: _alignment(cosines, order))
    backwards = [bool(cosines[world, axis] < 0) for world, axis in zip(_WORLD_AXES, axes, strict=True)]
    return Reorientation((axes[0], axes[1], axes[2]), (backwards[0], backwards[1], backwards[2]))


def _alignment(cosines: Affine, order: tuple[int, ...]) -> float:
    return float(sum(abs(cosines[world, axis]) for world, axis in zip(_WORLD_AXES, order, strict=True)))
