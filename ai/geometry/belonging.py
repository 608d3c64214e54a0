"""Do the instances of a series belong together as slices of one volume?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ai.geometry.model import NotAVolume, SliceHeader, VerdictCode, as_array, listed, refuse

FloatArray = npt.NDArray[np.float64]

ORIENTATION_TOLERANCE = 1e-3  # of a cosine: the rounding seen in real headers, about 0.06°
PIXEL_SPACING_TOLERANCE = 1e-3  # relative: half a pixel over 512
_MOST_ORIENTATIONS = 50
LONGEST_MM = 1e6  # beyond this a length in a header is no length


def refuse_unrelated(slices: Sequence[SliceHeader]) -> NotAVolume | None:
    """The first rule that finds the instances unfit or different from each other; None if all agree."""
    rules = (
        _images,
        _single_frames,
        _positions_present,
        _same_orientation,
        _same_frame_of_reference,
        _same_size,
        _same_pixel_spacing,
        _several,
    )
    return next((refusal for rule in rules if (refusal := rule(slices))), None)


def each_has_its_own_frame(slices: Sequence[SliceHeader]) -> bool:
    """Some anonymisers give every image a Frame of Reference UID of its own; scanners never do."""
    frames = {s.frame_of_reference_uid for s in slices}
    return len(slices) > 2 and len(frames) == len(slices) and None not in frames


def _images(slices: Sequence[SliceHeader]) -> NotAVolume | None:
    lacking = sum(not (s.rows and s.columns) for s in slices)
    if slices and not lacking:
        return None
    reason = f"{lacking} of {len(slices)} instances have no Rows or no Columns: they are no images."
    if not slices:
        reason = "The series has no instances."
    return refuse(VerdictCode.NOT_AN_IMAGE, reason, lacking=lacking, images=len(slices))


def _single_frames(slices: Sequence[SliceHeader]) -> NotAVolume | None:
    frames = max(s.number_of_frames for s in slices)
    if frames <= 1:
        return None
    reason = (
        f"An instance has {frames} frames. Enhanced multi-frame images are not processed yet: "
        "send the series as single-frame images."
    )
    return refuse(VerdictCode.MULTI_FRAME, reason, frames=frames, images=len(slices))


def _positions_present(slices: Sequence[SliceHeader]) -> NotAVolume | None:
    """Position, orientation and pixel spacing of every slice, and that they can be true."""
    faults = Counter(fault for s in slices for fault in _position_faults(s))
    if not faults:
        return None
    lacking = sum(bool(_position_faults(s)) for s in slices)
    named = "; ".join(f"{fault} in {count}" for fault, count in faults.items())
    reason = f"{lacking} of {len(slices)} images do not say where they lie: {named}."
    return refuse(VerdictCode.NO_POSITION, reason, lacking=lacking, images=len(slices))


def _position_faults(header: SliceHeader) -> list[str]:
    attributes = (
        ("Image Position (Patient)", header.position_mm),
        ("Image Orientation (Patient)", header.orientation),
        ("Pixel Spacing", header.pixel_spacing_mm),
    )
    faults = [f"{name} is missing or malformed" for name, value in attributes if value is None]
    for name, value in attributes:
        if value is not None and not np.all(np.abs(value) < LONGEST_MM):  # also false for NaN
            faults.append(f"{name} is not finite")
    if faults or header.orientation is None or header.pixel_spacing_mm is None:
        return faults
    row, column = np.reshape(header.orientation, (2, 3))
    errors = (row @ row - 1.0, column @ column - 1.0, row @ column)
    if max(map(abs, errors)) > 2.0 * ORIENTATION_TOLERANCE:
        faults.append("Image Orientation (Patient) is not two perpendicular unit vectors")
    if min(header.pixel_spacing_mm) <= 0.0:
        faults.append("Pixel Spacing is not positive")
    return faults


def _same_orientation(slices: Sequence[SliceHeader]) -> NotAVolume | None:
    cosines = as_array([s.orientation for s in slices])
    groups: list[FloatArray] = []
    for each in cosines:
        if len(groups) == _MOST_ORIENTATIONS:
            break  # enough to refuse; counting on would take quadratic time
        if not any(np.max(np.abs(each - group)) <= ORIENTATION_TOLERANCE for group in groups):
            groups.append(each)
    if len(groups) == 1:
        return None
    degrees = max(_angle_degrees(groups[0], group) for group in groups)
    least = "at least " if len(groups) == _MOST_ORIENTATIONS else ""
    reason = (
        f"The {len(slices)} images have {least}{len(groups)} different orientations, up to "
        f"{degrees:.1f}° apart: they are no parallel slices."
    )
    return refuse(VerdictCode.MIXED_ORIENTATION, reason, orientations=len(groups), degrees=round(degrees, 3))


def _angle_degrees(one: FloatArray, other: FloatArray) -> float:
    """The larger of the angles between the row axes and between the column axes."""
    chords = np.linalg.norm((one - other).reshape(2, 3), axis=1)
    return float(np.degrees(2.0 * np.arcsin(np.clip(chords.max() / 2.0, 0.0, 1.0))))


def _same_frame_of_reference(slices: Sequence[SliceHeader]) -> NotAVolume | None:
    frames = Counter(s.frame_of_reference_uid for s in slices)
    if len(frames) == 1 or each_has_its_own_frame(slices):
        return None
    lacking = frames[None]
    reason = f"The images name {len(frames) - bool(lacking)} Frames of Reference"
    reason += f" and {lacking} of {len(slices)} name none" if lacking else ""
    reason += ": their positions cannot be compared."
    return refuse(
        VerdictCode.MIXED_FRAME_OF_REFERENCE, reason, frames_of_reference=len(frames), lacking=lacking
    )


def _same_size(slices: Sequence[SliceHeader]) -> NotAVolume | None:
    sizes = Counter((s.rows, s.columns) for s in slices)
    if len(sizes) == 1:
        return None
    sizes_text = listed([f"{count} of {rows} × {columns}" for (rows, columns), count in sizes.most_common()])
    reason = f"The images differ in rows × columns: {sizes_text}."
    return refuse(VerdictCode.MIXED_SIZE, reason, sizes=len(sizes))


def _same_pixel_spacing(slices: Sequence[SliceHeader]) -> NotAVolume | None:
    spacings = as_array([s.pixel_spacing_mm for s in slices])
    low, high = spacings.min(axis=0), spacings.max(axis=0)
    if np.all(high - low <= PIXEL_SPACING_TOLERANCE * low):
        return None
    axis = int(np.argmax((high - low) / low))
    reason = (
        f"Pixel Spacing differs between the images: from {low[axis]:.4f} mm to {high[axis]:.4f} mm "
        f"between {('rows', 'columns')[axis]}."
    )
    return refuse(
        VerdictCode.MIXED_SPACING, reason, smallest_mm=float(low[axis]), largest_mm=float(high[axis])
    )


def _several(slices: Sequence[SliceHeader]) -> NotAVolume | None:
    if len(slices) > 1:
        return None
    reason = "The series has 1 slice: its extent along the normal is unknown, at least 2 are needed."
    return refuse(VerdictCode.SINGLE_SLICE, reason, slices=len(slices))
