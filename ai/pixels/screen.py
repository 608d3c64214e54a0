"""What a viewer makes of the values of a radiograph: Modality LUT, VOI LUT or window, what is bright.

The steps of PS3.4 N.2 up to the P-values, which are brightness as the eye sees it: Modality LUT (C.11.1),
VOI LUT or window (C.11.2), inversion for MONOCHROME1 (C.7.6.3.1.2). Networks for radiographs are mostly
trained on pictures that were exported this way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian

from ai.errors import SeriesRefused
from ai.pixels.layout import Layout
from ai.pixels.rescale import Rescale, first
from ai.pixels.whole_header import whole_header
from ai.source import SourceFile

_Values = npt.NDArray[np.float64]

# Digital X-Ray, Mammography and Intra-Oral "for processing": their Photometric Interpretation is not meant
# for eyes; a Pixel Intensity Relationship Sign of 1 says that more X-rays give higher values (C.8.11.3.1.2).
_FOR_PROCESSING = frozenset(f"1.2.840.10008.5.1.4.1.1.1.{suffix}.1" for suffix in (1, 2, 3))
_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


@dataclass(frozen=True, slots=True)
class Lut:
    """A lookup table: entry 0 stands for the value ``first`` and all below, the last one for all above."""

    first: int
    entries: _Values

    def __call__(self, values: _Values) -> _Values:
        """The entries of values, which are rounded to whole numbers."""
        index = np.clip(np.rint(values) - self.first, 0, len(self.entries) - 1)
        return np.asarray(self.entries[index.astype(np.intp)])


@dataclass(frozen=True, slots=True)
class Window:
    """Centre and width of the values shown, and the function between black and white (C.11.2.1.2, 1.3)."""

    centre: float
    width: float
    function: str = "LINEAR"

    def __call__(self, values: _Values) -> _Values:
        """Brightness 0..1."""
        if self.function == "SIGMOID":
            steps = np.clip(-4.0 * (values - self.centre) / self.width, -60.0, 60.0)
            return np.asarray(1.0 / (1.0 + np.exp(steps)))
        if self.function == "LINEAR_EXACT":
            return np.clip((values - self.centre) / self.width + 0.5, 0.0, 1.0)
        if self.width <= 1.0:
            return np.asarray(values > self.centre - 0.5, np.float64)
        return np.clip((values - (self.centre - 0.5)) / (self.width - 1.0) + 0.5, 0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Screen:
    """From the values of a frame, rescaled, to brightness.

    Attributes
    ----------
    modality
        Modality LUT, which stands in for the rescale; None: the values are modality values.
    voi
        VOI LUT (its entries 0..1) or window; None: the lowest value of the frame is black, the highest white.
    """

    modality: Lut | None
    voi: Lut | Window | None
    turned_over: bool

    def brightness(self, values: _Values) -> _Values:
        """Brightness 0..1 of values, bone bright; all 0 for a frame of one value without a window."""
        seen = values if self.modality is None else self.modality(values)
        if self.voi is not None:
            shown = self.voi(seen)
        else:
            low, high = float(seen.min()), float(seen.max())
            shown = (seen - low) / (high - low) if high > low else np.zeros_like(seen)
        return 1.0 - shown if self.turned_over else shown


def screens_of(file: SourceFile, layout: Layout) -> list[Screen | None]:
    """How each frame of a file is shown. A malformed window or VOI LUT counts as none.

    Raises SeriesRefused: TRUNCATED_FILE, and UNSUPPORTED_RESCALE for a malformed Modality LUT, without which
    the values mean nothing.
    """
    header = whole_header(file)
    modality = _modality_lut(header, layout)
    turned = is_turned_over(file)
    return [Screen(modality, voi, turned) for voi in _voi_of_frames(header, layout)]


def is_turned_over(file: SourceFile) -> bool:
    """Whether low values are what attenuates much, so that they must be turned over for bone to be bright."""
    facts = file.header.facts
    if first(facts, "SOPClassUID") in _FOR_PROCESSING:
        sign = whole_header(file).get("PixelIntensityRelationshipSign")
        if sign in (1, -1):
            return bool(sign == 1)
    return first(facts, "PhotometricInterpretation") == "MONOCHROME1"


def turned_over(rescale: Rescale, layout: Layout) -> Rescale:
    """The rescale after which what the lowest stored value gave is what the highest one gives.

    >>> from ai.pixels.layout import Layout
    >>> turned_over(Rescale(2.0, 1.0), Layout("", "", 1, 1, 1, 16, 12, False))
    Rescale(slope=-2.0, intercept=8191.0)
    """
    return Rescale(-rescale.slope, rescale.intercept + rescale.slope * sum(layout.range))


def _voi_of_frames(header: Dataset, layout: Layout) -> list[Lut | Window | None]:
    """VOI of each frame: in its functional groups, the shared ones, or the header itself."""
    frames = header.get("PerFrameFunctionalGroupsSequence") or []
    shared = (header.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    if len(frames) != layout.frames:
        return [_voi(header, layout)] * layout.frames
    groups = [frame.get("FrameVOILUTSequence") or shared.get("FrameVOILUTSequence") for frame in frames]
    return [_voi(group[0] if group else header, layout) for group in groups]


def _voi(item: Dataset, layout: Layout) -> Lut | Window | None:
    """The first VOI LUT, else the first window: either is a view that the header offers (C.11.2.1)."""
    tables = item.get("VOILUTSequence") or []
    table = _lut(tables[0], layout, normalised=True) if tables else None
    return table or _window(item)


def _window(item: Dataset) -> Window | None:
    centre, width = _first_number(item, "WindowCenter"), _first_number(item, "WindowWidth")
    function = str(item.get("VOILUTFunction") or "LINEAR")
    if centre is None or width is None or function not in _FUNCTIONS:
        return None
    lowest = 1.0 if function == "LINEAR" else 0.0
    return Window(centre, width, function) if width >= lowest and width > 0.0 else None


def _first_number(item: Dataset, keyword: str) -> float | None:
    try:
        number = float(np.atleast_1d(item[keyword].value)[0])
    except (KeyError, TypeError, ValueError, IndexError):
        return None
    return number if math.isfinite(number) else None


def _modality_lut(header: Dataset, layout: Layout) -> Lut | None:
    tables = header.get("ModalityLUTSequence") or []
    if not tables:
        return None
    table = _lut(tables[0], layout, normalised=False)
    if table is None:
        reason = f"The Modality LUT of {layout.name} is malformed, so its values cannot be told."
        raise SeriesRefused("UNSUPPORTED_RESCALE", reason)
    return table


def _lut(item: Dataset, layout: Layout, *, normalised: bool) -> Lut | None:
    """A table of the Modality or VOI LUT Sequence; None when it is malformed."""
    try:
        count, start, bits = (int(number) for number in item.LUTDescriptor)
        entries = _entries(item["LUTData"].value, count or 1 << 16, layout)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    if not 1 <= bits <= 16:
        return None
    if layout.signed and start >= 1 << 15:  # US or SS: the sign is that of the pixels (C.11.1.1)
        start -= 1 << 16
    return Lut(start, entries / float((1 << bits) - 1) if normalised else entries)


def _entries(data: Any, count: int, layout: Layout) -> _Values:
    """``count`` unsigned numbers, read from bytes of 8 or 16 bits each where they were not parsed."""
    if isinstance(data, bytes):
        wide = ">u2" if layout.transfer_syntax_uid == ExplicitVRBigEndian else "<u2"
        data = np.frombuffer(data, wide if len(data) >= 2 * count else "u1")
    entries = np.asarray(data, np.float64).reshape(-1)
    if len(entries) < count:
        raise ValueError("fewer entries than the descriptor says")
    return entries[:count]
