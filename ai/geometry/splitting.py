"""Phases, echoes, b-values, reconstructions: slices on one grid that belong to several volumes.

Two things must never happen: a volume made of the slices of two phases, and an ordinary series torn apart
because an attribute varies from slice to slice. So an attribute splits only into groups that are volumes
(:func:`ai.geometry.planes.are_volumes`), and where nothing tells two images at one position apart the
slices stay together, to be refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from ai.geometry.belonging import Group
from ai.geometry.clusters import grouped, number_of, same_numbers
from ai.geometry.planes import Plane, are_volumes, on_one_grid, planes_of, positions_of, repeats_of

STACK = "StackID"
_MAKES_ANOTHER_IMAGE: Mapping[str, tuple[str, str]] = {
    STACK: ("Stack", ""),
    "TemporalPositionIdentifier": ("Temporal Position", ""),
    "TemporalPositionIndex": ("Temporal Position", ""),
    "NominalPercentageOfCardiacPhase": ("Cardiac phase", "%"),
    "NominalPercentageOfRespiratoryPhase": ("Respiratory phase", "%"),
    "EchoNumbers": ("Echo", ""),
    "EchoTime": ("Echo Time", "ms"),
    "InversionTime": ("Inversion Time", "ms"),
    "FlipAngle": ("Flip Angle", "degrees"),
    "DiffusionBValue": ("b-value", "s/mm²"),
    "DiffusionGradientOrientation": ("Gradient direction", ""),
    "ComplexImageComponent": ("Complex component", ""),
    "ImageType": ("Image Type", ""),
    "ConvolutionKernel": ("Kernel", ""),
    "ReconstructionAlgorithm": ("Reconstruction", ""),
    "DimensionIndexValues": ("Dimension index", ""),  # the last: an index tells people less than a value
}
"""Images that differ here show something else: they split wherever they are volumes of their own.

Each keyword with its name for people, and the unit.
"""

_MAY_VARY: Mapping[str, tuple[str, str]] = {
    "AcquisitionNumber": ("Acquisition", ""),
    "KVP": ("KVP", "kV"),
    "ContrastBolusAgent": ("Contrast agent", ""),
    "ImageType": ("Image Type", ""),
    "SliceThickness": ("Slice Thickness", "mm"),
    "SequenceName": ("Sequence", ""),
    "TriggerTime": ("Trigger Time", "ms"),
    "FrameReferenceTime": ("Frame Reference Time", "ms"),
    "AcquisitionTime": ("Acquisition Time", ""),
    "AcquisitionDateTime": ("Acquisition DateTime", ""),
    "ContentTime": ("Content Time", ""),
}
"""These vary within one volume too: they split only what cannot be one volume."""

_IN_LABEL_ONLY = ("ImageLaterality", "Laterality", "ViewPosition")
SPLIT_KEYWORDS = frozenset({*_MAKES_ANOTHER_IMAGE, *_MAY_VARY, *_IN_LABEL_ONLY})
"""Keywords of ``SliceHeader.attributes`` that the rules look at."""

_SWEEP = ("AcquisitionNumber", "AcquisitionTime", "AcquisitionDateTime")
_TIMES = ("AcquisitionTime", "AcquisitionDateTime", "ContentTime", "FrameReferenceTime", "TriggerTime")
_ROUNDED = frozenset(
    {
        "DiffusionBValue",
        "DiffusionGradientOrientation",
        "EchoTime",
        "FlipAngle",
        "FrameReferenceTime",
        "InversionTime",
        "KVP",
        "NominalPercentageOfCardiacPhase",
        "NominalPercentageOfRespiratoryPhase",
        "SliceThickness",
        "TriggerTime",
    }
)
"""Measured numbers, which scanners round; others count or name things."""

_Parts = dict[str, list[Plane]]


class _Way(NamedTuple):
    """A way to split: the name of a trait, its words and unit for people, and the planes by its values."""

    name: str
    words: str
    unit: str
    parts: _Parts


def by_content(group: Group) -> list[Group]:
    """Split the slices of one grid into those of each volume; one group where nothing tells them apart."""
    if len(group.slices) < 2 or group.refusal is not None or group.slices[0].is_projection:
        return [group]
    return _split(group, planes_of(group.slices))


def _split(group: Group, planes: list[Plane]) -> list[Group]:
    way = next(_ways_to_split(planes), None)
    if way is None:
        return [group]
    groups = []
    for value, members in sorted(way.parts.items()):
        text = f"{way.words} {value} {way.unit}".replace("\\", " ").strip() if value else f"no {way.words}"
        smaller = group.subgroup([p.header for p in members], way.name, value or "none", text)
        groups += _split(smaller, members)
    return groups


def _ways_to_split(planes: list[Plane]) -> Iterator[_Way]:
    """The ways in which the planes are several volumes; the best first."""
    for keyword, (words, unit) in _MAKES_ANOTHER_IMAGE.items():
        parts = _by_value(planes, keyword, meaning=keyword == "ImageType")
        if len(parts) > 1 and _are_other_images(parts, keyword):
            yield _Way(keyword, words, unit, parts)
    repeats = repeats_of(planes)
    for keyword, (words, unit) in _MAY_VARY.items():
        parts = _by_value(planes, keyword)
        if len(parts) > 1 and _are_told_apart(planes, parts, repeats, keyword):
            yield _Way(keyword, words, unit, parts)
    if repeats > 1 and (parts := _by_time(planes, repeats)):
        yield _Way("phase", "Phase", "", parts)
    if repeats > 1 and any(p.header.frame_number > 1 for p in planes):
        parts = grouped(planes, key=lambda p: p.header.sop_instance_uid)
        if _are_told_apart(planes, parts, repeats, "SOPInstanceUID"):
            yield _Way("instance", "Multi-frame instance", "", parts)


def _by_value(planes: Sequence[Plane], keyword: str, *, meaning: bool = False) -> _Parts:
    """Planes by the value of an attribute; ``meaning`` leaves out the first two values of Image Type."""
    texts = [p.header.attributes.get(keyword, "").strip() for p in planes]
    if meaning:
        texts = ["\\".join(text.split("\\")[2:]) for text in texts]
    if len(set(texts)) == 1:
        return {texts[0]: list(planes)}
    same = same_numbers(texts) if keyword in _ROUNDED else {text: text for text in texts}
    parts: _Parts = {}
    for plane, text in zip(planes, texts, strict=True):
        parts.setdefault(same[text], []).append(plane)
    return parts


def _are_other_images(parts: _Parts, keyword: str) -> bool:
    """Whether groups that show different things are volumes.

    Stacks are so by definition, unless each is a single plane. A few planes beside a volume that is complete
    without them are taken off it; else each group has two at least.
    """
    groups = list(parts.values())
    sizes = [positions_of(group) for group in groups]
    if keyword == STACK:
        return max(sizes) > 1
    complete = positions_of([plane for group in groups for plane in group]) == max(sizes)
    if complete and max(sizes) > 1:
        return True
    return min(sizes) > 1 and are_volumes(groups)


def _are_told_apart(planes: Sequence[Plane], parts: _Parts, repeats: int, keyword: str) -> bool:
    """Whether an attribute that varies within a volume too tells volumes apart that lie in one place.

    It does where it makes positions distinct that repeat; where it makes even what is uneven; and in CT,
    where a sweep makes each slice but once, between sweeps that interleave. (In MR the slices of one volume
    may be acquired in interleaved passes.)
    """
    groups = list(parts.values())
    if any(positions_of(group) < 2 for group in groups):
        return False
    if repeats > 1:
        thinned = len(groups) <= repeats and all(repeats_of(group) < repeats for group in groups)
        return thinned and are_volumes(groups)
    is_ct = all(p.header.modality == "CT" for p in planes)
    return ((is_ct and keyword in _SWEEP) or not on_one_grid(planes)) and are_volumes(groups, even=True)


def _by_time(planes: Sequence[Plane], repeats: int) -> _Parts:
    """Phases by time: the k-th image of every position, where all of the k-th came before all of the next.

    Empty where the times do not tell, or a position has fewer images than the others.
    """
    columns = grouped(planes, key=lambda p: p.position)
    if len(columns) < 2 or any(len(column) != repeats for column in columns.values()):
        return {}
    for keyword in _TIMES:
        found = {p.header.ref: number_of(p.header.attributes.get(keyword, "")) for p in planes}
        times = {ref: time for ref, time in found.items() if time is not None}
        if len(times) < len(planes):
            continue
        ranked = [sorted(column, key=lambda p: times[p.header.ref]) for column in columns.values()]
        phases = [[column[k] for column in ranked] for k in range(repeats)]
        spans = [sorted(times[p.header.ref] for p in phase) for phase in phases]
        if all(one[-1] < other[0] for one, other in pairwise(spans)):
            return {f"{k} of {repeats}": phase for k, phase in enumerate(phases, start=1)}
    return {}
