"""The values of geometry: what a header says, and what was decided about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt

Vector = tuple[float, float, float]


class VerdictCode(StrEnum):
    """Names of the geometry verdicts, stable: records, reports and tests use them."""

    ACCEPTED = "ACCEPTED"
    NOT_AN_IMAGE = "NOT_AN_IMAGE"
    LOCALIZER = "LOCALIZER"
    NO_POSITION = "NO_POSITION"
    MULTI_FRAME = "MULTI_FRAME"
    SINGLE_SLICE = "SINGLE_SLICE"
    MIXED_ORIENTATION = "MIXED_ORIENTATION"
    MIXED_SIZE = "MIXED_SIZE"
    MIXED_SPACING = "MIXED_SPACING"
    MIXED_FRAME_OF_REFERENCE = "MIXED_FRAME_OF_REFERENCE"
    DUPLICATE_POSITION = "DUPLICATE_POSITION"
    MISSING_SLICE = "MISSING_SLICE"
    IRREGULAR_SPACING = "IRREGULAR_SPACING"
    GANTRY_TILT = "GANTRY_TILT"


class NoteCode(StrEnum):
    """Things worth saying about a series that is accepted all the same."""

    FRAME_OF_REFERENCE_DERIVED = "FRAME_OF_REFERENCE_DERIVED"
    LOCALIZERS_DROPPED = "LOCALIZERS_DROPPED"
    IDENTITY_DERIVED = "IDENTITY_DERIVED"


@dataclass(frozen=True)
class Note:
    """A named remark with its sentence."""

    code: NoteCode
    text: str


@dataclass(frozen=True)
class SliceHeader:
    """What geometry may know of one instance. ``None`` means absent or empty in the header.

    Attributes
    ----------
    position_mm
        Image Position (Patient), LPS, of the centre of the first voxel.
    orientation
        Image Orientation (Patient): the cosines along a row (increasing column index), then
        along a column (increasing row index).
    pixel_spacing_mm
        ``(row spacing, column spacing)``: PS3.3 10.7.1.3, distance between rows first.
    """

    sop_instance_uid: str
    rows: int | None
    columns: int | None
    position_mm: Vector | None
    orientation: tuple[float, float, float, float, float, float] | None
    pixel_spacing_mm: tuple[float, float] | None
    frame_of_reference_uid: str | None = None
    number_of_frames: int = 1
    image_type: tuple[str, ...] = ()
    slice_thickness_mm: float | None = None


@dataclass(frozen=True)
class VolumeGeometry:
    """Where a regular stack of parallel slices lies.

    Attributes
    ----------
    index_to_lps
        4 × 4 float64 affine: ``(slice, row, column, 1)`` to LPS millimetres.
    shape
        ``(slices, rows, columns)``.
    sop_instance_uids
        The source instances in slice order.
    frame_of_reference_uid
        None where the series has none that could be used; whoever reads the voxels derives one.
    """

    index_to_lps: npt.NDArray[np.float64]
    shape: tuple[int, int, int]
    sop_instance_uids: tuple[str, ...]
    frame_of_reference_uid: str | None
    slice_thickness_mm: float | None = None
    notes: tuple[Note, ...] = ()

    @property
    def spacing_mm(self) -> Vector:
        """Distance between voxel centres along (slices, rows, columns), millimetres."""
        norms = np.linalg.norm(self.index_to_lps[:3, :3], axis=0)
        return (float(norms[0]), float(norms[1]), float(norms[2]))

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return float(abs(np.linalg.det(self.index_to_lps[:3, :3]))) / 1000.0


@dataclass(frozen=True)
class NotAVolume:
    """Why a series is no volume: a stable name, a sentence, and the numbers in it."""

    code: VerdictCode
    reason: str
    numbers: Mapping[str, float | int | str] = field(default_factory=dict)


def refuse(code: VerdictCode, reason: str, **numbers: float | int | str) -> NotAVolume:
    """A refusal with its numbers."""
    return NotAVolume(code, reason, numbers)


def is_localizer(header: SliceHeader) -> bool:
    """True if Image Type says so (PS3.3 C.8.2.1.1.1)."""
    return "LOCALIZER" in (part.strip().upper() for part in header.image_type)


def as_array(values: Sequence[tuple[float, ...] | None]) -> npt.NDArray[np.float64]:
    """Vectors that are known to be there as one float64 array (n, length)."""
    return np.array(values, dtype=np.float64)


def listed(items: Sequence[str], most: int = 5) -> str:
    """The first few of a list, and how many more there are."""
    more = len(items) - most
    return "; ".join(items[:most]) + (f"; and {more} more" if more > 0 else "")
