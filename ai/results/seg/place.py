"""Where the frames of a Segmentation lie: orientation, spacing and source slices, as the source has them."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import CTImageStorage, DigitalXRayImageStorageForPresentation
from pydicom.valuerep import DSfloat

from ai.geometry import VerdictCode, VolumeGeometry
from ai.results.planes import SourcePlane, references
from ai.uids import derived_uid

_NEEDED = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality"),
    *("FrameOfReferenceUID", "PositionReferenceIndicator"),
    # of Contributing Equipment, as the acquisition equipment
    *("Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions"),
    *("InstitutionName", "InstitutionalDepartmentName", "InstitutionAddress", "StationName"),
    *("AcquisitionDateTime", "AcquisitionDate", "AcquisitionTime"),
)
_TYPE_2 = (  # what the writer reads of patient and study
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)


def shared_orientation(planes: Sequence[SourcePlane], geometry: VolumeGeometry) -> Dataset | None:
    """Image Orientation and Pixel Spacing of all slices, as the source writes them; None of a projection.

    A SEG has one of each. Where slices differ by noise, they are those of the volume, which are the mean.
    """
    if geometry.is_projection:
        return None
    down, along = (step / np.linalg.norm(step) for step in geometry.index_to_lps[:3, 1:3].T)
    shared = Dataset()
    for keyword, written, mean in (
        ("ImageOrientationPatient", [plane.orientation for plane in planes], (*along, *down)),
        ("PixelSpacing", [plane.measures for plane in planes], geometry.spacing_mm[1:]),
    ):
        first = written[0][keyword]
        if all(item[keyword].value == first.value for item in written):
            shared[keyword] = first
        else:
            setattr(shared, keyword, [DSfloat(float(number), auto_format=True) for number in mean])
    return shared


def stand_in(plane: SourcePlane, in_plane: Dataset | None) -> Dataset:
    """An image of one pixel in the place of a slice: its identity, and the equipment that the writer lists.

    Patient and study are copied later as they are. The writer refuses some values, decodes text by another
    character set, and would quote others in warnings. It takes one multi-frame image at most, whole, so a
    frame is given to it as an image of its own.
    """
    source = Dataset()
    for keyword in _NEEDED:
        if keyword in plane.header:
            source[keyword] = copy.copy(plane.header[keyword])  # it may be changed, the header may not
    for keyword in _TYPE_2:
        setattr(source, keyword, None)
    source.Rows = source.Columns = 1
    if in_plane is not None:
        source["ImagePositionPatient"] = plane.position["ImagePositionPatient"]
        source["ImageOrientationPatient"] = in_plane["ImageOrientationPatient"]
        source["PixelSpacing"] = in_plane["PixelSpacing"]
        source.SliceThickness = "0"  # what is written is the grid's; that of a source may be malformed
    if plane.frames:
        source.SOPClassUID = CTImageStorage if in_plane else DigitalXRayImageStorageForPresentation
        number = str(plane.frame.frame_number)
        source.SOPInstanceUID = derived_uid("stand-in", plane.frame.sop_instance_uid, number)
    return source


def pixel_measures(geometry: VolumeGeometry, in_plane: Dataset) -> Any:
    """Pixel spacing of the slices, slice spacing of the grid; it stands for a missing thickness.

    Slices that are unevenly spaced have no one spacing: none is written.
    """
    between_rows_mm, between_columns_mm = in_plane.PixelSpacing
    is_uneven = VerdictCode.IRREGULAR_SPACING in geometry.needs
    return hd.PixelMeasuresSequence(
        pixel_spacing=(float(between_rows_mm), float(between_columns_mm)),
        slice_thickness=geometry.slice_thickness_mm or geometry.spacing_mm[0],
        spacing_between_slices=None if is_uneven else geometry.spacing_mm[0],
    )


def is_even(planes: Iterable[SourcePlane], in_plane: Dataset) -> bool:
    """Whether slices that have frames follow each other at one distance, in their own order."""
    positions = [[float(v) for v in plane.position.ImagePositionPatient] for plane in planes]
    if len(positions) < 2:
        return False
    spacing_mm, _ = hd.spatial.get_volume_positions(
        image_positions=positions, image_orientation=in_plane.ImageOrientationPatient, sort=False
    )
    return spacing_mm is not None and spacing_mm > 0.0


def cite(header: Dataset, planes: Iterable[SourcePlane]) -> None:
    """List the slices of the source in a header, frames of one instance together."""
    instances = references(planes)
    header.SourceImageSequence = DicomSequence(instances)
    header.ReferencedSeriesSequence[0].ReferencedInstanceSequence = DicomSequence(map(_whole, instances))


def _whole(cited: Dataset) -> Dataset:
    """The instance of a reference, whichever of its frames are cited; a shallow copy would share them."""
    item = Dataset()
    item.ReferencedSOPClassUID = cited.ReferencedSOPClassUID
    item.ReferencedSOPInstanceUID = cited.ReferencedSOPInstanceUID
    return item
