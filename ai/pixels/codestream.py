"""What compressed data says of itself, read before a decoder may believe it.

A codestream carries its own size; a decoder allocates what that asks for. So it is read here first, within
the bytes that are there, and a decoder only gets what agrees with the header of the image.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise
from math import ceil

_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})
_SOI, _EOI, _SOS, _DHT, _JPG, _DAC = 0xD8, 0xD9, 0xDA, 0xC4, 0xC8, 0xCC
_NAMES = {
    0xC0: "JPEG baseline",
    0xC1: "JPEG extended",
    0xC2: "JPEG progressive",
    0xC3: "JPEG lossless",
    0xF7: "JPEG-LS",
}
_J2K_START, _J2K_SIZ, _J2K_TILE, _J2K_END = 0xFF4F, 0xFF51, 0xFF90, 0xFFD9
_JP2_SIGNATURE = b"\x00\x00\x00\x0cjP  \r\n\x87\n"
_HIGH_THROUGHPUT = 1 << 14  # of Rsiz: ISO/IEC 15444-15 A.2
_MOST_TILES = 4096  # a decoder keeps some KiB for each before it reads one
_PADDING_BYTES = 16  # of 0 or, as JPEG fills, of FF; PS3.5 A.4 allows one, some writers add more


class BadCodestream(Exception):
    """Compressed data that is no whole codestream; the message says why."""


@dataclass(frozen=True)
class StreamHeader:
    """What a codestream says of itself.

    ``precision`` is the number of bits of a sample, ``signed`` whether the codestream itself calls them
    signed: only JPEG 2000 can.
    """

    kind: str
    rows: int
    columns: int
    components: int
    precision: int
    signed: bool = False


def jpeg_header(data: bytes) -> StreamHeader:
    """The frame header of a JPEG or JPEG-LS codestream, which must end with EOI (ISO/IEC 10918-1 B.2).

    Raises BadCodestream.
    """
    if data[:2] != b"\xff\xd8":
        raise BadCodestream(f"it does not start with a JPEG marker but with {data[:4].hex()}")
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            raise BadCodestream(f"it has no marker at byte {at}")
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in _STANDALONE:
            at += 2
        elif marker in (_SOI, _EOI, _SOS):
            break
        elif _is_frame_header(marker):
            return _jpeg_frame(data, at, marker)
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    raise BadCodestream("it has no frame header")


def _has_end_marker(data: bytes) -> bool:
    """Whether a codestream of JPEG, JPEG-LS or JPEG 2000 reaches its end marker; padding may follow."""
    return data[-_PADDING_BYTES:].rstrip(b"\x00\xff").endswith(b"\xff\xd9")


def _is_frame_header(marker: int) -> bool:
    return marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (_DHT, _JPG, _DAC))


def _jpeg_frame(data: bytes, at: int, marker: int) -> StreamHeader:
    if at + 10 > len(data):
        raise BadCodestream("its frame header is cut off")
    if not _has_end_marker(data):
        raise BadCodestream("it is cut off: there is no end marker")
    precision, rows, columns, components = struct.unpack_from(">BHHB", data, at + 4)
    kind = _NAMES.get(marker, f"JPEG of kind SOF{marker - 0xC0}")
    return StreamHeader(kind, rows, columns, components, precision)


def jpeg2000_codestream(data: bytes) -> bytes:
    """The codestream itself, where a writer has put a whole JP2 file into the fragments."""
    if not data.startswith(_JP2_SIGNATURE):
        return data
    at = 0
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] == b"jp2c":
            return data[at + 8 : at + length if length else len(data)]
        if length < 8:
            break
        at += length
    raise BadCodestream("it is a JP2 file without a codestream")


def jpeg2000_header(data: bytes) -> StreamHeader:
    """The size of a JPEG 2000 codestream (ISO/IEC 15444-1 A.5.1), all tiles of which are there.

    Raises BadCodestream.
    """
    if len(data) < 45 or struct.unpack_from(">HH", data) != (_J2K_START, _J2K_SIZ):
        raise BadCodestream(f"it does not start with a JPEG 2000 marker but with {data[:4].hex()}")
    values = struct.unpack_from(">HHLLLLLLLLH", data, 4)
    length, capabilities, right, bottom, left, top = values[:6]
    tile_width, tile_height, tile_left, tile_top, components = values[6:]
    if length != 38 + 3 * components or 4 + length > len(data):
        raise BadCodestream(f"its size segment has {length} bytes for {components} components")
    depths, widths, heights = (set(data[42 + n : 4 + length : 3]) for n in range(3))
    if len(depths) != 1 or widths != {1} or heights != {1}:
        raise BadCodestream("its components differ in depth or are subsampled")
    if not tile_width or not tile_height or tile_left > left or tile_top > top:
        raise BadCodestream("its tiles do not cover the image")
    tiles = ceil((right - tile_left) / tile_width) * ceil((bottom - tile_top) / tile_height)
    if tiles > _MOST_TILES:
        raise BadCodestream(f"it has {tiles} tiles; at most {_MOST_TILES} are read")
    _check_tile_parts(data, 4 + length)
    depth = depths.pop()
    return StreamHeader(
        kind="HTJ2K" if capabilities & _HIGH_THROUGHPUT else "JPEG 2000",
        rows=bottom - top,
        columns=right - left,
        components=components,
        precision=(depth & 0x7F) + 1,
        signed=bool(depth & 0x80),
    )


def _check_tile_parts(data: bytes, at: int) -> None:
    """Walk to the end: decoders fill what a cut-off codestream lacks with zeros, without a word."""
    while at + 2 <= len(data):
        marker = int.from_bytes(data[at : at + 2], "big")
        if marker == _J2K_END:
            return
        if marker == _J2K_SIZ or marker < _J2K_START:
            raise BadCodestream(f"it has no marker, or a second size, at byte {at}")
        if marker == _J2K_TILE and at + 12 <= len(data):
            length = int.from_bytes(data[at + 6 : at + 10], "big")
            if length == 0:  # the last tile-part, up to the end marker
                if _has_end_marker(data):
                    return
                break
            at += max(length, 12)
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    if at != len(data):  # a codestream that lacks nothing but its end marker is whole
        raise BadCodestream("it is cut off: there is no end marker")


def rle_header(data: bytes, samples: int) -> None:
    """Check the RLE header of a frame of so many pixels' byte planes (PS3.5 G.5).

    Raises BadCodestream.
    """
    if len(data) < 64:
        raise BadCodestream(f"its RLE header has {len(data)} of 64 bytes")
    count, *offsets = struct.unpack_from("<16L", data)
    if count != samples:
        raise BadCodestream(f"it has {count} RLE segments; pixels of {8 * samples} bits have {samples}")
    used = [*offsets[:count], len(data)]
    if used[0] != 64 or any(a >= b for a, b in pairwise(used)):
        raise BadCodestream("its RLE segments overlap or lie outside")
