"""Values that are the same but for rounding, gathered; the answer does not depend on their order."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import pairwise
from typing import TypeVar

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)

_MOST_LEADERS = 512  # more distinct values than this are each their own: nobody will read as many parts
_SAME_NUMBER = 1e-3  # echo times and b-values relative, unit vectors absolute: as scanners round them


def clusters(values: FloatArray, tolerance: float) -> npt.NDArray[np.int64]:
    """Number of the cluster of each row of ``values`` (n, d), counted from 0 in the order of the values.

    Rows belong together when no element differs by more than ``tolerance``, and so do all that a chain of
    such rows connects: noise around a value is one cluster, wherever its extremes lie. Rows are gathered
    around leaders first, so the time does not grow with the square of their count; it makes the tolerance
    up to twice as wide.
    """
    distinct, index = np.unique(values, axis=0, return_inverse=True)
    index = index.reshape(-1)
    leaders, leader_of = _leaders(distinct, tolerance / 2.0)
    apart = np.max(np.abs(leaders[:, None] - leaders[None]), axis=2)
    near = apart <= 2.0 * tolerance  # so that any two rows within the tolerance are in one cluster
    number = np.full(len(leaders), -1)
    for start in range(len(leaders)):
        if number[start] >= 0:
            continue
        members = np.zeros(len(leaders), dtype=bool)
        members[start] = True
        while (grown := near[members].any(axis=0)).sum() > members.sum():
            members = grown
        number[members] = number.max() + 1
    beyond = len(leaders) + np.arange(len(distinct))
    return np.asarray(np.where(leader_of < 0, beyond, number[leader_of])[index], np.int64)


def _leaders(distinct: FloatArray, radius: float) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    """Rows of which no two are nearer than ``radius``, and for each row the number of its leader or -1."""
    leader_of = np.full(len(distinct), -1)
    leaders: list[int] = []
    while len(leaders) < _MOST_LEADERS and (free := np.flatnonzero(leader_of < 0)).size:
        first = int(free[0])
        near = np.max(np.abs(distinct[free] - distinct[first]), axis=1) <= radius
        leader_of[free[near]] = len(leaders)
        leaders.append(first)
    return distinct[leaders], np.asarray(leader_of, np.int64)


def same_numbers(texts: Iterable[str]) -> dict[str, str]:
    """Text → the text that stands for it: numbers that differ by rounding are one, and so are vectors.

    A number stands as the smallest of a run of nearly equal ones, to six digits; other texts for themselves.
    """
    ordered = sorted(set(texts))
    same = {text: text for text in ordered}
    vectors = grouped([(t, v) for t in ordered if (v := _vector(t)) is not None], lambda tv: len(tv[1]))
    for length, members in vectors.items():
        if length == 1:
            same.update(_same_scalars({text: values[0] for text, values in members}))
            continue
        number = clusters(np.array([values for _, values in members]), _SAME_NUMBER)
        for cluster in np.unique(number):
            chosen = [members[i] for i in np.flatnonzero(number == cluster)]
            stands = "\\".join(f"{v + 0.0:.3g}" for v in chosen[0][1])
            same.update((text, stands) for text, _ in chosen)
    return same


def _same_scalars(numbers: dict[str, float]) -> dict[str, str]:
    ordered = sorted(numbers, key=lambda text: (numbers[text], text))
    same = {ordered[0]: f"{numbers[ordered[0]] + 0.0:.6g}"}
    for one, other in pairwise(ordered):
        is_same = numbers[other] - numbers[one] <= _SAME_NUMBER * abs(numbers[other])
        same[other] = same[one] if is_same else f"{numbers[other] + 0.0:.6g}"
    return same


def number_of(text: str) -> float | None:
    """The finite number that a text says, if it does."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if np.isfinite(number) else None


def _vector(text: str) -> tuple[float, ...] | None:
    numbers = [number_of(part) for part in text.split("\\")]
    found = tuple(number for number in numbers if number is not None)
    return found if len(found) == len(numbers) else None


def grouped(items: Sequence[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """Items by their key, in the order in which the keys appear."""
    groups: dict[Key, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups
