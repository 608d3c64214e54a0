"""One frame decoded into the place where it is wanted."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from ai.errors import SeriesRefused
from ai.pixels.decoders import decode, is_compressed
from ai.pixels.fragments import Range
from ai.pixels.frames import FramePixels
from ai.pixels.values import AIR_HU, padding_mask, used_bits

Plane = npt.NDArray[np.int16] | npt.NDArray[np.float32]
_Cells = npt.NDArray[Any]

_INT16 = np.iinfo(np.int16)


class NotInt16(Exception):
    """A value of the frame is no whole number that fits an int16."""


def decode_into(pixels: FramePixels, out: Plane) -> None:
    """Decode a frame into ``out``: int16 or float32 ``(rows, columns)``, C-contiguous. Safe in any thread.

    Padding becomes air (CT) or the lowest real value. MONOCHROME1 is not inverted by itself: that is
    presentation, not a measurement (PS3.3 C.7.6.3.1.2); the scales that are about it do so.

    Raises
    ------
    NotInt16
        ``out`` is int16 and a value does not fit; ``out`` then holds anything.
    SeriesRefused
        CANNOT_DECODE, PIXEL_DATA_TOO_SHORT (the file has become shorter).
    """
    if out.shape != (pixels.rows, pixels.columns) or not out.flags.c_contiguous:
        raise ValueError(f"{pixels.layout.name} needs a plane of {pixels.rows} × {pixels.columns} pixels")
    if out.dtype == np.int16 and not pixels.whole_int16:
        raise NotInt16
    cells = _stored(pixels, out)
    mask = padding_mask(cells, pixels.layout, pixels.padding)
    values = used_bits(cells, pixels.layout)
    if mask is not None and mask.all():
        if pixels.is_ct:
            out[...] = AIR_HU
            return
        mask = None  # nothing tells which value is the lowest real one
    if mask is not None:
        values[mask] = values[~mask][0]  # any real value: padding decides no range
    if out.dtype == np.int16:
        _rescale_whole(values, pixels, out)
    else:
        scaled = np.multiply(values, pixels.rescale.slope, dtype=np.float64) + pixels.rescale.intercept
        out[...] = scaled if pixels.screen is None else pixels.screen.brightness(scaled)
    if mask is not None:
        out[mask] = AIR_HU if pixels.is_ct else out.min()


def _rescale_whole(values: _Cells, pixels: FramePixels, out: Plane) -> None:
    """Exact in 16 bits: arithmetic modulo 65536 is right when the result fits, which is checked first."""
    slope, intercept = (int(number) for number in pixels.rescale)
    if not pixels.surely_int16:
        ends = [int(end) * slope + intercept for end in (values.min(), values.max())]
        if min(ends) < _INT16.min or max(ends) > _INT16.max:
            raise NotInt16
    bits = out.view(np.uint16)
    if not np.may_share_memory(values, out):
        np.copyto(bits, values, casting="unsafe")
    if slope != 1:
        bits *= np.uint16(slope % 65536)
    if intercept != 0:
        bits += np.uint16(intercept % 65536)


def _stored(pixels: FramePixels, out: Plane) -> _Cells:
    """The cells of a frame ``(rows, columns)``; they lie in ``out`` where no other place is needed."""
    layout = pixels.layout
    with pixels.path.open("rb", buffering=0) as file:
        if is_compressed(layout):
            data = b"".join(_read(file.fileno(), part, pixels) for part in pixels.ranges)
            return decode(data, layout)
        (place,) = pixels.ranges
        if pixels.words_start is not None:
            return _big_endian(file.fileno(), place, pixels)
        if layout.bits_allocated == 16 and out.dtype == np.int16:
            cells: _Cells = out.view(np.uint16)
        else:
            cells = np.empty(out.shape, f"<u{layout.bits_allocated // 8}")
        _read_into(file.fileno(), place.offset, cells, pixels)
    return cells


def _big_endian(descriptor: int, place: Range, pixels: FramePixels) -> _Cells:
    """Words of 16 bits the other way round; a frame of 8-bit pixels may start within a word (PS3.5 A.3)."""
    shift = (place.offset - (pixels.words_start or 0)) % 2
    first = place.offset - shift
    words = np.empty((shift + place.length + 1) // 2, np.uint16)
    _read_into(descriptor, first, words, pixels)
    words.byteswap(inplace=True)
    cells = words.view(np.uint8)[shift : shift + place.length]
    return cells.view(f"<u{pixels.layout.bits_allocated // 8}").reshape(pixels.rows, pixels.columns)


def _read(descriptor: int, place: Range, pixels: FramePixels) -> bytes:
    data = os.pread(descriptor, place.length, place.offset)
    if len(data) < place.length:
        raise _shorter(pixels, place.length - len(data))
    return data


def _read_into(descriptor: int, offset: int, target: _Cells, pixels: FramePixels) -> None:
    """Fill an array from a file; one call to the system for all that a file system gives at once."""
    view = target.reshape(-1).view(np.uint8).data
    while view:
        count = os.preadv(descriptor, [view], offset)
        if count == 0:
            raise _shorter(pixels, len(view))
        view, offset = view[count:], offset + count


def _shorter(pixels: FramePixels, count: int) -> SeriesRefused:
    reason = f"{pixels.layout.name} has become {count} bytes shorter while it was read."
    return SeriesRefused("PIXEL_DATA_TOO_SHORT", reason)
