"""Putting labelled planes, their letters and a legend on one page: pure functions, Pillow and numpy only.

Nothing here knows of DICOM or of a run. Every plane keeps its captions and side letters beside it, in a
margin, so that no text but the structures' numbers lies on anatomy and no plane is cropped.

Colours are those that the caller gives, the segmentation's own, so that picture, viewer and table agree. Who
cannot tell two of them apart finds the numbers of the legend in the planes, a dark line between any two
structures, and dashes where neighbours look alike: see :mod:`ai.results.montage_colours`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from ai.picture import font, plain
from ai.results.montage_colours import choose_patterns
from ai.results.montage_layout import SIDE, Group, Placed, best_layout, place_planes
from ai.results.montage_legend import MARGIN, Legend, draw_legend, legend_height
from ai.results.montage_marks import BLACK, FRAME, SOFT, WARNING, WHITE, Draw, width, wrapped, write
from ai.results.montage_numbers import draw_numbers
from ai.results.montage_palette import DEFAULT_STYLE, Labels, Overlay, Palette, Style
from ai.results.montage_plane import neighbours, render, sampled

_DETAIL = 14  # size of type


@dataclass(frozen=True)
class Page:
    """All that is written around the planes; ``details`` stand under the title, each in two lines at most."""

    title: str
    details: tuple[str, ...]
    warning: str
    warning_detail: str
    legend: Legend
    footer: str


def draw_montage(
    page: Page,
    slices: Group,
    crossing: Sequence[Group],
    overlays: Sequence[Overlay],
    style: Style = DEFAULT_STYLE,
) -> npt.NDArray[np.uint8]:
    """Draw a page of planes: RGB uint8 ``(height, width, 3)``, as high as it needs.

    Parameters
    ----------
    slices
        At least one plane, all of one size.
    crossing
        Groups of one plane each, drawn at one scale.
    """
    layout = best_layout(slices, crossing, style.width_px)
    details = _detail_lines(page, style.width_px)
    top = 60 + 20 * len(details)
    placed, headings, bottom = place_planes(slices, crossing, layout, style.width_px, top)
    shown = [sampled(each.view.labels, each.size) for each in placed]
    palette = _palette(overlays, shown, style)
    height = bottom + legend_height(page.legend, style.width_px) + 40
    canvas = Image.new("RGB", (style.width_px, height), BLACK)
    draw = ImageDraw.Draw(canvas)
    _draw_header(draw, page, details, style.width_px)
    for text, place, room in headings:
        write(draw, place, text, 16, room=room)
    for each, labels in zip(placed, shown, strict=True):
        _draw_plane(canvas, draw, each, render(each.view.grey, labels, palette))
    if style.numbers and len(overlays) > 1:
        draw_numbers(draw, placed, shown, overlays)
    draw_legend(canvas, draw, page.legend, palette, bottom)
    write(draw, (MARGIN, height - 28), page.footer, 14, SOFT, room=style.width_px - 2 * MARGIN)
    return np.asarray(canvas)


def _palette(overlays: Sequence[Overlay], shown: Sequence[Labels], style: Style) -> Palette:
    """Colours and patterns; an envelope is known by where it is, and needs none."""
    touching = {pair for labels in shown for pair in neighbours(labels)}
    rgbs = {each.number: each.rgb for each in overlays if each.filled}
    return Palette(tuple(overlays), choose_patterns(rgbs, touching), style)


def _detail_lines(page: Page, page_width: int) -> list[str]:
    """The first one beside the warning, the others below it in the whole width."""
    beside = _beside_warning(page, page_width)
    first = wrapped(page.details[0], _DETAIL, beside, 2) if page.details else []
    room = page_width - 2.0 * MARGIN
    return [*first, *(line for detail in page.details[1:] for line in wrapped(detail, _DETAIL, room, 2))]


def _beside_warning(page: Page, page_width: int) -> float:
    return page_width - 2.0 * MARGIN - 24 - width(page.warning, 22)


def _draw_header(draw: Draw, page: Page, details: Sequence[str], page_width: int) -> None:
    right = page_width - MARGIN
    write(draw, (right, 12), page.warning, 22, WARNING, anchor="ra")
    write(draw, (right, 42), page.warning_detail, 15, WARNING, anchor="ra")
    beside = _beside_warning(page, page_width)
    write(draw, (MARGIN, 10), page.title, 24, room=beside)
    for i, line in enumerate(details):
        room = beside if i == 0 else page_width - 2.0 * MARGIN
        write(draw, (MARGIN, 44 + 20 * i), line, _DETAIL, SOFT, room=room)


def _draw_plane(canvas: Image.Image, draw: Draw, placed: Placed, picture: npt.NDArray[np.uint8]) -> None:
    """The plane in its frame, letters at the middle of each edge, caption over the corner; all outside."""
    (x, y), (wide, high), view = placed.corner, placed.size, placed.view
    draw.rectangle((x - 1, y - 1, x + wide, y + high), outline=FRAME)
    canvas.paste(Image.fromarray(picture), (x, y))
    for part in view.ticks:
        if view.ticks_down:
            at = y + min(high - 1, int(part * high))
            draw.line((x, at, x + 5, at), fill=SOFT)
            draw.line((x + wide - 6, at, x + wide - 1, at), fill=SOFT)
        else:
            at = x + min(wide - 1, int(part * wide))
            draw.line((at, y, at, y + 5), fill=SOFT)
            draw.line((at, y + high - 6, at, y + high - 1), fill=SOFT)
    middle, centre, face = x + wide / 2, y + high / 2, font(15)
    draw.text((middle, y - 4), view.edges.top, font=face, fill=WHITE, anchor="ms")
    draw.text((middle, y + high + 15), view.edges.bottom, font=face, fill=WHITE, anchor="ms")
    for letters, place in ((view.edges.left, x - SIDE / 2), (view.edges.right, x + wide + SIDE / 2)):
        for i, letter in enumerate(letters):  # stacked: the margin is one letter wide
            offset = (i - (len(letters) - 1) / 2) * 16
            draw.text((place, centre + offset), letter, font=face, fill=WHITE, anchor="mm")
    room = (wide - width(view.edges.top, 15)) / 2 - 6
    if view.caption and width(view.caption, 13) <= room:
        draw.text((x, y - 4), plain(view.caption), font=font(13), fill=SOFT, anchor="ls")
