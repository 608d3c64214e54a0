"""Where does one image alone lie: a slice without neighbours, or a projection onto a detector?"""

from __future__ import annotations

import numpy as np

from ai.geometry.model import (
    SHORTEST_MM,
    NotAVolume,
    Note,
    NoteCode,
    SliceHeader,
    VerdictCode,
    VolumeGeometry,
    as_array,
    refuse,
)
from ai.geometry.wording import frame_of_reference_note, mm


def place_alone(header: SliceHeader) -> VolumeGeometry | NotAVolume:
    """One slice: its thickness stands for the spacing (PS3.3 C.7.6.2.1.1 leaves no other extent)."""
    thickness_mm = header.slice_thickness_mm
    if not thickness_mm or not SHORTEST_MM <= thickness_mm < 1e3:
        reason = (
            "There is 1 slice, and its header has no Slice Thickness: its extent along the normal is unknown."
        )
        return refuse(VerdictCode.SINGLE_SLICE, reason, slices=1)
    row, column = as_array([header.orientation]).reshape(2, 3)
    normal = np.cross(row, column)
    origin = as_array([header.position_mm])
    between_rows, between_columns = header.pixel_spacing_mm or (1.0, 1.0)
    text = f"Its Slice Thickness of {mm(thickness_mm)} stands for the spacing of slices."
    matrix = np.eye(4)
    matrix[:3, 0] = normal / np.linalg.norm(normal) * thickness_mm
    matrix[:3, 1] = column / np.linalg.norm(column) * between_rows
    matrix[:3, 2] = row / np.linalg.norm(row) * between_columns
    matrix[:3, 3] = origin[0]
    return VolumeGeometry(
        index_to_lps=matrix,
        shape=(1, header.rows or 0, header.columns or 0),
        frames=(header.ref,),
        origins_mm=origin,
        frame_of_reference_uid=header.frame_of_reference_uid,
        slice_thickness_mm=thickness_mm,
        notes=(Note(NoteCode.SPACING_FROM_THICKNESS, text), *frame_of_reference_note([header])),
    )


def place_projection(header: SliceHeader) -> VolumeGeometry | NotAVolume:
    """A projection image as one slice in the plane of its detector: rows down (+y), columns across (+x).

    Where Patient Orientation says that the image hangs otherwise, mirrored (its right edge is the patient's
    right) or head down, the directions are turned; where it says nothing, the usual way is assumed.
    """
    spacing = header.detector_spacing_mm or header.pixel_spacing_mm
    if spacing is None or not all(SHORTEST_MM <= each < 1e3 for each in spacing):
        reason = (
            "The projection image has neither Imager Pixel Spacing nor Pixel Spacing: nothing in it can be "
            "measured in millimetres."
        )
        return refuse(VerdictCode.NO_POSITION, reason, lacking=1, images=1)
    text = "Lengths are those in the plane of the detector; the place in the patient is unknown."
    right, bottom = header.patient_orientation if len(header.patient_orientation) == 2 else ("", "")
    across, down = -1.0 if right[:1] == "R" else 1.0, -1.0 if bottom[:1] == "H" else 1.0
    return VolumeGeometry(
        index_to_lps=np.array(
            [
                [0.0, 0.0, across * spacing[1], 0.0],
                [0.0, down * spacing[0], 0.0, 0.0],
                [across * down, 0.0, 0.0, 0.0],
                [0.0, 0.0, 0.0, 1.0],
            ]
        ),
        shape=(1, header.rows or 0, header.columns or 0),
        frames=(header.ref,),
        origins_mm=np.zeros((1, 3)),
        frame_of_reference_uid=header.frame_of_reference_uid,
        notes=(Note(NoteCode.DETECTOR_PLANE, text),),
        is_projection=True,
    )
