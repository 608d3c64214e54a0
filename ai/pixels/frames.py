"""How each frame of a file is to be decoded: every check that its header allows, made once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ai.pixels.decoders import is_compressed
from ai.pixels.fragments import Frame, frame_ranges, has_big_endian_words
from ai.pixels.layout import Layout, layout_of
from ai.pixels.philips import philips_rescales
from ai.pixels.rescale import Rescale, first, rescale_of
from ai.pixels.screen import Screen, is_turned_over, screens_of, turned_over
from ai.pixels.suv import suv_bw_factor
from ai.pixels.values import padding_of
from ai.source import SourceFile

Scale = Literal["modality", "suv_bw", "philips", "attenuation", "screen"]

_INT16 = (-(1 << 15), (1 << 15) - 1)


@dataclass(frozen=True, slots=True)
class FramePixels:
    """Everything that is needed to decode one image plane, in any thread.

    Attributes
    ----------
    path
        The file.
    layout
        How its pixels are stored.
    ranges
        The bytes of the frame in the file.
    rescale
        From stored values to those of the scale that was asked for.
    padding
        Lowest and highest stored value that mean padding.
    is_ct
        Padding becomes air; in other images the lowest real value of the frame.
    words_start
        Where the pixel data starts if its 16-bit words have the high byte first, else None.
    screen
        How a viewer shows the values, where brightness was asked for.
    """

    path: Path
    layout: Layout
    ranges: Frame
    rescale: Rescale
    padding: tuple[int, int] | None
    is_ct: bool
    words_start: int | None = None
    screen: Screen | None = None

    @property
    def rows(self) -> int:
        """Rows of the decoded plane."""
        return self.layout.rows

    @property
    def columns(self) -> int:
        """Columns of the decoded plane."""
        return self.layout.columns

    @property
    def whole_int16(self) -> bool:
        """Whether int16 may hold every value exactly: all are whole numbers; the pixels tell if they fit."""
        return self.screen is None and all(
            number.is_integer() and abs(number) <= 1 << 16 for number in self.rescale
        )

    @property
    def surely_int16(self) -> bool:
        """Whether the header alone proves that every value fits an int16."""
        ends = [stored * self.rescale.slope + self.rescale.intercept for stored in self.layout.range]
        return min(ends) >= _INT16[0] and max(ends) <= _INT16[1]


def frame_pixels(file: SourceFile, scale: Scale = "modality") -> tuple[FramePixels, ...]:
    """How to decode each frame of a file, in the order of the file.

    Raises
    ------
    SeriesRefused
        UNSUPPORTED_PIXELS, PIXELS_TOO_LARGE, PIXEL_DATA_MISSING, PIXEL_DATA_TOO_SHORT, CANNOT_DECODE (the
        pixel data is not what the transfer syntax says); UNSUPPORTED_RESCALE, RESCALE_INVALID,
        NOT_HOUNSFIELD, SUV_NOT_POSSIBLE, PHILIPS_SCALE_MISSING, for without a true scale the values would be
        measured in no known unit.
    OSError
        The file cannot be opened.
    """
    layout = layout_of(file)
    ranges = frame_ranges(file, layout, encapsulated=is_compressed(layout))
    is_ct = first(file.header.facts, "Modality") == "CT"
    padding = padding_of(file.header.facts, layout)
    words_start = ranges[0][0].offset if has_big_endian_words(file, layout) else None
    screens = screens_of(file, layout) if scale == "screen" else [None] * layout.frames
    return tuple(
        FramePixels(file.path, layout, frame, rescale, padding, is_ct, words_start, screen)
        for frame, rescale, screen in zip(ranges, _rescales(file, layout, scale), screens, strict=True)
    )


def _rescales(file: SourceFile, layout: Layout, scale: Scale) -> list[Rescale]:
    facts = file.header.facts
    if scale == "screen":  # its Modality LUT, if there is one, is part of what the screen does
        facts = {keyword: values for keyword, values in facts.items() if keyword != "ModalityLUTSequence"}
    shared = len(file.header.frames) != layout.frames
    described = [*file.header.frames[:1]] * layout.frames if shared else file.header.frames
    if described:
        rescales = [rescale_of({**facts, **frame}, layout.name) for frame in described]
    else:
        rescales = [rescale_of(facts, layout.name)] * layout.frames
    if scale == "suv_bw":
        factor = suv_bw_factor(file)
        return [rescale.scaled(factor) for rescale in rescales]
    if scale == "philips":
        return philips_rescales(file, rescales)
    if scale == "attenuation" and is_turned_over(file):
        return [turned_over(rescale, layout) for rescale in rescales]
    return rescales


def unit_of(file: SourceFile, scale: Scale = "modality") -> str:
    """Unit of the values: HU for CT, Units for PET (BQML …), SUVbw; empty where a value is in none."""
    if scale == "suv_bw":
        return "SUVbw"
    modality = first(file.header.facts, "Modality")
    if scale == "modality" and modality == "CT":
        return "HU"
    if scale == "modality" and modality == "PT":
        return first(file.header.facts, "Units")[:16]
    return ""
