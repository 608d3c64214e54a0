"""A label map as a DICOM Segmentation (PS3.3 A.51), BINARY: the type that every viewer we know takes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import (
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
)
from pydicom.valuerep import DSfloat

from ai.geometry import VerdictCode, VolumeGeometry
from ai.model import Structure
from ai.results.coding import concept, identify_private_scheme
from ai.results.context import ResultContext
from ai.results.equipment import (
    MANUFACTURER,
    add_equipment,
    algorithm_family,
    device_serial_number,
    set_series,
)
from ai.results.planes import SourcePlane, reference, references, source_planes
from ai.results.source import copy_patient_and_study
from ai.uids import derived_uid

_CODE_STRING = 16  # PS3.5 6.2, VR CS
_LONG_STRING = 64  # VR LO
_NEEDED = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality"),
    *("FrameOfReferenceUID", "PositionReferenceIndicator", "Rows", "Columns"),
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


def build_seg(context: ResultContext) -> Dataset:
    """Build the Segmentation of a run; the same context gives the same bytes.

    Every structure of the card is a segment, found or not, numbered as in the card. Frames keep grid and
    place of the source slices, tilted or uneven as they may be, and come segment by segment, in the writer's
    own order along the slice normal (each frame says where it lies); frames without a voxel are left out.
    When the whole label map is empty, each segment has one frame, on the first slice, for a multi-frame
    image has at least one. A radiograph has no place in the patient: its SEG has none, no frame of reference,
    and each pixel is that of the image which is cited (PS3.3 A.51.5.1).

    Raises
    ------
    ValueError
        If the label map is not on the grid of the source slices.
    """
    geometry = context.series.volume.geometry
    planes = source_planes(context.series)
    in_plane = None if geometry.is_projection else _in_plane(planes, geometry)
    sources = [_source(plane, in_plane) for plane in planes]
    if context.labels.shape != geometry.shape or len(sources) != geometry.shape[0]:
        raise ValueError(
            f"the label map is {context.labels.shape}, the volume {geometry.shape}, "
            f"and there are {len(sources)} source slices"
        )
    spec = context.spec
    found = bool(context.labels.any())
    seg: Dataset = hd.seg.Segmentation(
        source_images=sources if found else sources[:1],
        pixel_array=context.labels if found else context.labels[:1],
        segmentation_type="BINARY",
        segment_descriptions=[_segment(context, structure) for structure in spec.structures],
        series_instance_uid=context.series_uid("seg"),
        series_number=context.series_number_base + 1,
        sop_instance_uid=context.instance_uid("seg"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=spec.title,
        software_versions=context.software_version,
        device_serial_number=device_serial_number(context),
        transfer_syntax_uid=ExplicitVRLittleEndian,
        pixel_measures=None if in_plane is None else _pixel_measures(context, in_plane),
        omit_empty_frames=found,
        content_label=content_label(spec.title),
        content_description=f"{spec.title} {spec.version}. Research use only."[:_LONG_STRING],
    )
    _fix_identity(seg, context)
    if in_plane is None:  # the sides that the rows and columns show, if that is known (PS3.3 C.7.6.1.1.1)
        seg.PatientOrientation = context.series.datasets[0].get("PatientOrientation")
    else:  # the writer takes the spacing of a single slice for 1 mm
        seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence = _pixel_measures(context, in_plane)
    _cite_sources(seg, planes)
    set_series(seg, context, "seg")
    add_equipment(seg, context)
    identify_private_scheme(seg, spec)
    return seg


def content_label(title: str) -> str:
    """A Content Label (CS) from a title: ``CT tissue`` becomes ``CT_TISSUE``."""
    kept = "".join(c if c.isascii() and c.isalnum() else "_" for c in title.upper())
    return kept[:_CODE_STRING].strip("_") or "SEGMENTATION"


def tracking_id(context: ResultContext, structure: Structure) -> str:
    """The Tracking ID (UT) of a structure."""
    return f"{context.spec.id} {structure.label}"


def _in_plane(planes: Sequence[SourcePlane], geometry: VolumeGeometry) -> Dataset:
    """Image Orientation and Pixel Spacing of all slices, as the source writes them.

    A SEG has one of each. Where slices differ by noise, they are those of the volume, which are the mean.
    """
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


def _source(plane: SourcePlane, in_plane: Dataset | None) -> Dataset:
    """What the writer needs of a slice: identity, place, and the equipment that it lists, decoded.

    Patient and study are copied later as they are. The writer refuses some values, decodes text by another
    character set, and would quote others in warnings. It takes one multi-frame image at most, whole, so a
    frame is given to it as an image of its own; :func:`_cite_sources` puts the frame in its place.
    """
    source = Dataset()
    for keyword in _NEEDED:
        if keyword in plane.header:
            source[keyword] = copy.copy(plane.header[keyword])  # it may be changed, the header may not
    for keyword in _TYPE_2:
        setattr(source, keyword, None)
    if in_plane is not None:
        source["ImagePositionPatient"] = plane.position["ImagePositionPatient"]
        source["ImageOrientationPatient"] = in_plane["ImageOrientationPatient"]
        source["PixelSpacing"] = in_plane["PixelSpacing"]
        source.SliceThickness = "0"  # what is written is the grid's; that of a source may be malformed
    if plane.frames:
        source.SOPClassUID = CTImageStorage if in_plane else DigitalXRayImageStorageForPresentation
        source.SOPInstanceUID = _stand_in_uid(plane)
    return source


def _stand_in_uid(plane: SourcePlane) -> str:
    return derived_uid("stand-in", plane.frame.sop_instance_uid, str(plane.frame.frame_number))


def _cite_sources(seg: Dataset, planes: Sequence[SourcePlane]) -> None:
    """Let a SEG of frames refer to these instead of their stand-ins."""
    stand_ins = {_stand_in_uid(plane): plane for plane in planes if plane.frames}
    if not stand_ins:
        return
    for groups in seg.PerFrameFunctionalGroupsSequence:
        for item in groups.DerivationImageSequence[0].SourceImageSequence:
            plane = stand_ins.get(item.ReferencedSOPInstanceUID)
            if plane is not None:
                item.update(reference(plane))
    used = {item.ReferencedSOPInstanceUID for item in seg.SourceImageSequence}
    cited = [plane for plane in planes if {_stand_in_uid(plane), plane.frame.sop_instance_uid} & used]
    seg.SourceImageSequence = DicomSequence(references(cited))
    instances = references(cited)
    for item in instances:
        item.pop("ReferencedFrameNumber", None)  # of the series it is the instance that counts
    seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence = DicomSequence(instances)


def _pixel_measures(context: ResultContext, in_plane: Dataset) -> Any:
    """Pixel spacing of the slices, slice spacing of the grid; it stands for a missing thickness.

    Slices that are unevenly spaced have no one spacing: none is written.
    """
    geometry = context.series.volume.geometry
    between_rows_mm, between_columns_mm = in_plane.PixelSpacing
    is_uneven = VerdictCode.IRREGULAR_SPACING in geometry.needs
    return hd.PixelMeasuresSequence(
        pixel_spacing=(float(between_rows_mm), float(between_columns_mm)),
        slice_thickness=geometry.slice_thickness_mm or geometry.spacing_mm[0],
        spacing_between_slices=None if is_uneven else geometry.spacing_mm[0],
    )


def _segment(context: ResultContext, structure: Structure) -> Any:
    """One item of the Segment Sequence (PS3.3 C.8.20.2)."""
    spec = context.spec
    terms = structure.coded
    item = hd.seg.SegmentDescription(
        segment_number=structure.number,
        segment_label=structure.label,
        segmented_property_category=concept(terms.category),
        segmented_property_type=concept(terms.type),
        algorithm_type="AUTOMATIC",
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=spec.title,
            family=concept(algorithm_family(spec)),
            version=spec.version,
            source=spec.manufacturer,
        ),
        tracking_uid=context.identity.tracking_uids[structure.number],
        tracking_id=tracking_id(context, structure),
        display_color=hd.color.CIELabColor.from_rgb(*terms.rgb),
        anatomic_regions=[concept(terms.region)] if terms.region is not None else None,
    )
    if structure.description:
        item.SegmentDescription = structure.description
    if terms.modifier is not None:  # the writer has no argument for the side
        kind = item.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = DicomSequence([concept(terms.modifier)])
    return item


def _fix_identity(seg: Dataset, context: ResultContext) -> None:
    """Replace the writer's random UID, its odd padding, and patient and study that it took in part."""
    organization = derived_uid(context.instance_uid("seg"), "dimension organization")
    for item in (*seg.DimensionOrganizationSequence, *seg.DimensionIndexSequence):
        item.DimensionOrganizationUID = organization
    copy_patient_and_study(seg, context.series.datasets[0])
    used = (int(seg.NumberOfFrames) * seg.Rows * seg.Columns + 7) // 8
    seg.PixelData = seg.PixelData[:used] + bytes(used % 2)  # OB is padded with zero (PS3.5 6.2)
