"""Content-Encoding gzip (RFC 1952) as a stream, bounded: a gzip bomb is refused, memory stays flat."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from gateway.receive.stow.request import StowRefused

_GZIP_WINDOW = 16 + zlib.MAX_WBITS
_SLICE_BYTES = 1 << 18
_FREE_BYTES = 64 << 20
_MAX_RATIO = 200


class Inflater:
    """Inflates one gzip member.

    Raises StowRefused: GZIP_BOMB (413) for more than 64 MiB that is more than 200 times its compressed size,
    GZIP_DAMAGED and GZIP_TRUNCATED (400).
    """

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(_GZIP_WINDOW)
        self._in_bytes = 0
        self._out_bytes = 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """What these bytes inflate to, in slices of at most 256 KiB."""
        self._in_bytes += len(chunk)
        while chunk:
            if self._stream.eof:
                raise StowRefused("GZIP_DAMAGED", "Bytes follow the end of the gzip stream.", 400)
            try:
                inflated = self._stream.decompress(chunk, _SLICE_BYTES)
            except zlib.error as error:
                raise StowRefused(
                    "GZIP_DAMAGED", "The body is no gzip stream, or a damaged one.", 400
                ) from error
            chunk = self._stream.unconsumed_tail or self._stream.unused_data
            self._count(len(inflated))
            if inflated:
                yield inflated

    def finish(self) -> None:
        """No more bytes come."""
        if not self._stream.eof:
            raise StowRefused("GZIP_TRUNCATED", "The gzip stream ends before its end.", 400)

    def _count(self, size_bytes: int) -> None:
        self._out_bytes += size_bytes
        if self._out_bytes > max(_FREE_BYTES, _MAX_RATIO * self._in_bytes):
            raise StowRefused(
                "GZIP_BOMB",
                f"{self._in_bytes} bytes inflate to more than {self._out_bytes >> 20} MiB: "
                "send it without Content-Encoding.",
                413,
            )
