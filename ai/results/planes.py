"""The source slices of a run as its results cite them: single-frame images and frames alike.

A slice is an instance, or one frame of a multi-frame instance. What a result says of its place is what the
source's own header says, in its own digits.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pydicom.dataset import Dataset

from ai.geometry import FrameRef
from ai.volume import ImageSeries


@dataclass(frozen=True)
class SourcePlane:
    """One slice of the volume in its source.

    Attributes
    ----------
    header
        The header of its instance, which frames of one instance share.
    position, orientation, measures
        Items of the functional groups that place a frame; for a single-frame image the header itself, which
        has the same attributes. A projection image has none of them: its header stands there.
    frames
        How many frames the instance has; 0 for a single-frame image.
    """

    header: Dataset
    frame: FrameRef
    position: Dataset
    orientation: Dataset
    measures: Dataset
    frames: int = 0


def source_planes(series: ImageSeries) -> tuple[SourcePlane, ...]:
    """The slices of a series in the order of its volume."""
    geometry = series.volume.geometry
    pairs = zip(series.datasets, geometry.frames, strict=True)
    if geometry.is_projection:
        return tuple(SourcePlane(h, frame, h, h, h, _frame_count(h)) for h, frame in pairs)
    return tuple(_plane(header, frame) for header, frame in pairs)


def reference(plane: SourcePlane) -> Dataset:
    """Image SOP Instance Reference (PS3.3 10.3) of one slice."""
    return references([plane])[0]


def references(planes: Iterable[SourcePlane]) -> list[Dataset]:
    """Image SOP Instance References of slices: each instance once, its frames if they are not all of it."""
    by_instance: dict[str, list[SourcePlane]] = {}
    for plane in planes:
        by_instance.setdefault(plane.frame.sop_instance_uid, []).append(plane)
    return [_reference(cited) for cited in by_instance.values()]


def _reference(planes: list[SourcePlane]) -> Dataset:
    """Reference to slices of one instance."""
    first = planes[0]
    item = Dataset()
    item.ReferencedSOPClassUID = first.header.SOPClassUID
    item.ReferencedSOPInstanceUID = first.frame.sop_instance_uid
    numbers = sorted(plane.frame.frame_number for plane in planes)
    if len(numbers) < first.frames:
        item.ReferencedFrameNumber = numbers
    return item


def _frame_count(header: Dataset) -> int:
    return len(header.get("PerFrameFunctionalGroupsSequence") or ())


def _plane(header: Dataset, frame: FrameRef) -> SourcePlane:
    if "PerFrameFunctionalGroupsSequence" not in header:
        return SourcePlane(header, frame, header, header, header)
    groups = header.PerFrameFunctionalGroupsSequence
    shared = header.get("SharedFunctionalGroupsSequence") or [Dataset()]
    position, orientation, measures = (
        _group(groups[frame.frame_number - 1], shared[0], name)
        for name in ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
    )
    return SourcePlane(header, frame, position, orientation, measures, len(groups))


def _group(own: Dataset, shared: Dataset, keyword: str) -> Dataset:
    """A functional group's item: that of the frame, else the shared one (PS3.3 C.7.6.16.1.1)."""
    item: Dataset = (own if own.get(keyword) else shared)[keyword].value[0]
    return item
