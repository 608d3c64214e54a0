"""Left and right lung on a coarse CT grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ai.inference.coarse import IN_PLANE, Grid, Mask, components, fill_slices
from ai.inference.ct_airway import find_airway

Image = npt.NDArray[np.float32]

_SMALLEST_ML = 1.0
_WHOLE_LUNG_ML = 100.0  # a lung that lies wholly inside the scan is not smaller
_CUT_LUNG_ML = 3.0  # one that the end of the scan cuts may be
_NEAR_LUNG_MM = 12.0
_OESOPHAGUS_MM = 40.0  # small pockets of air nearer to the midline are oesophagus or bronchus
_GAS_HU = -950.0  # below: free gas; lung holds blood and tissue
_GAS_SHARE = 0.5
_GAS_SHARE_LARGE = 0.85  # emphysema: much of a lung may be below
_LARGE_ML = 600.0
_PARENCHYMA_HU = (-990.0, -600.0)
_AIRWAY_WALL_MM = 2.5
_TWO_LUNGS_SHARE = 0.15
_SEPARATING_RADII_MM = (2.5, 5.0, 7.5, 10.0, 12.5, 15.0)
_ONE_LUNG_OFF_MIDLINE_MM = 25.0
_CLOSING_MM = 5.0
_LARGEST_HOLE_MM2 = 300.0


@dataclass(frozen=True)
class Lungs:
    """Coarse masks; ``other_air`` is airway and gas in the body; ``threshold_hu`` parts lung from tissue."""

    left: Mask
    right: Mask
    other_air: Mask
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
    wall = grid.dilate(airway, _AIRWAY_WALL_MM)
    air = body & (mean_hu < threshold) & ~wall
    lateral_mm = left_mm - _midline_mm(body, left_mm)
    lung = _parenchyma(air, mean_hu, lateral_mm, grid)
    left, right = _sides(lung, lateral_mm, grid)
    left, right = _closed(left, right, body & ~wall, grid)
    other = wall | (body & (mean_hu < threshold) & ~left & ~right)
    return Lungs(left, right, other, threshold)


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


def _midline_mm(body: Mask, left_mm: Image) -> float:
    return float(np.median(left_mm[body])) if body.any() else 0.0


def _parenchyma(air: Mask, mean_hu: Image, lateral_mm: Image, grid: Grid) -> Mask:
    """The components of ``air`` that are lung, and small ones beside them but off the oesophagus."""
    labels, order = components(air, _SMALLEST_ML / grid.voxel_ml)
    core = grid.erode(air, min(grid.spacing_mm))
    like_lung = [label for label in order if _is_parenchyma(labels == label, core, mean_hu, grid)]
    lung = np.isin(labels, [label for label in like_lung if _is_lung_by_size(labels == label, grid)])
    if lung.any():
        near = grid.dilate(lung, _NEAR_LUNG_MM) & (np.abs(lateral_mm) > _OESOPHAGUS_MM)
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


def _sides(lung: Mask, lateral_mm: Image, grid: Grid) -> tuple[Mask, Mask]:
    """Part the lung mask at the patient's midline where components are separate, else where they touch."""
    left, right = np.zeros_like(lung), np.zeros_like(lung)
    labels, order = components(lung)
    for label in order:
        is_left, is_right = _separate(labels == label, lateral_mm, grid)
        left |= is_left
        right |= is_right
    return left, right


def _separate(part: Mask, lateral_mm: Image, grid: Grid) -> tuple[Mask, Mask]:
    """Left and right share of one component.

    Where both lungs touch, the mask is eroded until it falls into two large parts on either side, and
    each voxel goes to the part that is nearer inside the mask (van Rikxoort et al. 2009, section II-B).
    """
    on_left = float((lateral_mm[part] > 0).mean())
    if on_left < _TWO_LUNGS_SHARE or on_left > 1 - _TWO_LUNGS_SHARE:
        return _one_side(part, left=on_left > 0.5)
    for radius_mm in _SEPARATING_RADII_MM:
        labels, order = components(grid.erode(part, radius_mm), _TWO_LUNGS_SHARE / 2 * part.sum())
        means = {label: float(lateral_mm[labels == label].mean()) for label in order}
        left = np.isin(labels, [label for label in order if means[label] > 0])
        right = np.isin(labels, [label for label in order if means[label] < 0])
        if left.any() and right.any():
            return _nearest_inside(part, left, right)
    if abs(float(lateral_mm[part].mean())) > _ONE_LUNG_OFF_MIDLINE_MM:
        return _one_side(part, left=on_left > 0.5)
    return part & (lateral_mm > 0), part & (lateral_mm <= 0)


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


def _closed(left: Mask, right: Mask, allowed: Mask, grid: Grid) -> tuple[Mask, Mask]:
    """Take in vessels and small nodules by closing each lung, without taking from the other or the airway."""
    whole_left = _fill(left, grid) & allowed & ~right
    whole_right = _fill(right, grid) & allowed & ~whole_left
    return whole_left | left, whole_right | right


def _fill(lung: Mask, grid: Grid) -> Mask:
    """Close narrow gaps and fill small holes; a large hole is the dome of the diaphragm or a mass."""
    if not lung.any():
        return lung
    closed = grid.close(lung, _CLOSING_MM)
    pixel_mm2 = grid.spacing_mm[1] * grid.spacing_mm[2]
    return closed | _small(fill_slices(closed) & ~closed, pixel_mm2)


def _small(holes: Mask, pixel_mm2: float) -> Mask:
    """The axial holes of at most the area of a large vessel or small nodule."""
    labels, _ = ndimage.label(holes, structure=IN_PLANE)
    sizes = np.bincount(labels.reshape(-1)) * pixel_mm2
    sizes[0] = np.inf
    return np.asarray((sizes <= _LARGEST_HOLE_MM2)[labels], np.bool_)
