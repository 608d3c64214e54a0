"""One plausibility rule of a card: what it may say, by its kind."""

from __future__ import annotations

from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from ai.model.recipe import Part

Axis = Literal["right_left", "anterior_posterior", "superior_inferior"]
Kind = Literal[
    "volume_ml",
    "largest_share",
    "pieces",
    "complete",
    "left_right",
    "order",
    "mean_value",
    "coverage",
    "confidence",
]
_NUMBERS = frozenset({"volume_ml", "largest_share", "pieces", "mean_value", "confidence"})
_MINIMUM = _NUMBERS | {"coverage"}
_MAXIMUM = _NUMBERS | {"left_right"}
_AXIS = frozenset({"order", "complete", "coverage"})


class Rule(Part):
    """One plausibility rule, held against every result; :mod:`ai.quality` says more of each kind.

    Attributes
    ----------
    kind
        What is asked. ``volume_ml``: millilitres; ``largest_share``: part of the voxels in the largest
        connected piece, 0 to 1; ``pieces``: how many there are; ``mean_value``: mean of the image inside, in
        its unit; ``confidence``: mean margin between best and second best class, 0 to 1; ``complete``: not
        cut off by the field of view; ``left_right``: both of a pair are there, on their sides and of
        similar size; ``order``: centroids follow each other as listed; ``coverage``: they were found.
    structures
        Keys, each once. Each is asked by itself, but for ``left_right``, which takes them in pairs, and
        ``order``.
    given
        For ``coverage``: keys of other structures, such as those that lie on either side; it asks only where
        all of them were found. Empty: it always asks.
    minimum
        Least number that is allowed, in the unit of the kind; None: no bound. For ``coverage`` the extent of
        the image along ``axis`` in millimetres from which it asks. ``complete``, ``left_right`` and ``order``
        have none.
    maximum
        Largest number that is allowed, in the unit of the kind; None: no bound. For ``left_right`` the
        difference of the sizes in percent of their mean. ``complete``, ``order`` and ``coverage`` have none.
    axis
        For ``order``: from right to left, anterior to posterior, or superior to inferior; None: the last. For
        ``complete``: only the two ends along it are asked; None: all six. For ``coverage`` see ``minimum``;
        None: superior to inferior.
    verdict
        What a violation means: PARTIAL and SUSPECT are sent with the reason, FAIL is held back. ``complete``
        is asked of every structure, and means PARTIAL, unless a rule says otherwise; PASS, which only
        ``complete`` may say, is for what always goes on beyond the image, such as the body.
    """

    kind: Kind
    structures: tuple[str, ...] = Field(min_length=1)
    given: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    axis: Axis | None = None
    verdict: Literal["PASS", "PARTIAL", "SUSPECT", "FAIL"] = "SUSPECT"

    @model_validator(mode="after")
    def _says_what_its_kind_asks(self) -> Self:
        name, low, high = f"the quality rule {self.kind}", self.minimum, self.maximum
        if self.kind in _NUMBERS and low is None and high is None:
            raise ValueError(f"{name} needs a minimum or a maximum")
        if low is not None and high is not None and low > high:
            raise ValueError(f"{name} has a minimum above its maximum")
        for field, value, kinds in (
            ("minimum", low, _MINIMUM),
            ("maximum", high, _MAXIMUM),
            ("axis", self.axis, _AXIS),
            ("given", self.given or None, {"coverage"}),
        ):
            if value is not None and self.kind not in kinds:
                raise ValueError(f"{name} takes no {field}; {_listed(kinds)} do")
        if self.verdict == "PASS" and self.kind != "complete":
            raise ValueError(f"{name} cannot mean PASS; leave it out")
        return self

    @model_validator(mode="after")
    def _names_structures_as_its_kind_asks(self) -> Self:
        name, count = f"the quality rule {self.kind}", len(self.structures)
        if len(set(self.structures)) != count:
            raise ValueError(f"{name} names a structure twice")
        if self.kind == "left_right" and count % 2:
            raise ValueError(f"{name} names {count} structures; it takes pairs, a left one and a right one")
        if self.kind == "order" and count < 2:
            raise ValueError(f"{name} names one structure; it takes two or more, in their order")
        both = set(self.structures) & set(self.given)
        if both:
            raise ValueError(f"{name} asks for {min(both)!r} given itself")
        return self


def _listed(kinds: frozenset[str] | set[str]) -> str:
    return ", ".join(kind for kind in get_args(Kind) if kind in kinds)
