"""The structures' numbers on the planes, which the legend explains."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from ai.picture import font
from ai.results.montage_layout import Placed
from ai.results.montage_marks import BLACK, WHITE, Draw, width
from ai.results.montage_palette import SCALE, Labels, Overlay

_ENOUGH = 150  # pixels of a structure that bears its number in every plane
_AROUND = ((0, 0), (0, -13), (0, 13), (-15, 0), (15, 0), (-13, -13), (13, -13), (-13, 13), (13, 13))
_Box = tuple[float, float, float, float]


def draw_numbers(
    draw: Draw, placed: Sequence[Placed], shown: Sequence[Labels], overlays: Sequence[Overlay]
) -> None:
    """Numbers of structures near their middles: where there is room, else in the plane that shows most."""
    hidden = {each.number for each in overlays if not each.filled}
    planes = [centres(labels) for labels in shown]
    best = _largest(planes, hidden)
    for i, (plane, where) in enumerate(zip(planes, placed, strict=True)):
        taken: list[_Box] = []
        order = sorted(plane.items(), key=lambda item: (best.get(item[0]) != i, -item[1][0], item[0]))
        size = 11 if min(where.size) < 300 else 14 if min(where.size) < 600 else 18
        for number, (area, x, y) in order:
            must = best.get(number) == i
            if number in hidden or (area < _ENOUGH and not must):
                continue
            half = (width(str(number), size) / 2 + 2, size * 0.6)
            box = _free_box(half, (x, y), where, taken, _AROUND if must else _AROUND[:1])
            if box is not None:
                taken.append(box)
                middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
                face, text = font(size), str(number)
                draw.text(middle, text, WHITE, face, "mm", stroke_width=1, stroke_fill=BLACK)


def _free_box(
    half: tuple[float, float],
    at: tuple[int, int],
    where: Placed,
    taken: Sequence[_Box],
    offsets: Sequence[tuple[int, int]],
) -> _Box | None:
    """The first place near a point, within the plane, where no other number stands.

    ``half`` is half the width and height that the number takes.
    """
    half_width, half_height = half
    (left, top), (wide, high) = where.corner, where.size
    if wide < 2 * half_width or high < 2 * half_height:
        return None
    for right, down in offsets:
        x = left + min(max(at[0] + right, half_width), wide - half_width)
        y = top + min(max(at[1] + down, half_height), high - half_height)
        box = (x - half_width, y - half_height, x + half_width, y + half_height)
        if not any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken):
            return box
    return None


def centres(shown: Labels) -> dict[int, tuple[int, int, int]]:
    """Area and a place inside, near the middle, of each number: ``(area, x, y)`` in pixels of the picture."""
    small = np.ascontiguousarray(shown[::SCALE, ::SCALE])
    places = np.flatnonzero(small)
    number = small.reshape(-1)[places]
    order = np.argsort(number, kind="stable")
    places, starts = places[order], np.searchsorted(number[order], np.arange(257))
    found = {}
    for value in np.unique(number).tolist():
        rows, columns = np.divmod(places[starts[value] : starts[value + 1]], small.shape[1])
        row, column = float(rows.mean()), float(columns.mean())
        if small[round(row), round(column)] != value:  # a ring, or two pieces
            row = float(rows[np.abs(rows - row).argmin()])
            runs = np.split(columns[rows == row], np.flatnonzero(np.diff(columns[rows == row]) > 1) + 1)
            column = float(max(runs, key=len).mean())
        found[int(value)] = (len(rows), round(column), round(row))
    return found


def _largest(planes: Sequence[Mapping[int, tuple[int, int, int]]], hidden: Collection[int]) -> dict[int, int]:
    """In which plane of :func:`centres` each number shows most; the first of equals."""
    best: dict[int, tuple[int, int]] = {}
    for i, plane in enumerate(planes):
        for number, (area, _, _) in plane.items():
            if number not in hidden and area > best.get(number, (0, 0))[0]:
                best[number] = (area, i)
    return {number: i for number, (_, i) in best.items()}
