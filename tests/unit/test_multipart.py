"""The multipart parser: the same events however a message is cut, and a named error for everything else."""

from __future__ import annotations

import time
from collections.abc import Iterable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.receive.stow.multipart import (
    MultipartError,
    MultipartLimits,
    MultipartParser,
    PartBegin,
    PartData,
    PartEnd,
    boundary_of,
)
from gateway.receive.stow.multipart_header import accepts_json, parse_fields, parse_media_type

BOUNDARY = b"ab-c"
SMALL = MultipartLimits(max_parts=4, max_header_bytes=64, max_around_bytes=40)
# Pieces that look like delimiters, and bytes that do not.
LINES = [b"\r\n--ab-c", b"\r\n--ab-", b"\r\n--", b"\r\n-", b"\r\n", b"\r", b"\n", b"\r\n\r\n"]
WORDS = [b"--ab-c", b"--", b"-", b"ab-c", b" ", b"\0", b"x", b":", b"a: b", b"multipart/mixed"]
PIECES = st.sampled_from([*LINES, *WORDS, b"Content-Type: application/dicom"])
BODIES = st.lists(PIECES | st.binary(max_size=6), max_size=8).map(b"".join)
MESSAGES = st.lists(PIECES | st.binary(max_size=6), max_size=24).map(b"".join)


def parse(chunks: Iterable[bytes], limits: MultipartLimits = SMALL) -> tuple[list[object], str]:
    """Events with the data of each part in one, and the name of the error; empty if there was none."""
    parser = MultipartParser(BOUNDARY, limits)
    events: list[object] = []
    try:
        for chunk in chunks:
            for event in parser.feed(chunk):
                if isinstance(event, PartData):
                    assert len(event.data) > 0
                    if isinstance(events[-1], bytes):
                        events[-1] += bytes(event.data)  # type: ignore[operator]
                    else:
                        events.append(bytes(event.data))
                else:
                    events.append(event)
        parser.finish()
    except MultipartError as error:
        return events, error.name
    return events, ""


def cut(message: bytes, places: Iterable[int]) -> list[bytes]:
    found, last = [], 0
    for place in sorted({p % (len(message) + 1) for p in places}):
        found.append(message[last:place])
        last = place
    return [*found, message[last:]]


def message_of(
    bodies: list[bytes], preamble: bytes = b"", epilogue: bytes = b"", padding: bytes = b""
) -> bytes:
    parts = b"".join(
        b"--" + BOUNDARY + padding + b"\r\nContent-Type: application/dicom\r\n\r\n" + body + b"\r\n"
        for body in bodies
    )
    return (preamble + b"\r\n" if preamble else b"") + parts + b"--" + BOUNDARY + b"--" + epilogue


def expected(bodies: list[bytes]) -> list[object]:
    events: list[object] = []
    for body in bodies:
        events.append(PartBegin({"content-type": "application/dicom"}))
        events += [body] if body else []
        events.append(PartEnd())
    return events


@settings(max_examples=400)
@given(
    bodies=st.lists(BODIES, min_size=1, max_size=4),
    places=st.lists(st.integers(0, 10_000), max_size=12),
    around=st.tuples(st.sampled_from([b"", b"hello", b"--ab", b"\r\n--ab\r\n"]), st.binary(max_size=20)),
    padding=st.sampled_from([b"", b" ", b" \t  "]),
)
def test_any_split_of_any_message_gives_its_parts(
    bodies: list[bytes], places: list[int], around: tuple[bytes, bytes], padding: bytes
) -> None:
    delimiter = b"\r\n--" + BOUNDARY
    bodies = [(b"\r\n" + body).replace(delimiter, b"")[2:] for body in bodies]
    bodies = [body for body in bodies if delimiter not in b"\r\n" + body + b"\r\n-"] or [b"x"]
    message = message_of(bodies, around[0], around[1], padding)
    assert parse(cut(message, places)) == (expected(bodies), "")
    assert parse(message[i : i + 1] for i in range(len(message))) == (expected(bodies), "")


@settings(max_examples=600)
@given(message=MESSAGES, places=st.lists(st.integers(0, 10_000), max_size=12))
@example(message=b"--ab-c\r\n\r\n\r\n--ab-c--", places=[1, 2, 3])
@example(message=b"--ab-c\r\n\r\n--ab-c--", places=[11, 12])
@example(message=b"--ab-c\r\n\r\n--ab-cx", places=[11])
def test_any_garbage_gives_the_same_events_and_the_same_error_however_it_is_cut(
    message: bytes, places: list[int]
) -> None:
    whole = parse([message])
    assert parse(cut(message, places)) == whole
    assert parse(message[i : i + 1] for i in range(len(message))) == whole


@settings(max_examples=50)
@given(
    st.text(max_size=80) | st.from_regex(r"[a-z]+/[a-z+]+(; *[a-z]+=(\"[^\"]*\"|[a-z/]+))*", fullmatch=True)
)
def test_any_media_type_is_read_or_refused_by_name(text: str) -> None:
    try:
        boundary_of(parse_media_type(text))
    except MultipartError as error:
        named = error.name
        assert named in ("MEDIA_TYPE_MALFORMED", "BOUNDARY_MISSING", "BOUNDARY_INVALID")


@given(st.binary(max_size=200))
def test_any_header_block_is_read_or_refused_by_name(block: bytes) -> None:
    try:
        fields = parse_fields(block)
    except MultipartError as error:
        named = error.name
        assert named == "PART_HEADER_MALFORMED"
    else:
        assert all(name == name.lower() and "\r" not in value for name, value in fields.items())


# -- what is refused ---------------------------------------------------------------------------


PART = b"--ab-c\r\nContent-Type: application/dicom\r\n\r\nbody\r\n"
END = b"--ab-c--"


@pytest.mark.parametrize(
    ("message", "name"),
    [
        (b"", "TRUNCATED_MESSAGE"),
        (PART, "TRUNCATED_MESSAGE"),
        (PART + b"--ab-c", "TRUNCATED_MESSAGE"),
        (PART + b"--ab-c-", "TRUNCATED_MESSAGE"),
        (PART.replace(b"\r\n", b"\n") + END, "DELIMITER_MALFORMED"),
        (b"x" * 41, "PREAMBLE_TOO_LONG"),
        (PART + END + b"x" * 41, "EPILOGUE_TOO_LONG"),
        (b"--ab-c\r\n" + b"a" * 70, "PART_HEADER_TOO_LONG"),
        (b"--ab-c\r\na: " + b"a" * 80 + b"\r\n\r\n" + END, "PART_HEADER_TOO_LONG"),
        (b"--ab-c\r\nno field\r\n\r\n\r\n" + END, "PART_HEADER_MALFORMED"),
        (b"--ab-c\r\na: b\r\nA: c\r\n\r\n\r\n" + END, "PART_HEADER_MALFORMED"),
        (b"--ab-c\r\na: \x01\r\n\r\n\r\n" + END, "PART_HEADER_MALFORMED"),
        (b"--ab-c\r\nContent-Type: dicom\r\n\r\n\r\n" + END, "MEDIA_TYPE_MALFORMED"),
        (b"--ab-c\r\nContent-Type: Multipart/Mixed; boundary=x\r\n\r\n\r\n" + END, "NESTED_MULTIPART"),
        (b"--ab-cd\r\n\r\n" + END, "DELIMITER_MALFORMED"),
        (b"--ab-c " + b" " * 300, "DELIMITER_MALFORMED"),
        (PART * 5 + END, "TOO_MANY_PARTS"),
    ],
)
def test_what_is_no_message_is_refused_by_name(message: bytes, name: str) -> None:
    assert parse([message])[1] == name
    assert parse(message[i : i + 1] for i in range(len(message)))[1] == name


def test_parts_before_an_error_are_given_out() -> None:
    events, name = parse([PART + PART[:-3]])
    assert name == "TRUNCATED_MESSAGE"
    assert events[:3] == expected([b"body"])


def test_header_fields_are_unfolded_and_their_names_lowered() -> None:
    assert parse_fields(b"Content-Type:a/b;\r\n\tc=d\r\nX-Y:  z ") == {"content-type": "a/b; c=d", "x-y": "z"}


@pytest.mark.parametrize(
    ("text", "boundary"),
    [
        ('multipart/related; type="application/dicom"; boundary="a b:c"', b"a b:c"),
        ("Multipart/Related;BOUNDARY=x;", b"x"),
        ('multipart/related ; type=application/dicom ; boundary="\\a\\b"', b"ab"),
        ("multipart/related; boundary=" + "x" * 128, b"x" * 128),
    ],
)
def test_boundaries_quoted_or_not(text: str, boundary: bytes) -> None:
    assert boundary_of(parse_media_type(text)) == boundary


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("multipart/related", "BOUNDARY_MISSING"),
        ('multipart/related; boundary=""', "BOUNDARY_INVALID"),
        ("multipart/related; boundary=" + "x" * 129, "BOUNDARY_INVALID"),
        ('multipart/related; boundary="x "', "BOUNDARY_INVALID"),
        ('multipart/related; boundary="x*y"', "BOUNDARY_INVALID"),
        ("multipart/related; boundary=x; boundary=x", "MEDIA_TYPE_MALFORMED"),
        ('multipart/related; boundary="x', "MEDIA_TYPE_MALFORMED"),
        ("multipart", "MEDIA_TYPE_MALFORMED"),
        ("", "MEDIA_TYPE_MALFORMED"),
    ],
)
def test_boundaries_that_are_none(text: str, name: str) -> None:
    with pytest.raises(MultipartError) as caught:
        boundary_of(parse_media_type(text))
    assert caught.value.name == name


@pytest.mark.parametrize(
    ("accept", "takes"),
    [
        (None, True),
        ("", True),
        ("*/*", True),
        ("application/dicom+xml, application/dicom+json;q=0.5", True),
        ("application/json", True),
        ("application/*;q=0.0", False),
        ("application/dicom+xml", False),
        ("text/html", False),
    ],
)
def test_who_accepts_json(accept: str | None, takes: bool) -> None:
    assert accepts_json(accept) is takes


# -- speed -------------------------------------------------------------------------------------


# A body may be made to be slow to search in (the last two); then it must still be faster than a disk.
@pytest.mark.parametrize(
    ("pattern", "least"),
    [(b"\0\1", 1e9), (b"\r", 1e9), (b"\r\n--ab-", 1e9), (b"-", 5e7), (b"--ab-\r\n", 5e7)],
)
def test_big_parts_pass_at_more_than_a_gigabyte_a_second(pattern: bytes, least: float) -> None:
    body = pattern * ((32 << 20) // len(pattern))
    message = message_of([body])
    chunks = [message[i : i + 262144] for i in range(0, len(message), 262144)]
    best = 0.0
    for _ in range(8):
        parser, count = MultipartParser(BOUNDARY), 0
        begin_s = time.perf_counter()
        for chunk in chunks:
            for event in parser.feed(chunk):
                count += len(event.data) if isinstance(event, PartData) else 0
        best = max(best, count / (time.perf_counter() - begin_s))
        assert count == len(body)
        if best > least:
            return
    pytest.fail(f"{best / 1e6:.0f} MB/s")


@pytest.mark.parametrize("where", ["body", "header", "preamble"])
def test_time_is_linear_in_the_bytes_however_small_the_chunks_are(where: str) -> None:
    limits = MultipartLimits(max_header_bytes=1 << 20, max_around_bytes=1 << 20)
    start = {"body": b"--ab-c\r\n\r\n", "header": b"--ab-c\r\na: ", "preamble": b""}[where]

    def seconds(count: int) -> float:
        parser = MultipartParser(BOUNDARY, limits)
        list(parser.feed(start))
        begin_s = time.process_time()
        for _ in range(count):
            for _ in parser.feed(b"\r\n--ab-"[: 7 if where != "header" else 1].replace(b"\r", b"x")):
                pass
        return time.process_time() - begin_s

    assert min(seconds(40_000) for _ in range(3)) < 12 * min(seconds(10_000) for _ in range(3))
