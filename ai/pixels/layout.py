"""How the pixels of an image are stored, read from its header and checked (PS3.3 C.7.6.3, PS3.5 8.1)."""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.uid import ExplicitVRBigEndian

from ai.errors import SeriesRefused
from ai.source import SourceFile

MAX_FRAMES = 50_000
_MOST_PIXELS = 1 << 26  # of one image plane: 8192 × 8192, half a GiB while it is rescaled
_ALLOCATED = (8, 16, 32)
_DIGITS = 12  # of a whole number: VR IS has no more (PS3.5 6.2)


@dataclass(frozen=True)
class Layout:
    """Storage of the frames of one image; all of them alike.

    Attributes
    ----------
    bits_allocated
        8, 16 or 32: bits of a pixel cell.
    bits_stored
        Bits that count, from bit 0; the others may hold anything (PS3.5 8.1.1).
    signed
        Two's complement (Pixel Representation).
    """

    name: str
    transfer_syntax_uid: str
    rows: int
    columns: int
    frames: int
    bits_allocated: int
    bits_stored: int
    signed: bool

    @property
    def pixels(self) -> int:
        """Pixels of a frame."""
        return self.rows * self.columns

    @property
    def frame_bytes(self) -> int:
        """Bytes of a decoded frame."""
        return self.pixels * self.bits_allocated // 8

    @property
    def range(self) -> tuple[int, int]:
        """Lowest and highest value that the stored bits can hold."""
        if self.signed:
            return -(1 << (self.bits_stored - 1)), (1 << (self.bits_stored - 1)) - 1
        return 0, (1 << self.bits_stored) - 1


def layout_of(file: SourceFile) -> Layout:
    """The storage that a header describes.

    Raises SeriesRefused: UNSUPPORTED_PIXELS, PIXELS_TOO_LARGE.
    """
    header = _Reader(file)
    samples, allocated = header.number("SamplesPerPixel", 1), header.number("BitsAllocated", 0)
    if samples != 1 or allocated not in _ALLOCATED:
        raise header.refused(
            f"{samples} samples per pixel of {allocated} bits; one of 8, 16 or 32 bits is needed"
        )
    photometric = header.text("PhotometricInterpretation", "MONOCHROME2")
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise header.refused(
            f"the Photometric Interpretation {photometric[:16]}; "
            "only MONOCHROME1 and MONOCHROME2 are measurable"
        )
    layout = Layout(
        name=file.path.name,
        transfer_syntax_uid=file.transfer_syntax_uid,
        rows=header.number("Rows", 0),
        columns=header.number("Columns", 0),
        frames=header.number("NumberOfFrames", 1),
        bits_allocated=allocated,
        bits_stored=header.number("BitsStored", allocated),
        signed=header.flag("PixelRepresentation"),
    )
    _check_bits(header, layout)
    _check_size(header, layout)
    return layout


def _check_bits(header: _Reader, layout: Layout) -> None:
    stored, allocated = layout.bits_stored, layout.bits_allocated
    if not 1 <= stored <= allocated:
        raise header.refused(f"{stored} Bits Stored of {allocated} Bits Allocated")
    high_bit = header.number("HighBit", stored - 1)
    if high_bit != stored - 1:
        raise header.refused(
            f"High Bit {high_bit} with {stored} Bits Stored; pixels that do not end at bit 0 are not read"
        )
    if allocated == 32 and layout.transfer_syntax_uid == ExplicitVRBigEndian:
        raise header.refused("big-endian pixels of 32 bits, whose order of words readers disagree on")


def _check_size(header: _Reader, layout: Layout) -> None:
    size = f"{layout.rows} × {layout.columns} pixels"
    if layout.rows < 1 or layout.columns < 1:
        raise header.refused(size)
    if layout.pixels > _MOST_PIXELS:
        raise SeriesRefused(
            "PIXELS_TOO_LARGE", f"{layout.name} claims {size}; at most {_MOST_PIXELS} are read."
        )
    described = len(header.file.header.frames)
    if layout.frames < 1 or described not in (0, 1, layout.frames):
        raise header.refused(f"{layout.frames} frames by its Number of Frames and describes {described}")
    if layout.frames > MAX_FRAMES:
        raise SeriesRefused(
            "PIXELS_TOO_LARGE", f"{layout.name} claims {layout.frames} frames; at most {MAX_FRAMES} are read."
        )


class _Reader:
    """Values of a header that must be single."""

    def __init__(self, file: SourceFile) -> None:
        self.file = file

    def refused(self, what: str) -> SeriesRefused:
        return SeriesRefused("UNSUPPORTED_PIXELS", f"{self.file.path.name} has {what}.")

    def text(self, keyword: str, default: str) -> str:
        values = self.file.header.facts.get(keyword, ())
        if len(values) > 1:
            raise self.refused(f"{len(values)} values of {keyword} where one is needed")
        return values[0] if values else default

    def number(self, keyword: str, default: int) -> int:
        text = self.text(keyword, str(default))
        try:
            if len(text) > _DIGITS:
                raise ValueError
            return int(text)
        except ValueError:
            raise self.refused(f"a {keyword} that is no usable whole number") from None

    def flag(self, keyword: str) -> bool:
        number = self.number(keyword, 0)
        if number not in (0, 1):
            raise self.refused(f"a {keyword} of {number}; it is 0 or 1")
        return number == 1
