"""Display colours for structures that nobody has given one."""

from __future__ import annotations

import colorsys
import hashlib
from collections.abc import Collection

Rgb = tuple[int, int, int]

_LEAST_DISTANCE = 48.0  # in sRGB; colours nearer than this look alike beside each other
_GOLDEN_ANGLE = 0.381966  # of a turn: steps of it never come back to the same hue
_TRIES = 96


def distinct_colour(name: str, taken: Collection[Rgb]) -> Rgb:
    """A saturated sRGB colour for a name, away from those that are taken; the same for the same input.

    Where no colour is far from all of them, it is the one that is farthest, and never one of them.
    """
    seed = hashlib.sha256(name.encode()).digest()
    best, best_distance = (0, 0, 0), -1.0
    for turn in range(_TRIES):
        colour = _candidate(seed, turn)
        distance = min((_distance(colour, other) for other in taken), default=_LEAST_DISTANCE)
        if distance >= _LEAST_DISTANCE:
            return colour
        if distance > best_distance:
            best, best_distance = colour, distance
    return best if best_distance > 0 else _unused(best, taken)


def _candidate(seed: bytes, turn: int) -> Rgb:
    hue = (int.from_bytes(seed[:4]) / 2**32 + turn * _GOLDEN_ANGLE) % 1.0
    saturation = 0.45 + 0.5 * ((seed[4] + 89 * turn) % 256) / 255
    value = 0.6 + 0.4 * ((seed[5] + 151 * turn) % 256) / 255
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(hue, saturation, value))
    return red, green, blue


def _distance(one: Rgb, other: Rgb) -> float:
    """Weighted distance of two sRGB colours, 0 to about 765 (Riemersma's "redmean")."""
    mean_red = (one[0] + other[0]) / 2
    red, green, blue = (a - b for a, b in zip(one, other, strict=True))
    weights = (2 + mean_red / 256, 4.0, 2 + (255 - mean_red) / 256)
    return float(sum(w * d * d for w, d in zip(weights, (red, green, blue), strict=True)) ** 0.5)


def _unused(colour: Rgb, taken: Collection[Rgb]) -> Rgb:
    """The next colour that nobody has; there are 16 million."""
    packed = colour[0] << 16 | colour[1] << 8 | colour[2]
    while colour in taken:
        packed = (packed + 1) % (1 << 24)
        colour = (packed >> 16, packed >> 8 & 255, packed & 255)
    return colour
