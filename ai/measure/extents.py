"""How far a structure reaches: its longest axial diameter, and its extents along the patient's axes.

A voxel is a box, not a point, so both reach to the outer sides of the outermost voxels:

- The longest axial diameter is the largest distance between two points of the outline in one axial plane.
  The outline runs through the middles of the sides of the pixels, as marching squares draw it at one half
  (Lorensen and Cline 1987), so this is the maximum Feret diameter of the mask in that plane. A single pixel
  is as long as its longer side. It is exact: no pair of points lies farther apart.
- The extents are those of the box around the voxels whose faces lie across the patient's axes.

Axial are the planes of the voxel grid that lie across its axis nearest to superior-inferior: for an axial
series its slices, for a coronal one its rows. Every slice is looked at once, and of a line of voxels only
where each structure begins and ends is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ai.geometry import VolumeGeometry
from ai.sides import nearest_axes

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]

_SUPERIOR_INFERIOR = 2
_DIRECTIONS = 16  # in which the width of every plane is taken before any hull is made
_ANGLES = np.arange(_DIRECTIONS) * (np.pi / _DIRECTIONS)
_UNIT = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)
_LOSS = float(np.cos(np.pi / (2 * _DIRECTIONS)))  # what the widest of them misses of a diameter at most
_ROUNDING = 1e-12
_SURE = _LOSS * (1.0 - 1e-9)  # what of the upper bound is a lower one: the width itself


@dataclass(frozen=True)
class Reach:
    """How far a structure reaches, in millimetres.

    Attributes
    ----------
    longest_axial_diameter_mm
        See the module.
    extents_mm
        ``(right-left, anterior-posterior, superior-inferior)``.
    """

    longest_axial_diameter_mm: float
    extents_mm: tuple[float, float, float]


class Outlines:
    """Where each structure begins and ends on every line of voxels, gathered slice by slice.

    Lines run along the rows of a slice, or along its columns where rows run from head to feet, so that a
    line always lies in one axial plane.
    """

    def __init__(self, geometry: VolumeGeometry) -> None:
        axes = nearest_axes(geometry.index_to_lps)
        self._axial_axis = next(i for i, (lps, _) in enumerate(axes) if lps == _SUPERIOR_INFERIOR)
        self._geometry = geometry
        self._half_slices = _half_slices(geometry)
        self._found: list[tuple[IntArray, ...]] = []

    def add(self, index: int, numbers: npt.NDArray[np.uint8]) -> None:
        """Take in one slice of the label map, ``(rows, columns)``."""
        lines = np.ascontiguousarray(numbers.T) if self._axial_axis == 2 else numbers
        number, line, first, last = _line_ends(lines)
        if number.size:
            self._found.append((number, np.full_like(number, index), line, first, last))

    def reaches(self, groups: Sequence[Sequence[int]]) -> list[Reach | None]:
        """How far each structure reaches, given the numbers that belong to it; None where there is none."""
        if not self._found:
            return [None] * len(groups)
        number, *columns = (np.concatenate(column) for column in zip(*self._found, strict=True))
        order = np.argsort(number, kind="stable")
        starts = np.searchsorted(number[order], np.arange(257))
        spans = [order[starts[n] : starts[n + 1]] for n in range(256)]
        found: list[Reach | None] = []
        for group in groups:
            own = np.concatenate([spans[n] for n in group])
            found.append(self._reach(*(column[own] for column in columns)) if own.size else None)
        return found

    def _reach(self, index: IntArray, line: IntArray, first: IntArray, last: IntArray) -> Reach:
        """The reach of one structure, from its pieces of lines."""
        geometry = self._geometry
        along, across = geometry.index_to_lps[:3, 2], geometry.index_to_lps[:3, 1]
        if self._axial_axis == 2:
            along, across = across, along
        base = geometry.origins_mm[index] + line[:, None] * across
        ends = np.stack([base + first[:, None] * along, base + last[:, None] * along])
        half = self._half_slices[index]
        boxes = (np.abs(half) + np.abs(along / 2.0) + np.abs(across / 2.0))[None]
        extents = (ends + boxes).max(axis=(0, 1)) - (ends - boxes).min(axis=(0, 1))
        in_slices = self._axial_axis == 0
        planes = index if in_slices else line
        sides = np.broadcast_to(across / 2.0, half.shape) if in_slices else half
        diameter = _longest(planes, ends, along / 2.0, sides)
        return Reach(diameter, (float(extents[0]), float(extents[1]), float(extents[2])))


def _line_ends(lines: npt.NDArray[np.uint8]) -> tuple[IntArray, IntArray, IntArray, IntArray]:
    """Of every number and line ``(lines, pixels)`` on which it occurs: number, line, first and last pixel."""
    rows = np.flatnonzero(lines.any(axis=1))
    if rows.size == 0:
        return (np.zeros(0, np.intp),) * 4
    kept = lines[rows]
    count, length = kept.shape
    edge = np.ones((count, length + 1), np.bool_)
    np.not_equal(kept[:, 1:], kept[:, :-1], out=edge[:, 1:-1])
    at = np.flatnonzero(edge)
    line, pixel = np.divmod(at, length + 1)
    run = np.flatnonzero(line[:-1] == line[1:])  # from one edge to the next of the same line
    number = kept[line[run], pixel[run]].astype(np.intp)
    inside = number > 0
    run, number = run[inside], number[inside]
    key = number * count + line[run]
    first = np.full((int(number.max(initial=0)) + 1) * count, length, np.intp)
    last = np.full(first.size, -1, np.intp)
    first[key[::-1]] = pixel[run[::-1]]  # the last one written stays: the leftmost run
    last[key] = pixel[run + 1] - 1
    found = np.flatnonzero(last >= 0)
    number, line = np.divmod(found, count)
    return number, rows[line], first[found], last[found]


def _half_slices(geometry: VolumeGeometry) -> FloatArray:
    """``(slices, 3)``: half the way through each slice; slices reach half way to their neighbours."""
    step = geometry.index_to_lps[:3, 0] / 2.0
    volumes = geometry.voxel_volumes_ml
    mean_ml = float(np.prod(geometry.spacing_mm)) / 1000.0
    return np.asarray(step * (volumes / mean_ml)[:, None], np.float64)


def _longest(planes: IntArray, ends: FloatArray, along: FloatArray, across: FloatArray) -> float:
    """Largest distance of two outline points in one plane.

    Parameters
    ----------
    planes
        ``(n,)``: the plane of each line.
    ends
        ``(2, n, 3)``: centres of the first and the last voxel of each line, LPS millimetres.
    along
        Half a voxel along the lines, ``(3,)``; ``across``, ``(n, 3)``, half a voxel to the next line.
    """
    order = np.argsort(planes, kind="stable")
    starts = np.flatnonzero(np.diff(planes[order], prepend=-1))
    axes = _basis(along, across[0])
    centres, sides = ends[:, order] @ axes, across[order] @ axes
    most = _widths(centres, along @ axes, sides, starts)
    stops = [*starts[1:], len(order)]
    longest = 0.0
    for plane in np.argsort(-most, kind="stable"):
        if most[plane] <= longest:
            break
        piece = slice(starts[plane], stops[plane])
        least = max(longest, float(most[plane]) * _SURE)
        longest = max(longest, _diameter(centres[:, piece], along @ axes, sides[piece], least))
    return longest


def _basis(one: FloatArray, other: FloatArray) -> FloatArray:
    """Two orthonormal vectors, ``(3, 2)``, of the plane that two others span."""
    first = one / np.linalg.norm(one)
    rest = other - (other @ first) * first
    return np.stack([first, rest / np.linalg.norm(rest)], axis=1)


def _widths(centres: FloatArray, along: FloatArray, across: FloatArray, starts: IntArray) -> FloatArray:
    """For each plane an upper bound of its diameter.

    The widest of K directions is at least cos(90°/K) times the diameter, whatever the shape.
    """
    widest = np.zeros(len(starts))
    for direction in _UNIT:
        first, last = centres @ direction
        beside = 2.0 * max(abs(along @ direction), np.abs(across @ direction).max())
        high = np.maximum.reduceat(np.maximum(first, last), starts)
        low = np.minimum.reduceat(np.minimum(first, last), starts)
        np.maximum(widest, high - low + beside, out=widest)
    return np.asarray(widest / _LOSS * (1.0 + _ROUNDING), np.float64)


def _diameter(centres: FloatArray, along: FloatArray, across: FloatArray, least: float) -> float:
    """Largest distance of two outline points of one plane if it is at least ``least``, else less than that.

    Both are corners of the convex hull, and of lines that reach that far in one of the directions.

    Parameters
    ----------
    centres
        ``(2, n, 2)``: of the first and last pixel of each line; the outline runs ``along`` ``(2,)`` and
        ``across`` ``(n, 2)`` beside them.
    """
    far = _far(centres, along, across, least)
    (first, last), across = centres[:, far], across[far]
    if not far.any():
        return 0.0
    if (across == across[0]).all():  # pixels of one size: their hull, widened by one of them
        corners = _hull(np.concatenate([first, last]))[:, None]
        outline = corners + np.stack([along, -along, across[0], -across[0]])
    else:
        outline = np.stack([first - along, first - across, first + across])
        outline = np.concatenate([outline, np.stack([last + along, last - across, last + across])])
        outline = _hull(outline.reshape(-1, 2))
    points = outline.reshape(-1, 2)
    apart = points[:, None] - points[None]
    return float(np.sqrt((apart**2).sum(axis=2).max()))


def _far(centres: FloatArray, along: FloatArray, across: FloatArray, least: float) -> npt.NDArray[np.bool_]:
    """Which lines have a point that may lie as far as ``least`` from another."""
    heights = centres @ _UNIT.T
    beside = 2.0 * np.maximum(np.abs(_UNIT @ along), np.abs(across @ _UNIT.T).max(axis=0))
    high, low = heights.max(axis=(0, 1)), heights.min(axis=(0, 1))
    reach = np.maximum(high - heights, heights - low) + beside
    return np.asarray(reach.max(axis=(0, 2)) / _LOSS * (1.0 + _ROUNDING) >= least, np.bool_)


def _hull(points: FloatArray) -> FloatArray:
    """Corners of the convex hull, ``(m, 2)``: Andrew's monotone chain (1979)."""
    order = np.lexsort((points[:, 1], points[:, 0]))
    sorted_points = [(float(x), float(y)) for x, y in points[order]]
    return np.array(_chain(sorted_points) + _chain(sorted_points[::-1]))


def _chain(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The half of the hull that turns left from the first point to the last."""
    chain: list[tuple[float, float]] = []
    for x, y in points:
        while len(chain) > 1:
            (ax, ay), (bx, by) = chain[-2:]
            if (bx - ax) * (y - ay) - (by - ay) * (x - ax) > 0.0:
                break
            chain.pop()
        chain.append((x, y))
    return chain
