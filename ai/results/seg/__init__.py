"""A label map as DICOM Segmentations (PS3.3 A.51): binary, label map or fractional, one object or several."""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from ai.results.context import ResultContext
from ai.results.encode import encode
from ai.results.seg.plan import SegPlan, plan_segs
from ai.results.seg.writer import build_seg, content_label, tracking_id

__all__ = ["SegObject", "SegPlan", "build_seg", "build_segs", "content_label", "plan_segs", "tracking_id"]


@dataclass(frozen=True)
class SegObject:
    """One encoded Segmentation.

    Attributes
    ----------
    header
        What a report needs of it: all but pixels, and the functional groups of frames only of a radiograph.
    content
        The DICOM file.
    """

    plan: SegPlan
    header: Dataset
    content: bytes
    transfer_syntax_uid: str


def build_segs(context: ResultContext) -> tuple[SegObject, ...]:
    """Build the Segmentations of a run in the profile of its context; the same context, the same bytes."""
    return tuple(_object(plan, build_seg(context), context) for plan in plan_segs(context))


def _object(plan: SegPlan, seg: Dataset, context: ResultContext) -> SegObject:
    return SegObject(plan, seg, encode(seg, context.software_version), str(ExplicitVRLittleEndian))
