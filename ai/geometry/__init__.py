"""Geometry of a series, from headers alone: is it a volume, and where does it lie?

Pure functions over :class:`SliceHeader`; no pixels, no files. Conventions: LPS millimetres
(PS3.3 C.7.6.2.1.1); array index ``(slice, row, column)``; slices ordered by the projection of
Image Position (Patient) on the slice normal (row cosine × column cosine), ascending.

``model`` has the values, ``belonging`` the rules for what belongs together, ``placement`` those
for where the slices lie.
"""

from __future__ import annotations

from collections.abc import Sequence

from ai.geometry.belonging import refuse_unrelated
from ai.geometry.model import (
    NotAVolume,
    Note,
    NoteCode,
    SliceHeader,
    Vector,
    VerdictCode,
    VolumeGeometry,
    is_localizer,
    refuse,
)
from ai.geometry.placement import place

__all__ = [
    "NotAVolume",
    "Note",
    "NoteCode",
    "SliceHeader",
    "Vector",
    "VerdictCode",
    "VolumeGeometry",
    "assess",
]


def assess(slices: Sequence[SliceHeader]) -> VolumeGeometry | NotAVolume:
    """Decide whether the instances of a series are one regular volume.

    The order of the slices given does not matter and Instance Number is not known here. The rules
    are asked in the order that names the cause rather than a consequence: what is no slice at all,
    then slices that do not belong together, then where the slices lie. Localizers among other
    images are left out with a note.

    Returns
    -------
    The geometry, slices ascending along the normal, its slice axis the mean step from the first to
    the last position; or the first rule that refuses.
    """
    images = [s for s in slices if not is_localizer(s)]
    if slices and not images:
        reason = f"All {len(slices)} images are localizers."
        if len(slices) == 1:
            reason = "The only image is a localizer."
        return refuse(VerdictCode.LOCALIZER, reason, images=len(slices))
    return refuse_unrelated(images) or place(images, dropped=len(slices) - len(images))
