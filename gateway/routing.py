"""Routing: named conditions over the header facts of a series; the first route that matches wins.

Pure. A condition is one line of a route's ``when`` mapping, so that ``explain`` can report each by
name. An attribute that is absent counts as not matched, and is said to be missing; that holds for
``lacks`` and ``not`` too. A condition must hold for every distinct value found in the series.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from gateway.header import RULE_KEYWORDS, SeriesFacts

PSEUDO_FACTS: Mapping[str, str] = {
    "instances": "number of images; each frame of a multi-frame one counts",
    "source": "name of the peer that sent the series",
    "body_part": "BodyPartExamined",
}
"""Names that ``when`` knows besides DICOM keywords."""

CONDITION_NAMES: frozenset[str] = RULE_KEYWORDS | frozenset(PSEUDO_FACTS)

_LONGEST_VALUE = 1024  # characters of a header value that a regular expression sees
_LONGEST_PATTERN = 512
_VALUES_SHOWN = 4


class Operator(StrEnum):
    """What a condition asks; all but IS are spelled out in the configuration."""

    IS = "is"
    AT_LEAST = "at_least"
    AT_MOST = "at_most"
    HAS = "has"
    LACKS = "lacks"
    MATCHES = "matches"
    NOT = "not"


Priority = Literal["urgent", "normal", "offpeak"]
Wanted = tuple[str | float, ...]
Value = tuple[str, ...]


class ConditionError(ValueError):
    """A condition cannot be understood. ``at`` is the place below ``when``."""

    def __init__(self, at: tuple[str, ...], message: str) -> None:
        super().__init__(message)
        self.at = at
        self.message = message


@dataclass(frozen=True)
class ConditionResult:
    """One condition held against one series, in words that a person can read."""

    name: str
    wanted: str
    seen: str
    matched: bool

    def __str__(self) -> str:
        return f"{self.name} {self.wanted}: {'matched' if self.matched else 'FAILED'}, seen {self.seen}"


@dataclass(frozen=True)
class Condition:
    """One demand on one attribute (or pseudo fact) of a series.

    ``wanted`` holds the alternatives of IS, all values of HAS and LACKS, the one bound of AT_LEAST
    and AT_MOST, or the one regular expression of MATCHES and NOT.
    """

    name: str
    operator: Operator
    wanted: Wanted

    def describe(self) -> str:
        """The demand in words, without the attribute's name: ``at least 10``, ``lacks LOCALIZER``."""
        values = [_text(w) for w in self.wanted]
        match self.operator:
            case Operator.IS:
                return f"is {' or '.join(values)}"
            case Operator.HAS | Operator.LACKS:
                return f"{self.operator} {', '.join(values)}"
            case Operator.MATCHES:
                return f"matches /{values[0]}/"
            case Operator.NOT:
                return f"does not match /{values[0]}/"
            case _:
                return f"{self.operator.replace('_', ' ')} {values[0]}"

    def check(self, facts: SeriesFacts) -> ConditionResult:
        """Hold the condition against a series."""
        found, missing = _look_up(self.name, facts)
        holds = bool(found) and not missing and all(self._holds(value) for value in found)
        return ConditionResult(self.name, self.describe(), self._seen(found, missing, facts), holds)

    def _holds(self, value: Value) -> bool:
        match self.operator:
            case Operator.IS:
                return any(_equal(value, wanted) for wanted in self.wanted)
            case Operator.HAS | Operator.LACKS:
                present = {part.strip().casefold() for part in value}
                hits = [str(w).casefold() in present for w in self.wanted]
                return all(hits) if self.operator is Operator.HAS else not any(hits)
            case Operator.MATCHES | Operator.NOT:
                text = "\\".join(value)[:_LONGEST_VALUE]
                hit = re.search(str(self.wanted[0]), text) is not None
                return hit is (self.operator is Operator.MATCHES)
            case _:
                return self._within(value)

    def _within(self, value: Value) -> bool:
        numbers = [_number(part) for part in value]
        bound = float(self.wanted[0])
        if self.operator is Operator.AT_LEAST:
            return all(n is not None and n >= bound for n in numbers)
        return all(n is not None and n <= bound for n in numbers)

    def _seen(self, found: Sequence[Value], missing: int, facts: SeriesFacts) -> str:
        if not found:
            return "missing"
        texts = ["\\".join(value)[:80] for value in found[:_VALUES_SHOWN]]
        if len(found) > _VALUES_SHOWN:
            texts.append(f"{len(found) - _VALUES_SHOWN} more values")
        seen = ", ".join(texts)
        numeric = self.operator in (Operator.AT_LEAST, Operator.AT_MOST)
        if numeric and any(_number(part) is None for value in found for part in value):
            seen += " (not a number)"
        return f"{seen}; missing in {missing} of {facts.images} images" if missing else seen


@dataclass(frozen=True)
class Route:
    """A routing rule: every condition must hold; none at all means every series."""

    name: str
    conditions: tuple[Condition, ...] = ()
    model: str | None = None
    send: tuple[str, ...] = ()
    action: Literal["process", "ignore"] = "process"
    reason: str = ""
    priority: Priority = "normal"

    def describe(self) -> str:
        """The rule in words."""
        when = " and ".join(f"{c.name} {c.describe()}" for c in self.conditions) or "always"
        if self.action == "ignore":
            return f"{self.name}: when {when}: ignore"
        targets = ", ".join(self.send) or "nobody"
        return f"{self.name}: when {when}: run {self.model}, send to {targets}"


@dataclass(frozen=True)
class RouteResult:
    """One route held against one series, condition by condition."""

    route: Route
    conditions: tuple[ConditionResult, ...]

    @property
    def failed(self) -> tuple[ConditionResult, ...]:
        """The conditions that did not hold."""
        return tuple(c for c in self.conditions if not c.matched)

    @property
    def matched(self) -> bool:
        """True if every condition held."""
        return not self.failed


@dataclass(frozen=True)
class Routing:
    """The outcome: the first route that matched, and every route that was looked at on the way."""

    chosen: Route | None
    results: tuple[RouteResult, ...]

    def nearest_miss(self) -> str:
        """A sentence on the processing route with the fewest failed conditions; empty if there is none."""
        missed = [r for r in self.results if not r.matched and r.route.action == "process"]
        if not missed:
            return ""
        nearest = min(missed, key=lambda result: len(result.failed))
        failures = "; ".join(f"{c.name} {c.wanted}, seen {c.seen}" for c in nearest.failed)
        verb = "condition" if len(nearest.conditions) == 1 else "conditions"
        return (
            f"Nearest miss: route {nearest.route.name}, "
            f"{len(nearest.failed)} of {len(nearest.conditions)} {verb} failed: {failures}."
        )


def first_match(routes: Sequence[Route], facts: SeriesFacts) -> Routing:
    """Hold the routes against a series in order, up to and including the first that matches."""
    results: list[RouteResult] = []
    for route in routes:
        result = RouteResult(route, tuple(condition.check(facts) for condition in route.conditions))
        results.append(result)
        if result.matched:
            return Routing(route, tuple(results))
    return Routing(None, tuple(results))


def parse_condition(name: str, value: object) -> tuple[Condition, ...]:
    """Conditions of one ``when`` entry: a scalar, a list of scalars, or a mapping of operators.

    Raises
    ------
    ConditionError
        Unknown name or operator, a value of the wrong kind, or a wrong regular expression.
    """
    if name not in CONDITION_NAMES:
        raise ConditionError((name,), _unknown(name, CONDITION_NAMES, "attribute that routes can see"))
    if not isinstance(value, dict):
        return (Condition(name, Operator.IS, _scalars(name, (name,), value)),)
    if not value:
        raise ConditionError((name,), "needs an operator, for example {at_least: 10}")
    return tuple(_parse_operator(name, str(key), wanted) for key, wanted in value.items())


def _parse_operator(name: str, key: str, wanted: object) -> Condition:
    at = (name, key)
    operators = {operator.value for operator in Operator} - {Operator.IS.value}
    if key not in operators:
        raise ConditionError(at, _unknown(key, operators, "operator"))
    operator = Operator(key)
    if operator in (Operator.AT_LEAST, Operator.AT_MOST):
        number = None if isinstance(wanted, bool | dict | list | tuple) else _number(str(wanted))
        if number is None:
            raise ConditionError(at, f"{operator} needs a number")
        return Condition(name, operator, (number,))
    if operator in (Operator.MATCHES, Operator.NOT):
        return Condition(name, operator, (_pattern(at, wanted),))
    return Condition(name, operator, tuple(_text(w) for w in _scalars(name, at, wanted)))


def _pattern(at: tuple[str, ...], wanted: object) -> str:
    if not isinstance(wanted, str) or not wanted:
        raise ConditionError(at, "needs a regular expression as text in quotes")
    if len(wanted) > _LONGEST_PATTERN:
        raise ConditionError(at, f"the regular expression is longer than {_LONGEST_PATTERN} characters")
    try:
        re.compile(wanted)
    except re.error as error:
        raise ConditionError(at, f"not a regular expression: {error}") from error
    return wanted


def _scalars(name: str, at: tuple[str, ...], value: object) -> Wanted:
    items = value if isinstance(value, list | tuple) else [value]
    wanted: list[str | float] = []
    for item in items:
        if isinstance(item, bool) or not isinstance(item, str | int | float) or item == "":
            raise ConditionError(at, "needs text, a number, or a list of them")
        wanted.append(item.strip() if isinstance(item, str) else float(item))
    if not wanted:
        raise ConditionError(at, "the list is empty, so nothing could match")
    if name == "instances" and not all(_number(str(w)) is not None for w in wanted):
        raise ConditionError(at, "instances is a number, for example {at_least: 10}")
    return tuple(wanted)


def _look_up(name: str, facts: SeriesFacts) -> tuple[tuple[Value, ...], int]:
    """The distinct values, and how many images lack the attribute while others have it."""
    if name == "instances":
        return ((str(facts.images),),), 0
    if name == "source":
        return ((facts.source,),), 0
    keyword = PSEUDO_FACTS.get(name, name)
    return tuple(facts.values.get(keyword, ())), facts.missing_in.get(keyword, 0)


def _equal(value: Value, wanted: str | float) -> bool:
    if isinstance(wanted, float):
        return len(value) == 1 and _number(value[0]) == wanted
    return "\\".join(part.strip() for part in value).casefold() == wanted.casefold()


def _text(wanted: str | float) -> str:
    return repr(wanted).removesuffix(".0") if isinstance(wanted, float) else wanted


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _unknown(name: str, known: frozenset[str] | set[str], kind: str) -> str:
    by_case = {k.casefold(): k for k in known}
    close = difflib.get_close_matches(name.casefold(), by_case, 1)
    hint = f'did you mean "{by_case[close[0]]}"?' if close else f"there are: {', '.join(sorted(known))}"
    return f'unknown {kind} "{name}", {hint}'
