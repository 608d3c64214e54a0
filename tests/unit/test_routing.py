"""Routing: every condition is named, what was seen is said, the first match wins."""

from __future__ import annotations

import pytest

from gateway.header import RULE_KEYWORDS, Facts, SeriesFacts, series_facts
from gateway.routing import (
    Condition,
    ConditionError,
    ConditionResult,
    Operator,
    Route,
    first_match,
    parse_condition,
)

CT: Facts = {
    "Modality": ("CT",),
    "ImageType": ("ORIGINAL", "PRIMARY", "AXIAL"),
    "SliceThickness": ("2.5",),
    "PixelSpacing": ("0.7", "0.9"),
    "SeriesDescription": ("Thorax 1.0 Br40",),
    "BodyPartExamined": ("CHEST",),
    "KVP": ("120.0",),
}


def facts(*headers: Facts, source: str = "ct1") -> SeriesFacts:
    return series_facts(headers or (CT,) * 40, source)


def check(name: str, value: object, *headers: Facts) -> ConditionResult:
    (condition,) = parse_condition(name, value)
    return condition.check(facts(*headers))


@pytest.mark.parametrize(
    ("name", "value", "wanted", "seen", "matched"),
    [
        ("Modality", "CT", "is CT", "CT", True),
        ("Modality", "ct", "is ct", "CT", True),
        ("Modality", "MR", "is MR", "CT", False),
        ("Modality", ["MR", "CT"], "is MR or CT", "CT", True),
        ("KVP", 120, "is 120", "120.0", True),
        ("KVP", "120", "is 120", "120.0", False),
        ("body_part", ["CHEST", "THORAX"], "is CHEST or THORAX", "CHEST", True),
        ("source", "ct1", "is ct1", "ct1", True),
        ("source", "ct2", "is ct2", "ct1", False),
        ("instances", {"at_least": 40}, "at least 40", "40", True),
        ("instances", {"at_least": 41}, "at least 41", "40", False),
        ("instances", 40, "is 40", "40", True),
        ("SliceThickness", {"at_most": 2.5}, "at most 2.5", "2.5", True),
        ("SliceThickness", {"at_most": 2}, "at most 2", "2.5", False),
        ("PixelSpacing", {"at_most": 0.8}, "at most 0.8", "0.7\\0.9", False),
        ("PixelSpacing", {"at_most": "0.9"}, "at most 0.9", "0.7\\0.9", True),
        (
            "ImageType",
            {"has": ["original", "AXIAL"]},
            "has original, AXIAL",
            "ORIGINAL\\PRIMARY\\AXIAL",
            True,
        ),
        ("ImageType", {"has": "DERIVED"}, "has DERIVED", "ORIGINAL\\PRIMARY\\AXIAL", False),
        ("ImageType", {"lacks": ["LOCALIZER"]}, "lacks LOCALIZER", "ORIGINAL\\PRIMARY\\AXIAL", True),
        (
            "ImageType",
            {"lacks": ["LOCALIZER", "axial"]},
            "lacks LOCALIZER, axial",
            "ORIGINAL\\PRIMARY\\AXIAL",
            False,
        ),
        ("ImageType", "ORIGINAL", "is ORIGINAL", "ORIGINAL\\PRIMARY\\AXIAL", False),
        ("SeriesDescription", {"matches": "(?i)thorax"}, "matches /(?i)thorax/", "Thorax 1.0 Br40", True),
        ("SeriesDescription", {"not": "(?i)thorax"}, "does not match /(?i)thorax/", "Thorax 1.0 Br40", False),
        ("SeriesDescription", {"not": "scout"}, "does not match /scout/", "Thorax 1.0 Br40", True),
        ("SeriesDescription", {"at_least": 1}, "at least 1", "Thorax 1.0 Br40 (not a number)", False),
    ],
)
def test_a_condition_says_what_it_wanted_and_what_it_saw(
    name: str, value: object, wanted: str, seen: str, matched: bool
) -> None:
    assert check(name, value) == ConditionResult(name, wanted, seen, matched)


@pytest.mark.parametrize(
    "value", ["X", {"has": "X"}, {"lacks": "X"}, {"not": "X"}, {"at_most": 1}, {"matches": "."}]
)
def test_a_missing_attribute_is_not_matched_and_said_to_be_missing(value: object) -> None:
    result = check("ContrastBolusAgent", value)
    assert not result.matched
    assert result.seen == "missing"


def test_an_attribute_that_some_instances_lack_is_not_matched_and_counted() -> None:
    without = {keyword: value for keyword, value in CT.items() if keyword != "KVP"}
    result = check("KVP", 120, CT, without, CT)
    assert result == ConditionResult("KVP", "is 120", "120.0; missing in 1 of 3 images", False)


def test_a_condition_must_hold_for_every_distinct_value() -> None:
    other = {**CT, "ImageType": ("DERIVED", "SECONDARY", "LOCALIZER")}
    result = check("ImageType", {"lacks": "LOCALIZER"}, CT, other)
    assert not result.matched
    assert result.seen == "ORIGINAL\\PRIMARY\\AXIAL, DERIVED\\SECONDARY\\LOCALIZER"


def test_many_distinct_values_are_shown_in_part() -> None:
    result = check("SeriesNumber", 1, *({"SeriesNumber": (str(n),)} for n in range(9)))
    assert result.seen == "0, 1, 2, 3, 5 more values"


def test_several_operators_of_one_attribute_are_reported_one_by_one() -> None:
    conditions = parse_condition("ImageType", {"has": ["ORIGINAL"], "lacks": ["LOCALIZER"]})
    assert [c.operator for c in conditions] == [Operator.HAS, Operator.LACKS]


def test_a_regular_expression_sees_at_most_1024_characters() -> None:
    long = {"SeriesDescription": ("x" * 1024 + "thorax",)}
    assert not check("SeriesDescription", {"matches": "thorax"}, long).matched


@pytest.mark.parametrize(
    ("name", "value", "at", "message"),
    [
        ("PatientName", "X", ("PatientName",), "unknown attribute"),
        ("modality", "CT", ("modality",), 'did you mean "Modality"?'),
        ("Modality", {"is_not": "CT"}, ("Modality", "is_not"), "unknown operator"),
        ("Modality", {}, ("Modality",), "needs an operator"),
        ("Modality", [], ("Modality",), "list is empty"),
        ("Modality", True, ("Modality",), "needs text, a number"),
        ("Modality", [["CT"]], ("Modality",), "needs text, a number"),
        ("instances", "many", ("instances",), "is a number"),
        ("instances", {"at_least": "many"}, ("instances", "at_least"), "needs a number"),
        ("instances", {"at_least": "nan"}, ("instances", "at_least"), "needs a number"),
        ("instances", {"at_least": True}, ("instances", "at_least"), "needs a number"),
        ("Modality", {"matches": "["}, ("Modality", "matches"), "not a regular expression"),
        ("Modality", {"matches": 7}, ("Modality", "matches"), "as text in quotes"),
        ("Modality", {"matches": "x" * 513}, ("Modality", "matches"), "longer than 512"),
    ],
)
def test_a_condition_that_cannot_be_understood_is_refused_with_its_place(
    name: str, value: object, at: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConditionError) as caught:
        parse_condition(name, value)
    assert caught.value.at == at
    assert message in caught.value.message


def test_no_rule_can_look_at_a_patient_attribute() -> None:
    assert {keyword for keyword in RULE_KEYWORDS if keyword.startswith("Patient")} == {"PatientPosition"}


def _route(name: str, model: str | None, **when: object) -> Route:
    conditions = tuple(c for key, value in when.items() for c in parse_condition(key, value))
    if model is None:
        return Route(name, conditions, action="ignore")
    return Route(name, conditions, model, ("pacs",))


def test_the_first_route_that_matches_wins_and_later_ones_are_not_looked_at() -> None:
    routes = [
        _route("mr", "brain", Modality="MR"),
        _route("ct", "tissue", Modality="CT"),
        _route("rest", None),
    ]
    routing = first_match(routes, facts())
    assert routing.chosen is routes[1]
    assert [(r.route.name, r.matched) for r in routing.results] == [("mr", False), ("ct", True)]


def test_a_route_without_conditions_takes_every_series() -> None:
    assert first_match([_route("rest", None)], facts()).results[0].matched


def test_without_a_match_the_nearest_miss_is_the_route_with_the_fewest_failures() -> None:
    routes = [
        _route("mr", "brain", Modality="MR", instances={"at_least": 100}),
        _route("ct", "tissue", Modality="CT", ImageType={"lacks": "LOCALIZER"}, instances={"at_least": 100}),
    ]
    routing = first_match(routes, facts())
    assert routing.chosen is None
    assert routing.nearest_miss() == (
        "Nearest miss: route ct, 1 of 3 conditions failed: instances at least 100, seen 40."
    )


def test_a_route_can_be_read_as_a_sentence() -> None:
    assert _route("ct", "tissue", Modality="CT", instances={"at_least": 10}).describe() == (
        "ct: when Modality is CT and instances at least 10: run tissue, send to pacs"
    )
    assert _route("rest", None).describe() == "rest: when always: ignore"
    assert (
        str(Condition("Modality", Operator.IS, ("CT",)).check(facts())) == "Modality is CT: matched, seen CT"
    )
