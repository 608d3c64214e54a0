"""The floating point values of Philips MR scanners, which Rescale Slope and Intercept only display.

With the stored value PV, Rescale Slope RS and Intercept RI, and the private scale slope SS (2005,100E),
the value that the scanner has reconstructed is FP = (PV × RS + RI) / (RS × SS): Chenevert et al.,
Errors in quantitative image analysis due to platform-dependent image scaling, Transl. Oncol. 2014.
Without a rescale the private intercept SI (2005,100D) stands for it: FP = (PV - SI) / SS.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.dataset import Dataset

from ai.errors import SeriesRefused
from ai.pixels.rescale import LARGEST_FACTOR, Rescale
from ai.pixels.whole_header import private_number, whole_header
from ai.quiet import quiet
from ai.source import SourceFile

_CREATOR = "Philips MR Imaging DD 001"
_GROUP, _SLOPE, _INTERCEPT = 0x2005, 0x0E, 0x0D
_FRAME_CREATOR, _FRAME_GROUP = "Philips MR Imaging DD 005", 0x0F  # (2005,140F), for each frame


def philips_rescales(file: SourceFile, rescales: Sequence[Rescale]) -> list[Rescale]:
    """From stored values to Philips' floating point ones, for each frame.

    Raises SeriesRefused (PHILIPS_SCALE_MISSING) for an image that does not say them.
    """
    header = whole_header(file)
    sources = _frames(header) or [header] * len(rescales)
    if len(sources) != len(rescales):
        raise _missing(file, f"for {len(sources)} of {len(rescales)} frames")
    displayed = any("RescaleSlope" in facts for facts in (file.header.facts, *file.header.frames))
    return [
        _floating(file, source, rescale if displayed else None)
        for source, rescale in zip(sources, rescales, strict=True)
    ]


def _frames(header: Dataset) -> list[Dataset]:
    """The item of each frame that holds private attributes; empty for a single-frame image."""
    found = []
    for frame in header.get("PerFrameFunctionalGroupsSequence") or []:
        try:
            with quiet():
                found.append(frame.private_block(_GROUP, _FRAME_CREATOR)[_FRAME_GROUP].value[0])
        except (KeyError, TypeError, IndexError):
            found.append(frame)
    return found


def _floating(file: SourceFile, source: Dataset, rescale: Rescale | None) -> Rescale:
    slope = private_number(source, _GROUP, _CREATOR, _SLOPE)
    if slope is None or not 1 / LARGEST_FACTOR <= abs(slope) <= LARGEST_FACTOR:
        raise _missing(file, "that is a usable number")
    if rescale is not None:
        return rescale.scaled(1.0 / (rescale.slope * slope))
    intercept = private_number(source, _GROUP, _CREATOR, _INTERCEPT) or 0.0
    return Rescale(1.0 / slope, -intercept / slope)


def _missing(file: SourceFile, what: str) -> SeriesRefused:
    return SeriesRefused(
        "PHILIPS_SCALE_MISSING",
        f"{file.path.name} has no Philips scale slope (2005,100E) {what}: its values cannot be compared "
        "between images. Send the images as the scanner wrote them, with private attributes.",
    )
