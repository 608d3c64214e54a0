"""Vertebral bodies that a network was trained to find eroded, so that no two of them touch.

After ``postprocess_vertebrae_pp``, ``dilate_vertebrae_labels`` and ``refine_vertebrae_pp_with_body_mask`` of
TotalSegmentator 2.18 (``postprocessing.py``, Apache-2.0). Where two labels touch, one has leaked into the
other's body: then every connected body gets a new label, counted from the lowest one upwards, or from the
top where the first vertebra is seen and the last lumbar one is not.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ai.model.nnunet import VertebralBodies
from ai.volume import LabelArray, Volume

Spacing = tuple[float, float, float]


def finish_bodies(labels: LabelArray, image: Volume, rule: VertebralBodies) -> LabelArray:
    """Count anew where bodies touch, and undo the erosion; ``(slices, rows, columns)`` as the image."""
    if labels_touch(labels):
        labels = _recounted(labels, image, rule)
    return grow(labels, rule.grow_mm, image.geometry.spacing_mm)


def clip_bodies(
    labels: LabelArray, bounds: npt.NDArray[np.bool_], mm: float, spacing_mm: Spacing
) -> LabelArray:
    """Bodies grown once more, within what another network says is vertebral body."""
    return np.where(bounds, grow(labels, mm, spacing_mm), np.uint8(0))


def labels_touch(labels: LabelArray) -> bool:
    """Whether two different labels are neighbours along an axis."""
    for axis in range(3):
        a, b = np.moveaxis(labels, axis, 0)[1:], np.moveaxis(labels, axis, 0)[:-1]
        if np.any((a > 0) & (b > 0) & (a != b)):
            return True
    return False


def grow(labels: LabelArray, mm: float, spacing_mm: Spacing) -> LabelArray:
    """Each label grown by an ellipsoid of that radius, into background only, lower labels first."""
    if mm <= 0:
        return labels
    ball = _ellipsoid(mm, spacing_mm)
    reach = [int(np.ceil(mm / step)) for step in spacing_mm]
    grown = labels.copy()
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        around = tuple(
            slice(max(side.start - more, 0), side.stop + more) for side, more in zip(box, reach, strict=True)
        )
        reached = ndimage.binary_dilation(labels[around] == label, structure=ball)
        part = grown[around]
        part[(part == 0) & reached] = label
    return grown


def _ellipsoid(mm: float, spacing_mm: Spacing) -> npt.NDArray[np.bool_]:
    radii = [mm / step for step in spacing_mm]
    axes = np.ogrid[tuple(slice(-radius, radius + 1) for radius in radii)]
    share = sum((axis * axis) / (radius * radius) for axis, radius in zip(axes, radii, strict=True))
    return np.asarray(share <= 1)


def _recounted(labels: LabelArray, image: Volume, rule: VertebralBodies) -> LabelArray:
    bodies, count = ndimage.label(labels > 0)
    voxel_mm3 = float(np.prod(image.geometry.spacing_mm))
    sizes = np.bincount(bodies.ravel(), minlength=count + 1)
    large = [i for i in range(1, count + 1) if sizes[i] * voxel_mm3 >= rule.smallest_mm3]
    counted = np.zeros_like(labels)
    if not large:
        return counted
    present = set(np.unique(labels[np.isin(bodies, large)]).tolist()) - {0}
    from_top = rule.first in present and rule.lowest_lumbar not in present
    centres = np.array(ndimage.center_of_mass(bodies > 0, bodies, large)).reshape(-1, 3)
    heights = centres @ image.geometry.index_to_lps[2, :3]
    upwards = [large[i] for i in np.argsort(heights, kind="stable")]
    order = upwards[::-1] if from_top else upwards
    numbers = (
        range(rule.first, rule.lowest_lumbar + 1) if from_top else range(max(present), rule.first - 1, -1)
    )
    for body, number in zip(order, numbers, strict=False):
        counted[bodies == body] = number
    return counted
