"""What a model takes: a volume held against the geometry that its card asks for."""

from __future__ import annotations

from ai.geometry.model import Needs, NotAVolume, NoteCode, VerdictCode, VolumeGeometry, refuse


def unfit(geometry: VolumeGeometry, needs: Needs) -> NotAVolume | None:
    """Why a volume is not taken by a model; None if it is.

    GANTRY_TILT and IRREGULAR_SPACING where the model does not allow the volume to be resampled,
    PROJECTION_IMAGE, SINGLE_SLICE and TOO_FEW_SLICES, SLICES_TOO_FAR_APART.
    """
    if geometry.is_projection and needs.projections:
        return None
    if geometry.is_projection:
        reason = "The image is a projection without a place in the patient, and the model takes volumes."
        return refuse(VerdictCode.PROJECTION_IMAGE, reason)
    for need in geometry.needs:
        if need not in needs.resampled:
            told = next(note.text for note in geometry.notes if note.code == NoteCode(need))
            return refuse(need, f"{told} The model does not take a volume that was resampled.")
    slices, spacing_mm = geometry.shape[0], geometry.spacing_mm[0]
    if slices < needs.minimum_slices:
        code = VerdictCode.SINGLE_SLICE if slices == 1 else VerdictCode.TOO_FEW_SLICES
        reason = f"The volume has {slices} slice{'' if slices == 1 else 's'}; the model needs at least "
        reason += f"{needs.minimum_slices}."
        return refuse(code, reason, slices=slices, needed=needs.minimum_slices)
    if slices > 1 and spacing_mm > needs.maximum_slice_spacing_mm + 1e-3:
        reason = (
            f"The slices are {spacing_mm:.2f} mm apart; the model takes at most "
            f"{needs.maximum_slice_spacing_mm:g} mm."
        )
        return refuse(VerdictCode.SLICES_TOO_FAR_APART, reason, spacing_mm=round(spacing_mm, 4))
    return None
