"""Sentences and numbers for people, as the rules of placement share them."""

from __future__ import annotations

from collections.abc import Sequence

from ai.geometry.model import Note, NoteCode, SliceHeader


def mm(value: float, *, unit: bool = True) -> str:
    """At most two decimals, at least one: 5.0 mm, 2.57 mm."""
    text = f"{value:.2f}".removesuffix("0")
    return f"{text} mm" if unit else text


def has_own_frames(slices: Sequence[SliceHeader]) -> bool:
    """Only images each of which has a Frame of Reference UID of its own come together with several."""
    return len({s.frame_of_reference_uid for s in slices}) > 1


def frame_of_reference_note(slices: Sequence[SliceHeader]) -> tuple[Note, ...]:
    """Says that a Frame of Reference UID will be derived, where the slices have none of their own."""
    if slices[0].frame_of_reference_uid is None:
        lack = "No image has a Frame of Reference UID"
    elif has_own_frames(slices):
        lack = (
            f"Each of the {len(slices)} images has its own Frame of Reference UID, as some anonymisers write"
        )
    else:
        return ()
    text = f"{lack}: results use one derived from the Series Instance UID."
    return (Note(NoteCode.FRAME_OF_REFERENCE_DERIVED, text),)
