"""The frames of a Segmentation: which slice and which segment each shows, in the order of the file."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ai.results.seg.extent import Extent
from ai.results.seg.plan import SegPlan


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame.

    Attributes
    ----------
    segment
        Segment number, from 1; 0 in a label map, whose frames show all of them.
    index
        The slice, in the order of the volume.
    rank
        Its place among the slices that have frames, from 1, in the order of the file.
    first, stop
        The rows that can hold voxels of the segment: index of the first, and one past the last; both 0
        where there is none.
    """

    segment: int
    index: int
    rank: int
    first: int
    stop: int


def list_frames(plan: SegPlan, extent: Extent, *, is_reversed: bool) -> tuple[Frame, ...]:
    """The frames of an object: segment by segment, in each slice by slice, without frames that are empty.

    A multi-frame image has at least one frame: where nothing at all was found, each segment has an empty
    one on the first slice (a label map one for all).
    """
    wanted = [s.numbers for s in plan.structures]
    everything = tuple(number for numbers in wanted for number in numbers)
    segments = [(0, everything)] if plan.kind == "label_map" else list(enumerate(wanted, start=1))
    used = np.flatnonzero(extent.slices(everything))
    if not used.size:
        return tuple(Frame(segment, 0, 1, 0, 0) for segment, _ in segments)
    order = used[::-1] if is_reversed else used
    frames = []
    for segment, numbers in segments:
        first, stop = (rows[order].tolist() for rows in extent.rows(numbers))
        places = zip(order.tolist(), range(1, len(order) + 1), first, stop, strict=True)
        frames += [Frame(segment, *place) for place in places if place[-1]]
    return tuple(frames)
