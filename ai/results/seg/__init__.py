"""A label map as DICOM Segmentations (PS3.3 A.51): binary, label map or fractional, one object or several."""

from __future__ import annotations

from ai.results.context import ResultContext
from ai.results.planes import source_planes
from ai.results.seg.describe import content_label, tracking_id
from ai.results.seg.extent import find_extent
from ai.results.seg.file import SegObject, write_seg
from ai.results.seg.plan import SegPlan, plan_segs

__all__ = ["SegObject", "SegPlan", "build_segs", "content_label", "plan_segs", "tracking_id"]


def build_segs(context: ResultContext) -> tuple[SegObject, ...]:
    """Build the Segmentations of a run in the profile of its context; the same context, the same bytes.

    Segments are numbered from 1 in each object; in a label map these are the values of pixels, and a segment
    0, Background, is described last. Frames keep grid and place of the source slices, tilted or uneven
    as they may be, and come segment by segment, in highdicom's own order along the slice normal (each frame
    says where it lies); frames without a voxel are left out. Where nothing at all was found each
    segment has one frame, on the first slice, for a multi-frame image has at least one. A radiograph has no
    place in the patient: its SEG has none, no frame of reference, and each pixel is that of the image which
    is cited (PS3.3 A.51.5.1).

    Raises
    ------
    ValueError
        If the label map is not on the grid of the source slices, or has numbers that the card has not.
    """
    planes = source_planes(context.series)
    shape = context.series.volume.geometry.shape
    if context.labels.shape != shape or len(planes) != shape[0]:
        raise ValueError(
            f"the label map is {context.labels.shape}, the volume {shape}, "
            f"and there are {len(planes)} source slices"
        )
    extent = find_extent(context.labels)
    if unknown := set(extent.numbers) - {s.number for s in context.spec.structures}:
        raise ValueError(f"the label map has numbers that are no structure of the card: {sorted(unknown)}")
    return tuple(write_seg(context, plan, planes, extent) for plan in plan_segs(context, extent))
