"""One labelled plane as pixels: grey image, tints, outlines. Pure functions, numpy and Pillow only.

Labels are drawn at twice the size and averaged, so that lines are smooth. Everything about a pixel is one
code, which a table turns into colour and opacity: the cost does not grow with the number of structures.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from ai.results.montage_colours import DASHED, DOTTED
from ai.results.montage_palette import CASING, GAP, OUTLINE, SCALE, Grey, Labels, Palette

Mask = npt.NDArray[np.bool_]

_DASH, _DOT = 14, 5  # half a period, in pixels of a label image
_NEAR = 3  # pixels of the picture: as near are neighbours


def sampled(labels: Labels, size: tuple[int, int]) -> Labels:
    """Labels of a plane at twice the size (width, height) of the picture, nearest neighbour.

    What is there stays visible, however small.
    """
    height, width = labels.shape
    rows = ((np.arange(size[1] * SCALE) + 0.5) * (height / (size[1] * SCALE))).astype(np.intp)
    columns = ((np.arange(size[0] * SCALE) + 0.5) * (width / (size[0] * SCALE))).astype(np.intp)
    shown: Labels = labels.take(rows, axis=0).take(columns, axis=1)
    if len(rows) < height or len(columns) < width:
        for number in present(labels) - present(shown):
            row, column = np.argwhere(labels == number).mean(axis=0)
            i, j = int(row * len(rows) / height), int(column * len(columns) / width)
            shown[max(0, i - 1) : i + 1, max(0, j - 1) : j + 1] = number
    return shown


def present(labels: Labels) -> set[int]:
    """Numbers in a plane, without 0."""
    return set(np.flatnonzero(counts(labels)).tolist()) - {0}


def counts(labels: Labels) -> npt.NDArray[np.int64]:
    """Pixels of each number, ``(256,)``."""
    height, width = labels.shape
    plane = Image.frombuffer("L", (width, height), np.ascontiguousarray(labels), "raw", "L", 0, 1)
    return np.asarray(plane.histogram(), np.int64)  # several times as fast as bincount


def neighbours(shown: Labels) -> set[tuple[int, int]]:
    """Pairs of numbers that touch or nearly touch in a plane of :func:`sampled`, the lower one first."""
    small = shown[::SCALE, ::SCALE]
    table = np.zeros(1 << 16, np.bool_)
    for a, b in ((small[:-_NEAR], small[_NEAR:]), (small[:, :-_NEAR], small[:, _NEAR:])):
        differ = (a != b) & (a > 0) & (b > 0)
        one, other = a[differ], b[differ]
        table[(np.minimum(one, other).astype(np.intp) << 8) | np.maximum(one, other)] = True
    return {(int(code) >> 8, int(code) & 255) for code in np.flatnonzero(table)}


def render(grey: Grey, shown: Labels, palette: Palette) -> npt.NDArray[np.uint8]:
    """A plane with its overlay: RGB uint8 ``(height, width, 3)``.

    Parameters
    ----------
    grey
        ``(rows, columns)``, of any size.
    shown
        What :func:`sampled` gives, ``(2 × height, 2 × width)``.
    """
    size = (shown.shape[1] // SCALE, shown.shape[0] // SCALE)
    reduced = size[0] <= grey.shape[1] and size[1] <= grey.shape[0]
    # bicubic rings when enlarging
    method = Image.Resampling.BICUBIC if reduced else Image.Resampling.BILINEAR
    back = np.asarray(Image.fromarray(np.ascontiguousarray(grey)).resize(size, method))
    picture = np.repeat(back[:, :, None], 3, axis=2)
    box = _box_of(shown, palette)
    if box is None:
        return picture
    drawn = palette.table.view(np.uint32)[:, 0][_codes(shown[box], palette)]
    height, width = drawn.shape
    # "CMYK" is four channels without a meaning of their own
    layer = Image.frombuffer("CMYK", (width, height), drawn, "raw", "CMYK", 0, 1).reduce(SCALE)
    over = np.asarray(layer)
    rows, columns = (slice(side.start // SCALE, side.stop // SCALE) for side in box)
    clear = 255 - over[:, :, 3].astype(np.uint16)
    behind = ((back[rows, columns].astype(np.uint16) * clear + 127) // 255).astype(np.uint8)
    picture[rows, columns] = over[:, :, :3] + behind[:, :, None]
    return picture


def _box_of(shown: Labels, palette: Palette) -> tuple[slice, slice] | None:
    """The box around all labels and outlines, in whole pixels of the picture; None where there are none."""
    margin = SCALE * (1 + len(palette.wholes)) * palette.line_width + SCALE
    sides = []
    for axis in (0, 1):
        there = np.flatnonzero(shown.any(axis=1 - axis))
        if there.size == 0:
            return None
        first = max(0, int(there[0]) - margin) // SCALE * SCALE
        last = min(shown.shape[axis], (int(there[-1]) + margin) // SCALE * SCALE + SCALE)
        sides.append(slice(first, last))
    return sides[0], sides[1]


def _codes(shown: Labels, palette: Palette) -> npt.NDArray[np.uint16]:
    """What each pixel is: tint of a number, outline, gap in an outline, or the dark line beside one."""
    width = palette.line_width
    codes = shown.astype(np.uint16)
    for each in palette.overlays:
        if not each.filled:
            _outline(codes, np.where(shown > 0, np.uint8(each.number), np.uint8(0)), width, palette)
    _outline(codes, palette.leaves[shown], width, palette)
    for number, depth, values in palette.wholes:
        mask = values[shown]
        if mask.any():
            band = _grown(mask, depth * width) & ~_grown(mask, (depth - 1) * width)
            _paint(codes, np.flatnonzero(band), np.full(shown.shape, number, np.uint8), palette)
    return codes


def _outline(codes: npt.NDArray[np.uint16], numbers: Labels, width: int, palette: Palette) -> None:
    """Outlines inside the regions of each number, and a dark line along them.

    The dark line lies outside of what is labelled, and between two regions in one of them: it keeps bright
    colours visible on bright tissue, and neighbours apart whatever their colours.
    """
    below, beside = numbers[1:] != numbers[:-1], numbers[:, 1:] != numbers[:, :-1]
    edge, casing = np.zeros(numbers.shape, np.bool_), np.zeros(numbers.shape, np.bool_)
    free = numbers == 0
    for differ, first, second in (
        (below, np.s_[:-1], np.s_[1:]),
        (beside, np.s_[:, :-1], np.s_[:, 1:]),
    ):
        edge[first] |= differ
        edge[second] |= differ
        casing[first] |= differ & (free[first] | ~free[second])
        casing[second] |= differ & free[second]
    if not edge.any():
        return
    _paint(codes, np.flatnonzero(_grown(edge, width - 1) & ~free & ~casing), numbers, palette)
    codes[casing] = CASING


def _paint(
    codes: npt.NDArray[np.uint16], places: npt.NDArray[np.intp], numbers: Labels, palette: Palette
) -> None:
    """Outline code at flat places, with the gaps of the numbers' patterns."""
    number = numbers.reshape(-1)[places]
    kind = np.full(len(places), OUTLINE, np.uint16)
    if palette.pattern_of.any():
        row, column = np.divmod(places, numbers.shape[1])
        along, pattern = row + 2 * column, palette.pattern_of[number]
        gap = (pattern == DASHED) & (along // (2 * _DASH) % 2 == 1)
        gap |= (pattern == DOTTED) & (along // (2 * _DOT) % 2 == 1)
        kind[gap] = GAP
    codes.reshape(-1)[places] = kind + number


def _grown(mask: Mask, steps: int) -> Mask:
    """Grow by so many pixels, by turns over sides and over corners too, which is nearly round."""
    for step in range(steps):
        grown = mask.copy()
        grown[1:] |= mask[:-1]
        grown[:-1] |= mask[1:]
        source = grown.copy() if step % 2 else mask
        grown[:, 1:] |= source[:, :-1]
        grown[:, :-1] |= source[:, 1:]
        mask = grown
    return mask
