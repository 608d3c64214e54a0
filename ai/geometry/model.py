"""The values of geometry: what headers say, and what was decided about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt

Vector = tuple[float, float, float]
FloatArray = npt.NDArray[np.float64]

SHORTEST_MM = 1e-6  # a nanometre: a spacing or thickness below it is no length, and areas of it vanish


class Verdict(StrEnum):
    """What becomes of a sub-volume: taken as it is, taken after a repair that is named, or not taken."""

    ACCEPTED = "ACCEPTED"
    FIXED = "FIXED"
    REFUSED = "REFUSED"


class VerdictCode(StrEnum):
    """Names of refusals, stable: records, reports and tests use them.

    GANTRY_TILT and IRREGULAR_SPACING are also names of what a volume needs before a model that takes
    regular upright grids alone may see it.
    """

    ACCEPTED = "ACCEPTED"
    NOT_AN_IMAGE = "NOT_AN_IMAGE"
    LOCALIZER = "LOCALIZER"
    NO_POSITION = "NO_POSITION"
    MULTI_FRAME = "MULTI_FRAME"
    MOSAIC = "MOSAIC"
    SINGLE_SLICE = "SINGLE_SLICE"
    DUPLICATE_POSITION = "DUPLICATE_POSITION"
    MISSING_SLICE = "MISSING_SLICE"
    IRREGULAR_SPACING = "IRREGULAR_SPACING"
    GANTRY_TILT = "GANTRY_TILT"
    TOO_MANY_PARTS = "TOO_MANY_PARTS"
    TOO_FEW_SLICES = "TOO_FEW_SLICES"
    SLICES_TOO_FAR_APART = "SLICES_TOO_FAR_APART"
    PROJECTION_IMAGE = "PROJECTION_IMAGE"


class NoteCode(StrEnum):
    """Things worth saying about a volume that is taken all the same."""

    GANTRY_TILT = "GANTRY_TILT"
    IRREGULAR_SPACING = "IRREGULAR_SPACING"
    FRAME_OF_REFERENCE_DERIVED = "FRAME_OF_REFERENCE_DERIVED"
    LOCALIZERS_DROPPED = "LOCALIZERS_DROPPED"
    NON_IMAGES_DROPPED = "NON_IMAGES_DROPPED"
    IDENTITY_DERIVED = "IDENTITY_DERIVED"
    SPACING_FROM_THICKNESS = "SPACING_FROM_THICKNESS"
    SPLIT = "SPLIT"
    DETECTOR_PLANE = "DETECTOR_PLANE"


FIXES = (
    NoteCode.GANTRY_TILT,
    NoteCode.IRREGULAR_SPACING,
    NoteCode.FRAME_OF_REFERENCE_DERIVED,
    NoteCode.LOCALIZERS_DROPPED,
    NoteCode.NON_IMAGES_DROPPED,
)
"""Notes that make a volume FIXED instead of ACCEPTED; the first one present names the verdict."""


@dataclass(frozen=True)
class Note:
    """A named remark with its sentence."""

    code: NoteCode
    text: str


@dataclass(frozen=True, order=True)
class FrameRef:
    """One image plane of the source: an instance, and the frame in it counted from 1 (PS3.3 C.7.6.6)."""

    sop_instance_uid: str
    frame_number: int = 1


@dataclass(frozen=True)
class SliceHeader:
    """What geometry may know of one image plane. ``None`` means absent or empty in the header.

    Attributes
    ----------
    frame_number
        1 for a single-frame image; the number of the frame, from 1, for an enhanced multi-frame one.
    number_of_frames
        Above 1 for an instance whose frames the header does not describe one by one: it cannot be placed.
    position_mm
        Image Position (Patient), LPS, of the centre of the first voxel.
    orientation
        Image Orientation (Patient): the cosines along a row (increasing column index), then
        along a column (increasing row index).
    pixel_spacing_mm
        ``(row spacing, column spacing)``: PS3.3 10.7.1.3, distance between rows first.
    detector_spacing_mm
        Imager Pixel Spacing of a projection image, same order; in the plane of the detector.
    is_projection
        A CR, DX, MG or other projection X-ray image: it has no place in the patient.
    patient_orientation
        Patient Orientation of a projection image: the sides of the patient that the right and the lower edge
        show (PS3.3 C.7.6.1.1.1); empty where it does not say.
    attributes
        Keyword → text of what may tell the volumes of one series apart (Stack ID, Echo Time, b-value …).
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
    frame_number: int = 1
    modality: str = ""
    detector_spacing_mm: tuple[float, float] | None = None
    is_projection: bool = False
    patient_orientation: tuple[str, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)

    @property
    def ref(self) -> FrameRef:
        """Which image plane this is."""
        return FrameRef(self.sop_instance_uid, self.frame_number)


@dataclass(frozen=True)
class VolumeGeometry:
    """Where a stack of parallel slices of one size lies.

    Attributes
    ----------
    index_to_lps
        4 × 4 float64 affine: ``(slice, row, column, 1)`` to LPS millimetres. Exact for an even stack, whose
        first column is sheared where the gantry was tilted; for an uneven one the slice step is the mean.
    shape
        ``(slices, rows, columns)``.
    frames
        The source image planes in slice order.
    origins_mm
        float64 ``(slices, 3)``: LPS centre of the first voxel of each slice.
    frame_of_reference_uid
        None where the series has none that could be used; whoever reads the voxels derives one.
    needs
        What must be repaired by resampling before the grid is regular and upright: GANTRY_TILT,
        IRREGULAR_SPACING, both (in this order) or nothing.
    is_projection
        The plane of a detector: millimetres are true there, and the place in the patient is unknown. Its
        affine only says which way the image hangs: x grows towards the patient's left, y down.
    """

    index_to_lps: FloatArray
    shape: tuple[int, int, int]
    frames: tuple[FrameRef, ...]
    origins_mm: FloatArray
    frame_of_reference_uid: str | None
    slice_thickness_mm: float | None = None
    notes: tuple[Note, ...] = ()
    needs: tuple[VerdictCode, ...] = ()
    is_projection: bool = False

    @property
    def sop_instance_uids(self) -> tuple[str, ...]:
        """The source instances, each once, in the order in which the slices meet them."""
        return tuple(dict.fromkeys(frame.sop_instance_uid for frame in self.frames))

    @property
    def normal(self) -> FloatArray:
        """Unit normal of the slices: row cosine × column cosine, ``(3,)`` LPS."""
        cross = np.cross(self.index_to_lps[:3, 2], self.index_to_lps[:3, 1])
        return np.asarray(cross / np.linalg.norm(cross), np.float64)

    @property
    def spacing_mm(self) -> Vector:
        """Distance between voxel centres along (slices, rows, columns), millimetres.

        Between slices it is measured along their normal, so the tilt of a gantry does not lengthen it.
        """
        down, along = np.linalg.norm(self.index_to_lps[:3, 1:3], axis=0)
        return (float(abs(self.index_to_lps[:3, 0] @ self.normal)), float(down), float(along))

    @property
    def voxel_volumes_ml(self) -> FloatArray:
        """float64 ``(slices,)``: volume of one voxel of each slice in millilitres.

        A slice reaches half way to its neighbours; the outermost ones reach as far outwards as inwards.
        Those of a projection mean nothing: see ``pixel_area_mm2``.
        """
        step_mm, down_mm, along_mm = self.spacing_mm
        heights = self.origins_mm @ self.normal
        thick = np.full(len(heights), step_mm)
        if VerdictCode.IRREGULAR_SPACING in self.needs:
            gaps = np.abs(np.diff(heights))
            thick = (np.concatenate([gaps[:1], gaps]) + np.concatenate([gaps, gaps[-1:]])) / 2.0
        return np.asarray(thick * (down_mm * along_mm / 1000.0), np.float64)

    @property
    def pixel_area_mm2(self) -> float:
        """Area of a pixel in its plane, for a projection in that of the detector."""
        return self.spacing_mm[1] * self.spacing_mm[2]

    @property
    def verdict(self) -> Verdict:
        """FIXED when something was or must be repaired (see FIXES), else ACCEPTED."""
        return Verdict.ACCEPTED if self.code == "ACCEPTED" else Verdict.FIXED

    @property
    def code(self) -> str:
        """Name of the gravest repair, or ACCEPTED."""
        present = {note.code for note in self.notes}
        return next((str(code) for code in FIXES if code in present), "ACCEPTED")

    @property
    def reason(self) -> str:
        """The sentence of the verdict, with the numbers and every note."""
        slices, rows, columns = self.shape
        step_mm, down_mm, along_mm = self.spacing_mm
        pixels = f"pixels {down_mm:.4g} × {along_mm:.4g} mm"
        grid = f"slices of {rows} × {columns}, {step_mm:.4g} mm apart"
        if slices == 1:
            text = f"One image of {rows} × {columns}, {pixels}."
        elif not self.needs:
            text = f"One regular volume: {slices} {grid}, {pixels}."
        elif VerdictCode.IRREGULAR_SPACING in self.needs:
            text = f"{slices} parallel {grid} on average, {pixels}."
        else:
            text = f"{slices} parallel {grid}, {pixels}."
        return " ".join([text, *(note.text for note in self.notes)])


@dataclass(frozen=True)
class NotAVolume:
    """Why image planes are no volume: a stable name, a sentence, and the numbers in it."""

    code: VerdictCode
    reason: str
    numbers: Mapping[str, float | int | str] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """REFUSED."""
        return Verdict.REFUSED


@dataclass(frozen=True)
class Part:
    """One sub-volume of a series and what was decided about it.

    Attributes
    ----------
    key
        What tells it from its siblings, stable whatever the order of arrival: empty for the only one, beside
        which others may only have been refused before they were placed, else for example ``EchoTime=4.6``
        or ``size=512x512;orientation=axial``. At most 200 characters.
    label
        The same for people: ``Echo Time 4.6``; empty where the key is.
    frames
        Every image plane of the part, in slice order where that is known.
    """

    key: str
    label: str
    frames: tuple[FrameRef, ...]
    geometry: VolumeGeometry | NotAVolume


@dataclass(frozen=True)
class Needs:
    """What a model asks of a volume's geometry.

    Attributes
    ----------
    resampled
        Which repairs by resampling the model allows: GANTRY_TILT, IRREGULAR_SPACING.
    """

    minimum_slices: int = 1
    maximum_slice_spacing_mm: float = float("inf")
    resampled: frozenset[VerdictCode] = frozenset()
    projections: bool = False


def refuse(code: VerdictCode, reason: str, **numbers: float | int | str) -> NotAVolume:
    """A refusal with its numbers."""
    return NotAVolume(code, reason, numbers)


def as_array(values: Sequence[tuple[float, ...] | None]) -> FloatArray:
    """Vectors that are known to be there as one float64 array (n, length)."""
    return np.array(values, dtype=np.float64)


def listed(items: Sequence[str], most: int = 5) -> str:
    """The first few of a list, and how many more there are."""
    more = len(items) - most
    return "; ".join(items[:most]) + (f"; and {more} more" if more > 0 else "")
