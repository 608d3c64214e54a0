"""Left and right lung on a coarse CT grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ai.inference.coarse import Grid, Mask, components
from ai.inference.ct_airway import find_airway

Image = npt.NDArray[np.float32]

_SMALLEST_ML = 1.0
_WHOLE_LUNG_ML = 100.0  # a lung that lies wholly inside the scan is not smaller
_CUT_LUNG_ML = 3.0  # one that the end of the scan cuts may be
_NEAR_LUNG_MM = 12.0
_GAS_HU = -950.0  # below: free gas; lung holds blood and tissue
_GAS_SHARE = 0.5
_GAS_SHARE_LARGE = 0.85  # emphysema: much of a lung may be below
_LARGE_ML = 600.0
_PARENCHYMA_HU = (-990.0, -600.0)
_AIRWAY_WALL_MM = 2.5
_TWO_LUNGS_SHARE = 0.15
_SEPARATING_RADII_MM = (2.5, 5.0, 7.5, 10.0, 12.5, 15.0)
_CLOSING_MM = 6.0


@dataclass(frozen=True)
class Lungs:
    """Coarse masks. ``threshold_hu`` parts lung from tissue; ``airway`` is the lumen left out."""

    left: Mask
    right: Mask
    airway: Mask
    threshold_hu: float


def find_lungs(
    mean_hu: Image, body: Mask, left_mm: Image, grid: Grid, start_hu: float, airway_hu: float
) -> Lungs:
    """Find the lungs: air inside the body that is neither airway nor gas of stomach and bowel.

    Parameters
    ----------
    left_mm
        LPS x of every coarse voxel (towards the patient's left), millimetres.
    """
    threshold = optimal_threshold(mean_hu[body], start_hu)
    airway = find_airway(mean_hu, body, airway_hu, grid)
    air = body & (mean_hu < threshold) & ~grid.dilate(airway, _AIRWAY_WALL_MM)
    lung = _parenchyma(air, mean_hu, grid)
    left, right = _sides(lung, body, left_mm, grid)
    left, right = _closed(left, right, airway, body, grid)
    return Lungs(left, right, airway, threshold)


def optimal_threshold(values: Image, start_hu: float) -> float:
    """Half way between the means of both classes, iterated (Ridler and Calvard 1978; Hu et al. 2001)."""
    threshold = start_hu
    for _ in range(20):
        low, high = values[values < threshold], values[values >= threshold]
        if not low.size or not high.size:
            return start_hu
        following = (float(low.mean()) + float(high.mean())) / 2
        if abs(following - threshold) < 1:
            break
        threshold = following
    return float(np.clip(threshold, -600, -350))


def _parenchyma(air: Mask, mean_hu: Image, grid: Grid) -> Mask:
    """The components of ``air`` that are lung, and small ones right beside them."""
    labels, order = components(air, _SMALLEST_ML / grid.voxel_ml)
    core = grid.erode(air, min(grid.spacing_mm))
    like_lung = [label for label in order if _is_parenchyma(labels == label, core, mean_hu, grid)]
    lung = np.isin(labels, [label for label in like_lung if _is_lung_by_size(labels == label, grid)])
    if lung.any():
        near = grid.dilate(lung, _NEAR_LUNG_MM)
        lung |= np.isin(labels, [label for label in like_lung if near[labels == label].any()])
    return lung


def _is_parenchyma(part: Mask, core: Mask, mean_hu: Image, grid: Grid) -> bool:
    inner = part & core
    values = mean_hu[inner if inner.sum() >= 5 else part]
    share = _GAS_SHARE_LARGE if part.sum() * grid.voxel_ml >= _LARGE_ML else _GAS_SHARE
    low, high = _PARENCHYMA_HU
    return bool((values < _GAS_HU).mean() < share and low <= np.median(values) <= high)


def _is_lung_by_size(part: Mask, grid: Grid) -> bool:
    volume_ml = part.sum() * grid.voxel_ml
    cut = part[0].any() or part[-1].any()
    return bool(volume_ml >= (_CUT_LUNG_ML if cut else _WHOLE_LUNG_ML))


def _sides(lung: Mask, body: Mask, left_mm: Image, grid: Grid) -> tuple[Mask, Mask]:
    """Part the lung mask at the patient's midline where components are separate, else where they touch."""
    empty = np.zeros_like(lung)
    if not lung.any():
        return empty, empty.copy()
    extent = lung.any((1, 2))
    midline_mm = float(np.median(left_mm[extent][body[extent]]))
    labels, order = components(lung)
    left, right = empty, empty.copy()
    for label in order:
        part = labels == label
        is_left, is_right = _separate(part, left_mm - midline_mm, grid)
        left |= is_left
        right |= is_right
    return left, right


def _separate(part: Mask, left_mm: Image, grid: Grid) -> tuple[Mask, Mask]:
    """Left and right share of one component.

    Where both lungs touch, the mask is eroded until it falls into two large parts on either side, and
    each voxel goes to the part that is nearer inside the mask (van Rikxoort et al. 2009, section II-B).
    """
    lateral = left_mm[part]
    on_left = float((lateral > 0).mean())
    if on_left < _TWO_LUNGS_SHARE or on_left > 1 - _TWO_LUNGS_SHARE:
        return _one_side(part, left=on_left > 0.5)
    for radius_mm in _SEPARATING_RADII_MM:
        labels, order = components(grid.erode(part, radius_mm), _TWO_LUNGS_SHARE / 2 * part.sum())
        means = [float(left_mm[labels == label].mean()) for label in order]
        if any(mean > 0 for mean in means) and any(mean < 0 for mean in means):
            left = np.isin(labels, [label for label, mean in zip(order, means, strict=True) if mean > 0])
            right = np.isin(labels, [label for label, mean in zip(order, means, strict=True) if mean < 0])
            return _nearest_inside(part, left, right)
    if part.any() and abs(float(lateral.mean())) > 25:
        return _one_side(part, left=on_left > 0.5)
    return part & (left_mm > 0), part & (left_mm <= 0)


def _one_side(part: Mask, *, left: bool) -> tuple[Mask, Mask]:
    nothing = np.zeros_like(part)
    return (part, nothing) if left else (nothing, part)


def _nearest_inside(part: Mask, left: Mask, right: Mask) -> tuple[Mask, Mask]:
    """Grow both seeds inside the mask at the same pace until it is shared out."""
    left, right = left.copy(), right.copy()
    while True:
        free = part & ~left & ~right
        more_left = ndimage.binary_dilation(left) & free
        more_right = ndimage.binary_dilation(right) & free & ~more_left
        if not more_left.any() and not more_right.any():
            return left, right
        left |= more_left
        right |= more_right


def _closed(left: Mask, right: Mask, airway: Mask, body: Mask, grid: Grid) -> tuple[Mask, Mask]:
    """Take in vessels and small nodules by closing each lung, without taking from the other or the airway."""
    allowed = body & ~grid.dilate(airway, _AIRWAY_WALL_MM)
    whole_left = _fill(left, grid) & allowed & ~right
    whole_right = _fill(right, grid) & allowed & ~whole_left
    return whole_left | left, whole_right | right


def _fill(lung: Mask, grid: Grid) -> Mask:
    if not lung.any():
        return lung
    closed = grid.close(lung, _CLOSING_MM)
    return np.stack([np.asarray(ndimage.binary_fill_holes(plane), np.bool_) for plane in closed])
