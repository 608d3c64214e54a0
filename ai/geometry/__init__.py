"""Geometry of a series, from headers alone: which volumes are in it, and where do they lie?

Pure functions over :class:`SliceHeader`; no pixels, no files. Conventions: LPS millimetres
(PS3.3 C.7.6.2.1.1); array index ``(slice, row, column)``; slices ordered by the projection of
Image Position (Patient) on the slice normal (row cosine × column cosine), ascending. Instance Number
is not known here.

``model`` has the values. ``belonging`` splits by grid, ``splitting`` by content, where ``planes`` tells what
is a volume of its own. ``placement`` and ``alone`` say where a volume lies, ``fitness`` whether a model
takes it.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from ai.geometry.belonging import Group, by_grid, is_localizer
from ai.geometry.fitness import unfit
from ai.geometry.model import (
    FIXES,
    FrameRef,
    Needs,
    NotAVolume,
    Note,
    NoteCode,
    Part,
    SliceHeader,
    Vector,
    Verdict,
    VerdictCode,
    VolumeGeometry,
    refuse,
)
from ai.geometry.placement import place
from ai.geometry.splitting import SPLIT_KEYWORDS, by_content

__all__ = [
    "FIXES",
    "SPLIT_KEYWORDS",
    "FrameRef",
    "Needs",
    "NotAVolume",
    "Note",
    "NoteCode",
    "Part",
    "SliceHeader",
    "Vector",
    "Verdict",
    "VerdictCode",
    "VolumeGeometry",
    "assess",
    "unfit",
]

_MOST_PARTS = 64
_LONGEST_KEY = 200


def assess(slices: Sequence[SliceHeader]) -> tuple[Part, ...]:
    """Find the volumes of a series and decide on each; there is always one part at least.

    The order of the slices given does not matter. Localizers and objects that are no images are left out
    with a note where there are others. The rest is split by grid and by content, and each part is accepted,
    accepted with a repair, or refused by name on its own.
    """
    ordered = sorted(slices, key=lambda s: (s.sop_instance_uid, s.frame_number))
    images = [s for s in ordered if s.rows and s.columns]
    kept = [s for s in images if not is_localizer(s)]
    if not kept:
        return (_nothing_left(ordered, images),)
    groups = [part for group in by_grid(kept) for part in by_content(group)]
    if len(groups) > _MOST_PARTS:
        return (_too_many(kept, len(groups)),)
    dropped = _dropped_notes(len(ordered) - len(images), len(images) - len(kept), len(ordered))
    return _parts(groups, dropped)


def _nothing_left(slices: Sequence[SliceHeader], images: Sequence[SliceHeader]) -> Part:
    frames = tuple(s.ref for s in slices)
    if images:
        reason = (
            "The only image is a localizer."
            if len(images) == 1
            else f"All {len(images)} images are localizers."
        )
        return Part("", "", frames, refuse(VerdictCode.LOCALIZER, reason, images=len(images)))
    reason = "The series has no instances."
    if slices:
        reason = f"None of the {len(slices)} instances is an image that can be measured (SEG, SR …)."
        if len(slices) == 1:
            reason = "The only instance is no image that can be measured (SEG, SR …)."
    return Part("", "", frames, refuse(VerdictCode.NOT_AN_IMAGE, reason, images=len(slices)))


def _too_many(slices: Sequence[SliceHeader], count: int) -> Part:
    reason = (
        f"The {len(slices)} images fall into {count} sub-volumes; at most {_MOST_PARTS} of one series are "
        "processed: send them as separate series."
    )
    frames = tuple(s.ref for s in slices)
    return Part("", "", frames, refuse(VerdictCode.TOO_MANY_PARTS, reason, images=len(slices), parts=count))


def _dropped_notes(non_images: int, localizers: int, total: int) -> tuple[Note, ...]:
    notes = []
    if localizers:
        text = f"{localizers} of {total} images are localizers and were left out."
        notes.append(Note(NoteCode.LOCALIZERS_DROPPED, text))
    if non_images:
        text = f"{non_images} of {total} instances are no images and were left out."
        notes.append(Note(NoteCode.NON_IMAGES_DROPPED, text))
    return tuple(notes)


def _parts(groups: Sequence[Group], dropped: tuple[Note, ...]) -> tuple[Part, ...]:
    """Name each part by the traits in which the parts differ, and place it.

    Images that are refused before they are placed do not count for the names of the others: a report that
    arrives late in the same series changes neither the keys of its volumes nor the UIDs of their results.
    """
    differing = _differing([g for g in groups if g.refusal is None])
    traits = [list(g.traits) if g.refusal else [n for n in differing if n in g.traits] for g in groups]
    keys = _keys(groups, traits)
    parts = []
    for number, index in enumerate(sorted(range(len(groups)), key=lambda i: _natural(keys[i])), start=1):
        group = groups[index]
        words = [group.traits[name][1] for name in traits[index]] if len(groups) > 1 else []
        label = ", ".join(word for word in words if word)[:_LONGEST_KEY]
        geometry = group.refusal or place(group.slices)
        frames = tuple(s.ref for s in group.slices)
        if isinstance(geometry, VolumeGeometry):
            told = f"Part {number} of {len(groups)} of the series{': ' if label else ''}{label}."
            split = (Note(NoteCode.SPLIT, told),) if len(groups) > 1 else ()
            geometry = replace(geometry, notes=(*geometry.notes, *dropped, *split))
            frames = geometry.frames
        parts.append(Part(keys[index], label, frames, geometry))
    return tuple(parts)


def _differing(groups: Sequence[Group]) -> list[str]:
    """Names of the traits in which groups differ."""
    names = dict.fromkeys(name for group in groups for name in group.traits)
    return [name for name in names if len({g.traits.get(name) for g in groups}) > 1]


def _keys(groups: Sequence[Group], traits: Sequence[Sequence[str]]) -> list[str]:
    """A key of values for each group; empty for the only one. Equal ones are told apart by their planes."""
    if len(groups) == 1:
        return [""]
    keys = []
    for group, names in zip(groups, traits, strict=True):
        key = ";".join(f"{name}={group.traits[name][0]}" for name in names)
        keys.append(key if len(key) <= _LONGEST_KEY else f"{key[: _LONGEST_KEY - 17]}~{_digest(key)}")
    counts = Counter(keys)
    return [
        key
        if counts[key] == 1
        else f"{key[: _LONGEST_KEY - 17]}~{_digest(str(min(s.ref for s in group.slices)))}"
        for key, group in zip(keys, groups, strict=True)
    ]


def _natural(key: str) -> list[str | float]:
    """For an order in which Echo Time 4.6 comes before 12."""
    return [float(t) if i % 2 else t for i, t in enumerate(re.split(r"([0-9]+(?:\.[0-9]+)?)", key))]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
