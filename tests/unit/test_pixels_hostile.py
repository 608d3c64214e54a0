"""Pixel data that lies, is cut off or asks for memory: refused by name, before anything is spent."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from ai.errors import SeriesRefused
from tests.pixel_images import (
    LOSSLESS,
    decoded,
    encoded,
    fragments,
    image,
    smooth,
    with_codestreams,
    with_pixel_data,
    with_syntax_in_meta,
    written,
)

STORED = smooth((64, 48), 16)
HUGE = 60_000


def refusal(dataset: Dataset, folder: Path) -> SeriesRefused:
    with pytest.raises(SeriesRefused) as caught:
        decoded(written(dataset, folder))
    assert "TEST" not in caught.value.reason  # no patient in a message
    return caught.value


def with_stream(stream: bytes, syntax: str) -> Dataset:
    return with_codestreams(image(STORED), [stream], syntax)


def with_size(syntax: str, rows: int, columns: int) -> bytes:
    """A codestream whose own header claims another size."""
    stream = bytearray(encoded(STORED, syntax))
    if syntax in (JPEG2000Lossless, HTJ2KLossless):
        struct.pack_into(">LL", stream, 8, columns, rows)
        struct.pack_into(">LL", stream, 24, columns, rows)  # one tile
        return bytes(stream)
    marker = stream.index(b"\xff\xf7" if syntax == JPEGLSLossless else b"\xff\xc3")
    struct.pack_into(">HH", stream, marker + 5, rows, columns)
    return bytes(stream)


def with_tiles_of_one_pixel() -> bytes:
    stream = bytearray(encoded(smooth((512, 512), 16), JPEG2000Lossless))
    struct.pack_into(">LL", stream, 24, 1, 1)
    return bytes(stream)


def with_rle_header(count: int, *offsets: int) -> bytes:
    stream = bytearray(encoded(STORED, RLELossless))
    struct.pack_into(f"<{1 + len(offsets)}L", stream, 0, count, *offsets)
    return bytes(stream)


SIZED = (JPEG2000Lossless, HTJ2KLossless, JPEGLosslessSV1, JPEGLSLossless)


@pytest.mark.parametrize("syntax", SIZED, ids=lambda uid: uid.keyword)
def test_a_codestream_that_claims_another_size_is_refused_with_both(tmp_path: Path, syntax: str) -> None:
    error = refusal(with_stream(with_size(syntax, HUGE, HUGE), syntax), tmp_path)
    assert error.code == "CANNOT_DECODE"
    assert "60000 × 60000" in error.reason
    assert "64 × 48" in error.reason


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda uid: uid.keyword)
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.99])
def test_a_codestream_that_is_cut_off_is_refused(tmp_path: Path, syntax: str, kept: float) -> None:
    stream = encoded(STORED, syntax)
    error = refusal(with_stream(stream[: int(len(stream) * kept)], syntax), tmp_path)
    assert error.code == "CANNOT_DECODE"


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, HTJ2KLossless, JPEGLSLossless])
def test_an_end_marker_behind_a_cut_does_not_make_a_codestream_whole(tmp_path: Path, syntax: str) -> None:
    stream = encoded(STORED, syntax)
    cut = stream[: len(stream) // 2] + b"\xff\xd9"
    assert refusal(with_stream(cut, syntax), tmp_path).code == "CANNOT_DECODE"


BAD_STREAMS: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "nothing of a JPEG": (lambda: b"no codestream at all", JPEGLosslessSV1, "does not start"),
    "nothing of a JPEG 2000": (lambda: b"\0" * 200, JPEG2000Lossless, "does not start"),
    "a JPEG without a frame header": (lambda: b"\xff\xd8\xff\xd9" * 9, JPEGLosslessSV1, "no frame header"),
    "a JPEG of zero rows": (lambda: with_size(JPEGLSLossless, 0, 48), JPEGLSLossless, "0 × 48"),
    "more bits than a cell": (lambda: encoded(smooth((64, 48), 16), JPEGLSLossless), "8 bits", "16 bits"),
    "a tile for each pixel": (with_tiles_of_one_pixel, JPEG2000Lossless, "262144 tiles"),
    "one RLE segment of two": (lambda: with_rle_header(1), RLELossless, "1 RLE segments"),
    "RLE segments that overlap": (lambda: with_rle_header(2, 64, 64), RLELossless, "overlap"),
    "RLE segments outside": (lambda: with_rle_header(2, 64, 1 << 31), RLELossless, "outside"),
    "RLE without a header": (lambda: b"\2\0\0\0", RLELossless, "4 of 64 bytes"),
    "RLE that holds too little": (
        lambda: struct.pack("<16L", 2, 64, 68, *[0] * 13) + b"\x02abc" * 2,
        RLELossless,
        "hold 6 of 6144 bytes",
    ),
    "far too many bytes": (
        lambda: encoded(STORED, JPEGLSLossless) + bytes(2 << 20),
        JPEGLSLossless,
        "at most",
    ),
}


@pytest.mark.parametrize("name", BAD_STREAMS)
def test_a_codestream_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    make, syntax, said = BAD_STREAMS[name]
    dataset = with_stream(make(), JPEGLSLossless if syntax == "8 bits" else syntax)
    if syntax == "8 bits":
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    if "tile" in name:
        dataset.Rows = dataset.Columns = 512
    error = refusal(dataset, tmp_path)
    assert error.code == "CANNOT_DECODE"
    assert said in error.reason


@pytest.mark.parametrize(
    ("true", "said"),
    [(a, b) for a in SIZED for b in SIZED if a != b] + [(JPEGLosslessSV1, JPEGBaseline8Bit)],
)
def test_a_codestream_of_another_transfer_syntax_is_refused(tmp_path: Path, true: str, said: str) -> None:
    assert refusal(with_stream(encoded(STORED, true), said), tmp_path).code == "CANNOT_DECODE"


def test_compressed_pixels_that_call_themselves_uncompressed_are_refused(tmp_path: Path) -> None:
    path = written(with_stream(encoded(STORED, JPEGLSLossless), JPEGLSLossless), tmp_path)
    with pytest.raises(SeriesRefused, match="is in fragments") as caught:
        decoded(with_syntax_in_meta(path, JPEGLSLossless, ExplicitVRLittleEndian))
    assert caught.value.code == "CANNOT_DECODE"


def test_uncompressed_pixels_that_call_themselves_compressed_are_refused(tmp_path: Path) -> None:
    path = written(image(STORED), tmp_path)
    with pytest.raises(SeriesRefused, match="not in fragments") as caught:
        decoded(with_syntax_in_meta(path, ExplicitVRLittleEndian, RLELossless))
    assert caught.value.code == "CANNOT_DECODE"


@pytest.mark.parametrize(
    "syntax", ["1.2.840.10008.1.2.1.98", "1.2.840.10008.1.2.4.52", "1.2.840.10008.1.2.8.1", "1.2.3.4"]
)
def test_a_transfer_syntax_that_is_not_decoded_is_refused_by_name(tmp_path: Path, syntax: str) -> None:
    path = written(with_stream(encoded(STORED, JPEGLSLossless), JPEGLSLossless), tmp_path)
    with pytest.raises(SeriesRefused, match="is not decoded") as caught:
        decoded(with_syntax_in_meta(path, JPEGLSLossless, syntax))
    assert caught.value.code == "UNSUPPORTED_PIXELS"


def test_no_pixel_data_is_said(tmp_path: Path) -> None:
    dataset = image(STORED)
    del dataset.PixelData
    assert refusal(dataset, tmp_path).code == "PIXEL_DATA_MISSING"


@pytest.mark.parametrize("contents", [(), (b"",), (b"", b"")])
def test_empty_fragments_are_no_pixel_data(tmp_path: Path, contents: tuple[bytes, ...]) -> None:
    dataset = with_pixel_data(image(STORED), fragments(*contents), JPEGLSLossless)
    assert refusal(dataset, tmp_path).code == "PIXEL_DATA_MISSING"


def test_a_frame_without_bytes_is_named(tmp_path: Path) -> None:
    stored = smooth((3, 64, 48), 16)
    streams = [encoded(frame, JPEGLSLossless) for frame in stored]
    value = fragments(streams[0], b"", streams[2])
    error = refusal(with_pixel_data(image(stored), value, JPEGLSLossless), tmp_path)
    assert error.code == "PIXEL_DATA_MISSING"
    assert "Frame 2" in error.reason


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("table", [(), (0, 4, 8), (0, 0, 0), (8, 16, 24)])
def test_fragments_that_cannot_be_told_apart_are_refused(
    tmp_path: Path, count: int, table: tuple[int, ...]
) -> None:
    stored = smooth((3, 64, 48), 16)
    streams = [encoded(stored[i % 3], JPEGLSLossless) for i in range(count)]
    dataset = with_pixel_data(image(stored), fragments(*streams, table=table), JPEGLSLossless)
    error = refusal(dataset, tmp_path)
    assert error.code == "CANNOT_DECODE"
    assert f"3 frames in {count} fragments" in error.reason


def test_fragments_without_an_end_are_refused(tmp_path: Path) -> None:
    path = written(with_stream(encoded(STORED, JPEGLSLossless), JPEGLSLossless), tmp_path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(SeriesRefused, match="without a delimiter") as caught:
        decoded(path)
    assert caught.value.code == "PIXEL_DATA_TOO_SHORT"


def test_a_file_that_ends_within_a_fragment_is_refused(tmp_path: Path) -> None:
    path = written(with_stream(encoded(STORED, JPEGLSLossless), JPEGLSLossless), tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SeriesRefused, match="are there") as caught:
        decoded(path)
    assert caught.value.code == "PIXEL_DATA_TOO_SHORT"


@pytest.mark.parametrize("item", [b"\xfe\xff\x00\xe0\xff\xff\xff\xff", b"\x10\x00\x10\x00\x00\x00\x00\x00"])
def test_something_else_than_a_fragment_is_refused(tmp_path: Path, item: bytes) -> None:
    dataset = with_pixel_data(image(STORED), fragments(b"\xff\xd8") + item, JPEGLSLossless)
    assert refusal(dataset, tmp_path).code == "CANNOT_DECODE"


def test_native_pixels_that_are_too_short_are_refused_with_both_numbers(tmp_path: Path) -> None:
    error = refusal(image(STORED, PixelData=STORED.tobytes()[:-2]), tmp_path)
    assert error.code == "PIXEL_DATA_TOO_SHORT"
    assert "6142 bytes" in error.reason
    assert "6144" in error.reason


@pytest.mark.parametrize(
    ("attributes", "code"),
    [
        ({"Rows": 65535, "Columns": 65535}, "PIXELS_TOO_LARGE"),
        ({"Rows": 65535, "Columns": 65535, "NumberOfFrames": 2**31 - 1}, "PIXELS_TOO_LARGE"),
        ({"NumberOfFrames": 2**31 - 1}, "PIXELS_TOO_LARGE"),
        ({"Rows": 8192, "Columns": 8192, "NumberOfFrames": 49_999}, "PIXEL_DATA_TOO_SHORT"),
        ({"NumberOfFrames": 0}, "UNSUPPORTED_PIXELS"),
        ({"NumberOfFrames": -1}, "UNSUPPORTED_PIXELS"),
        ({"Rows": 0}, "UNSUPPORTED_PIXELS"),
        ({"Columns": 0}, "UNSUPPORTED_PIXELS"),
        ({"BitsAllocated": 12}, "UNSUPPORTED_PIXELS"),
        ({"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}, "UNSUPPORTED_PIXELS"),
        ({"BitsAllocated": 64}, "UNSUPPORTED_PIXELS"),
        ({"BitsAllocated": 0}, "UNSUPPORTED_PIXELS"),
        ({"BitsStored": 17, "HighBit": 16}, "UNSUPPORTED_PIXELS"),
        ({"BitsStored": 12, "HighBit": 15}, "UNSUPPORTED_PIXELS"),
        ({"PixelRepresentation": 7}, "UNSUPPORTED_PIXELS"),
        ({"SamplesPerPixel": 3}, "UNSUPPORTED_PIXELS"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "UNSUPPORTED_PIXELS"),
        ({"PhotometricInterpretation": "YBR_FULL_422"}, "UNSUPPORTED_PIXELS"),
        ({"PhotometricInterpretation": "RGB"}, "UNSUPPORTED_PIXELS"),
    ],
    ids=str,
)
def test_pixels_that_cannot_be_as_the_header_says_are_refused(
    tmp_path: Path, attributes: dict[str, object], code: str
) -> None:
    assert refusal(image(STORED, **attributes), tmp_path).code == code


@pytest.mark.parametrize("keyword", ["FloatPixelData", "DoubleFloatPixelData"])
def test_floating_point_pixels_are_refused_by_name(tmp_path: Path, keyword: str) -> None:
    dataset = image(STORED)
    del dataset.PixelData
    setattr(dataset, keyword, np.zeros(STORED.shape, "<f8").tobytes())
    error = refusal(dataset, tmp_path)
    assert error.code == "UNSUPPORTED_PIXELS"
    assert keyword in error.reason


_LIMITED = """
import json, resource, sys
from pathlib import Path
import numpy as np
from ai.errors import SeriesRefused
from ai.pixels import decode_into, frame_pixels
from ai.source import read_file

used_kib = int(next(l for l in open("/proc/self/status") if l.startswith("VmSize")).split()[1])
limit = (used_kib << 10) + (64 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
refusals = []
for path in sys.argv[1:]:
    try:
        for pixels in frame_pixels(read_file(Path(path))):
            decode_into(pixels, np.empty((pixels.rows, pixels.columns), np.float32))
        refusals.append("decoded")
    except SeriesRefused as error:
        refusals.append(f"{error.code}: {error.reason}")
print(json.dumps(refusals))
"""


def limited(paths: list[Path]) -> list[str]:
    """What becomes of files in a process that may take 64 MiB more than it has when it starts."""
    process = subprocess.run(
        [sys.executable, "-c", _LIMITED, *map(str, paths)], capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    found: list[str] = json.loads(process.stdout)
    return found


def test_a_claim_of_gigabytes_takes_no_memory(tmp_path: Path) -> None:
    liars = [with_stream(with_size(syntax, HUGE, HUGE), syntax) for syntax in SIZED]
    liars += [with_stream(make(), syntax) for make, syntax, _ in BAD_STREAMS.values() if syntax != "8 bits"]
    liars.append(image(STORED, Rows=8192, Columns=8192, NumberOfFrames=49_999))
    liars.append(
        with_codestreams(image(STORED, NumberOfFrames=49_999), [b"\xff\xd8\xff\xd9"], JPEGLSLossless)
    )
    paths = [written(dataset, tmp_path / str(i)) for i, dataset in enumerate(liars)]
    outcomes = limited(paths)
    assert len(outcomes) == len(liars)
    assert all(o.startswith(("CANNOT_DECODE", "PIXEL_DATA_TOO_SHORT")) for o in outcomes)
    assert not any("MemoryError" in outcome for outcome in outcomes)


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda uid: uid.keyword)
def test_damaged_bytes_crash_no_decoder(tmp_path: Path, syntax: str) -> None:
    """What decodes all the same holds other values: nothing in DICOM checks the bytes of a codestream."""
    draw = np.random.default_rng(7)
    whole = encoded(STORED, syntax)
    paths = []
    for i in range(60):
        stream = bytearray(whole)
        for at in draw.integers(2, len(stream) if i % 2 else min(len(stream), 200), size=1 + i % 4):
            stream[at] = draw.integers(0, 256)
        paths.append(written(with_stream(bytes(stream), syntax), tmp_path / str(i)))
    outcomes = limited(paths)
    assert all(o == "decoded" or o.startswith("CANNOT_DECODE") for o in outcomes)
    assert any(o.startswith("CANNOT_DECODE") for o in outcomes)


def test_an_offset_table_that_ends_within_an_offset_is_refused(tmp_path: Path) -> None:
    first, second = (s + b"\0" * (len(s) % 2) for s in [encoded(STORED, JPEGLSLossless)] * 2)
    value = bytearray(fragments(first[:100], first[100:], second, table=[0, 0]))
    value[4:8] = struct.pack("<L", 6)  # of the table; 2 of its bytes are taken away
    del value[14:16]
    with_two = with_pixel_data(image(np.stack([STORED, STORED])), bytes(value), JPEGLSLossless)
    assert refusal(with_two, tmp_path).code == "CANNOT_DECODE"
