"""The legend under the planes: a table of what was found, and in words what was not and what is doubtful."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from PIL import Image

from ai.results.montage_marks import (
    MARK_RGB,
    SOFT,
    WHITE,
    Draw,
    Mark,
    draw_mark,
    width,
    wrapped,
    write,
)
from ai.results.montage_palette import SCALE, Palette
from ai.results.montage_plane import render

MARGIN = 14
_GAP = 28  # between columns
_WIDEST = 350  # of a column that could be narrower
_LABEL_WIDTH = 270  # a label that is longer does not decide the number of columns
_SMALL = 15


@dataclass(frozen=True)
class LegendEntry:
    """One structure that was found.

    Attributes
    ----------
    value
        Its size with the unit.
    mark
        What the quality checks say; None: nothing was checked.
    """

    number: int
    label: str
    value: str
    mark: Mark | None = None


@dataclass(frozen=True)
class Remark:
    """What stands under the legend, in at most ``most`` lines; sign and word of its verdict go before."""

    text: str
    mark: Mark | None = None
    most: int = 1


@dataclass(frozen=True)
class Legend:
    """What is written under the planes; ``nothing`` stands there large where there is no entry."""

    entries: tuple[LegendEntry, ...]
    nothing: str = ""
    remarks: tuple[Remark, ...] = ()


@dataclass(frozen=True)
class _Table:
    size: int
    columns: int
    column_width: int
    rows: int
    value_width: float
    mark_width: float
    number_width: float

    @property
    def line(self) -> int:
        return self.size + 9

    @property
    def side(self) -> int:
        return self.size + 1


def legend_height(legend: Legend, picture_width: int) -> int:
    """Pixels that the legend takes."""
    table = _table(legend.entries, picture_width)
    height = 14 + table.rows * table.line
    height += 34 if legend.nothing else 0
    lines = sum(len(_lines(remark, picture_width)) for remark in legend.remarks)
    return height + (10 + lines * (_SMALL + 7) if lines else 0)


def draw_legend(canvas: Image.Image, draw: Draw, legend: Legend, palette: Palette, top: int) -> None:
    """Draw the legend into the picture from ``top`` on."""
    table = _table(legend.entries, canvas.width)
    swatches = _swatches(legend.entries, palette, table.side)
    y: float = top + 6
    for i, entry in enumerate(legend.entries):  # down, then across
        x = MARGIN + (i // table.rows) * (table.column_width + _GAP)
        line_top = top + 6 + (i % table.rows) * table.line
        canvas.paste(swatches[i], (round(x + table.number_width), line_top))
        _draw_entry(draw, entry, table, x, line_top)
    y += table.rows * table.line
    if legend.nothing:
        write(draw, (MARGIN, y), legend.nothing, 22, room=canvas.width - 2 * MARGIN)
        y += 34
    y += 10
    for remark in legend.remarks:
        y = _draw_remark(draw, remark, y, canvas.width)


def _table(entries: Sequence[LegendEntry], picture_width: int) -> _Table:
    """As many columns as the texts allow; small type when there is much to say."""
    size = 17 if len(entries) <= 12 else 15 if len(entries) <= 40 else 13
    value_width = max((width(entry.value, size) for entry in entries), default=0.0)
    marks = {entry.mark for entry in entries} - {None}
    word = max((width(mark, size - 2) + 6 for mark in marks if mark and mark != "PASS"), default=0.0)
    mark_width = (size + 8 + word) if marks else 0.0
    number_width = max((width(str(entry.number), size) for entry in entries), default=0.0) + 8
    longest = min(_LABEL_WIDTH, max((width(entry.label, size) for entry in entries), default=0.0))
    needed = number_width + size + 10 + longest + 14 + value_width + mark_width
    room = picture_width - 2 * MARGIN + _GAP
    columns = max(1, min(4, int(room // (needed + _GAP)), len(entries)))
    rows = -(-len(entries) // columns)
    column_width = min(int(room // columns) - _GAP, max(_WIDEST, int(needed)))
    return _Table(size, columns, column_width, rows, value_width, mark_width, number_width)


def _draw_entry(draw: Draw, entry: LegendEntry, table: _Table, x: float, y: float) -> None:
    write(draw, (x + table.number_width - 8, y), str(entry.number), table.size, SOFT, anchor="ra")
    label_left = x + table.number_width + table.side + 8
    value_right = x + table.column_width - table.mark_width
    room = value_right - table.value_width - 14 - label_left
    write(draw, (label_left, y), entry.label, table.size, room=room)
    write(draw, (value_right, y), entry.value, table.size, anchor="ra")
    if entry.mark is not None:
        side = table.size - 3
        draw_mark(draw, entry.mark, value_right + 8, y + 2, side)
        if entry.mark != "PASS":
            place = (value_right + 8 + side + 5, y + 1)
            write(draw, place, entry.mark, table.size - 2, MARK_RGB[entry.mark])


def _swatches(entries: Sequence[LegendEntry], palette: Palette, side: int) -> list[Image.Image]:
    """A small area of each structure as it is drawn on a plane, over a middle grey."""
    if not entries:
        return []
    labels = np.zeros((len(entries), side * SCALE, side * SCALE), np.uint8)
    for entry, label in zip(entries, labels, strict=True):
        label[1:-1, 1:-1] = entry.number
    grey = np.full((len(entries) * side, side), 70, np.uint8)
    picture: npt.NDArray[np.uint8] = render(grey, labels.reshape(-1, side * SCALE), _alone(palette))
    return [Image.fromarray(part) for part in picture.reshape(len(entries), side, side, 3)]


def _alone(palette: Palette) -> Palette:
    """The palette for areas that have nothing to do with each other: no envelopes, no wholes."""
    overlays = tuple(replace(overlay, filled=True, includes=()) for overlay in palette.overlays)
    alone = replace(palette, overlays=overlays)
    for overlay in palette.overlays:
        if not overlay.filled:
            alone.table[overlay.number] = 0
    return alone


def _lines(remark: Remark, picture_width: int) -> list[str]:
    room = picture_width - 2 * MARGIN - _indent(remark)
    return wrapped(remark.text, _SMALL, room, remark.most)


def _indent(remark: Remark) -> float:
    return 0.0 if remark.mark is None else _SMALL + 6 + width(f"{remark.mark}  ", _SMALL)


def _draw_remark(draw: Draw, remark: Remark, y: float, picture_width: int) -> float:
    indent = _indent(remark)
    if remark.mark is not None:
        draw_mark(draw, remark.mark, MARGIN, y + 1, _SMALL - 2)
        write(draw, (MARGIN + _SMALL + 4, y), remark.mark, _SMALL, MARK_RGB[remark.mark])
    for line in _lines(remark, picture_width):
        room = picture_width - 2 * MARGIN - indent
        rgb = SOFT if remark.mark is None or remark.mark == "PASS" else WHITE
        write(draw, (MARGIN + indent, y), line, _SMALL, rgb, room=room)
        y += _SMALL + 7
    return y
