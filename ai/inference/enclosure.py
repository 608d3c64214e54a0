"""How far a place is enclosed by a structure: chords through it in 13 directions, ends on both sides.

Filling the holes of a slice needs a closed wall; a thin cortex has gaps. Chords tolerate them, and tell a
cavity that is closed on all sides (marrow) from a canal, which is open along its axis.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import numpy.typing as npt

from ai.inference.coarse import Grid, Mask

Steps = npt.NDArray[np.int16]

_EDGE = 10_000  # added to the steps of a ray that leaves the scan
_LEAST_KNOWN = 7  # of 13 directions; in a scan of a few slices the rest does not suffice
_DIRECTIONS = [
    step for step in product((0, 1, -1), repeat=3) if step > (0, 0, 0) and next(filter(None, step)) > 0
]


def enclosure(wall: Mask, longest_mm: float, grid: Grid) -> npt.NDArray[np.float32]:
    """Share 0..1 of the chords through each coarse voxel that end on the wall on both sides.

    A chord longer than ``longest_mm`` counts as open. One that leaves the scan before that tells nothing and
    is not counted, so that a bone cut by the end of the scan is judged by its other directions.
    """
    closed = np.zeros(wall.shape, np.int8)
    known = np.zeros(wall.shape, np.int8)
    for direction in _DIRECTIONS:
        length_mm = float(np.linalg.norm(np.multiply(direction, grid.spacing_mm)))
        ahead = _steps(wall, direction, backwards=False)
        behind = _steps(wall, direction, backwards=True)
        short = (ahead % _EDGE + behind % _EDGE) * np.float32(length_mm) <= longest_mm
        leaves = (ahead >= _EDGE) | (behind >= _EDGE)
        closed += short & ~leaves
        known += ~(short & leaves)
    return np.asarray(closed / np.maximum(known, _LEAST_KNOWN), np.float32)


def _steps(wall: Mask, direction: tuple[int, ...], *, backwards: bool) -> Steps:
    """Steps from each voxel along one way to the wall, or ``_EDGE`` plus the steps to the end of the scan."""
    axis = next(i for i, step in enumerate(direction) if step)
    sign = -1 if backwards else 1
    planes = np.moveaxis(wall, axis, 0)[::sign]
    shift = [sign * step for i, step in enumerate(direction) if i != axis]
    tight = np.moveaxis(_squeezes(wall, [sign * step for step in direction]), axis, 0)[::sign]
    steps = np.empty(planes.shape, np.int16)
    before = np.full([length + 2 for length in planes.shape[1:]], _EDGE, np.int16)
    window = tuple(
        slice(1 - step, 1 - step + length) for step, length in zip(shift, planes.shape[1:], strict=True)
    )
    for plane, narrow, result in zip(planes, tight, steps, strict=True):
        np.add(before[window], 1, out=result)
        result[narrow] = 1
        result[plane] = 0
        before[1:-1, 1:-1] = result
    return np.moveaxis(steps[::sign], 0, axis)


def _squeezes(wall: Mask, direction: list[int]) -> Mask:
    """Where a diagonal step slips through a thin wall: at least two voxels beside its way are wall."""
    padded = np.pad(wall, 1)
    beside = np.zeros(wall.shape, np.uint8)
    for taken in product(*((0, step) if step else (0,) for step in direction)):
        if any(taken) and list(taken) != direction:
            beside += padded[tuple(slice(1 - t, 1 - t + n) for t, n in zip(taken, wall.shape, strict=True))]
    return beside >= 2
