"""The outline of a mask on one slice as closed polygons along the edges of its pixels.

What is inside a polygon is told by its points alone, and readers differ in how. These outlines give the mask
back whichever way a reader takes:

- Points lie on the edges of pixels, drawn in by a hundredth of a pixel: a reader that takes pixels whose
  centres are inside finds the mask, and so does one that rounds points to pixels and fills, edges included.
- Only corners are points. Pixels that touch at a corner alone are islands of their own.
- A hole is joined to its outline by a channel without width, the "keyhole" of PS3.3 C.8.8.6.3: readers that
  join the contours of a slice by OR, by XOR, or by the direction of their turn, all leave it empty. The
  outline has the mask on its right-hand side, and so has the hole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Polygon = npt.NDArray[np.float64]
"""``(points, 2)``: row and column in pixels, where whole numbers are centres; not closed by a last point."""

_Point = tuple[float, float]

INSET = 0.01
"""Pixels by which an outline is drawn in."""

_CHANNEL = 0.25  # pixels below the centres of a row: where no reader looks whether it is inside


@dataclass
class _Ring:
    """One closed line.

    Attributes
    ----------
    rows, columns
        Its corners: the index of the pixel to the lower right of each.
    points
        The same corners, drawn in.
    holes
        By the index of the edge that they are joined to: pixel row of the channel and ring of the hole.
    entry
        Of a hole: the index of the corner that follows on its channel.
    """

    rows: list[int]
    columns: list[int]
    points: list[_Point]
    is_hole: bool
    holes: dict[int, list[tuple[int, _Ring]]] = field(default_factory=dict)
    entry: int = 0


def outlines(mask: Mask) -> list[Polygon]:
    """The closed polygons of a mask ``(rows, columns)``, one for each 4-connected island."""
    rings = _rings(mask)
    holes = sorted((r for r in rings if r.is_hole), key=lambda ring: min(ring.columns))
    edges = _left_edges(rings) if holes else {}
    for hole in holes:
        _join(hole, edges, mask)
    return [np.array(_line(ring), np.float64) for ring in rings if not ring.is_hole]


def _rings(mask: Mask) -> list[_Ring]:
    """Every closed line between a mask and the rest, each turning around the mask clockwise on the screen."""
    rows, columns, is_right, is_down, is_mask = _corners(mask)
    along_row = _mates(np.lexsort((is_right, columns, rows)))
    along_column = _mates(np.lexsort((is_down, rows, columns)))
    inwards = np.where(is_mask, INSET, -INSET)
    points = np.stack(
        [
            rows - 0.5 + np.where(is_down, inwards, -inwards),
            columns - 0.5 + np.where(is_right, inwards, -inwards),
        ],
        axis=1,
    )
    row_list, column_list, point_list = rows.tolist(), columns.tolist(), [tuple(p) for p in points.tolist()]
    is_left = [True] * len(row_list)
    found = []
    for start in np.lexsort((columns, rows)).tolist():
        if not is_left[start]:
            continue
        ring, corner = [], start
        while is_left[corner]:  # the first of a ring is its upper left corner: to the right, then down
            turn = along_row[corner]
            ring += [corner, turn]
            is_left[corner] = is_left[turn] = False
            corner = along_column[turn]
        is_hole = not bool(is_mask[start])
        if is_hole:
            ring.reverse()
        found.append(
            _Ring(
                [row_list[k] for k in ring],
                [column_list[k] for k in ring],
                [point_list[k] for k in ring],
                is_hole,
            )
        )
    return found


def _corners(mask: Mask) -> tuple[npt.NDArray[np.intp], ...]:
    """Corners of the edges between mask and rest: row and column of the corner, and the pixel it is about.

    That pixel is the one of the four around a corner that is alone in being inside or outside; it lies to the
    right or left of the corner, below or above. Where two meet at a corner only, each has a corner.
    """
    padded = np.zeros((mask.shape[0] + 2, mask.shape[1] + 2), np.int8)
    padded[1:-1, 1:-1] = mask
    quarters = {
        (right, down): padded[down : padded.shape[0] - 1 + down, right : padded.shape[1] - 1 + right]
        for right in (0, 1)
        for down in (0, 1)
    }
    total = sum(quarters.values())
    parts = []
    for (right, down), pixel in quarters.items():
        opposite = quarters[1 - right, 1 - down]
        alone = (total == 1) | ((total == 2) & (pixel == opposite))
        rows, columns = np.nonzero(np.where(pixel == 1, alone, total == 3))
        inside = pixel[rows, columns]
        parts.append((rows, columns, np.full(len(rows), right), np.full(len(rows), down), inside))
    return tuple(np.concatenate(column).astype(np.intp) for column in zip(*parts, strict=True))


def _mates(order: npt.NDArray[np.intp]) -> list[int]:
    """The other end of the edge of each corner: corners in one line are ends of edges two by two."""
    mates = np.empty(len(order), np.intp)
    mates[order[0::2]], mates[order[1::2]] = order[1::2], order[0::2]
    found: list[int] = mates.tolist()
    return found


def _join(hole: _Ring, edges: dict[tuple[int, int], tuple[_Ring, int]], mask: Mask) -> None:
    """Join a hole to the first edge on its left: that of its outline, or of a hole more to the left."""
    column = min(hole.columns)
    row = min(r for r, c in zip(hole.rows, hole.columns, strict=True) if c == column)
    outside = np.flatnonzero(~mask[row, :column])
    ring, k = edges[row, int(outside[-1]) + 1 if len(outside) else 0]
    ring.holes.setdefault(k, []).append((row, hole))
    hole.entry = (_left_edge(hole, row) + 1) % len(hole.rows)


def _left_edges(rings: list[_Ring]) -> dict[tuple[int, int], tuple[_Ring, int]]:
    """For every pixel of the mask with none on its left: the ring on its left side, and the edge in it."""
    edges = {}
    for ring in rings:
        for k, (below, above) in enumerate(zip(ring.rows, ring.rows[1:] + ring.rows[:1], strict=True)):
            for row in range(above, below):  # upwards: the mask is on its right
                edges[row, ring.columns[k]] = ring, k
    return edges


def _line(ring: _Ring) -> list[_Point]:
    """The points of a ring from its first corner on, with the holes that are joined to it, and those to them.

    Not by recursion: a row of holes is a chain as deep as it is long.
    """
    line: list[_Point] = []
    walks = [_walk(ring, 0)]
    while walks:
        step = next(walks[-1], None)
        if step is None:
            walks.pop()
        elif isinstance(step, tuple):
            line.append(step)
        else:
            walks.append(_walk(step, step.entry))
    return line


def _walk(ring: _Ring, start: int) -> Iterator[_Point | _Ring]:
    """The points around a ring from a corner on, and each hole between both passes of its channel."""
    for k in (*range(start, len(ring.rows)), *range(start)):
        yield ring.points[k]
        for row, hole in sorted(ring.holes.get(k, ()), key=lambda joined: -joined[0]):
            here = (row + _CHANNEL, ring.points[k][1])
            there = (row + _CHANNEL, hole.points[hole.entry][1])
            yield from (here, there, hole, there, here)


def _left_edge(hole: _Ring, row: int) -> int:
    """The index of the corner from which the leftmost edge of a hole goes down past a row."""
    column, count = min(hole.columns), len(hole.rows)
    return next(
        k
        for k in range(count)
        if hole.columns[k] == column == hole.columns[(k + 1) % count]
        and hole.rows[k] <= row < hole.rows[(k + 1) % count]
    )
