"""Where do the slices lie: one regular, upright stack, or not?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ai.geometry.belonging import ORIENTATION_TOLERANCE, each_has_its_own_frame
from ai.geometry.model import (
    NotAVolume,
    Note,
    NoteCode,
    SliceHeader,
    VerdictCode,
    VolumeGeometry,
    as_array,
    listed,
    refuse,
)

FloatArray = npt.NDArray[np.float64]

SPACING_TOLERANCE = 0.01  # of the slice spacing, as highdicom's
GRID_TOLERANCE = 0.1  # of the slice spacing: how far a slice may be from its place on the regular grid
TILT_TOLERANCE = 1e-3  # sideways creep per millimetre along the normal, about 0.06°
IN_PLANE_TOLERANCE = 0.1  # of a pixel
MULTIPLE_TOLERANCE = 0.05  # of the spacing: how near a gap must be to a whole number of slices
SAME_POSITION_MM = 1e-3


@dataclass(frozen=True)
class _Stack:
    """Slices sorted along the normal: positions (n, 3) mm, and heights (n,) along the normal."""

    slices: tuple[SliceHeader, ...]
    row: FloatArray
    column: FloatArray
    normal: FloatArray
    positions: FloatArray
    heights: FloatArray

    @property
    def gaps(self) -> FloatArray:
        return np.asarray(np.diff(self.heights), dtype=np.float64)

    def place(self, index: int) -> str:
        """Where a slice lies, for people: the patient coordinate if the stack runs along an axis."""
        axis = int(np.argmax(np.abs(self.normal)))
        if abs(self.normal[axis]) > 1.0 - ORIENTATION_TOLERANCE:
            return f"{'xyz'[axis]} = {_mm(float(self.positions[index, axis]))}"
        x, y, z = (_mm(float(v), unit=False) for v in self.positions[index])
        return f"(x, y, z) = ({x}, {y}, {z}) mm"


def place(slices: Sequence[SliceHeader], dropped: int) -> VolumeGeometry | NotAVolume:
    """Where slices that belong together lie; ``dropped`` localizers are noted."""
    stack = _stack(slices)
    for rule in (_distinct_positions, _upright, _evenly_spaced):
        if refusal := rule(stack):
            return refusal
    return _geometry(stack, dropped)


def _stack(slices: Sequence[SliceHeader]) -> _Stack:
    """Sort along the normal. Same heights are ordered by UID, so any input order gives one answer."""
    mean = as_array([s.orientation for s in slices]).mean(axis=0).reshape(2, 3)
    row, column = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    normal = np.cross(row, column)
    normal /= np.linalg.norm(normal)
    positions = as_array([s.position_mm for s in slices])
    heights = positions @ normal
    order = sorted(range(len(slices)), key=lambda i: (heights[i], slices[i].sop_instance_uid))
    ordered = tuple(slices[i] for i in order)
    return _Stack(ordered, row, column, normal, positions[order], heights[order])


def _distinct_positions(stack: _Stack) -> NotAVolume | None:
    apart = stack.gaps[stack.gaps > SAME_POSITION_MM]
    tolerance_mm = max(SAME_POSITION_MM, SPACING_TOLERANCE * float(np.median(apart)) if apart.size else 0.0)
    same = np.flatnonzero(stack.gaps <= tolerance_mm)
    if not same.size:
        return None
    count = len(stack.slices)
    places = count - same.size
    where = stack.place(int(same[0]))
    reason = f"{count} images share {places} positions, the first at {where}"
    if places == 1:
        reason = f"All {count} images lie at one position, {where}"
    phases = count / places
    if places > 1 and phases.is_integer():
        reason += f": {int(phases)} at each, as if several phases, echoes or directions were in one series"
    return refuse(VerdictCode.DUPLICATE_POSITION, f"{reason}.", images=count, positions=int(places))


def _upright(stack: _Stack) -> NotAVolume | None:
    """Refuse a stack whose positions creep sideways as they rise along the normal."""
    sideways = stack.positions - stack.positions[0]
    sideways = sideways - np.outer(stack.heights - stack.heights[0], stack.normal)
    shear = sideways[-1] / (stack.heights[-1] - stack.heights[0])
    creep = float(np.linalg.norm(shear))
    stray_mm = np.linalg.norm(sideways - np.outer(stack.heights - stack.heights[0], shear), axis=1)
    pixel_mm = float(np.min(as_array([stack.slices[0].pixel_spacing_mm])))
    worst = int(np.argmax(stray_mm))
    if stray_mm[worst] > IN_PLANE_TOLERANCE * pixel_mm:
        reason = (
            f"The slices are not in line: the one at {stack.place(worst)} is shifted sideways by "
            f"{stray_mm[worst]:.2f} mm, pixels are {pixel_mm:.2f} mm{_uneven(stack)}."
        )
        return refuse(VerdictCode.IRREGULAR_SPACING, reason, sideways_mm=round(float(stray_mm[worst]), 4))
    if creep <= TILT_TOLERANCE:
        return None
    degrees = float(np.degrees(np.arctan(creep)))
    reason = (
        f"The slices are tilted by {degrees:.1f}° (gantry tilt): each millimetre along the normal moves "
        f"them {creep:.3f} mm sideways, {np.linalg.norm(sideways[-1]):.1f} mm in all{_uneven(stack)}."
    )
    gaps = {"smallest_gap_mm": float(stack.gaps.min()), "largest_gap_mm": float(stack.gaps.max())}
    numbers = {"degrees": degrees, "shear": creep, **gaps}
    return refuse(VerdictCode.GANTRY_TILT, reason, **{k: round(v, 4) for k, v in numbers.items()})


def _uneven(stack: _Stack) -> str:
    """A clause about gaps, for refusals that have another name."""
    if _is_even(stack.gaps):
        return ""
    return f"; the gaps vary too, from {stack.gaps.min():.2f} mm to {stack.gaps.max():.2f} mm"


def _is_even(gaps: FloatArray) -> bool:
    mean = gaps.mean()
    return bool(np.all(np.abs(gaps - mean) <= SPACING_TOLERANCE * mean))


def _evenly_spaced(stack: _Stack) -> NotAVolume | None:
    if _is_even(stack.gaps):
        return _on_grid(stack)
    near = stack.gaps[stack.gaps < 1.5 * stack.gaps.min()]
    spacing_mm = float(np.median(near))
    multiples = np.rint(stack.gaps / spacing_mm).astype(np.int64)
    off = np.abs(stack.gaps - multiples * spacing_mm) > MULTIPLE_TOLERANCE * spacing_mm
    if not off.any() and multiples.max() > 1 and 2 * np.count_nonzero(multiples == 1) >= multiples.size:
        return _missing(stack, multiples, spacing_mm)
    worst = int(np.argmax(np.abs(stack.gaps - np.median(stack.gaps))))
    reason = (
        f"The gaps between slices vary from {stack.gaps.min():.3f} mm to {stack.gaps.max():.3f} mm; at most "
        f"{SPACING_TOLERANCE:.0%} of the mean of {stack.gaps.mean():.3f} mm is accepted. The gap after "
        f"{stack.place(worst)} is {stack.gaps[worst]:.3f} mm."
    )
    numbers = {"smallest_gap_mm": stack.gaps.min(), "largest_gap_mm": stack.gaps.max()}
    return refuse(
        VerdictCode.IRREGULAR_SPACING, reason, **{k: round(float(v), 4) for k, v in numbers.items()}
    )


def _on_grid(stack: _Stack) -> NotAVolume | None:
    """Refuse gaps that are each near enough to the mean, but add up to slices that are out of place."""
    spacing_mm = float(stack.gaps.mean())
    grid = stack.heights[0] + spacing_mm * np.arange(len(stack.heights))
    off_mm = np.abs(stack.heights - grid)
    worst = int(np.argmax(off_mm))
    if off_mm[worst] <= GRID_TOLERANCE * spacing_mm:
        return None
    reason = (
        f"The gaps between slices drift from {stack.gaps.min():.3f} mm to {stack.gaps.max():.3f} mm: the "
        f"slice at {stack.place(worst)} is {off_mm[worst]:.2f} mm from its place at a mean spacing of "
        f"{spacing_mm:.3f} mm."
    )
    return refuse(VerdictCode.IRREGULAR_SPACING, reason, drift_mm=round(float(off_mm[worst]), 4))


def _missing(stack: _Stack, multiples: npt.NDArray[np.int64], spacing_mm: float) -> NotAVolume:
    """Name each hole: slices are counted from 1 along the normal, the missing ones included."""
    expected = int(multiples.sum()) + 1
    absent = expected - len(stack.slices)
    holes = []
    for i in np.flatnonzero(multiples > 1):
        first, last = int(multiples[:i].sum()) + 2, int(multiples[: i + 1].sum())
        which = (
            f"Slice {first} of {expected} is"
            if first == last
            else f"Slices {first} to {last} of {expected} are"
        )
        times = "twice" if multiples[i] == 2 else f"{multiples[i]} times"
        holes.append(
            f"{which} missing: the gap after {stack.place(int(i))} is {_mm(float(stack.gaps[i]))}, "
            f"{times} the spacing of {_mm(spacing_mm)}"
        )
    return refuse(
        VerdictCode.MISSING_SLICE,
        f"{listed(holes)}.",
        missing=absent,
        expected=expected,
        spacing_mm=round(spacing_mm, 4),
        largest_gap_mm=round(float(stack.gaps.max()), 4),
    )


def _geometry(stack: _Stack, dropped: int) -> VolumeGeometry:
    first = stack.slices[0]
    count = len(stack.slices)
    between_rows, between_columns = as_array([s.pixel_spacing_mm for s in stack.slices]).mean(axis=0)
    matrix = np.eye(4)
    matrix[:3, 0] = (stack.positions[-1] - stack.positions[0]) / (count - 1)
    matrix[:3, 1] = stack.column * between_rows  # one row further: along a column
    matrix[:3, 2] = stack.row * between_columns
    matrix[:3, 3] = stack.positions[0]
    return VolumeGeometry(
        index_to_lps=matrix,
        shape=(count, first.rows or 0, first.columns or 0),
        sop_instance_uids=tuple(s.sop_instance_uid for s in stack.slices),
        frame_of_reference_uid=None if each_has_its_own_frame(stack.slices) else first.frame_of_reference_uid,
        slice_thickness_mm=first.slice_thickness_mm,
        notes=_notes(stack, dropped),
    )


def _mm(value: float, *, unit: bool = True) -> str:
    """At most two decimals, at least one: 5.0 mm, 2.57 mm."""
    text = f"{value:.2f}".removesuffix("0")
    return f"{text} mm" if unit else text


def _notes(stack: _Stack, dropped: int) -> tuple[Note, ...]:
    notes = []
    count = len(stack.slices)
    if dropped:
        text = f"{dropped} of {dropped + count} images are localizers and were left out."
        notes.append(Note(NoteCode.LOCALIZERS_DROPPED, text))
    lack = ""
    if stack.slices[0].frame_of_reference_uid is None:
        lack = "No image has a Frame of Reference UID"
    elif each_has_its_own_frame(stack.slices):
        lack = f"Each of the {count} images has its own Frame of Reference UID, as some anonymisers write"
    if lack:
        text = f"{lack}: results use one derived from the Series Instance UID."
        notes.append(Note(NoteCode.FRAME_OF_REFERENCE_DERIVED, text))
    return tuple(notes)
