"""Compressed frames decoded, whatever the transfer syntax; each decoder lets other threads run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from ai.errors import SeriesRefused
from ai.pixels.codestream import (
    BadCodestream,
    StreamHeader,
    jpeg2000_codestream,
    jpeg2000_header,
    jpeg_header,
    rle_header,
)
from ai.pixels.layout import Layout

Stored = npt.NDArray[Any]
"""Decoded integers ``(rows, columns)``."""


@dataclass(frozen=True)
class _Codec:
    kinds: tuple[str, ...]  # of codestream that the transfer syntax allows
    header: Callable[[bytes], StreamHeader]
    decode: Callable[[bytes], Stored]


def _jpeg(data: bytes) -> Stored:
    return imagecodecs.jpeg8_decode(data)


def _jpeg_ls(data: bytes) -> Stored:
    return imagecodecs.jpegls_decode(data)


def _jpeg_2000(data: bytes) -> Stored:
    # OpenJPEG also for HTJ2K: imagecodecs keeps an error of its other decoder, OpenJPH, to itself.
    return imagecodecs.jpeg2k_decode(data, numthreads=1)  # slices are decoded beside each other


_LOSSY_JPEG = _Codec(("JPEG baseline", "JPEG extended"), jpeg_header, _jpeg)
_LOSSLESS_JPEG = _Codec(("JPEG lossless",), jpeg_header, _jpeg)
_JPEG_LS = _Codec(("JPEG-LS",), jpeg_header, _jpeg_ls)
_JPEG_2000 = _Codec(("JPEG 2000",), jpeg2000_header, _jpeg_2000)
_HTJ2K = _Codec(("HTJ2K",), jpeg2000_header, _jpeg_2000)
_CODECS: Mapping[str, _Codec] = {
    JPEGBaseline8Bit: _LOSSY_JPEG,
    JPEGExtended12Bit: _LOSSY_JPEG,
    JPEGLossless: _LOSSLESS_JPEG,
    JPEGLosslessSV1: _LOSSLESS_JPEG,
    JPEGLSLossless: _JPEG_LS,
    JPEGLSNearLossless: _JPEG_LS,
    JPEG2000Lossless: _JPEG_2000,
    JPEG2000: _JPEG_2000,
    HTJ2KLossless: _HTJ2K,
    HTJ2KLosslessRPCL: _HTJ2K,
    HTJ2K: _HTJ2K,
}
_NATIVE = frozenset({ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian})


def is_compressed(layout: Layout) -> bool:
    """Whether frames must be decoded. Raises SeriesRefused (UNSUPPORTED_PIXELS) for unknown syntaxes."""
    syntax = layout.transfer_syntax_uid
    if syntax in _NATIVE:
        return False
    if syntax in _CODECS or syntax == RLELossless:
        return True
    raise SeriesRefused(
        "UNSUPPORTED_PIXELS",
        f"{layout.name} is in the transfer syntax {UID(syntax).name}, which is not decoded.",
    )


def decode(data: bytes, layout: Layout) -> Stored:
    """Decode one frame: integers ``(rows, columns)`` of the sign and depth of the codestream.

    Raises SeriesRefused (CANNOT_DECODE), before memory is spent if the codestream is of another kind or size.
    """
    try:
        if layout.transfer_syntax_uid == RLELossless:
            return _rle(data, layout)
        codec = _CODECS[layout.transfer_syntax_uid]
        if codec.header is jpeg2000_header:
            data = jpeg2000_codestream(data)
        header = codec.header(data)
        _check(header, codec, layout)
        stored = codec.decode(data)
    except SeriesRefused:
        raise
    except BadCodestream as error:
        raise _refused(layout, str(error)) from error
    except Exception as error:  # decoders raise many types
        raise _refused(layout, f"the decoder gave up ({type(error).__name__})") from error
    if stored.shape != (layout.rows, layout.columns) or stored.dtype.kind not in "iu":
        raise _refused(
            layout, f"it decodes to {stored.shape} instead of {layout.rows} × {layout.columns} pixels"
        )
    return _agreed(stored, header, layout)


def _rle(data: bytes, layout: Layout) -> Stored:
    bytes_each = layout.bits_allocated // 8
    rle_header(data, bytes_each)
    kind = np.dtype(f"<u{bytes_each}")
    decoded = imagecodecs.dicomrle_decode(data, kind, out=bytearray(layout.frame_bytes))
    if len(decoded) < layout.frame_bytes:
        raise BadCodestream(f"its RLE segments hold {len(decoded)} of {layout.frame_bytes} bytes")
    return np.frombuffer(decoded, kind).reshape(layout.rows, layout.columns)


def _check(header: StreamHeader, codec: _Codec, layout: Layout) -> None:
    if header.kind not in codec.kinds:
        raise _refused(layout, f"it is {header.kind}")
    said = (header.rows, header.columns, header.components)
    if said != (layout.rows, layout.columns, 1) or header.precision > layout.bits_allocated:
        raise _refused(
            layout,
            f"it says {header.rows} × {header.columns} × {header.components} samples of {header.precision} "
            f"bits, and the header {layout.rows} × {layout.columns} × 1 of {layout.bits_allocated}",
        )


def _agreed(stored: Stored, header: StreamHeader, layout: Layout) -> Stored:
    """Refuse where codestream and header disagree on the sign and a value shows it.

    With as many bits in both, the bits are the same and the header tells the sign. With fewer in the
    codestream nobody knows whether its highest bit is a sign.
    """
    if header.signed == layout.signed or header.precision >= layout.bits_stored or not stored.size:
        return stored
    most = (1 << (header.precision - 1)) - 1
    if int(stored.min()) < 0 or int(stored.max()) > most:
        raise _refused(
            layout,
            f"it has {'signed' if header.signed else 'unsigned'} samples of {header.precision} bits, and the "
            f"header {'signed' if layout.signed else 'unsigned'} ones of {layout.bits_stored}",
        )
    return stored


def _refused(layout: Layout, why: str) -> SeriesRefused:
    syntax = UID(layout.transfer_syntax_uid).name
    return SeriesRefused(
        "CANNOT_DECODE", f"The pixel data of {layout.name} ({syntax}) cannot be decoded: {why}."
    )
