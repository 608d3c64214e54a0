"""Words and signs on the picture: fitted text, and a sign with a shape of its own for each verdict."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

from PIL import ImageDraw

from ai.picture import font, plain
from ai.results.montage_colours import Rgb

WHITE: Rgb = (255, 255, 255)
SOFT: Rgb = (190, 190, 190)
WARNING: Rgb = (255, 213, 79)
BLACK: Rgb = (0, 0, 0)
FRAME: Rgb = (56, 56, 56)

Mark = Literal["PASS", "PARTIAL", "SUSPECT", "FAIL"]

MARK_RGB: dict[Mark, Rgb] = {
    "PASS": (140, 140, 140),
    "PARTIAL": (120, 200, 245),
    "SUSPECT": (255, 213, 79),
    "FAIL": (255, 140, 105),
}
"""Light enough to be read by everybody; word and shape say the same."""

_SMALLEST = 12
Draw = ImageDraw.ImageDraw


@lru_cache(maxsize=4096)
def width(text: str, size: int) -> float:
    """Pixels that a text takes."""
    return font(size).getlength(plain(text))


def write(
    draw: Draw,
    place: tuple[float, float],
    text: str,
    size: int,
    fill: Rgb = WHITE,
    *,
    anchor: str = "la",
    room: float = float("inf"),
) -> float:
    """Write text, in smaller type when it is too long for the room, and shortened when that is not enough.

    Returns the pixels that it takes.
    """
    shown, size = fitted(text, size, room)
    if shown:
        draw.text(place, shown, font=font(size), fill=fill, anchor=anchor)
    return width(shown, size)


def fitted(text: str, size: int, room: float) -> tuple[str, int]:
    """The text and the size of type in which it fits."""
    text = plain(text)
    while size > _SMALLEST and width(text, size) > room:
        size -= 1
    if width(text, size) <= room:
        return text, size
    while text and width(f"{text}...", size) > room:
        text = text[:-1]
    return f"{text.rstrip()}..." if text else "", size


def wrapped(text: str, size: int, room: float, most: int) -> list[str]:
    """The text in lines of whole words, at most so many; the last one is shortened where more is left."""
    lines: list[str] = []
    words = plain(text).split()
    while words and len(lines) < most - 1:
        count = 1
        while count < len(words) and width(" ".join(words[: count + 1]), size) <= room:
            count += 1
        lines.append(" ".join(words[:count]))
        words = words[count:]
    return [*lines, " ".join(words)] if words else lines


def draw_mark(draw: Draw, mark: Mark, left: float, top: float, side: float) -> None:
    """The sign of a verdict in a square box: tick, half disc, triangle, cross in a square."""
    rgb = MARK_RGB[mark]
    right, bottom, middle = left + side, top + side, left + side / 2
    if mark == "PASS":
        tick = [(left + side * 0.15, top + side * 0.55), (left + side * 0.4, top + side * 0.8)]
        draw.line([*tick, (left + side * 0.88, top + side * 0.2)], fill=rgb, width=2, joint="curve")
    elif mark == "PARTIAL":
        draw.ellipse((left, top, right, bottom), outline=rgb, width=2)
        draw.pieslice((left, top, right, bottom), 90, 270, fill=rgb)
    elif mark == "SUSPECT":
        draw.polygon([(middle, top), (right, bottom), (left, bottom)], fill=rgb)
        draw.line((middle, top + side * 0.38, middle, top + side * 0.68), fill=BLACK, width=2)
        draw.line((middle, top + side * 0.8, middle, top + side * 0.9), fill=BLACK, width=2)
    else:
        draw.rectangle((left, top, right, bottom), fill=rgb)
        inset = side * 0.25
        box = (left + inset, top + inset, right - inset, bottom - inset)
        draw.line(box, fill=BLACK, width=2)
        draw.line((box[0], box[3], box[2], box[1]), fill=BLACK, width=2)
