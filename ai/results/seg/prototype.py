"""What highdicom says of a Segmentation, learnt from one of two pixels.

Its constructor makes objects of every frame and looks at every slice once for each segment, which for a
hundred organs takes most of the time. Whatever does not depend on the voxels is the same in a Segmentation of
two slices of one pixel each: header, shared functional groups, the functional groups of a frame, and the
order of frames. Those are taken from it; pixels and frames are filled in by :mod:`ai.results.seg.file`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset

from ai.profile import SegmentationKind
from ai.results.coding import identify_private_scheme
from ai.results.context import ResultContext
from ai.results.equipment import MANUFACTURER, add_equipment, device_serial_number, set_series
from ai.results.planes import SourcePlane
from ai.results.seg.describe import background_last, content_label, segments
from ai.results.seg.place import pixel_measures, shared_orientation, stand_in
from ai.results.seg.plan import SegPlan
from ai.results.source import copy_patient_and_study
from ai.uids import derived_uid

FULL = 255
"""Maximum Fractional Value, and the occupancy of a voxel that belongs to a structure."""

_LONG_STRING = 64  # PS3.5 6.2, VR LO
_TYPES: dict[SegmentationKind, str] = {
    "binary": "BINARY",
    "label_map": "LABELMAP",
    "fractional": "FRACTIONAL",
}
_OF_PIXELS = ("PixelData", "PerFrameFunctionalGroupsSequence")


@dataclass(frozen=True)
class Prototype:
    """A Segmentation without its frames.

    Attributes
    ----------
    header
        All attributes but pixels and the functional groups of frames; number of frames and the lists of
        source images are still those of the prototype.
    groups
        The functional groups of one frame, of segment 1.
    in_plane
        Orientation and spacing that all frames share; None of a projection.
    is_reversed
        Whether frames come in the opposite order of the volume's slices.
    """

    header: Dataset
    groups: Dataset
    in_plane: Dataset | None
    is_reversed: bool


def make_prototype(context: ResultContext, plan: SegPlan, planes: Sequence[SourcePlane]) -> Prototype:
    """Let highdicom write a Segmentation of one pixel on the first and the last slice."""
    in_plane = shared_orientation(planes, context.series.volume.geometry)
    ends = [planes[0], planes[-1]] if len(planes) > 1 else [planes[0]]
    sources = [stand_in(plane, in_plane) for plane in ends]
    seg = _write(context, plan, sources, in_plane)
    frames = seg.PerFrameFunctionalGroupsSequence
    first = frames[0].DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
    header = Dataset()
    for element in seg:
        if element.keyword not in _OF_PIXELS:
            header.add(element)
    _complete(header, context, plan, in_plane)
    return Prototype(header, frames[0], in_plane, first != sources[0].SOPInstanceUID)


def _write(
    context: ResultContext, plan: SegPlan, sources: list[Dataset], in_plane: Dataset | None
) -> Dataset:
    spec = context.spec
    geometry = context.series.volume.geometry
    seg: Dataset = hd.seg.Segmentation(
        source_images=sources,
        pixel_array=np.ones((len(sources), 1, 1), np.uint8),
        segmentation_type=_TYPES[plan.kind],
        segment_descriptions=segments(context, plan.structures),
        series_instance_uid=context.series_uid("seg"),
        series_number=context.series_number_base + 1,
        sop_instance_uid=context.instance_uid("seg", plan.number),
        instance_number=plan.number,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=spec.title,
        software_versions=context.software_version,
        device_serial_number=device_serial_number(context),
        fractional_type="OCCUPANCY",
        max_fractional_value=FULL,
        pixel_measures=None if in_plane is None else pixel_measures(geometry, in_plane),
        content_label=content_label(spec.title),
        content_description=f"{spec.title} {spec.version}. Research use only."[:_LONG_STRING],
    )
    return seg


def _complete(header: Dataset, context: ResultContext, plan: SegPlan, in_plane: Dataset | None) -> None:
    """Give the header size, sides, spacing, patient, study and equipment of the run."""
    _, header.Rows, header.Columns = context.labels.shape
    geometry = context.series.volume.geometry
    if in_plane is None:  # the sides that the rows and columns show, if that is known (PS3.3 C.7.6.1.1.1)
        header.PatientOrientation = context.series.datasets[0].get("PatientOrientation")
    else:  # the writer takes the spacing of a single slice for 1 mm
        shared = header.SharedFunctionalGroupsSequence[0]
        shared.PixelMeasuresSequence = pixel_measures(geometry, in_plane)
    if plan.kind == "label_map":
        background_last(header)
    organization = derived_uid(context.instance_uid("seg", plan.number), "dimension organization")
    for item in (*header.DimensionOrganizationSequence, *header.DimensionIndexSequence):
        item.DimensionOrganizationUID = organization
    copy_patient_and_study(header, context.series.datasets[0])
    set_series(header, context, "seg")
    add_equipment(header, context)
    identify_private_scheme(header, context.spec)
