"""How structures are drawn: taste, colours, and the table that turns the code of a pixel into both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ai.results.montage_colours import SOLID, Rgb

Grey = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.uint8]

SCALE = 2
"""Pixels of a label image for one of the picture."""

OUTLINE, GAP, CASING = 256, 512, 768
"""Codes of a pixel: these plus a number; below 256 it is the tint of that number."""

_CASING_OPACITY = 0.7
_DARK = 110.0  # luma below which a pattern's gaps are lighter than its colour, not darker
_LIGHT, _SHADE = 0.35, 0.3  # how much of the colour a gap keeps


@dataclass(frozen=True)
class Style:
    """A slider's worth of taste.

    Attributes
    ----------
    fill
        Opacity of the tint inside a structure, 0..1. A quarter leaves the texture of the image readable.
    outline_px
        Width of outlines in pixels of the picture, 0.5 or more.
    numbers
        Whether structures bear their numbers, when there are several.
    tiles
        At most so many slices.
    width_px
        Of the picture.
    """

    fill: float = 0.25
    outline_px: float = 1.5
    numbers: bool = True
    tiles: int = 12
    width_px: int = 1280


DEFAULT_STYLE = Style()


@dataclass(frozen=True)
class Overlay:
    """How one structure is drawn.

    Attributes
    ----------
    number
        Its value in the label map.
    rgb
        sRGB, 0 to 255.
    filled
        Whether its inside is tinted. One that is not is drawn as an envelope, around everything that is
        labelled: it is what contains the rest, and its borders with that would double every line.
    includes
        Numbers that are parts of it. Its outline is that of the union, outside those of its parts.
    """

    number: int
    rgb: Rgb
    filled: bool = True
    includes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Palette:
    """Everything about the colours of one picture; ``patterns`` by number, see ``montage_colours``."""

    overlays: tuple[Overlay, ...]
    patterns: Mapping[int, int]
    style: Style

    @property
    def line_width(self) -> int:
        """Of outlines, in pixels of a label image."""
        return max(1, round(self.style.outline_px * SCALE))

    @cached_property
    def table(self) -> npt.NDArray[np.uint8]:
        """Red, green, blue times opacity, and opacity, of each code: ``(769, 4)``."""
        table = np.zeros((CASING + 1, 4), np.float64)
        for each in self.overlays:
            luma = float(np.dot(each.rgb, (0.299, 0.587, 0.114)))
            towards, kept = (255.0, _LIGHT) if luma < _DARK else (0.0, _SHADE)
            fill = self.style.fill if each.filled else 0.0
            table[each.number] = [*(np.asarray(each.rgb) * fill), 255.0 * fill]
            table[OUTLINE + each.number] = [*each.rgb, 255.0]
            gap = towards + kept * (np.asarray(each.rgb) - towards)
            table[GAP + each.number] = [*gap, 255.0]
        table[CASING, 3] = 255.0 * _CASING_OPACITY
        return np.rint(table).astype(np.uint8)

    @cached_property
    def leaves(self) -> npt.NDArray[np.uint8]:
        """Number by label value, 0 of what has no outline of its own region."""
        leaves = np.zeros(256, np.uint8)
        for each in self.overlays:
            if each.filled and not each.includes:
                leaves[each.number] = each.number
        return leaves

    @cached_property
    def pattern_of(self) -> npt.NDArray[np.uint8]:
        """Pattern by number."""
        patterns = np.full(256, SOLID, np.uint8)
        for number, pattern in self.patterns.items():
            patterns[number] = pattern
        return patterns

    @cached_property
    def wholes(self) -> Sequence[tuple[int, int, npt.NDArray[np.bool_]]]:
        """Number, depth (1: all of its parts are leaves) and label values of what includes others."""
        parts = {each.number: each.includes for each in self.overlays}

        def depth(number: int) -> int:
            return 1 + max((depth(part) for part in parts[number] if parts.get(part)), default=0)

        found = []
        for number, includes in parts.items():
            if includes:
                values = np.zeros(256, np.bool_)
                values[[number, *includes]] = True
                found.append((number, depth(number), values))
        return found
