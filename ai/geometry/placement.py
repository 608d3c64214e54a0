"""Where do slices that belong together lie: regular, tilted, uneven, or no volume at all?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ai.geometry.alone import place_alone, place_projection
from ai.geometry.model import (
    FloatArray,
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
from ai.geometry.planes import thinnest_mm
from ai.geometry.spacing import MULTIPLE_TOLERANCE, is_even, multiples, same_position_mm
from ai.geometry.wording import frame_of_reference_note, has_own_frames, mm

TILT_TOLERANCE = 1e-3  # sideways creep per millimetre along the normal, about 0.06°
IN_PLANE_TOLERANCE = 0.1  # of a pixel
_AXIS_ALIGNED = 1e-3  # of a cosine: a normal this near to a patient axis is named by it
_MOST_TILT_DEGREES = 45.0  # no gantry tilts more; beyond it slices are not what we take them for


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

    def place(self, index: int, above_mm: float = 0.0) -> str:
        """Where a slice, or a point above it along the stack, lies: for people."""
        axis = int(np.argmax(np.abs(self.normal)))
        along = (self.positions[-1] - self.positions[0]) / (self.heights[-1] - self.heights[0])
        x, y, z = self.positions[index] + above_mm * along
        if abs(self.normal[axis]) > 1.0 - _AXIS_ALIGNED:
            return f"{'xyz'[axis]} = {mm(float((x, y, z)[axis]))}"
        return f"(x, y, z) = ({', '.join(mm(float(v), unit=False) for v in (x, y, z))}) mm"


def place(slices: Sequence[SliceHeader]) -> VolumeGeometry | NotAVolume:
    """Where slices of one grid lie; a single one takes its thickness for the spacing."""
    if slices[0].is_projection:
        return place_projection(slices[0])
    if len(slices) == 1:
        return place_alone(slices[0])
    stack = _stack(slices)
    for rule in (_distinct_positions, _in_line, _complete):
        if refusal := rule(stack):
            return refusal
    return _geometry(stack)


def _stack(slices: Sequence[SliceHeader]) -> _Stack:
    """Sort along the normal. Same heights are ordered by UID, so any input order gives one answer."""
    mean = as_array([s.orientation for s in slices]).mean(axis=0).reshape(2, 3)
    row, column = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    normal = np.cross(row, column)
    normal /= np.linalg.norm(normal)
    positions = as_array([s.position_mm for s in slices])
    heights = positions @ normal
    order = sorted(range(len(slices)), key=lambda i: (heights[i], slices[i].ref))
    ordered = tuple(slices[i] for i in order)
    return _Stack(ordered, row, column, normal, positions[order], heights[order])


def _distinct_positions(stack: _Stack) -> NotAVolume | None:
    same = np.flatnonzero(stack.gaps <= same_position_mm(stack.heights, thinnest_mm(stack.slices)))
    if not same.size:
        return None
    count = len(stack.slices)
    places = count - same.size
    if places == 1:
        reason = f"All {count} images lie at one position, {_text(stack.positions[0])}"
    else:
        reason = f"{count} images share {places} positions, the first at {stack.place(int(same[0]))}"
    phases = count / places
    if places > 1 and phases.is_integer():
        reason += f": {int(phases)} at each, as if several phases, echoes or directions were in one series"
    reason += "; no attribute makes volumes of them"
    return refuse(VerdictCode.DUPLICATE_POSITION, f"{reason}.", images=count, positions=int(places))


def _text(point: FloatArray) -> str:
    return f"(x, y, z) = ({', '.join(mm(float(v), unit=False) for v in point)}) mm"


def _shear(stack: _Stack) -> tuple[FloatArray, FloatArray]:
    """Sideways creep per millimetre along the normal (3,), and what each slice strays from that line (n,)."""
    heights = stack.heights - stack.heights[0]
    sideways = stack.positions - stack.positions[0] - np.outer(heights, stack.normal)
    shear = sideways[-1] / heights[-1]
    return shear, np.linalg.norm(sideways - np.outer(heights, shear), axis=1)


def _in_line(stack: _Stack) -> NotAVolume | None:
    """Refuse slices that are shifted sideways otherwise than a tilted gantry shifts them."""
    shear, stray_mm = _shear(stack)
    pixel_mm = float(np.min(as_array([stack.slices[0].pixel_spacing_mm])))
    worst = int(np.argmax(stray_mm))
    if stray_mm[worst] > IN_PLANE_TOLERANCE * pixel_mm:
        reason = (
            f"The slices are not in line: the one at {stack.place(worst)} is shifted sideways by "
            f"{stray_mm[worst]:.2f} mm, pixels are {pixel_mm:.2f} mm."
        )
        return refuse(VerdictCode.IRREGULAR_SPACING, reason, sideways_mm=round(float(stray_mm[worst]), 4))
    degrees = float(np.degrees(np.arctan(np.linalg.norm(shear))))
    if degrees > _MOST_TILT_DEGREES:
        reason = (
            f"The slices are shifted sideways as if the gantry were tilted by {degrees:.1f}°; no gantry "
            f"tilts more than {_MOST_TILT_DEGREES:.0f}°, so positions or orientation are wrong."
        )
        return refuse(VerdictCode.GANTRY_TILT, reason, degrees=round(degrees, 4))
    return None


def _complete(stack: _Stack) -> NotAVolume | None:
    """Refuse a stack with holes: gaps that are whole multiples of the usual one."""
    if is_even(stack.gaps):
        return None
    thick = _thickness(stack)
    alike = np.abs(np.diff(thick)) <= MULTIPLE_TOLERANCE * thick[1:]
    found = multiples((stack.gaps / thick[1:])[alike])
    counts = np.ones(stack.gaps.size, np.int64)
    if found is not None:
        counts[alike] = found
    return _missing(stack, counts) if counts.max() > 1 else None


def _thickness(stack: _Stack) -> FloatArray:
    """Slice Thickness (n,), by which gaps are judged; all 1 where it is not known or changes too often.

    A head may have 4 mm slices below and 7 mm ones above: what is missing is told within each of the two.
    """
    thick = np.array([s.slice_thickness_mm or 0.0 for s in stack.slices])
    changes = np.count_nonzero(np.abs(np.diff(thick)) > MULTIPLE_TOLERANCE * thick[1:])
    if thick.min() <= 0.0 or 2 * changes >= stack.gaps.size:
        return np.ones(len(thick))
    return thick


def _missing(stack: _Stack, counts: npt.NDArray[np.int64]) -> NotAVolume:
    """Name each hole: slices are counted from 1 along the normal, the missing ones included."""
    expected = int(counts.sum()) + 1
    holes = []
    for i in np.flatnonzero(counts > 1):
        spacing_mm = float(stack.gaps[i] / counts[i])
        first, last = int(counts[:i].sum()) + 2, int(counts[: i + 1].sum())
        lowest = stack.place(int(i), spacing_mm)
        if first == last:
            which = f"Slice {first} of {expected} is missing at {lowest}"
        else:
            highest = stack.place(int(i), spacing_mm * (last - first + 1))
            which = f"Slices {first} to {last} of {expected} are missing from {lowest} to {highest}"
        times = "twice" if counts[i] == 2 else f"{counts[i]} times"
        holes.append(f"{which}: a gap of {mm(float(stack.gaps[i]))}, {times} the spacing of {mm(spacing_mm)}")
    return refuse(
        VerdictCode.MISSING_SLICE,
        f"{listed(holes)}.",
        missing=expected - len(stack.slices),
        expected=expected,
        spacing_mm=round(float((stack.gaps / counts).min()), 4),
        largest_gap_mm=round(float(stack.gaps.max()), 4),
    )


def _geometry(stack: _Stack) -> VolumeGeometry:
    first = stack.slices[0]
    notes = (*_tilt_note(stack), *_spacing_note(stack), *frame_of_reference_note(stack.slices))
    needs = tuple(VerdictCode(note.code) for note in notes if note.code in _NEEDS)
    between_rows, between_columns = as_array([s.pixel_spacing_mm for s in stack.slices]).mean(axis=0)
    matrix = np.eye(4)
    matrix[:3, 0] = (stack.positions[-1] - stack.positions[0]) / (len(stack.slices) - 1)
    matrix[:3, 1] = stack.column * between_rows  # one row further: along a column
    matrix[:3, 2] = stack.row * between_columns
    matrix[:3, 3] = stack.positions[0]
    return VolumeGeometry(
        index_to_lps=matrix,
        shape=(len(stack.slices), first.rows or 0, first.columns or 0),
        frames=tuple(s.ref for s in stack.slices),
        origins_mm=stack.positions,
        frame_of_reference_uid=None if has_own_frames(stack.slices) else first.frame_of_reference_uid,
        slice_thickness_mm=first.slice_thickness_mm,
        notes=notes,
        needs=needs,
    )


_NEEDS = (NoteCode.GANTRY_TILT, NoteCode.IRREGULAR_SPACING)


def _tilt_note(stack: _Stack) -> tuple[Note, ...]:
    shear, _ = _shear(stack)
    creep = float(np.linalg.norm(shear))
    if creep <= TILT_TOLERANCE:
        return ()
    text = (
        f"The slices are tilted by {np.degrees(np.arctan(creep)):.1f}° (gantry tilt): each millimetre along "
        f"the normal moves them {creep:.3f} mm sideways, {creep * np.ptp(stack.heights):.1f} mm in all."
    )
    return (Note(NoteCode.GANTRY_TILT, text),)


def _spacing_note(stack: _Stack) -> tuple[Note, ...]:
    gaps = stack.gaps
    if is_even(gaps):
        return ()
    worst = int(np.argmax(np.abs(gaps - np.median(gaps))))
    text = (
        f"The gaps between slices vary from {gaps.min():.3f} mm to {gaps.max():.3f} mm, on average "
        f"{gaps.mean():.3f} mm; the one after {stack.place(worst)} is {gaps[worst]:.3f} mm."
    )
    return (Note(NoteCode.IRREGULAR_SPACING, text),)
