"""Single images with exact stored values, native or encapsulated, right or broken on purpose."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from ai.pixels import Scale, decode_into, frame_pixels
from ai.source import read_file
from tests import builders

Array = npt.NDArray[Any]

LOSSLESS = (
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEG2000Lossless,
    JPEG2000,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    HTJ2K,
    RLELossless,
)


def smooth(shape: tuple[int, ...], bits: int, *, signed: bool = False) -> Array:
    """Values that fill the bits, smooth enough to compress; of the smallest integer type that holds them."""
    rows, columns = np.mgrid[: shape[-2], : shape[-1]]
    wave = (np.sin(rows / 7) + np.cos(columns / 5) + 2) / 4
    frames = np.arange(int(np.prod(shape[:-2])))[:, None, None] * 3
    values = np.rint(wave * ((1 << bits) - 1)).astype(np.int64) + frames
    values = (values & ((1 << bits) - 1)) - ((1 << (bits - 1)) if signed else 0)
    width = 1 if bits <= 8 else 2 if bits <= 16 else 4
    return values.reshape(shape).astype(f"<{'i' if signed else 'u'}{width}")


def image(stored: Array, bits: int | None = None, **attributes: object) -> Dataset:
    """A CT image with these stored values (``(rows, columns)`` or frames of them), slope 1, intercept 0."""
    (dataset,) = builders.ct_series((1, 8, 8), RescaleIntercept=0)
    dataset.Rows, dataset.Columns = stored.shape[-2:]
    if stored.ndim == 3:
        dataset.NumberOfFrames = len(stored)
    dataset.BitsAllocated = 8 * stored.itemsize
    dataset.BitsStored = bits or dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    dataset.PixelData = stored.tobytes() + b"\0" * (stored.nbytes % 2)
    dataset["PixelData"].VR = "OW"
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def encoded(stored: Array, syntax: str, bits: int | None = None) -> bytes:
    """One frame as a codestream of the transfer syntax."""
    bits = bits or 8 * stored.itemsize
    raw = np.ascontiguousarray(stored)
    if syntax == RLELossless:
        return _rle(raw)
    if syntax in (JPEG2000Lossless, JPEG2000):
        return bytes(imagecodecs.jpeg2k_encode(raw, codecformat="j2k", reversible=True, level=0))
    if syntax in (HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K):
        return bytes(imagecodecs.htj2k_encode(raw, reversible=True))
    raw = raw.view(f"u{raw.itemsize}") & ((1 << bits) - 1)  # a JPEG sample has no sign
    if syntax in (JPEGLossless, JPEGLosslessSV1):
        return bytes(imagecodecs.jpeg8_encode(raw, lossless=True, bitspersample=bits))
    if syntax in (JPEGLSLossless, JPEGLSNearLossless):
        return bytes(imagecodecs.jpegls_encode(raw, level=int(syntax == JPEGLSNearLossless)))
    if syntax == JPEGExtended12Bit:
        return bytes(imagecodecs.jpeg8_encode(raw, level=98, bitspersample=12))
    assert syntax == JPEGBaseline8Bit
    return bytes(imagecodecs.jpeg8_encode(raw, level=98))


def _rle(raw: Array) -> bytes:
    """Segments of literal runs, most significant byte first (PS3.5 G)."""
    planes = raw.view(np.uint8).reshape(-1, raw.itemsize)[:, ::-1].T
    segments = []
    for plane in planes:
        runs = [plane[i : i + 128].tobytes() for i in range(0, plane.size, 128)]
        segment = b"".join(bytes([len(run) - 1]) + run for run in runs)
        segments.append(segment + b"\0" * (len(segment) % 2))
    offsets = 64 + np.cumsum([0, *map(len, segments)])[:-1]
    header = np.zeros(16, "<u4")
    header[0], header[1 : 1 + len(offsets)] = len(segments), offsets
    return header.tobytes() + b"".join(segments)


def with_codestreams(dataset: Dataset, frames: Sequence[bytes], syntax: str) -> Dataset:
    """The image with these encapsulated frames, one fragment each, in place of its pixels."""
    return with_pixel_data(dataset, encapsulate(list(frames), has_bot=False), syntax)


def with_pixel_data(dataset: Dataset, value: bytes, syntax: str) -> Dataset:
    """The image with this value of undefined length as its pixel data."""
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = value
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return dataset


def fragments(*contents: bytes, table: Sequence[int] = ()) -> bytes:
    """A Basic Offset Table and fragments, each made even, as they are given (PS3.5 A.4)."""
    items = (np.array(table, "<u4").tobytes(), *(part + b"\0" * (len(part) % 2) for part in contents))
    return b"".join(b"\xfe\xff\x00\xe0" + len(item).to_bytes(4, "little") + item for item in items)


def compressed(stored: Array, syntax: str, bits: int | None = None, **attributes: object) -> Dataset:
    """An image whose frames are compressed in the transfer syntax."""
    frames = stored if stored.ndim == 3 else stored[None]
    codestreams = [encoded(frame, syntax, bits) for frame in frames]
    return with_codestreams(image(stored, bits, **attributes), codestreams, syntax)


def written(dataset: Dataset, folder: Path) -> Path:
    """The image as a file."""
    return builders.write_series([dataset], folder)[0]


def with_syntax_in_meta(path: Path, was: str, says: str) -> Path:
    """Write another transfer syntax, no longer than the true one, into the file meta information."""
    raw = path.read_bytes()
    value = was.encode() + b"\0" * (len(was) % 2)
    assert raw.count(value) == 1
    path.write_bytes(raw.replace(value, says.encode().ljust(len(value), b"\0")))
    return path


def decoded(path: Path, scale: Scale = "modality", dtype: type = np.float32) -> Array:
    """Values of every frame of a file: ``(frames, rows, columns)``."""
    frames = frame_pixels(read_file(path), scale)
    out = np.empty((len(frames), frames[0].rows, frames[0].columns), dtype)
    for frame, plane in zip(frames, out, strict=True):
        decode_into(frame, plane)
    return out
