"""Which structures look alike to whom, and which line patterns keep them apart.

The colours of the pictures are those of the segmentation, so that picture, viewer and table agree; many
models have more structures than any eye has colours. Three things tell neighbours apart all the same:
numbers, a dark line between any two, and a pattern of the outline where two look alike to somebody.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import numpy.typing as npt

Rgb = tuple[int, int, int]
FloatArray = npt.NDArray[np.float64]

SOLID, DASHED, DOTTED = range(3)
ALIKE = 15.0
"""CIE76 distance below which thin lines of two colours may be taken for one; of large areas it is 2.3."""

# Machado, Oliveira and Fernandes 2009, severity 1.0, on linear RGB: normal, protan-, deuteran-, tritanopia
_VISIONS = np.array(
    [
        np.eye(3),
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ],
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ],
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ],
    ]
)
# IEC 61966-2-1: linear sRGB to XYZ, as parts of the white D65
_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
) / np.array([[0.95047], [1.0], [1.08883]])


def apparent_lab(rgbs: npt.ArrayLike) -> FloatArray:
    """CIELAB of colours as four kinds of eyes see them.

    Parameters
    ----------
    rgbs
        sRGB 0 to 255, ``(n, 3)``.

    Returns
    -------
    ``(4, n, 3)``: normal vision, protanopia, deuteranopia, tritanopia.
    """
    coded = np.asarray(rgbs, np.float64).reshape(-1, 3) / 255.0
    linear = np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ _VISIONS.transpose(0, 2, 1), 0.0, 1.0)
    xyz = seen @ _TO_XYZ.T
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)], axis=-1)


def distances(rgbs: npt.ArrayLike) -> FloatArray:
    """CIE76 distance of each two colours ``(n, n)`` to whoever sees the least of it."""
    lab = apparent_lab(rgbs)
    apart = np.sqrt(((lab[:, :, None] - lab[:, None]) ** 2).sum(axis=-1))
    return np.asarray(apart.min(axis=0), np.float64)


def choose_patterns(rgbs: Mapping[int, Rgb], neighbours: Collection[tuple[int, int]]) -> Mapping[int, int]:
    """A line pattern for each structure, so that neighbours which look alike have different ones.

    Greedy in the order of the numbers; where all three patterns are taken, the one with the fewest clashes
    (then only number and dark line tell the two apart).

    Parameters
    ----------
    rgbs
        By structure number.
    neighbours
        Pairs of numbers, in any order.
    """
    numbers = sorted(rgbs)
    apart = distances([rgbs[number] for number in numbers])
    place = {number: i for i, number in enumerate(numbers)}
    alike: dict[int, set[int]] = {number: set() for number in numbers}
    for a, b in neighbours:
        if a in place and b in place and a != b and apart[place[a], place[b]] < ALIKE:
            alike[a].add(b)
            alike[b].add(a)
    patterns: dict[int, int] = {}
    for number in numbers:
        taken = [patterns[other] for other in alike[number] if other in patterns]
        patterns[number] = min((SOLID, DASHED, DOTTED), key=lambda pattern: (taken.count(pattern), pattern))
    return patterns
