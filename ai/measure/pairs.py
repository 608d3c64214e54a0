"""Left and right of a pair: which structures belong together, and how their sizes compare."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ai.measure.sizes import Measurement
from ai.model import Structure

LEFT, RIGHT = "left", "right"
_SIDES = {"7771000": LEFT, "24028007": RIGHT}  # SCT, PS3.16 CID 244 "Laterality"


@dataclass(frozen=True)
class Pair:
    """The two structures of a pair, both found."""

    left: Measurement
    right: Measurement

    @property
    def difference(self) -> float:
        """Left minus right: millilitres, or square millimetres on the detector of a radiograph."""
        return self.left.size - self.right.size

    @property
    def ratio(self) -> float:
        """Left divided by right."""
        return self.left.size / self.right.size

    @property
    def of_areas(self) -> bool:
        """Whether areas are compared, not volumes."""
        return self.left.area_mm2 is not None


def found_pairs(measurements: Sequence[Measurement]) -> tuple[Pair, ...]:
    """The pairs of which both sides were found, in the order of the left ones."""
    by_number = {m.structure.number: m for m in measurements}
    both = paired([m.structure for m in measurements])
    pairs = (Pair(by_number[left.number], by_number[right.number]) for left, right in both)
    return tuple(pair for pair in pairs if pair.left.found and pair.right.found)


def paired(structures: Sequence[Structure]) -> Iterator[tuple[Structure, Structure]]:
    """Pairs of (left, right): one code with either side, first those whose keys differ in the side alone.

    What has another code on either side is no pair: an atrium or a lobe is not the mirror of the other, and
    one finding could not name both. Where several structures have one code and one side, only keys tell.
    """
    by_key = {structure.key: structure for structure in structures}
    rights = [structure for structure in structures if side_of(structure) == RIGHT]
    lefts = [structure for structure in structures if side_of(structure) == LEFT]
    for left in lefts:
        words = [RIGHT if word == LEFT else word for word in left.key.split("_")]
        right = by_key.get("_".join(words))
        if right is not None and side_of(right) == RIGHT and _meaning(right) == _meaning(left):
            yield left, right
            continue
        alike = [r for r in rights if _meaning(r) == _meaning(left)]
        if len(alike) == 1 and sum(_meaning(other) == _meaning(left) for other in lefts) == 1:
            yield left, alike[0]


def side_of(structure: Structure) -> str:
    """``left`` or ``right``, from the modifier of its code, else from its key; empty for neither."""
    modifier = structure.coded.modifier
    if modifier is not None and modifier.value in _SIDES:
        return _SIDES[modifier.value]
    words = structure.key.split("_")
    return next((side for side in (LEFT, RIGHT) if side in words), "")


def _meaning(structure: Structure) -> tuple[object, ...]:
    """What its codes say but for the side; words may differ."""
    codes = structure.coded
    return tuple((c.value, c.scheme) if c else None for c in (codes.category, codes.type, codes.region))
