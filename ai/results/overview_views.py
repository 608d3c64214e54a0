"""Which planes of a run its overview shows: slices over what was found, and one plane across them each way.

Slices hang as a radiologist expects them, whatever way the patient lay in the scanner: the patient's right
on the left, the head up, front to the left in sagittal planes. Both planes across the stack are made of one
line of voxels of each slice, put where that slice lies in the patient: with a tilted gantry the lines are
shifted, and uneven slices are as thick as they are. They are as upright as the slices' own normal, and named
by what they are nearest to. Nothing but the planes that are shown is looked at in full.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ai.geometry import VerdictCode, VolumeGeometry
from ai.results.montage_plane import counts
from ai.sides import Edges, Hanging, hangings
from ai.volume import LabelArray, Volume

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
_Number = TypeVar("_Number", np.int16, np.float32, np.uint8)
Values = npt.NDArray[np.int16] | npt.NDArray[np.float32]

TILES = 12
_SAMPLED = 64  # along each axis, voxels that the choice of a plane looks at
_SAMPLED_SLICE = 128  # along each axis, voxels of a slice that the choice of slices counts
_PLENTY = 0.25
_TALLEST = 2048  # lines of an uneven stack


@dataclass(frozen=True)
class Plane:
    """One plane of the volume as it hangs.

    Attributes
    ----------
    values, labels
        ``(down, across)``; values in the unit of the volume, NaN or the lowest value where there is no voxel.
    size_mm
        Height and width.
    edges
        Sides of the patient.
    slices
        Where the slices of the montage cross it, as parts of its height (or width) from the top (or left).
    slices_down
        Whether these are parts of its height.
    """

    name: str
    values: Values
    labels: LabelArray
    size_mm: tuple[float, float]
    edges: Edges
    slices: tuple[float, ...] = ()
    slices_down: bool = True


def slice_areas(labels: LabelArray, found: Collection[Collection[int]] | None = None) -> IntArray:
    """Voxels of each number in each slice: ``(slices, 256)``.

    Parameters
    ----------
    found
        What is known to be there, each by the numbers of which it has at least one: then a sample of the
        voxels is counted, unless one of these is so small that it is missed. None: every voxel is counted.
    """
    down, across = (max(1, n // _SAMPLED_SLICE) for n in labels.shape[1:])
    if found is not None and max(down, across) > 1:
        sampled = np.stack([counts(plane) for plane in labels[:, ::down, ::across]])
        seen = set(np.flatnonzero(sampled.any(axis=0)).tolist())
        if all(seen.intersection(numbers) for numbers in found):
            return sampled
    return np.stack([counts(plane) for plane in labels])


def choose_slices(labels: LabelArray, outlined: Sequence[int] = (), tiles: int = TILES) -> tuple[int, ...]:
    """At most so many slices, in order, evenly over the extent of what was found.

    Numbers in ``outlined`` count only when nothing else was found. A structure that all of these would
    miss takes the place of its nearest neighbour, with the slice that shows most of it.
    """
    return spread_slices(slice_areas(labels), outlined, tiles)


def spread_slices(areas: IntArray, outlined: Sequence[int] = (), tiles: int = TILES) -> tuple[int, ...]:
    """What :func:`choose_slices` gives, from the areas ``(slices, 256)``."""
    found = [n for n in range(1, areas.shape[1]) if areas[:, n].any()]
    wanted = [n for n in found if n not in outlined] or found
    extent = np.flatnonzero(areas[:, wanted].any(axis=1)) if wanted else np.arange(len(areas))
    first, last = int(extent[0]), int(extent[-1])
    inner = last - first + 1 >= tiles + 2  # the outermost slices show next to nothing
    steps = np.linspace(first, last, tiles + 2)[1:-1] if inner else np.linspace(first, last, tiles)
    chosen = sorted({round(float(step)) for step in steps})
    kept: set[int] = set()
    for number in sorted(wanted, key=lambda n: int(areas[:, n].sum())):
        if areas[chosen, number].any():
            continue
        best = int(areas[:, number].argmax())
        free = [k for k in chosen if k not in kept]
        if free:
            chosen[chosen.index(min(free, key=lambda k: abs(k - best)))] = best
            kept.add(best)
    return tuple(sorted(set(chosen)))


def stack_hanging(geometry: VolumeGeometry) -> Hanging:
    """How the slices hang; those of a tilted stack by their own normal."""
    return hangings(_upright_matrix(geometry))[0]


def slice_planes(volume: Volume, labels: LabelArray, chosen: Sequence[int]) -> list[Plane]:
    """The chosen slices, in the order given."""
    geometry = volume.geometry
    hanging = stack_hanging(geometry)
    _, *sides_mm = (n * mm for n, mm in zip(geometry.shape, geometry.spacing_mm, strict=True))
    size_mm = (sides_mm[hanging.down - 1], sides_mm[hanging.across - 1])
    return [
        Plane(hanging.name, hanging.hang(volume.voxels[k]), hanging.hang(labels[k]), size_mm, hanging.edges)
        for k in chosen
    ]


def cross_planes(
    volume: Volume, labels: LabelArray, areas: IntArray, outlined: Sequence[int], chosen: Sequence[int]
) -> list[Plane]:
    """The two planes across the stack that show most structures; none of a single image.

    In such a plane each structure counts by how much of it is seen, compared with the plane that shows it
    best, so that small ones count as much as large ones. A quarter of that is plenty: the largest section of
    a skull is beside the brain. Among planes that show as much, the one nearest to the middle of all wins.
    """
    if len(labels) < 2:
        return []
    stack = _Stack(volume.geometry)
    found = [n for n in range(1, 256) if areas[:, n].any()]
    wanted = [n for n in found if n not in outlined] or found
    places = _best_places(labels, areas, wanted, stack)
    hung = hangings(_upright_matrix(volume.geometry))
    planes = [_cross_plane(volume, labels, stack, hung[axis], places[axis - 1], chosen) for axis in (1, 2)]
    return sorted(planes, key=lambda plane: plane.name)  # axial, coronal, sagittal


class _Stack:
    """Where slices lie relative to the first: height along the normal, shift in rows and columns."""

    def __init__(self, geometry: VolumeGeometry) -> None:
        matrix, origins = geometry.index_to_lps, geometry.origins_mm
        basis = np.column_stack([geometry.normal, matrix[:3, 1], matrix[:3, 2]])
        places = np.linalg.solve(basis, (origins - origins[0]).T).T
        self.heights_mm: FloatArray = places[:, 0]
        self.shifts: IntArray = np.rint(places[:, 1:] - places[:, 1:].min(axis=0)).astype(np.int64)
        self.size = tuple(
            n + int(most) for n, most in zip(geometry.shape[1:], self.shifts.max(axis=0), strict=True)
        )
        gaps = np.diff(self.heights_mm)
        ends = (gaps[:1], gaps[-1:])
        middles = self.heights_mm[:-1] + gaps / 2.0
        self.borders_mm: FloatArray = np.concatenate(
            [self.heights_mm[:1] - ends[0] / 2.0, middles, self.heights_mm[-1:] + ends[1] / 2.0]
        )
        self.even = VerdictCode.IRREGULAR_SPACING not in geometry.needs

    @property
    def height_mm(self) -> float:
        return float(self.borders_mm[-1] - self.borders_mm[0])

    def levels(self) -> FloatArray:
        """Heights of even lines: those of the slices, or as near to each other as the nearest two slices."""
        if self.even:
            return self.heights_mm
        lines = min(_TALLEST, int(np.ceil(self.height_mm / np.diff(self.heights_mm).min())))
        step_mm = self.height_mm / lines
        return np.asarray(self.borders_mm[0] + (np.arange(lines) + 0.5) * step_mm, np.float64)


def _upright_matrix(geometry: VolumeGeometry) -> FloatArray:
    """The affine with slices straight above each other, which is what directions are taken from."""
    matrix = geometry.index_to_lps.copy()
    if not geometry.is_projection:
        matrix[:3, 0] = geometry.normal * geometry.spacing_mm[0]
    return matrix


def _best_places(
    labels: LabelArray, areas: IntArray, wanted: Sequence[int], stack: _Stack
) -> tuple[int, int]:
    """Row and column of the upright stack with the best plane; the middle one where nothing was found."""
    if not wanted:
        return stack.size[0] // 2, stack.size[1] // 2
    return _best_place(labels, areas, wanted, stack, 0), _best_place(labels, areas, wanted, stack, 1)


def _best_place(labels: LabelArray, areas: IntArray, wanted: Sequence[int], stack: _Stack, axis: int) -> int:
    """Row (axis 0) or column (axis 1), from a sample of the voxels, and of what it misses from one slice."""
    first, *others = (max(1, n // _SAMPLED) for n in labels.shape)
    others[axis] = max(1, labels.shape[axis + 1] // (4 * _SAMPLED))
    kept = np.flatnonzero(areas[:, wanted].any(axis=1))[::first]
    sample = labels[kept, :: others[0], :: others[1]]
    line = np.arange(sample.shape[axis + 1]) * others[axis]
    at = stack.shifts[kept, axis][:, None] + line  # slice, line
    at = at[:, :, None] if axis == 0 else at[:, None, :]
    size = stack.size[axis]
    key = (at * 256 + sample).reshape(-1)
    shown = np.bincount(key[sample.reshape(-1) > 0], minlength=size * 256).reshape(size, 256)
    for number in wanted:
        if not shown[:, number].any():
            k = int(areas[:, number].argmax())
            profile = np.count_nonzero(labels[k] == number, axis=1 - axis)
            shown[stack.shifts[k, axis] + np.arange(len(profile)), number] = profile
    counted = shown[:, wanted]
    shares = counted / counted.max(axis=0)
    score = np.round(np.minimum(shares, _PLENTY).sum(axis=1), 6)
    best = np.flatnonzero(score >= score.max() - 1e-9)
    centre = float((counted / counted.sum(axis=0)).sum(axis=1) @ np.arange(size)) / len(wanted)
    return int(best[np.abs(best - centre).argmin()])


def _cross_plane(
    volume: Volume,
    labels: LabelArray,
    stack: _Stack,
    hanging: Hanging,
    place: int,
    chosen: Sequence[int],
) -> Plane:
    """The plane at a row or column of the upright stack, from one line of each slice."""
    geometry, axis = volume.geometry, hanging.normal - 1
    inside = place - stack.shifts[:, axis]
    missing = (inside < 0) | (inside >= geometry.shape[1 + axis])
    inside = np.clip(inside, 0, geometry.shape[1 + axis] - 1)
    at = np.arange(geometry.shape[0])
    index = (at, inside) if axis == 0 else (at, slice(None), inside)
    values: Values = volume.voxels[index]
    numbers = labels[index]
    values[missing], numbers[missing] = values.min(), 0
    values = _shifted(values, stack.shifts[:, 1 - axis], stack.size[1 - axis], values.min())
    numbers = _shifted(numbers, stack.shifts[:, 1 - axis], stack.size[1 - axis], np.uint8(0))
    levels = stack.levels()
    if not stack.even:
        values = _between(values, stack.heights_mm, levels)
        numbers = numbers[np.searchsorted(stack.borders_mm[1:-1], levels)]
    width_mm = stack.size[1 - axis] * geometry.spacing_mm[2 - axis]
    sides_mm = {0: stack.height_mm, 2 - axis: width_mm}
    crossed = (stack.heights_mm[list(chosen)] - stack.borders_mm[0]) / stack.height_mm
    backwards = hanging.turned[1] if hanging.down == 0 else hanging.turned[2]
    return Plane(
        name=hanging.name,
        values=hanging.hang(values),
        labels=hanging.hang(numbers),
        size_mm=(sides_mm[hanging.down], sides_mm[hanging.across]),
        edges=hanging.edges,
        slices=tuple(float(1.0 - part if backwards else part) for part in crossed),
        slices_down=hanging.down == 0,
    )


def _shifted(lines: npt.NDArray[_Number], shifts: IntArray, size: int, fill: _Number) -> npt.NDArray[_Number]:
    """Each line where its slice lies, ``(slices, size)``."""
    if not shifts.any() and lines.shape[1] == size:
        return lines
    moved = np.full((len(lines), size), fill, lines.dtype)
    for line, shift, to in zip(lines, shifts, moved, strict=True):
        to[shift : shift + len(line)] = line
    return moved


def _between(lines: Values, heights_mm: FloatArray, levels_mm: FloatArray) -> Values:
    """Lines at other heights, linear between the two nearest; beyond the ends as the last one."""
    place = np.interp(levels_mm, heights_mm, np.arange(len(heights_mm)))
    below = np.minimum(place.astype(np.intp), len(lines) - 2)
    weight = (place - below).astype(np.float32)[:, None]
    mixed = lines[below] * (1 - weight) + lines[below + 1] * weight
    return np.asarray(mixed, np.float32)
