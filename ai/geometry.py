"""Geometry of a series, from headers alone: is it a volume, and where does it lie?

Pure functions over :class:`SliceHeader`; no pixels, no files. Conventions: LPS millimetres
(PS3.3 C.7.6.2.1.1); array index ``(slice, row, column)``; slices ordered by the projection of
Image Position (Patient) on the slice normal (row cosine × column cosine), ascending.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt

Vector = tuple[float, float, float]
Array = npt.NDArray[np.float64]


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


_COSINE_TOLERANCE = 1e-3  # noise in Image Orientation that scanners write
_DUPLICATE_MM = 1e-3
_REGULAR_SHARE = 0.01  # of the spacing, as highdicom
_WHOLE_MULTIPLE = 0.03  # a gap this near to n spacings has n - 1 slices missing
_TILT_DEGREES = 0.1


def assess(slices: Sequence[SliceHeader]) -> VolumeGeometry | NotAVolume:
    """Decide whether the instances of a series are one regular volume.

    The rules are tried in the order in which their names help most: what is no image at all, what
    has no position, what is mixed, and only then where the slices lie. Localizers among other
    images are dropped and noted. Gaps may differ from each other by 1 % of the spacing.
    """
    kept = [s for s in slices if not _is_localizer(s)]
    refusal = _not_images(slices, kept) or _without_position(kept) or _mixed(kept)
    if refusal is not None:
        return refusal
    if len(kept) == 1:
        return _refuse(
            VerdictCode.SINGLE_SLICE, "The series has one slice; a volume needs at least 2.", slices=1
        )
    stack = _Stack(kept)
    refusal = _duplicates(stack) or _tilt(stack) or _gaps(stack)
    return refusal if refusal is not None else _volume(stack, _notes(slices, kept))


def _refuse(code: VerdictCode, reason: str, **numbers: float | int | str) -> NotAVolume:
    return NotAVolume(code, reason, numbers)


def _is_localizer(header: SliceHeader) -> bool:
    return any(value.strip().upper() == "LOCALIZER" for value in header.image_type)


def _not_images(slices: Sequence[SliceHeader], kept: Sequence[SliceHeader]) -> NotAVolume | None:
    total = len(slices)
    blind = sum(1 for s in slices if not s.rows or not s.columns)
    if total == 0 or blind:
        reason = f"{blind} of {total} instances have no rows and columns: they are no images."
        return _refuse(VerdictCode.NOT_AN_IMAGE, reason, instances=total, without_pixels=blind)
    if not kept:
        reason = f"All {total} images are localizers (Image Type has LOCALIZER)."
        return _refuse(VerdictCode.LOCALIZER, reason, instances=total)
    frames = max(s.number_of_frames for s in kept)
    if frames > 1:
        reason = f"An instance has {frames} frames; multi-frame images are not assembled yet."
        return _refuse(VerdictCode.MULTI_FRAME, reason, frames=frames)
    return None


def _without_position(kept: Sequence[SliceHeader]) -> NotAVolume | None:
    facts = (
        ("Image Position (Patient)", [s for s in kept if s.position_mm is None]),
        ("Image Orientation (Patient)", [s for s in kept if not _is_orientation(s.orientation)]),
        ("Pixel Spacing", [s for s in kept if s.pixel_spacing_mm is None or min(s.pixel_spacing_mm) <= 0]),
    )
    for attribute, lacking in facts:
        if lacking:
            reason = f"{len(lacking)} of {len(kept)} images have no usable {attribute}."
            return _refuse(
                VerdictCode.NO_POSITION,
                reason,
                attribute=attribute,
                lacking=len(lacking),
                instances=len(kept),
            )
    return None


def _is_orientation(cosines: tuple[float, ...] | None) -> bool:
    """Two unit vectors at a right angle, within the noise that scanners write."""
    if cosines is None:
        return False
    row, column = np.asarray(cosines[:3]), np.asarray(cosines[3:])
    errors = (row @ row - 1, column @ column - 1, row @ column)
    return bool(max(abs(float(e)) for e in errors) <= 10 * _COSINE_TOLERANCE)


def _mixed(kept: Sequence[SliceHeader]) -> NotAVolume | None:
    return _mixed_orientation(kept) or _mixed_size(kept) or _mixed_frame_of_reference(kept)


def _mixed_orientation(kept: Sequence[SliceHeader]) -> NotAVolume | None:
    cosines = np.array([s.orientation for s in kept])
    if np.all(np.ptp(cosines, axis=0) <= _COSINE_TOLERANCE):
        return None
    groups = len(np.unique(np.round(cosines / (2 * _COSINE_TOLERANCE)), axis=0))
    degrees = max(_angle_degrees(cosines[0], other) for other in cosines)
    reason = f"The images have {groups} orientations, up to {degrees:.1f}° apart."
    return _refuse(VerdictCode.MIXED_ORIENTATION, reason, orientations=groups, degrees=degrees)


def _mixed_size(kept: Sequence[SliceHeader]) -> NotAVolume | None:
    sizes = Counter((s.rows, s.columns) for s in kept)
    if len(sizes) > 1:
        listing = ", ".join(f"{n} of {rows} × {columns}" for (rows, columns), n in sizes.most_common())
        return _refuse(VerdictCode.MIXED_SIZE, f"The images differ in size: {listing}.", sizes=len(sizes))
    spacings = np.array([s.pixel_spacing_mm for s in kept])
    if np.any(np.ptp(spacings, axis=0) > _REGULAR_SHARE * spacings.min(axis=0)):
        low, high = spacings.min(), spacings.max()
        reason = f"The images differ in pixel spacing, from {low:.4g} to {high:.4g} mm."
        return _refuse(VerdictCode.MIXED_SPACING, reason, smallest_mm=float(low), largest_mm=float(high))
    return None


def _mixed_frame_of_reference(kept: Sequence[SliceHeader]) -> NotAVolume | None:
    frames = {s.frame_of_reference_uid for s in kept}
    if len(frames) == 1 or _each_has_its_own_frame(kept):
        return None
    reason = f"The images have {len(frames)} frames of reference: their positions cannot be compared."
    return _refuse(VerdictCode.MIXED_FRAME_OF_REFERENCE, reason, frames_of_reference=len(frames))


def _each_has_its_own_frame(kept: Sequence[SliceHeader]) -> bool:
    """Some anonymisers give every image a new Frame of Reference UID; scanners never do."""
    return len(kept) > 2 and len({s.frame_of_reference_uid for s in kept}) == len(kept)


def _angle_degrees(a: Array, b: Array) -> float:
    """The larger of the angles between the row directions and between the column directions."""
    cosines = min(float(a[:3] @ b[:3]), float(a[3:] @ b[3:]))
    return round(float(np.degrees(np.arccos(np.clip(cosines, -1, 1)))), 2)


class _Stack:
    """Parallel slices of one size, in order along their normal."""

    def __init__(self, kept: Sequence[SliceHeader]) -> None:
        first = kept[0]
        cosines = np.asarray(first.orientation, dtype=np.float64)
        self.along_row, self.along_column = cosines[:3], cosines[3:]
        normal = np.cross(self.along_row, self.along_column)
        self.normal = normal / np.linalg.norm(normal)
        positions = np.array([s.position_mm for s in kept], dtype=np.float64)
        order = np.argsort(positions @ self.normal, kind="stable")
        self.slices = [kept[i] for i in order]
        self.positions = positions[order]
        self.distances = self.positions @ self.normal
        self.gaps = np.diff(self.distances)

    def where(self, index: int) -> str:
        """The place of a slice for a person: the coordinate of the axis that the stack runs along."""
        axis = int(np.argmax(np.abs(self.normal)))
        if abs(self.normal[axis]) > 1 - _COSINE_TOLERANCE:
            return f"{'xyz'[axis]} = {self.positions[index][axis]:.1f} mm"
        x, y, z = self.positions[index]
        return f"({x:.1f}, {y:.1f}, {z:.1f}) mm"


def _duplicates(stack: _Stack) -> NotAVolume | None:
    repeated = np.flatnonzero(stack.gaps < _DUPLICATE_MM)
    if not len(repeated):
        return None
    places = len(stack.slices) - len(repeated)
    reason = (
        f"{len(stack.slices)} images lie at {places} positions; the first that is taken twice is "
        f"{stack.where(int(repeated[0]))}. Several phases or copies in one series?"
    )
    return _refuse(
        VerdictCode.DUPLICATE_POSITION,
        reason,
        instances=len(stack.slices),
        positions=places,
        repeated=len(repeated),
    )


def _tilt(stack: _Stack) -> NotAVolume | None:
    way = stack.positions[-1] - stack.positions[0]
    along = float(way @ stack.normal)
    sideways = float(np.linalg.norm(way - along * stack.normal))
    degrees = float(np.degrees(np.arctan2(sideways, along)))
    if degrees <= _TILT_DEGREES:
        return None
    low, high = float(stack.gaps.min()), float(stack.gaps.max())
    uneven = (
        f"; the gaps vary too, from {low:.2f} to {high:.2f} mm" if high - low > _REGULAR_SHARE * low else ""
    )
    reason = (
        f"The gantry was tilted: slices shift sideways by {degrees:.1f}° against their normal "
        f"({sideways:.1f} mm over {along:.1f} mm){uneven}."
    )
    numbers = {
        "degrees": round(degrees, 2),
        "smallest_gap_mm": round(low, 4),
        "largest_gap_mm": round(high, 4),
    }
    return NotAVolume(VerdictCode.GANTRY_TILT, reason, numbers)


def _gaps(stack: _Stack) -> NotAVolume | None:
    spacing = float(stack.gaps.mean())
    even = stack.positions[0] + np.outer(np.arange(len(stack.slices)), _step(stack))
    if np.linalg.norm(stack.positions - even, axis=1).max() <= _REGULAR_SHARE * spacing:
        return None
    smallest = float(stack.gaps.min())
    multiples = np.rint(stack.gaps / smallest).astype(int)
    if multiples.max() > 1 and np.abs(stack.gaps / multiples - smallest).max() <= _WHOLE_MULTIPLE * smallest:
        return _missing(stack, multiples)
    worst = int(np.argmax(np.abs(stack.gaps - np.median(stack.gaps))))
    reason = (
        f"The spacing is not regular: gaps from {smallest:.3f} to {stack.gaps.max():.3f} mm, median "
        f"{np.median(stack.gaps):.3f} mm; the worst follows {stack.where(worst)}."
    )
    return _refuse(
        VerdictCode.IRREGULAR_SPACING,
        reason,
        smallest_gap_mm=round(smallest, 4),
        largest_gap_mm=round(float(stack.gaps.max()), 4),
        median_gap_mm=round(float(np.median(stack.gaps)), 4),
    )


def _missing(stack: _Stack, multiples: npt.NDArray[np.int_]) -> NotAVolume:
    spacing = float(np.mean(stack.gaps / multiples))
    missing = int(np.sum(multiples - 1))
    total = len(stack.slices) + missing
    sentences = []
    for gap in np.flatnonzero(multiples > 1)[:5]:
        first = int(multiples[:gap].sum()) + 2
        count = int(multiples[gap]) - 1
        which = f"slice {first}" if count == 1 else f"slices {first} to {first + count - 1}"
        sentences.append(f"{which} of {total} missing after {stack.where(int(gap))}")
    reason = f"{'; '.join(sentences).capitalize()} (spacing {spacing:.2f} mm; {missing} missing in all)."
    return _refuse(
        VerdictCode.MISSING_SLICE, reason, missing=missing, expected=total, spacing_mm=round(spacing, 4)
    )


def _step(stack: _Stack) -> Array:
    step: Array = (stack.positions[-1] - stack.positions[0]) / (len(stack.slices) - 1)
    return step


def _notes(slices: Sequence[SliceHeader], kept: Sequence[SliceHeader]) -> tuple[Note, ...]:
    notes = []
    if len(kept) < len(slices):
        text = f"{len(slices) - len(kept)} localizer images of {len(slices)} were left out."
        notes.append(Note(NoteCode.LOCALIZERS_DROPPED, text))
    lack = "The series has no Frame of Reference UID" if kept[0].frame_of_reference_uid is None else None
    if _each_has_its_own_frame(kept):
        lack = f"Each of the {len(kept)} images has a Frame of Reference UID of its own, as some anonymisers write"
    if lack is not None:
        text = f"{lack}; one is derived from the Series Instance UID."
        notes.append(Note(NoteCode.FRAME_OF_REFERENCE_DERIVED, text))
    return tuple(notes)


def _volume(stack: _Stack, notes: tuple[Note, ...]) -> VolumeGeometry:
    first = stack.slices[0]
    assert first.pixel_spacing_mm is not None  # noqa: S101 - _without_position has checked
    between_rows, between_columns = first.pixel_spacing_mm
    matrix = np.eye(4)
    matrix[:3, 0] = _step(stack)
    matrix[:3, 1] = stack.along_column * between_rows
    matrix[:3, 2] = stack.along_row * between_columns
    matrix[:3, 3] = stack.positions[0]
    return VolumeGeometry(
        index_to_lps=matrix,
        shape=(len(stack.slices), int(first.rows or 0), int(first.columns or 0)),
        sop_instance_uids=tuple(s.sop_instance_uid for s in stack.slices),
        frame_of_reference_uid=None
        if _each_has_its_own_frame(stack.slices)
        else first.frame_of_reference_uid,
        slice_thickness_mm=first.slice_thickness_mm,
        notes=notes,
    )
