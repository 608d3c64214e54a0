"""The body on a coarse CT grid: tissue, without table and blanket, air inside included."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ai.inference.coarse import Grid, Mask, components, fill_slices, touching

_THIN_MM = 4.0  # half the thickness of table tops, rails and blankets that the opening removes
_PART_ML = 30.0  # arms and legs are separate parts when the field of view cuts them off
_PART_HALF_THICKNESS_MM = 10.0
_PADDING_HU = -1100.0  # outside the circle of reconstruction
_ROOM_AIR_HU = -960.0
_ROOM_AIR_SHARE = 0.01


def find_body(mean_hu: npt.NDArray[np.float32], grid: Grid, threshold_hu: float) -> Mask:
    """The body with everything inside it, on the coarse grid.

    Tissue is what lies above the threshold; thin things are opened away, parts that are large and thick
    stay (trunk, arms, legs), their skin is restored, and holes are filled slice by slice, as in
    Hu, Hoffman and Reinhardt 2001 (section II-A). A field of view without room air at its sides, as of a
    heart scan, lies inside the body as a whole.
    """
    if _lies_inside(mean_hu):
        return mean_hu > _PADDING_HU
    tissue = mean_hu >= threshold_hu
    core = _thick_parts(grid.open(tissue, _THIN_MM), grid)
    skin = tissue & grid.dilate(core, _THIN_MM / 2)
    return fill_slices(core | skin)


def _lies_inside(mean_hu: npt.NDArray[np.float32]) -> bool:
    """Whether next to no room air is on the four sides of the field of view."""
    faces = (mean_hu[:, 0], mean_hu[:, -1], mean_hu[:, :, 0], mean_hu[:, :, -1])
    sides = np.concatenate([face.ravel() for face in faces])
    inside = sides[sides > _PADDING_HU]
    return bool(inside.size) and bool((inside < _ROOM_AIR_HU).mean() < _ROOM_AIR_SHARE)


def _thick_parts(mask: Mask, grid: Grid) -> Mask:
    labels, kept = components(mask, _PART_ML / grid.voxel_ml)
    if not kept:
        return np.zeros_like(mask)
    filled = fill_slices(np.isin(labels, kept))
    depth = _half_thickness_mm(filled, grid)
    whole, _ = components(filled)
    return touching(whole, depth >= _PART_HALF_THICKNESS_MM) & filled


def _half_thickness_mm(mask: Mask, grid: Grid) -> npt.NDArray[np.float32]:
    """In-plane distance to the edge; beyond the scan counts as inside."""
    _, y, x = grid.spacing_mm
    planes = []
    for plane in mask:
        padded = np.pad(plane, 1, mode="edge")
        planes.append(ndimage.distance_transform_edt(padded, sampling=(y, x))[1:-1, 1:-1])
    return np.asarray(planes, np.float32)
