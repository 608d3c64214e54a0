"""Drawing a montage of labelled slices: pure functions from arrays to a picture, Pillow and numpy only.

Nothing here knows of DICOM or of a run. Every cell of the montage keeps its captions and side letters
beside the slice, in a margin, so that no text lies on anatomy and no slice is cropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from ai.picture import font
from ai.sides import Edges

Rgb = tuple[int, int, int]
Grey = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

WIDTH = 1024
_MARGIN = 12
_SIDE = 17  # left and right of a slice, for its letters
_LINE = 19  # above and below a slice
_TALLEST_GRID = 860
_FILL = 0.25
_SUPERSAMPLE = 2
_COVERED = 96  # of 255: a pixel counts as inside when this much of it is

WHITE: Rgb = (255, 255, 255)
SOFT: Rgb = (190, 190, 190)
WARNING: Rgb = (255, 213, 79)
BLACK: Rgb = (0, 0, 0)
FRAME: Rgb = (56, 56, 56)


@dataclass(frozen=True)
class Overlay:
    """How one label number is drawn: colour (sRGB 0..255), and whether its inside is tinted.

    One that is not tinted is drawn as an envelope, around everything that is labelled: it is what
    contains the rest, and its borders with that would double every line.
    """

    number: int
    rgb: Rgb
    filled: bool


@dataclass(frozen=True)
class Tile:
    """One slice: grey values and label numbers ``(rows, columns)``, and the captions over its corners."""

    grey: Grey
    labels: npt.NDArray[np.uint8]
    left_caption: str
    right_caption: str


@dataclass(frozen=True)
class LegendEntry:
    """One line of the legend; the swatch is hollow when the structure was not found."""

    text: str
    rgb: Rgb
    found: bool


@dataclass(frozen=True)
class Page:
    """All that is written around the slices."""

    title: str
    source: str
    warning: str
    warning_detail: str
    legend: tuple[LegendEntry, ...]
    footer: str


def draw_montage(
    page: Page,
    tiles: Sequence[Tile],
    overlays: Sequence[Overlay],
    edges: Edges,
    pixel_spacing_mm: tuple[float, float],
) -> npt.NDArray[np.uint8]:
    """Draw a page of slices: RGB uint8 ``(height, width, 3)``, 1024 wide, as high as it needs.

    Parameters
    ----------
    tiles
        At least one, all of one shape.
    pixel_spacing_mm
        Distance between (rows, columns): slices are drawn to their true proportions.
    """
    rows, columns = tiles[0].grey.shape
    proportion = (rows * pixel_spacing_mm[0]) / (columns * pixel_spacing_mm[1])
    across = _columns_of_grid(len(tiles), proportion)
    size = _slice_size(across, len(tiles), proportion)
    cell = (WIDTH // across, size[1] + 2 * _LINE + 6)
    legend = _legend_layout(page.legend)
    top = 76
    grid_height = -(-len(tiles) // across) * cell[1]
    height = top + grid_height + legend.height + 46
    canvas = Image.new("RGB", (WIDTH, height), BLACK)
    draw = ImageDraw.Draw(canvas)
    _draw_header(draw, page)
    for i, tile in enumerate(tiles):
        corner = ((i % across) * cell[0] + (cell[0] - size[0]) // 2, top + (i // across) * cell[1] + _LINE)
        draw.rectangle(
            (corner[0] - 1, corner[1] - 1, corner[0] + size[0], corner[1] + size[1]), outline=FRAME
        )
        canvas.paste(_render(tile, overlays, size), corner)
        _draw_captions(draw, tile, edges, corner, size)
    _draw_legend(draw, page.legend, legend, top + grid_height + 8)
    _draw_fitted(draw, (_MARGIN, height - 28), page.footer, 14, SOFT, WIDTH - 2 * _MARGIN)
    return np.asarray(canvas)


def _columns_of_grid(count: int, proportion: float) -> int:
    """The number of columns that shows the slices largest."""
    areas = {n: np.prod(_slice_size(n, count, proportion)) for n in range(1, min(count, 6) + 1)}
    return max(areas, key=lambda n: (areas[n], n))


def _slice_size(across: int, count: int, proportion: float) -> tuple[int, int]:
    """Width and height of each slice in pixels, at least 1."""
    down = -(-count // across)
    widest = WIDTH // across - 2 * _SIDE - 4
    highest = _TALLEST_GRID // down - 2 * _LINE - 6
    width = min(widest, highest / proportion)
    return max(1, round(width)), max(1, round(width * proportion))


def _render(tile: Tile, overlays: Sequence[Overlay], size: tuple[int, int]) -> Image.Image:
    """A slice with its overlays, drawn at twice the size and reduced, so that lines are smooth."""
    large = (size[0] * _SUPERSAMPLE, size[1] * _SUPERSAMPLE)
    reduced = large[0] <= tile.grey.shape[1]
    method = (
        Image.Resampling.BICUBIC if reduced else Image.Resampling.BILINEAR
    )  # bicubic rings when enlarging
    grey = np.asarray(Image.fromarray(tile.grey).resize(large, method), dtype=np.float32)
    rgb = np.repeat(grey[:, :, None], 3, axis=2)
    present = set(np.unique(tile.labels).tolist())
    order = sorted((o for o in overlays if o.number in present), key=lambda o: o.filled)
    shown = [(o, _scaled(tile.labels == o.number if o.filled else tile.labels > 0, large)) for o in order]
    for overlay, mask in shown:
        if overlay.filled:
            rgb[mask] += _FILL * (np.asarray(overlay.rgb, dtype=np.float32) - rgb[mask])
    for overlay, mask in shown:
        rgb[mask & ~_eroded(mask, 3)] = overlay.rgb
    picture = Image.fromarray(np.clip(np.rint(rgb), 0, 255).astype(np.uint8))
    return picture.resize(size, Image.Resampling.BOX)


def _scaled(mask: Mask, size: tuple[int, int]) -> Mask:
    """A mask at another size. What is there stays visible, however small."""
    coverage = np.asarray(
        Image.fromarray(np.where(mask, np.uint8(255), np.uint8(0))).resize(size, Image.Resampling.BILINEAR)
    )
    return np.asarray(coverage >= max(1, min(_COVERED, int(coverage.max()) // 2)))


def _eroded(mask: Mask, steps: int) -> Mask:
    """Take off a border of so many pixels (4-neighbours); outside the picture counts as outside."""
    for _ in range(steps):
        padded = np.pad(mask, 1)
        mask = mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask


def _draw_captions(
    draw: ImageDraw.ImageDraw, tile: Tile, edges: Edges, corner: tuple[int, int], size: tuple[int, int]
) -> None:
    """Letters at the middle of each edge, captions over the corners; all outside the slice."""
    x, y = corner
    middle, centre = x + size[0] / 2, y + size[1] / 2
    face = font(15)
    draw.text((middle, y - 4), edges.top, font=face, fill=WHITE, anchor="ms")
    draw.text((middle, y + size[1] + 15), edges.bottom, font=face, fill=WHITE, anchor="ms")
    for letters, place in ((edges.left, x - _SIDE / 2), (edges.right, x + size[0] + _SIDE / 2)):
        for i, letter in enumerate(letters):  # stacked: the margin is one letter wide
            offset = (i - (len(letters) - 1) / 2) * 16
            draw.text((place, centre + offset), letter, font=face, fill=WHITE, anchor="mm")
    room = (size[0] - draw.textlength(edges.top, font=face)) / 2 - 6
    for text, place, anchor in ((tile.left_caption, x, "ls"), (tile.right_caption, x + size[0], "rs")):
        if draw.textlength(text, font=font(13)) <= room:
            draw.text((place, y - 4), text, font=font(13), fill=SOFT, anchor=anchor)


def _draw_header(draw: ImageDraw.ImageDraw, page: Page) -> None:
    right = WIDTH - _MARGIN
    draw.text((right, 12), page.warning, font=font(22), fill=WARNING, anchor="ra")
    draw.text((right, 42), page.warning_detail, font=font(15), fill=WARNING, anchor="ra")
    room = right - _MARGIN - 24 - draw.textlength(page.warning, font=font(22))
    _draw_fitted(draw, (_MARGIN, 10), page.title, 24, WHITE, room)
    _draw_fitted(draw, (_MARGIN, 43), page.source, 14, SOFT, room)


@dataclass(frozen=True)
class _LegendLayout:
    size: int
    columns: int
    line: int
    height: int


def _legend_layout(entries: Sequence[LegendEntry]) -> _LegendLayout:
    """As many columns as the longest text allows; small type when there is much to say."""
    size = 17 if len(entries) <= 12 else 13
    longest = max((font(size).getlength(entry.text) for entry in entries), default=0.0)
    columns = max(1, min(4, int((WIDTH - 2 * _MARGIN) // (longest + size + 32))))
    line = size + 10
    return _LegendLayout(size, columns, line, 16 + line * -(-len(entries) // columns))


def _draw_legend(
    draw: ImageDraw.ImageDraw, entries: Sequence[LegendEntry], layout: _LegendLayout, top: int
) -> None:
    width = (WIDTH - 2 * _MARGIN) // layout.columns
    side = layout.size
    for i, entry in enumerate(entries):
        x, y = _MARGIN + (i % layout.columns) * width, top + (i // layout.columns) * layout.line
        box = (x, y, x + side, y + side)
        draw.rectangle(box, fill=entry.rgb if entry.found else None, outline=entry.rgb, width=2)
        place = (x + side + 9, y - 1)
        _draw_fitted(draw, place, entry.text, layout.size, WHITE if entry.found else SOFT, width - side - 18)


def _draw_fitted(
    draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, size: int, fill: Rgb, room: float
) -> None:
    """Write text in smaller type when it is too long, and shorten it when that is not enough."""
    while size > 12 and font(size).getlength(text) > room:
        size -= 1
    if font(size).getlength(text) > room:
        while text and font(size).getlength(text + "...") > room:
            text = text[:-1]
        text += "..."
    draw.text(place, text, font=font(size), fill=fill)
