"""Where the planes of a page go: as large as there is room, true to their proportions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import log

from ai.results.montage_legend import MARGIN
from ai.results.montage_palette import Grey, Labels
from ai.sides import Edges

SIDE = 19
"""Pixels left and right of a plane, for its letters."""

_LINE = 20  # above and below a plane
_HEADING = 24  # over each group
_HIGHEST = 860  # of all planes together
_NARROWEST, _STEP = 340, 20  # of the planes across
_ROOMY = 0.15  # how much the size of the planes across counts against that of the slices


@dataclass(frozen=True)
class View:
    """One plane as it hangs.

    Attributes
    ----------
    grey, labels
        Grey values and label numbers ``(down, across)``.
    size_mm
        Height and width; planes are drawn to their true proportions.
    caption
        Over its left corner.
    ticks, ticks_down
        Where the slices of the montage cross it: parts of its height, or else of its width.
    """

    grey: Grey
    labels: Labels
    size_mm: tuple[float, float]
    edges: Edges
    caption: str = ""
    ticks: tuple[float, ...] = ()
    ticks_down: bool = True


@dataclass(frozen=True)
class Group:
    """Planes with a heading: the slices, or one plane across them."""

    heading: str
    views: tuple[View, ...]


@dataclass(frozen=True)
class Placed:
    """A plane on the page: corner and size (width, height) in pixels."""

    view: View
    corner: tuple[int, int]
    size: tuple[int, int]


@dataclass(frozen=True)
class Layout:
    """How planes share the page.

    Attributes
    ----------
    across
        Slices in a row.
    panel
        Width of the planes across the stack; 0 where there are none.
    stacked
        Whether these are one above the other.
    tile
        Width and height of a slice.
    pixels_per_mm
        Of the planes across.
    """

    across: int
    panel: int
    stacked: bool
    tile: tuple[int, int]
    pixels_per_mm: float

    @property
    def score(self) -> float:
        """What is best is highest: slices count more."""
        return 2.0 * log(self.tile[0]) + (2.0 * _ROOMY * log(self.pixels_per_mm) if self.panel else 0.0)


Heading = tuple[str, tuple[float, float], float]
"""Text, place and room."""


def best_layout(slices: Group, crossing: Sequence[Group], page_width: int) -> Layout:
    """The layout that shows slices, and planes across them, largest."""
    panels = range(_NARROWEST, page_width // 2 + 1, _STEP) if crossing else (0,)
    columns = range(1, min(len(slices.views), 6) + 1)
    layouts = [
        _layout(slices, crossing, page_width, across, panel, stacked)
        for across, panel, stacked in product(columns, panels, (True, False) if crossing else (True,))
    ]
    return max(layouts, key=lambda layout: (layout.score, layout.across))


def _layout(
    slices: Group, crossing: Sequence[Group], page_width: int, across: int, panel: int, stacked: bool
) -> Layout:
    down = -(-len(slices.views) // across)
    height_mm, width_mm = slices.views[0].size_mm
    widest = (page_width - panel) // across - 2 * SIDE - 6
    highest = (_HIGHEST - _HEADING) // down - 2 * _LINE - 6
    scale = min(widest / width_mm, highest / height_mm)
    tile = (max(1, round(width_mm * scale)), max(1, round(height_mm * scale)))
    return Layout(across, panel, stacked, tile, _crossing_scale(crossing, panel, stacked))


def _crossing_scale(crossing: Sequence[Group], panel: int, stacked: bool) -> float:
    """Pixels for a millimetre."""
    if not crossing:
        return 1.0
    sizes = [group.views[0].size_mm for group in crossing]
    beside, above = (1, len(sizes)) if stacked else (len(sizes), 1)
    heights, widths = [height for height, _ in sizes], [wide for _, wide in sizes]
    height_mm, width_mm = (sum(heights), max(widths)) if stacked else (max(heights), sum(widths))
    room = (panel - beside * (2 * SIDE + 6), _HIGHEST - above * (_HEADING + 2 * _LINE + 6))
    return max(1e-9, min(room[0] / width_mm, room[1] / height_mm))


def place_planes(
    slices: Group, crossing: Sequence[Group], layout: Layout, page_width: int, top: int
) -> tuple[list[Placed], list[Heading], int]:
    """Planes and headings where they are drawn, and where the picture goes on below them."""
    cell = ((page_width - layout.panel) // layout.across, layout.tile[1] + 2 * _LINE + 6)
    left = (cell[0] - layout.tile[0]) // 2
    placed = [
        Placed(
            view,
            ((i % layout.across) * cell[0] + left, top + _HEADING + (i // layout.across) * cell[1] + _LINE),
            layout.tile,
        )
        for i, view in enumerate(slices.views)
    ]
    headings: list[Heading] = [(slices.heading, (MARGIN, top), page_width - layout.panel - 2.0 * MARGIN)]
    bottom = top + _HEADING + -(-len(slices.views) // layout.across) * cell[1]
    x, y = page_width - layout.panel, top
    share = layout.panel if layout.stacked else layout.panel // max(1, len(crossing))
    for group in crossing:
        height, wide = (max(1, round(mm * layout.pixels_per_mm)) for mm in group.views[0].size_mm)
        corner = (x + max(SIDE + 3, (share - wide) // 2), y + _HEADING + _LINE)
        placed.append(Placed(group.views[0], corner, (wide, height)))
        headings.append((group.heading, (x + SIDE, y), share - SIDE - 4.0))
        bottom = max(bottom, corner[1] + height + _LINE + 6)
        if layout.stacked:
            y = corner[1] + height + _LINE + 6
        else:
            x += share
    return placed, headings, bottom
