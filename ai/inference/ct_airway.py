"""Trachea and main bronchi on a coarse CT grid: found from above, grown with leak control."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ai.inference.coarse import Grid, Mask

_AREA_MM2 = (60.0, 800.0)  # lumen of about 9 to 32 mm across
_OFF_CENTRE_MM = 45.0
_FILL_OF_BOX = 0.5  # a disc fills 0.79 of the box around it
_LONGEST_TO_SHORTEST = 2.2
_STEP_BETWEEN_SLICES_MM = 8.0
_RUN_MM = 12.0  # the same round lumen over so many millimetres is a trachea
_THRESHOLDS_HU = (-950, -930, -910, -890, -870, -850)
_MAXIMUM_ML = 100.0
_LEAK_RATIO = 1.5
_SMALL_ML = 40.0  # below this volume, growing fast is no leak


@dataclass(frozen=True)
class _Lumen:
    z: int
    y: float
    x: float
    mask: npt.NDArray[np.bool_]


def find_airway(mean_hu: npt.NDArray[np.float32], body: Mask, lumen_hu: float, grid: Grid) -> Mask:
    """Lumen of trachea and main bronchi; empty when no trachea is in the scan.

    A trachea is a round, central, air-filled lumen that goes on through several slices (Hu, Hoffman and
    Reinhardt 2001, section II-B). From it a region is grown under a rising threshold, and the last
    threshold before the region explodes into the lung is kept (Mori et al. 1996). Gas in a straight piece
    of bowel may be taken as well, which does no harm: it is no lung either.
    """
    airway = np.zeros_like(body)
    for seed in _tubes(mean_hu, body, lumen_hu, grid):
        airway |= _grown(seed, mean_hu, body, grid)
    return airway


def _grown(seed: Mask, mean_hu: npt.NDArray[np.float32], body: Mask, grid: Grid) -> Mask:
    """The tube and its branches; nothing when even the lowest threshold leaks, for then it is lung."""
    airway = np.zeros_like(seed)
    volume_ml = 0.0
    for threshold in _THRESHOLDS_HU:
        grown = _grow(seed, body & (mean_hu < threshold))
        grown_ml = float(grown.sum()) * grid.voxel_ml
        if grown_ml > _MAXIMUM_ML or (volume_ml > 0 and grown_ml > max(_SMALL_ML, _LEAK_RATIO * volume_ml)):
            break
        airway, volume_ml = seed | grown, grown_ml
    return airway


def _grow(seed: Mask, allowed: Mask) -> Mask:
    return np.asarray(ndimage.binary_propagation(seed & allowed, mask=allowed), np.bool_)


def _tubes(mean_hu: npt.NDArray[np.float32], body: Mask, lumen_hu: float, grid: Grid) -> Iterator[Mask]:
    """Chains of round lumina from slice to slice, downwards, that are long enough for a trachea."""
    chains: list[list[_Lumen]] = []
    for z in range(mean_hu.shape[0] - 1, -1, -1):
        for lumen in _round_lumina(z, mean_hu[z] < lumen_hu, body[z], grid):
            chain = next((chain for chain in chains if _continues(chain[-1], lumen, grid)), None)
            if chain is None:
                chains.append([lumen])
            else:
                chain.append(lumen)
    for chain in chains:
        if len(chain) * grid.spacing_mm[0] >= _RUN_MM:
            seed = np.zeros_like(body)
            for lumen in chain:
                seed[lumen.z] |= lumen.mask
            yield seed


def _continues(above: _Lumen, below: _Lumen, grid: Grid) -> bool:
    _, step_y, step_x = grid.spacing_mm
    distance = np.hypot((above.y - below.y) * step_y, (above.x - below.x) * step_x)
    return above.z - 1 == below.z and bool(distance <= _STEP_BETWEEN_SLICES_MM)


def _round_lumina(
    z: int, air: npt.NDArray[np.bool_], body: npt.NDArray[np.bool_], grid: Grid
) -> list[_Lumen]:
    inside = air & body
    if not inside.any():
        return []
    centre = float(np.median(np.nonzero(body)[1]))
    labels, _ = ndimage.label(inside)
    found = []
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        mask = labels[box] == label
        if _is_round(mask, grid):
            y, x = (float(axis.mean()) for axis in np.nonzero(labels == label))
            if abs(x - centre) * grid.spacing_mm[2] <= _OFF_CENTRE_MM:
                found.append(_Lumen(z, y, x, labels == label))
    return found


def _is_round(mask: npt.NDArray[np.bool_], grid: Grid) -> bool:
    _, step_y, step_x = grid.spacing_mm
    area = mask.sum() * step_y * step_x
    height, width = mask.shape[0] * step_y, mask.shape[1] * step_x
    slim = max(height, width) <= _LONGEST_TO_SHORTEST * min(height, width)
    return bool(_AREA_MM2[0] <= area <= _AREA_MM2[1] and slim and mask.mean() >= _FILL_OF_BOX)
