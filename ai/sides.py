"""Sides of the patient: which way the axes of an image point, in letters.

LPS millimetres throughout. Letters are those of Patient Orientation (PS3.3 C.7.6.1.1.1): R and L, A and P,
F (feet) and H (head); codes of three axes use I and S for the last pair, as readers of volumes do (``LPS``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt

Affine = npt.NDArray[np.float64]

_SIDES = (("R", "L"), ("A", "P"), ("F", "H"))  # towards minus and plus of the LPS axes
_CODES = (("R", "L"), ("A", "P"), ("I", "S"))
_PLANES = ("sagittal", "coronal", "axial")  # named after the LPS axis that the slices run along
_OPPOSITE = {side: pair[1 - i] for pair in _SIDES for i, side in enumerate(pair)}
_OBLIQUE = 0.2  # a direction cosine of at least this much earns a letter
_STRAIGHT_DEGREES = 1.0
_RIGHT_TO_LEFT, _FRONT_TO_BACK, _HEAD_TO_FEET = (0, True), (1, True), (2, False)  # LPS axis, upwards along it
# of the plane across each LPS axis: how it runs to the right and down, and its slices one after the other
_HUNG = (
    (_FRONT_TO_BACK, _HEAD_TO_FEET, _RIGHT_TO_LEFT),
    (_RIGHT_TO_LEFT, _HEAD_TO_FEET, _FRONT_TO_BACK),
    (_RIGHT_TO_LEFT, _FRONT_TO_BACK, _HEAD_TO_FEET),
)


@dataclass(frozen=True)
class Edges:
    """Letters of the patient's sides at the edges of a slice; more than one letter when oblique."""

    left: str
    right: str
    top: str
    bottom: str


@dataclass(frozen=True)
class Hanging:
    """How the planes across one array axis hang on a wall: as a radiologist expects them.

    The patient's right is on the left, the head up, in sagittal planes the front on the left. Slices follow
    each other from head to feet, from front to back, from right to left.

    Attributes
    ----------
    name
        What the plane is in the patient: ``axial``, or ``axial, 20° oblique``.
    normal, down, across
        Array axes: the one that the plane lies across, and those that run down and to the right.
    turned
        Whether slices, rows and columns ``(normal, down, across)`` must be taken backwards.
    edges
        Sides at the edges of the hung plane.
    """

    name: str
    normal: int
    down: int
    across: int
    turned: tuple[bool, bool, bool]
    edges: Edges

    def hang(self, plane: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """A plane of the array, its two axes in the array's order, as it hangs; a view."""
        upright = plane.T if self.down > self.across else plane
        steps = [slice(None, None, -1 if turned else 1) for turned in self.turned[1:]]
        return upright[steps[0], steps[1]]


def hangings(index_to_lps: Affine) -> Mapping[int, Hanging]:
    """How planes across each array axis hang, ``index_to_lps`` of an upright (slice, row, column, 1).

    Oblique planes hang, and are named, after what they are nearest to.
    """
    axes = nearest_axes(index_to_lps)
    array_axis = {lps: (axis, upwards) for axis, (lps, upwards) in enumerate(axes)}
    return {normal: _hanging(index_to_lps, lps, array_axis) for normal, (lps, _) in enumerate(axes)}


def _hanging(index_to_lps: Affine, lps_normal: int, array_axis: Mapping[int, tuple[int, bool]]) -> Hanging:
    right, down, order = _HUNG[lps_normal]
    (across_axis, across_turned), (down_axis, down_turned), (normal, reverse) = (
        (array_axis[lps][0], array_axis[lps][1] != upwards) for lps, upwards in (right, down, order)
    )
    return Hanging(
        name=_named(index_to_lps, normal, lps_normal),
        normal=normal,
        down=down_axis,
        across=across_axis,
        turned=(reverse, down_turned, across_turned),
        edges=edges(
            index_to_lps[:3, across_axis] * (-1.0 if across_turned else 1.0),
            index_to_lps[:3, down_axis] * (-1.0 if down_turned else 1.0),
        ),
    )


def _named(index_to_lps: Affine, normal: int, lps_axis: int) -> str:
    degrees = float(np.degrees(np.arccos(min(1.0, abs(_cosines(index_to_lps)[lps_axis, normal])))))
    name = _PLANES[lps_axis]
    return name if degrees < _STRAIGHT_DEGREES else f"{name}, {degrees:.0f}° oblique"


def edges(along_row: npt.NDArray[np.float64], along_column: npt.NDArray[np.float64]) -> Edges:
    """Which side of the patient each edge of a picture shows.

    Parameters
    ----------
    along_row
        LPS direction in which the picture runs to the right, ``(3,)``, of any length.
    along_column
        LPS direction in which it runs down.
    """
    return Edges(
        left=letters(-along_row),
        right=letters(along_row),
        top=letters(-along_column),
        bottom=letters(along_column),
    )


def detector_edges(patient_orientation: tuple[str, ...]) -> Edges | None:
    """Sides at the edges of a projection image, from Patient Orientation: None where it says nothing.

    Its two values are the letters of the right and of the lower edge (PS3.3 C.7.6.1.1.1).
    """
    if len(patient_orientation) != 2 or not all(
        set(text) <= _OPPOSITE.keys() for text in patient_orientation
    ):
        return None
    right, bottom = patient_orientation
    left, top = ("".join(_OPPOSITE[letter] for letter in text) for text in patient_orientation)
    return Edges(left=left, right=right, top=top, bottom=bottom)


def side_letters(index_to_lps: Affine) -> Edges:
    """Sides at the edges of the slices of a volume, ``index_to_lps`` of (slice, row, column, 1)."""
    return edges(index_to_lps[:3, 2], index_to_lps[:3, 1])


def letters(direction: npt.NDArray[np.float64]) -> str:
    """Letters of a direction in LPS, the strongest first: ``L``, or ``LAH`` when oblique."""
    cosines = direction / np.linalg.norm(direction)
    order = np.argsort(-np.abs(cosines), kind="stable")
    return "".join(_SIDES[axis][int(cosines[axis] > 0)] for axis in order if abs(cosines[axis]) >= _OBLIQUE)


def nearest_axes(index_to_lps: Affine) -> tuple[tuple[int, bool], ...]:
    """For each array axis the LPS axis (0, 1, 2) that it follows most nearly, and whether upwards.

    Each LPS axis is given to one array axis, also where two of them lie at 45°.
    """
    cosines = _cosines(index_to_lps)
    best = max(permutations(range(3)), key=lambda lps: sum(abs(cosines[lps[i], i]) for i in range(3)))
    return tuple((lps, bool(cosines[lps, i] > 0)) for i, lps in enumerate(best))


def axis_code(index_to_lps: Affine) -> str:
    """Where (slice, row, column) indices increase to, one letter each: ``SPL`` for the usual axial CT."""
    return "".join(_CODES[lps][int(upwards)] for lps, upwards in nearest_axes(index_to_lps))


def plane_name(index_to_lps: Affine) -> str:
    """``axial``, ``coronal`` or ``sagittal``, and how far from it: ``axial, 20° oblique``.

    The angle is the largest between an axis of the array and the LPS axis that it follows.
    """
    axes, cosines = nearest_axes(index_to_lps), _cosines(index_to_lps)
    straightest = min(abs(cosines[lps, i]) for i, (lps, _) in enumerate(axes))
    degrees = float(np.degrees(np.arccos(min(1.0, straightest))))
    name = _PLANES[axes[0][0]]
    return name if degrees < _STRAIGHT_DEGREES else f"{name}, {degrees:.0f}° oblique"


def _cosines(index_to_lps: Affine) -> npt.NDArray[np.float64]:
    """Unit LPS directions of the array axes as columns, ``(3, 3)``."""
    steps = index_to_lps[:3, :3]
    return np.asarray(steps / np.linalg.norm(steps, axis=0), np.float64)
