"""Which Segmentation objects a run gives: the kind of each, and the structures in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ai.model import Structure
from ai.profile import Compression, Profile, SegmentationKind
from ai.results.context import ResultContext
from ai.results.seg.extent import Extent, find_extent

_LONGEST_VALUE = 2**32 - 2  # bytes of one element of explicit length (PS3.5 7.1.1)
_BITS: dict[SegmentationKind, int] = {"binary": 1, "label_map": 8, "fractional": 8}

_Structures = tuple[Structure, ...]
_Fits = Callable[[_Structures], bool]


@dataclass(frozen=True)
class SegPlan:
    """One Segmentation object.

    Attributes
    ----------
    number
        Its Instance Number in the series of the run's segmentations, from 1.
    structures
        In the order of their segment numbers, which are 1 to n in every object, as OHIF counts them.
    compression
        Of its frames; ``none`` of a binary one, whose bits are never compressed.
    notes
        What is not as the profile wants it, each an upper-case name and a sentence: ``RESULT_OVER_LIMIT``,
        ``RESULT_NOT_COMPRESSED``.
    """

    number: int
    kind: SegmentationKind
    structures: tuple[Structure, ...]
    compression: Compression = "none"
    notes: tuple[str, ...] = ()


def plan_segs(context: ResultContext, extent: Extent | None = None) -> tuple[SegPlan, ...]:
    """Distribute the structures of a card over objects, as the profile of the destination wants.

    Without limits there is one object, of all structures in the order of the card. With limits, or where an
    object would be longer than DICOM can say, the structures are given to objects in the order of the card,
    those of one group together where a group is within the limits; or, with ``when_over: label_map``, to a
    label map, which has one frame for each slice.

    A label map has one number for each voxel: structures that include others go to binary objects of the
    same series.

    A structure that alone has more frames than the destination takes is not cut, for a part of it would look
    like the whole: it gets an object of its own with a note, and whether the destination takes that
    is for it to say. The other objects, the report and the overview do not suffer from it.

    Parameters
    ----------
    extent
        Of the labels of the context; found here if it is not given.

    Returns
    -------
    tuple of SegPlan
        None when nothing was found and absent structures are only said in the report.
    """
    extent = find_extent(context.labels) if extent is None else extent
    profile = context.profile
    structures = tuple(
        s for s in context.spec.structures if profile.absent == "segment" or extent.slices(s.numbers).any()
    )
    size = context.labels.shape[1] * context.labels.shape[2]
    plans: list[SegPlan] = []
    for kind, members in _kinds(structures, extent, profile, size):
        limits = _Limits(kind, profile, extent, size)
        compression: Compression = "none" if kind == "binary" else profile.compression
        for part in _split(members, limits.fit):
            plans.append(SegPlan(len(plans) + 1, kind, part, compression, limits.notes(part)))
    return tuple(plans)


def _kinds(
    structures: _Structures, extent: Extent, profile: Profile, size: int
) -> list[tuple[SegmentationKind, _Structures]]:
    """The structures by the kind of the objects that hold them."""
    kind = profile.segmentation
    wanted = _Limits(kind, profile, extent, size)
    if profile.when_over == "label_map" and not wanted.fit(structures):
        kind = "label_map"
    if kind != "label_map":
        return [(kind, structures)] if structures else []
    flat = tuple(s for s in structures if not s.includes)
    overlapping = tuple(s for s in structures if s.includes)
    parts: list[tuple[SegmentationKind, _Structures]] = [("label_map", flat), ("binary", overlapping)]
    return [(kind, members) for kind, members in parts if members]


@dataclass(frozen=True)
class _Limits:
    """What one object of a kind may have; ``size`` is the number of pixels of a frame."""

    kind: SegmentationKind
    profile: Profile
    extent: Extent
    size: int

    def frames(self, structures: _Structures) -> int:
        """Frames that an object of these structures has; an empty one has one, or one for each segment."""
        counts = [int(self.extent.slices(s.numbers).sum()) for s in structures]
        if self.kind == "label_map":
            numbers = [number for s in structures for number in s.numbers]
            return max(1, int(self.extent.slices(numbers).sum()))
        return sum(counts) or len(structures)

    def fit(self, structures: _Structures) -> bool:
        """Whether one object may have all of them."""
        if not structures:
            return True
        if len(structures) > (self.profile.maximum_segments or len(structures)):
            return False
        longest = _LONGEST_VALUE * 8 // (_BITS[self.kind] * self.size)
        return self.frames(structures) <= min(self.profile.maximum_frames or longest, longest)

    def notes(self, structures: _Structures) -> tuple[str, ...]:
        """Says that one structure alone is over the limit of frames; else nothing."""
        if len(structures) != 1 or self.fit(structures):
            return ()
        return (
            f"RESULT_OVER_LIMIT: {structures[0].label} alone has {self.frames(structures)} frames, and the "
            f"destination takes {self.profile.maximum_frames}; its segmentation is sent as an object of its "
            "own. Raise max_frames of the destination if it takes that.",
        )


def _split(structures: _Structures, fits: _Fits) -> list[_Structures]:
    """Fill one object after the other, in the order of the card; a group that fits is not torn."""
    if fits(structures):
        return [structures]
    objects: list[_Structures] = []
    current: _Structures = ()
    for unit in _units(structures):
        for piece in [unit] if fits(unit) else [(structure,) for structure in unit]:
            if current and not fits((*current, *piece)):
                objects.append(current)
                current = ()
            current = (*current, *piece)
    objects.append(current)
    return [tuple(sorted(members, key=lambda s: s.number)) for members in objects]


def _units(structures: Sequence[Structure]) -> list[_Structures]:
    """Structures that stay together: those of one group, in the order in which groups begin."""
    units: dict[str, list[Structure]] = {}
    for structure in structures:
        units.setdefault(structure.group or f"\n{structure.number}", []).append(structure)
    return [tuple(members) for members in units.values()]
