"""A streaming parser of multipart messages (RFC 2046 5.1, RFC 2387), without input and output.

Bytes go in as they arrive, cut anywhere; parts come out as slices of them, not copied. Memory is one header
block and a partial delimiter; time is linear in the bytes however they are cut.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from gateway.receive.stow.multipart_header import MediaType, MultipartError, parse_fields, parse_media_type

__all__ = [
    "MultipartError",
    "MultipartLimits",
    "MultipartParser",
    "PartBegin",
    "PartData",
    "PartEnd",
    "boundary_of",
]

# RFC 2046 allows 70 characters; Orthanc's are 73 (two UUIDs).
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,127}[0-9A-Za-z'()+_,\-./:=?]")
_PADDING = b" \t"


@dataclass(frozen=True)
class MultipartLimits:
    """What a message may have; preamble and epilogue are read over."""

    max_parts: int = 10_000
    max_header_bytes: int = 8192
    max_around_bytes: int = 65536
    """Of the preamble, and of the epilogue."""


@dataclass(frozen=True)
class PartBegin:
    """A part begins; its header fields by lower-case name."""

    fields: Mapping[str, str]


@dataclass(frozen=True)
class PartData:
    """The next bytes of a part's body; they live as long as the chunk that they came in."""

    data: memoryview | bytes


@dataclass(frozen=True)
class PartEnd:
    """The part is complete: a delimiter followed it."""


Event = PartBegin | PartData | PartEnd


class _At(Enum):
    PREAMBLE = "the preamble"
    DELIMITER = "a delimiter line"
    HEADER = "the header of a part"
    BODY = "the body of a part"
    EPILOGUE = "the epilogue"


def boundary_of(content_type: MediaType) -> bytes:
    """The boundary of a multipart message. Raises MultipartError (BOUNDARY_MISSING, BOUNDARY_INVALID)."""
    boundary = content_type.parameters.get("boundary")
    if boundary is None:
        raise MultipartError("BOUNDARY_MISSING", "Content-Type has no parameter boundary (RFC 2046 5.1.1).")
    if _BOUNDARY.fullmatch(boundary) is None:
        raise MultipartError(
            "BOUNDARY_INVALID",
            "The boundary in Content-Type is none: it has up to 128 of the characters of RFC 2046 5.1.1 and "
            "no space at the end.",
        )
    return boundary.encode("ascii")


class MultipartParser:
    """Parses one message. After an error it must not be fed again.

    Every error is a MultipartError: PREAMBLE_TOO_LONG, EPILOGUE_TOO_LONG, PART_HEADER_TOO_LONG,
    PART_HEADER_MALFORMED, MEDIA_TYPE_MALFORMED, DELIMITER_MALFORMED, NESTED_MULTIPART, TOO_MANY_PARTS,
    TRUNCATED_MESSAGE.
    """

    def __init__(self, boundary: bytes, limits: MultipartLimits | None = None) -> None:
        self._delimiter = b"\r\n--" + boundary
        self._limits = limits or MultipartLimits()
        self._at = _At.PREAMBLE
        self._partial = b"\r\n"
        self._before = 2
        """How many bytes of ``_partial`` belong to what came before: where a message or a body begins, a
        delimiter needs no line end of its own."""
        self._held = bytearray()
        self._around_bytes = 0
        self.parts = 0
        """Begun so far."""

    @property
    def complete(self) -> bool:
        """True after the closing delimiter: what follows does not matter."""
        return self._at is _At.EPILOGUE

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """The events that these bytes complete; take them all before the next chunk."""
        at, end = 0, len(chunk)
        while at < end:
            if self._at is _At.BODY:
                at = yield from self._body(chunk, at)
            elif self._at is _At.PREAMBLE:
                at = self._preamble(chunk, at)
            elif self._at is _At.DELIMITER:
                at = self._delimiter_line(chunk, at)
            elif self._at is _At.HEADER:
                at, fields = self._header(chunk, at)
                if fields is not None:
                    yield PartBegin(fields)
            else:
                self._read_over(end - at, "EPILOGUE_TOO_LONG", "after the closing delimiter")
                at = end

    def finish(self) -> None:
        """No more bytes come. Raises MultipartError (TRUNCATED_MESSAGE) without the closing delimiter."""
        if not self.complete:
            raise MultipartError(
                "TRUNCATED_MESSAGE",
                f"The message ends in {self._at.value}, without the closing delimiter '--boundary--' on a "
                "line of its own (lines end in CR LF).",
            )

    # -- delimiters ---------------------------------------------------------------------------

    def _find(self, chunk: bytes, at: int) -> tuple[bytes, int, int, bool]:
        """Look for the next delimiter.

        Returns what precedes it (bytes held from before, then ``chunk[at:stop]``), ``stop``, where to go on,
        and whether it was found. A delimiter has one CR, at its start: so what is held from an earlier chunk
        either grows to a delimiter or has none of it inside.
        """
        delimiter, held = self._delimiter, b""
        if self._partial:
            joined = self._partial + chunk[at : at + len(delimiter) - len(self._partial)]
            if joined == delimiter:
                stop = at + len(joined) - len(self._partial)
                self._partial, self._before = b"", 0
                return b"", at, stop, True
            if delimiter.startswith(joined):
                self._partial = joined
                return b"", at, len(chunk), False
            held, self._partial, self._before = self._partial[self._before :], b"", 0
        stop = chunk.find(delimiter, at)
        if stop >= 0:
            return held, stop, stop + len(delimiter), True
        stop = chunk.rfind(b"\r", max(at, len(chunk) - len(delimiter) + 1))
        if stop >= 0 and delimiter.startswith(chunk[stop:]):
            self._partial = chunk[stop:]
            return held, stop, len(chunk), False
        return held, len(chunk), len(chunk), False

    def _preamble(self, chunk: bytes, at: int) -> int:
        held, stop, after, found = self._find(chunk, at)
        self._read_over(len(held) + stop - at, "PREAMBLE_TOO_LONG", "before the first delimiter '--boundary'")
        if found:
            self._around_bytes = 0
            self._at = _At.DELIMITER
        return after

    def _body(self, chunk: bytes, at: int) -> Generator[Event, None, int]:
        held, stop, after, found = self._find(chunk, at)
        if held:
            yield PartData(held)
        if stop > at:
            yield PartData(memoryview(chunk)[at:stop])
        if found:
            self._at = _At.DELIMITER
            yield PartEnd()
        return after

    def _delimiter_line(self, chunk: bytes, at: int) -> int:
        """Behind the boundary: ``--``, or padding and the end of the line."""
        self._held += chunk[at : at + 1]
        held = self._held
        if held == b"--":
            held.clear()
            self._at = _At.EPILOGUE
        elif held.endswith(b"\r\n"):
            held[:] = b"\r\n"  # so that an empty header is an empty line too
            self._at = _At.HEADER
            self._begin_part()
        elif held != b"-" and (held.rstrip(b"\r").strip(_PADDING) or len(held) > 256 or b"\r" in held[:-1]):
            raise MultipartError(
                "DELIMITER_MALFORMED",
                "A line begins with the boundary and goes on after it, or has no CR LF (RFC 2046 5.1.1).",
            )
        return at + 1

    # -- headers ------------------------------------------------------------------------------

    def _begin_part(self) -> None:
        self.parts += 1
        if self.parts > self._limits.max_parts:
            raise MultipartError(
                "TOO_MANY_PARTS",
                f"More than {self._limits.max_parts} parts in one request: send them in several.",
            )

    def _header(self, chunk: bytes, at: int) -> tuple[int, Mapping[str, str] | None]:
        held, limit = self._held, self._limits.max_header_bytes
        searched = max(len(held) - 3, 0)
        before = len(held)
        held += chunk[at : at + limit + 8 - before]
        stop = held.find(b"\r\n\r\n", searched)
        if stop < 0 or stop > limit:
            if len(held) > limit + 4:
                raise MultipartError(
                    "PART_HEADER_TOO_LONG",
                    f"The header of a part has more than {limit} bytes before its empty line.",
                )
            return at + len(held) - before, None
        fields = parse_fields(bytes(held[2:stop]))
        at += stop + 4 - before
        held.clear()
        if "content-type" in fields and parse_media_type(fields["content-type"]).name.startswith(
            "multipart/"
        ):
            raise MultipartError(
                "NESTED_MULTIPART", "A part is a multipart message itself: send its parts instead."
            )
        self._at = _At.BODY
        self._partial, self._before = b"\r\n", 2  # of the empty line: the body may be empty
        return at, fields

    def _read_over(self, count: int, name: str, where: str) -> None:
        self._around_bytes += count
        if self._around_bytes > self._limits.max_around_bytes:
            raise MultipartError(name, f"More than {self._limits.max_around_bytes} bytes {where}.")
