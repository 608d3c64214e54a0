"""What is asked of every result, whether its card asks for it or not.

A rule of the card about the same takes the place of what is usual.
"""

from __future__ import annotations

from collections.abc import Iterator

from ai.model import ModelSpec, Rule, Structure
from ai.quality.rules import laterality

_VERTEBRAE = tuple(
    f"vertebra_{part}{number}"
    for part, count in (("c", 7), ("t", 12), ("l", 5), ("s", 1))
    for number in range(1, count + 1)
)
"""Keys of the table, from superior to inferior."""


def usual_rules(spec: ModelSpec) -> Iterator[tuple[Rule, bool]]:
    """The rules that a card need not write.

    - No structure touches the border of the field of view, else it is PARTIAL.
    - Of two structures whose codes differ by their side only, the left one lies left of the right one.
    - Vertebrae follow each other, and none is missing between two.

    Returns
    -------
    Each with whether it is asked only where all of its structures were found: that one of a pair is missing
    may well be so.
    """
    named = {kind: _named(spec, kind) for kind in ("complete", "left_right", "order")}
    whole = tuple(s.key for s in spec.structures if s.key not in named["complete"])
    if whole:
        yield Rule(kind="complete", structures=whole, verdict="PARTIAL"), False
    for left, right in lateral_pairs(spec):
        if not {left, right} <= named["left_right"]:
            yield Rule(kind="left_right", structures=(left, right)), True
    known = spec.numbers()
    vertebrae = tuple(key for key in _VERTEBRAE if key in known)
    if len(vertebrae) > 1 and not named["order"] & set(vertebrae):
        yield Rule(kind="order", structures=vertebrae, axis="superior_inferior"), False


def lateral_pairs(spec: ModelSpec) -> Iterator[tuple[str, str]]:
    """Keys of (left, right) structures whose codes differ by their side only."""
    sided: dict[object, dict[str, list[str]]] = {}
    for structure in spec.structures:
        side = laterality(structure)
        if side and structure.coded.modifier is not None:
            sided.setdefault(_concept(structure), {}).setdefault(side, []).append(structure.key)
    for pair in sided.values():
        lefts, rights = pair.get("left", []), pair.get("right", [])
        if len(lefts) == len(rights) == 1:
            yield lefts[0], rights[0]


def _concept(structure: Structure) -> object:
    codes = structure.coded.category, structure.coded.type, structure.coded.region
    return tuple((code.value, code.scheme) if code else None for code in codes)


def _named(spec: ModelSpec, kind: str) -> set[str]:
    return {key for rule in spec.quality if rule.kind == kind for key in rule.structures}
