"""Pixels of one instance in modality units: checked, decoded, masked, rescaled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.dataset import Dataset

from ai.errors import SeriesRefused
from ai.quiet import quiet

AIR_HU = -1024
_HOUNSFIELD_TYPES = ("", "HU", "US")  # PS3.3 C.11.1.1.2; "unspecified" is what converters write
_LARGEST_FACTOR = 1e9  # beyond this a slope or an intercept is no measurement, and float32 overflows
_MOST_PIXELS = 1 << 26  # of one image: 8192 × 8192, half a GiB while it is rescaled

Image = npt.NDArray[np.float32]


def read_pixels(path: Path) -> tuple[npt.NDArray[np.int64], Dataset]:
    """Decode the stored values of one single-frame image, int64 ``(rows, columns)``, and its data set.

    Bits beyond Bits Stored are cut off (PS3.5 8.1.1).

    Raises
    ------
    SeriesRefused
        TRUNCATED_FILE, UNSUPPORTED_PIXELS, PIXELS_TOO_LARGE, PIXEL_DATA_MISSING,
        PIXEL_DATA_TOO_SHORT, CANNOT_DECODE; and UNSUPPORTED_RESCALE, RESCALE_INVALID, NOT_HOUNSFIELD,
        for without a true rescale the values would be measured in no known unit.
    """
    try:
        with quiet():
            dataset = dcmread(path)
    except Exception as error:
        raise SeriesRefused(
            "TRUNCATED_FILE", f"{path.name} ends early or is damaged ({type(error).__name__})."
        ) from error
    try:
        _check(dataset, path)
        _check_rescale(dataset, path)
    except (AttributeError, TypeError, ValueError) as error:
        raise SeriesRefused(
            "UNSUPPORTED_PIXELS",
            f"The attributes that describe the pixels of {path.name} are malformed ({type(error).__name__}).",
        ) from error
    return _used_bits(_decoded(dataset, path).astype(np.int64), dataset), dataset


def _decoded(dataset: Dataset, path: Path) -> npt.NDArray[Any]:
    try:
        with quiet():
            stored = dataset.pixel_array
    except Exception as error:  # decoders raise many types
        syntax = dataset.file_meta.TransferSyntaxUID.name
        raise SeriesRefused(
            "CANNOT_DECODE",
            f"The pixel data of {path.name} ({syntax}) cannot be decoded: {type(error).__name__}.",
        ) from error
    if stored.shape != (dataset.Rows, dataset.Columns):
        wanted = f"{dataset.Rows} × {dataset.Columns}"
        raise SeriesRefused(
            "CANNOT_DECODE", f"{path.name} decodes to {stored.shape} instead of {wanted} pixels."
        )
    return stored


def _check(dataset: Dataset, path: Path) -> None:
    samples, bits = int(dataset.get("SamplesPerPixel") or 1), int(dataset.get("BitsAllocated") or 0)
    if samples != 1 or bits not in (8, 16, 32):
        raise SeriesRefused(
            "UNSUPPORTED_PIXELS",
            f"{path.name} has {samples} samples per pixel of {bits} bits; one of 8, 16 or 32 bits is needed.",
        )
    photometric = str(dataset.get("PhotometricInterpretation") or "MONOCHROME2")
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise SeriesRefused(
            "UNSUPPORTED_PIXELS",
            f"{path.name} is {photometric}; only MONOCHROME1 and MONOCHROME2 are measurable.",
        )
    pixels = int(dataset.Rows) * int(dataset.Columns)
    if pixels > _MOST_PIXELS:
        raise SeriesRefused(
            "PIXELS_TOO_LARGE", f"{path.name} claims {dataset.Rows} × {dataset.Columns} pixels."
        )
    data: Any = dataset.get("PixelData")
    if not data:
        raise SeriesRefused("PIXEL_DATA_MISSING", f"{path.name} has no pixel data.")
    needed = pixels * bits // 8
    if not dataset.file_meta.TransferSyntaxUID.is_compressed and len(data) < needed:
        raise SeriesRefused(
            "PIXEL_DATA_TOO_SHORT",
            f"{path.name} has {len(data)} bytes of pixel data; {dataset.Rows} × {dataset.Columns} pixels of "
            f"{bits} bits need {needed}.",
        )


def _check_rescale(dataset: Dataset, path: Path) -> None:
    """Refuse what would give wrong numbers without a word (PS3.3 C.11.1, C.8.2.1)."""
    if dataset.get("ModalityLUTSequence"):
        raise SeriesRefused(
            "UNSUPPORTED_RESCALE",
            f"{path.name} maps its values by a Modality LUT; only Rescale Slope and Intercept are read.",
        )
    is_ct = dataset.get("Modality") == "CT"
    for keyword, name in (("RescaleSlope", "Rescale Slope"), ("RescaleIntercept", "Rescale Intercept")):
        value = _number(dataset, keyword)
        if value is None and is_ct:
            wrong = f"has no {name}, so its values cannot be told in Hounsfield units"
        elif value is not None and not abs(value) <= _LARGEST_FACTOR:  # also true for NaN
            wrong = f"has a {name} that is no usable number"
        elif value == 0.0 and keyword == "RescaleSlope":
            wrong = "has a Rescale Slope of 0, which makes every value the same"
        else:
            continue
        raise SeriesRefused("RESCALE_INVALID", f"{path.name} {wrong}.")
    rescale_type = str(dataset.get("RescaleType") or "").strip().upper()
    if is_ct and rescale_type not in _HOUNSFIELD_TYPES:
        raise SeriesRefused(
            "NOT_HOUNSFIELD",
            f"{path.name} is a CT image in {rescale_type[:16]!r} (Rescale Type), not in Hounsfield units.",
        )


def _used_bits(stored: npt.NDArray[np.int64], dataset: Dataset) -> npt.NDArray[np.int64]:
    bits = int(dataset.get("BitsStored") or dataset.BitsAllocated)
    stored &= (1 << bits) - 1
    if dataset.get("PixelRepresentation"):
        stored -= (stored & (1 << (bits - 1))) << 1  # two's complement
    return stored


def modality_values(stored: npt.NDArray[np.int64], dataset: Dataset) -> Image:
    """Rescaled values, float32 ``(rows, columns)``; padding becomes air (CT) or the lowest real value.

    MONOCHROME1 is not inverted: that is presentation, not a measurement (PS3.3 C.7.6.3.1.2).
    """
    slope, intercept = _number(dataset, "RescaleSlope"), _number(dataset, "RescaleIntercept")
    values = (stored * (1.0 if slope is None else slope) + (intercept or 0.0)).astype(np.float32)
    padding = _padding(stored, dataset)
    if padding is not None and padding.any() and not padding.all():
        lowest = values[~padding].min()
        values[padding] = min(AIR_HU, lowest) if dataset.get("Modality") == "CT" else lowest
    return values


def _number(dataset: Dataset, keyword: str) -> float | None:
    """A DS value; None when absent or empty, NaN when malformed."""
    try:
        value = dataset.get(keyword)
        return None if value in (None, "") else float(value)
    except (TypeError, ValueError):
        return float("nan")


def _padding(stored: npt.NDArray[np.int64], dataset: Dataset) -> npt.NDArray[np.bool_] | None:
    """Pixels from Pixel Padding Value to Pixel Padding Range Limit (PS3.3 C.7.5.1.1.2)."""
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return None
    limit = dataset.get("PixelPaddingRangeLimit", value)
    try:
        low, high = sorted((_as_stored(int(value), dataset), _as_stored(int(limit), dataset)))
    except (TypeError, ValueError):  # malformed: nothing is known to be padding
        return None
    return (stored >= low) & (stored <= high)


def _as_stored(value: int, dataset: Dataset) -> int:
    """A padding value in the sign of the pixels: some write it as US beside signed pixels, or as SS."""
    bits = int(dataset.BitsAllocated)
    value &= (1 << bits) - 1
    return value - ((value >> (bits - 1)) << bits) if dataset.get("PixelRepresentation") else value
