"""Which image planes of a series can be slices of one volume: told by what they are and by their grid."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile

import numpy as np

from ai.geometry.clusters import clusters, grouped
from ai.geometry.model import (
    SHORTEST_MM,
    FloatArray,
    NotAVolume,
    SliceHeader,
    VerdictCode,
    as_array,
    refuse,
)

ORIENTATION_TOLERANCE = 1e-3  # of a cosine: the rounding seen in real headers, about 0.06°
PIXEL_SPACING_TOLERANCE = 1e-3  # relative: half a pixel over 512
LONGEST_MM = 1e6  # beyond this a length in a header is no length
_PLANES = ("sagittal", "coronal", "axial")  # by the patient axis that the normal follows
_AXIS_ALIGNED = 0.9  # cosine; a plane that is farther than 26° from each of them is oblique


@dataclass(frozen=True)
class Group:
    """Image planes that may be slices of one volume, and what tells them from other groups.

    ``traits`` maps a name to (value, words for people): ``{"size": ("512x512", "512 × 512 pixels")}``.
    ``refusal`` is set where it is known already that they are none.
    """

    slices: tuple[SliceHeader, ...]
    traits: dict[str, tuple[str, str]] = field(default_factory=dict)
    refusal: NotAVolume | None = None

    def subgroup(self, slices: Sequence[SliceHeader], name: str, value: str, words: str) -> Group:
        """Some of the planes, told apart by one more trait."""
        return Group(tuple(slices), {**self.traits, name: (value, words)}, self.refusal)


def is_localizer(header: SliceHeader) -> bool:
    """True if Image Type says so (PS3.3 C.8.2.1.1.1)."""
    return _is_of_type(header, "LOCALIZER")


def by_grid(images: Sequence[SliceHeader]) -> list[Group]:
    """Split images (with rows and columns) by kind, Frame of Reference, size, pixel spacing, orientation."""
    groups = []
    planes = []
    mosaics = []
    for image in images:
        if image.number_of_frames > 1:
            groups.append(_undescribed_frames(image))
        elif _is_mosaic(image):
            mosaics.append(image)
        elif image.is_projection:
            groups.append(_projection(image))
        else:
            planes.append(image)
    if mosaics:
        groups.append(Group(tuple(mosaics), {"position": ("mosaic", "mosaics")}, _mosaics(mosaics)))
    placed = grouped(planes, key=lambda s: not position_faults(s))
    if lacking := placed.get(False):
        trait = {"position": ("none", "images that do not say where they lie")}
        groups.append(Group(tuple(lacking), trait, _no_position(lacking)))
    for frame in _by_frame_of_reference(placed.get(True, [])):
        groups += [oriented for sized in _by_size(frame) for oriented in _by_orientation(sized)]
    return groups


def _each_has_its_own_frame(slices: Sequence[SliceHeader]) -> bool:
    """Some anonymisers give every image a Frame of Reference UID of its own; scanners never do.

    Most must be the only one in theirs: a copy of one image shares its UID.
    """
    frames = Counter(s.frame_of_reference_uid for s in slices if s.frame_of_reference_uid)
    alone = sum(1 for count in frames.values() if count == 1)
    return len(slices) > 2 and 2 * alone > len(slices)


def position_faults(header: SliceHeader) -> list[str]:
    """Why an image plane does not say where it lies; empty when it does."""
    attributes = (
        ("Image Position (Patient)", header.position_mm),
        ("Image Orientation (Patient)", header.orientation),
        ("Pixel Spacing", header.pixel_spacing_mm),
    )
    faults = [f"{name} is missing or malformed" for name, value in attributes if value is None]
    for name, value in attributes:
        if value is not None and not all(abs(v) < LONGEST_MM for v in value):  # also false for NaN
            faults.append(f"{name} is not finite")
    if faults or header.orientation is None or header.pixel_spacing_mm is None:
        return faults
    a, b, c, d, e, f = header.orientation
    errors = (a * a + b * b + c * c - 1.0, d * d + e * e + f * f - 1.0, a * d + b * e + c * f)
    if max(map(abs, errors)) > 2.0 * ORIENTATION_TOLERANCE:
        faults.append("Image Orientation (Patient) is not two perpendicular unit vectors")
    if min(header.pixel_spacing_mm) < SHORTEST_MM:
        faults.append("Pixel Spacing is no positive length")
    return faults


def _is_mosaic(header: SliceHeader) -> bool:
    """True if the image is a picture of many small slices side by side, as Siemens writes them."""
    return _is_of_type(header, "MOSAIC")


def _is_of_type(header: SliceHeader, word: str) -> bool:
    return word in (part.strip().upper() for part in header.image_type)


def _undescribed_frames(image: SliceHeader) -> Group:
    reason = (
        f"The instance has {image.number_of_frames} frames and its header does not say where each of them "
        "lies: send an enhanced multi-frame image with functional groups, or single-frame images."
    )
    refusal = refuse(VerdictCode.MULTI_FRAME, reason, frames=image.number_of_frames)
    ending = image.sop_instance_uid
    return Group((image,), {"instance": (ending, f"multi-frame instance {ending}")}, refusal)


def _mosaics(images: Sequence[SliceHeader]) -> NotAVolume:
    """The position of a mosaic is that of none of its slices."""
    count = len(images)
    reason = (
        f"{count} image{' is a mosaic' if count == 1 else 's are mosaics'} of several slices in one picture: "
        "send them as enhanced multi-frame images, or one image for each slice."
    )
    return refuse(VerdictCode.MOSAIC, reason, images=count)


def _projection(image: SliceHeader) -> Group:
    """A projection image is a volume of its own: nothing relates it to its neighbours."""
    view = [image.attributes.get(name, "") for name in ("Laterality", "ImageLaterality", "ViewPosition")]
    words = " ".join(["projection image", *(text for text in view if text)])
    return Group((image,), {"instance": (image.sop_instance_uid, words)})


def _no_position(slices: Sequence[SliceHeader]) -> NotAVolume:
    faults = Counter(fault for s in slices for fault in position_faults(s))
    named = "; ".join(f"{fault} in {count}" for fault, count in faults.items())
    count = len(slices)
    reason = f"{count} image{' does' if count == 1 else 's do'} not say where they lie: {named}."
    return refuse(VerdictCode.NO_POSITION, reason, lacking=count, images=count)


def _by_frame_of_reference(slices: Sequence[SliceHeader]) -> list[Group]:
    if not slices:
        return []
    if _each_has_its_own_frame(slices):
        return [Group(tuple(slices), {"frame_of_reference": ("own", "")})]
    frames = grouped(slices, key=lambda s: s.frame_of_reference_uid or "")
    columns = zip(*(uid.split(".") for uid in frames if uid), strict=False)
    alike = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))
    groups = []
    for uid, members in frames.items():
        ending = ".".join(uid.split(".")[alike:])  # a common beginning tells nothing
        words = f"Frame of Reference …{ending or uid}" if uid else "no Frame of Reference"
        groups.append(Group(tuple(members), {"frame_of_reference": (uid or "none", words)}))
    return groups


def _by_size(group: Group) -> list[Group]:
    """By rows × columns, then by pixel spacing."""
    groups = []
    for (rows, columns), members in grouped(group.slices, key=lambda s: (s.rows, s.columns)).items():
        sized = group.subgroup(members, "size", f"{rows}x{columns}", f"{rows} × {columns} pixels")
        spacings = as_array([s.pixel_spacing_mm for s in members])
        number = clusters(np.log(spacings), PIXEL_SPACING_TOLERANCE)
        for cluster in np.unique(number):
            chosen = np.flatnonzero(number == cluster)
            down, along = spacings[chosen].mean(axis=0)
            groups.append(
                sized.subgroup(
                    [members[i] for i in chosen],
                    "spacing",
                    f"{down:.4g}x{along:.4g}",
                    f"pixels of {down:.4g} × {along:.4g} mm",
                )
            )
    return groups


def _by_orientation(group: Group) -> list[Group]:
    cosines = as_array([s.orientation for s in group.slices])
    number = clusters(cosines, ORIENTATION_TOLERANCE)
    members = [np.flatnonzero(number == cluster) for cluster in np.unique(number)]
    means = [cosines[chosen].mean(axis=0) for chosen in members]
    planes = Counter(plane_name(mean) for mean in means)
    groups = []
    for chosen, mean in zip(members, means, strict=True):
        plane = plane_name(mean)
        value = plane if planes[plane] == 1 else f"{plane}({','.join(f'{v:.2f}' for v in mean)})"
        slices = [group.slices[i] for i in chosen]
        groups.append(group.subgroup(slices, "orientation", value, f"{value} plane"))
    return groups


def plane_name(cosines: FloatArray) -> str:
    """``axial``, ``coronal``, ``sagittal``, or ``oblique`` from Image Orientation (Patient) ``(6,)``."""
    normal = np.abs(np.cross(cosines[:3], cosines[3:]))
    axis = int(np.argmax(normal))
    return _PLANES[axis] if normal[axis] >= _AXIS_ALIGNED else "oblique"
