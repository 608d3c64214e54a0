"""Content-Encoding gzip (RFC 1952) as a stream, bounded: a gzip bomb is refused, memory stays flat."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from gateway.receive.stow.request import StowRefused

_GZIP_WINDOW = 16 + zlib.MAX_WBITS
_ID1 = b"\x1f"  # RFC 1952 2.3.1: what a member begins with
_SLICE_BYTES = 1 << 18
_IN_SLICE_BYTES = 1 << 16
"""So that a member of few bytes does not copy a long rest each time."""
_FREE_BYTES = 64 << 20
_MAX_RATIO = 200


class Inflater:
    """Inflates a gzip stream: one member, or several one after another (RFC 1952 2.2).

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
        for at in range(0, len(chunk), _IN_SLICE_BYTES):
            yield from self._inflated(chunk[at : at + _IN_SLICE_BYTES])

    def finish(self) -> None:
        """No more bytes come."""
        if not self._stream.eof:
            raise StowRefused("GZIP_TRUNCATED", "The gzip stream ends before its end: send it again.", 400)

    def _inflated(self, chunk: bytes) -> Iterator[bytes]:
        while chunk:
            if self._stream.eof:
                self._next_member(chunk)
            try:
                inflated = self._stream.decompress(chunk, _SLICE_BYTES)
            except zlib.error as error:
                raise StowRefused(
                    "GZIP_DAMAGED", "The body is no gzip stream, or a damaged one: send it again.", 400
                ) from error
            chunk = self._stream.unconsumed_tail or self._stream.unused_data
            self._count(len(inflated))
            if inflated:
                yield inflated

    def _next_member(self, chunk: bytes) -> None:
        if not chunk.startswith(_ID1):
            raise StowRefused(
                "GZIP_DAMAGED", "Bytes that are no gzip follow the end of the stream: send none.", 400
            )
        self._stream = zlib.decompressobj(_GZIP_WINDOW)

    def _count(self, size_bytes: int) -> None:
        self._out_bytes += size_bytes
        if self._out_bytes > max(_FREE_BYTES, _MAX_RATIO * self._in_bytes):
            raise StowRefused(
                "GZIP_BOMB",
                f"{self._in_bytes} bytes inflate to more than {self._out_bytes >> 20} MiB: "
                "send it without Content-Encoding.",
                413,
            )
