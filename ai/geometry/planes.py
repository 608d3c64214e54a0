"""Image planes by their position along one normal, and whether groups of them are volumes of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ai.geometry.model import FloatArray, SliceHeader, as_array
from ai.geometry.spacing import is_even, multiples, same_position_mm

_MOSTLY = 0.5  # of the positions where groups overlap: two scans of one place share more than this


@dataclass(frozen=True)
class Plane:
    """An image plane, its height along the normal, and the number of its position, from 0."""

    header: SliceHeader
    height_mm: float
    position: int


def planes_of(slices: Sequence[SliceHeader]) -> list[Plane]:
    """Number the positions of parallel slices from the lowest; images at one position share its number."""
    cosines = as_array([s.orientation for s in slices]).mean(axis=0)
    normal = np.cross(cosines[:3], cosines[3:])
    points = as_array([s.position_mm for s in slices])
    heights = points @ (normal / np.linalg.norm(normal))
    order = np.argsort(heights, kind="stable")
    above = np.diff(heights[order]) > same_position_mm(heights, thinnest_mm(slices))
    number = np.empty(len(slices), np.int64)
    number[order] = np.concatenate([[0], np.cumsum(above)])
    return [Plane(s, float(h), int(n)) for s, h, n in zip(slices, heights, number, strict=True)]


def thinnest_mm(slices: Sequence[SliceHeader]) -> float | None:
    """The smallest Slice Thickness that is one; None if there is none."""
    found = [t for s in slices if (t := s.slice_thickness_mm) is not None and t > 0.0]
    return min(found, default=None)


def _positions(planes: Sequence[Plane]) -> npt.NDArray[np.int64]:
    """Numbers of the positions of the planes, ascending, each once."""
    return np.unique(np.array([p.position for p in planes], np.int64))


def positions_of(planes: Sequence[Plane]) -> int:
    """At how many positions the planes lie."""
    return len({p.position for p in planes})


def repeats_of(planes: Sequence[Plane]) -> int:
    """How many images lie at the position that has most of them."""
    return int(np.bincount([p.position for p in planes]).max())


def on_one_grid(planes: Sequence[Plane]) -> bool:
    """Whether the positions are those of one even stack, from which slices may be missing."""
    gaps = _gaps(planes)
    return not gaps.size or is_even(gaps) or multiples(gaps) is not None


def are_volumes(groups: Sequence[Sequence[Plane]], *, even: bool = False) -> bool:
    """Whether groups of planes that differ in an attribute are volumes, not pieces of one.

    They must reach into each other: an attribute that changes from one end of a scan to the other makes no
    second volume. Beyond that one of these must hold: one group has every position; each is an even stack;
    most positions where groups overlap are shared; or, where none is shared, all of them together are no
    even stack. ``even`` leaves the second one only for groups that share no position.
    """
    sets = [_positions(group) for group in groups]
    union, shares = np.unique(np.concatenate(sets), return_counts=True)
    if max(found.size for found in sets) == union.size:
        return True
    starts, ends = (np.sort([found[end] for found in sets]) for end in (0, -1))
    if (starts[1:] >= ends[:-1]).any():  # somewhere along the stack no group reaches into the next
        return False
    if all(is_even(_gaps(group)) for group in groups):
        return True
    if (shares == 1).all():
        return not even and not on_one_grid([plane for group in groups for plane in group])
    overlapping = np.searchsorted(starts, union, "right") - np.searchsorted(ends, union, "left") > 1
    return bool(np.mean(shares[overlapping] > 1) > _MOSTLY)


def _gaps(planes: Sequence[Plane]) -> FloatArray:
    """Gaps between the positions of the planes, from the lowest to the highest."""
    _, first = np.unique([p.position for p in planes], return_index=True)
    return np.diff(np.array([p.height_mm for p in planes])[first])
