"""Heights of slices along their normal: which are at one position, and are the gaps even?"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ai.geometry.model import FloatArray

SPACING_TOLERANCE = 0.01  # of the slice spacing, as highdicom's
GRID_TOLERANCE = 0.1  # of the slice spacing: how far a slice may be from its place on the regular grid
MULTIPLE_TOLERANCE = 0.05  # of the spacing: how near a gap must be to a whole number of slices
SAME_POSITION_MM = 1e-3
_SAME_POSITION = 0.1  # of the spacing: a second scan of the same slices need not meet them exactly
_SAME_SLICE = 0.5  # of the thickness: slices farther apart than this show other tissue


def same_position_mm(heights: FloatArray, thickness_mm: float | None) -> float:
    """Images no farther apart than this lie at one position.

    A thousandth of a millimetre at least. Where the heights are bunched, it is the width of a bunch: each
    must be narrow against the gaps between bunches and against the slices, so thin slices in groups along
    the body (high-resolution CT) are not one position.
    """
    ordered = np.sort(heights)
    gaps = np.sort(np.diff(ordered))
    apart = gaps[gaps > SAME_POSITION_MM]
    if apart.size < 2:
        return SAME_POSITION_MM
    for i in np.flatnonzero(apart[:-1] <= _SAME_POSITION * apart[1:])[::-1]:
        first = np.concatenate([[True], np.diff(ordered) > apart[i]])
        last = np.concatenate([first[1:], [True]])
        widest = float(np.max(ordered[last] - ordered[first]))
        if widest <= _SAME_POSITION * apart[i + 1] and widest <= _SAME_SLICE * (thickness_mm or np.inf):
            return float(apart[i])
    return SAME_POSITION_MM


def is_even(gaps: FloatArray) -> bool:
    """Whether gaps agree with their mean, and add up to slices that are in their places."""
    if not gaps.size:
        return False
    mean = float(gaps.mean())
    drift = np.abs(np.cumsum(gaps) - mean * np.arange(1, gaps.size + 1))
    near = np.abs(gaps - mean) <= SPACING_TOLERANCE * mean
    return bool(near.all() and drift.max() <= GRID_TOLERANCE * mean)


def multiples(gaps: FloatArray) -> npt.NDArray[np.int64] | None:
    """Gaps (n,) as whole multiples of one spacing, as missing slices leave them; None if they are none.

    Slices that are lost at random leave more single gaps than gaps of any other width. Where another width
    is far more frequent, it is the spacing of most of the stack, and the narrow gaps are the odd ones.
    """
    spacing_mm = float(np.median(gaps[gaps < 1.5 * gaps.min()]))
    counts = np.rint(gaps / spacing_mm).astype(np.int64)
    off = np.abs(gaps - counts * spacing_mm) > MULTIPLE_TOLERANCE * spacing_mm
    _, frequency = np.unique(counts, return_counts=True)
    if off.any() or 2 * np.count_nonzero(counts == 1) < frequency.max():
        return None
    return counts
