"""Stored integers: the bits that count, and which pixels are padding."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ai.pixels.layout import Layout
from ai.pixels.rescale import number
from ai.source import Facts

AIR_HU = -1024

Stored = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]


def padding_of(facts: Facts, layout: Layout) -> tuple[int, int] | None:
    """Lowest and highest stored value that mean padding (PS3.3 C.7.5.1.1.2); None: nothing does.

    A malformed value says nothing. The sign is that of the pixels: some write US beside signed pixels, or SS.
    """
    value = number(facts, "PixelPaddingValue")
    limit = number(facts, "PixelPaddingRangeLimit")
    limit = value if limit is None else limit
    if value is None or limit is None or not (_is_whole(value) and _is_whole(limit)):
        return None
    low, high = sorted((_in_cell(int(value), layout), _in_cell(int(limit), layout)))
    return low, high


def _is_whole(value: float) -> bool:
    return value.is_integer() and abs(value) < 1 << 32


def _in_cell(value: int, layout: Layout) -> int:
    bits = layout.bits_allocated
    value &= (1 << bits) - 1
    return value - ((value >> (bits - 1)) << bits) if layout.signed else value


def used_bits(stored: Stored, layout: Layout) -> Stored:
    """Values without what stands above Bits Stored (PS3.5 8.1.1); may change ``stored``."""
    cells = _cells(stored, layout)
    unused = 8 * cells.itemsize - layout.bits_stored
    if unused and layout.signed:
        cells <<= unused
        cells >>= unused  # brings the sign down with it
    elif unused:
        cells &= cells.dtype.type((1 << layout.bits_stored) - 1)
    return cells


def _cells(stored: Stored, layout: Layout) -> Stored:
    """As integers of the allocated width and the sign that the header tells."""
    kind = f"{'i' if layout.signed else 'u'}{layout.bits_allocated // 8}"
    if stored.itemsize == layout.bits_allocated // 8:
        return stored.view(kind)
    return stored.astype(kind)


def padding_mask(cells: Stored, layout: Layout, padding: tuple[int, int] | None) -> Mask | None:
    """Which pixels are padding; None where none is.

    ``cells`` are what is stored, the bits above Bits Stored too: a padding value of -2000 beside 12 bits
    fills the whole cell.
    """
    if padding is None:
        return None
    low, high = padding
    if low >= layout.range[0] and high <= layout.range[1]:
        cells = used_bits(cells.copy(), layout) if _has_spare_bits(layout) else _cells(cells, layout)
    else:
        cells = _cells(cells, layout)
    mask: Mask = cells == low if low == high else (cells >= low) & (cells <= high)
    return mask if mask.any() else None


def _has_spare_bits(layout: Layout) -> bool:
    return layout.bits_stored < layout.bits_allocated
