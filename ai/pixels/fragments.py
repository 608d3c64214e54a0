"""Where the bytes of each frame lie in a file (PS3.5 8 and A.4)."""

from __future__ import annotations

import os
import struct
from itertools import pairwise
from typing import NamedTuple

from pydicom.uid import UID, ExplicitVRBigEndian

from ai.errors import SeriesRefused
from ai.pixels.layout import Layout
from ai.source import PixelData, SourceFile

_ITEM, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE0DD
_ITEM_HEADER = struct.Struct("<HHL")
_UNDEFINED = 0xFFFFFFFF
_MOST_FRAGMENTS = 200_000


class Range(NamedTuple):
    """Bytes of a file."""

    offset: int
    length: int


Frame = tuple[Range, ...]
"""The ranges whose bytes, one behind the other, are a frame."""


def frame_ranges(file: SourceFile, layout: Layout, *, encapsulated: bool) -> tuple[Frame, ...]:
    """The bytes of each frame, from the start of the file; all of them are there.

    Raises SeriesRefused: UNSUPPORTED_PIXELS, PIXEL_DATA_MISSING, PIXEL_DATA_TOO_SHORT, CANNOT_DECODE.
    """
    pixel_data = file.header.pixel_data
    if pixel_data is None or pixel_data.length == 0:
        raise SeriesRefused("PIXEL_DATA_MISSING", f"{layout.name} has no pixel data.")
    if pixel_data.keyword != "PixelData":
        raise SeriesRefused(
            "UNSUPPORTED_PIXELS", f"{layout.name} has {pixel_data.keyword}: whole numbers are read."
        )
    if encapsulated and pixel_data.length is not None:
        raise _wrong_syntax(layout, "compressed, and its pixel data is not in fragments")
    if not encapsulated and pixel_data.length is None:
        raise _wrong_syntax(layout, "uncompressed, and its pixel data is in fragments")
    if encapsulated:
        return _encapsulated(file, pixel_data, layout)
    return _native(file, pixel_data, layout)


def has_big_endian_words(file: SourceFile, layout: Layout) -> bool:
    """Whether the pixel data is words with the high byte first: pixels of 8 bits may be bytes (PS3.5 A.3)."""
    if layout.transfer_syntax_uid != ExplicitVRBigEndian or file.header.pixel_data is None:
        return False
    with file.path.open("rb", buffering=0) as stored:  # tag, then VR, 2 reserved bytes and the length
        vr = os.pread(stored.fileno(), 2, file.data_set_offset + file.header.pixel_data.offset - 8)
    return layout.bits_allocated > 8 or vr != b"OB"


def _wrong_syntax(layout: Layout, what: str) -> SeriesRefused:
    syntax = UID(layout.transfer_syntax_uid).name
    return SeriesRefused("CANNOT_DECODE", f"The transfer syntax of {layout.name} ({syntax}) is {what}.")


def _native(file: SourceFile, pixel_data: PixelData, layout: Layout) -> tuple[Frame, ...]:
    start = file.data_set_offset + pixel_data.offset
    there = min(pixel_data.length or 0, file.size_bytes - start)
    needed = layout.frames * layout.frame_bytes
    if there < needed:
        raise SeriesRefused(
            "PIXEL_DATA_TOO_SHORT",
            f"{layout.name} has {there} bytes of pixel data; {layout.frames} × {layout.rows} × "
            f"{layout.columns} pixels of {layout.bits_allocated} bits need {needed}.",
        )
    size = layout.frame_bytes
    return tuple((Range(start + n * size, size),) for n in range(layout.frames))


def _encapsulated(file: SourceFile, pixel_data: PixelData, layout: Layout) -> tuple[Frame, ...]:
    with file.path.open("rb", buffering=0) as stored:
        items = _items(
            stored.fileno(), file.data_set_offset + pixel_data.offset, file.size_bytes, layout.name
        )
        table = os.pread(stored.fileno(), min(items[0].length, 4 * layout.frames), items[0].offset)
    fragments = items[1:]
    if not any(fragment.length for fragment in fragments):
        raise SeriesRefused("PIXEL_DATA_MISSING", f"The pixel data of {layout.name} has no bytes.")
    if layout.frames == 1:
        frames = [tuple(fragments)]
    elif len(fragments) == layout.frames:
        frames = [(fragment,) for fragment in fragments]
    else:
        offsets = struct.unpack_from(f"<{len(table) // 4}L", table)  # what is left over is no offset
        frames = _by_offsets(fragments, offsets, layout)
    for number, frame in enumerate(frames, start=1):
        _check_length(sum(part.length for part in frame), number, layout)
    return tuple(frames)


def _items(descriptor: int, at: int, end: int, name: str) -> list[Range]:
    """The Basic Offset Table and the fragments behind it, up to the sequence delimiter."""
    items: list[Range] = []
    while True:
        raw = os.pread(descriptor, _ITEM_HEADER.size, at)
        if len(raw) < _ITEM_HEADER.size:
            raise SeriesRefused(
                "PIXEL_DATA_TOO_SHORT",
                f"{name} ends behind item {len(items)} of its pixel data without a delimiter: it is cut off.",
            )
        group, element, length = _ITEM_HEADER.unpack(raw)
        at += _ITEM_HEADER.size
        tag = group << 16 | element
        if tag == _SEQUENCE_END and items:
            return items
        if tag != _ITEM or length == _UNDEFINED:
            raise SeriesRefused(
                "CANNOT_DECODE", f"The pixel data of {name} has something else than a fragment at byte {at}."
            )
        if at + length > end:
            raise SeriesRefused(
                "PIXEL_DATA_TOO_SHORT",
                f"Fragment {len(items)} of the pixel data of {name} needs {length} bytes, "
                f"and {end - at} are there.",
            )
        items.append(Range(at, length))
        if len(items) > _MOST_FRAGMENTS:
            raise SeriesRefused(
                "CANNOT_DECODE", f"The pixel data of {name} has more than {_MOST_FRAGMENTS} fragments."
            )
        at += length


def _by_offsets(fragments: list[Range], offsets: tuple[int, ...], layout: Layout) -> list[Frame]:
    """Frames of several fragments, by the Basic Offset Table: from the first byte behind it to each frame."""
    origin = fragments[0].offset - _ITEM_HEADER.size
    index = {f.offset - _ITEM_HEADER.size - origin: n for n, f in enumerate(fragments)}
    starts = [index.get(offset, -1) for offset in offsets]
    in_order = all(a < b for a, b in pairwise(starts))
    if len(offsets) != layout.frames or starts[0] != 0 or not in_order:
        raise SeriesRefused(
            "CANNOT_DECODE",
            f"{layout.name} has {layout.frames} frames in {len(fragments)} fragments, and its offset table "
            "does not tell which belong together.",
        )
    ends = [*starts[1:], len(fragments)]
    return [tuple(fragments[start:end]) for start, end in zip(starts, ends, strict=True)]


def _check_length(length: int, number: int, layout: Layout) -> None:
    if length == 0:
        raise SeriesRefused("PIXEL_DATA_MISSING", f"Frame {number} of {layout.name} has no bytes.")
    most = 2 * layout.frame_bytes + (1 << 20)
    if length > most:
        raise SeriesRefused(
            "CANNOT_DECODE",
            f"Frame {number} of {layout.name} has {length} compressed bytes for {layout.frame_bytes} bytes "
            f"of pixels; at most {most} are read.",
        )
