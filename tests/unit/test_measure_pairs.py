"""Left and right structures: who belongs together, difference and ratio."""

from __future__ import annotations

import pytest

from ai.measure import Measurement, found_pairs
from ai.measure.pairs import paired, side_of
from ai.model import Structure
from ai.model.structure import CodeEntry, Coding

LUNG = CodeEntry(value="39607008", scheme="SCT", meaning="Lung")
KIDNEY = CodeEntry(value="64033007", scheme="SCT", meaning="Kidney")
CATEGORY = CodeEntry(value="91723000", scheme="SCT", meaning="Anatomical Structure")
LEFT = CodeEntry(value="7771000", scheme="SCT", meaning="Left")
RIGHT = CodeEntry(value="24028007", scheme="SCT", meaning="Right")


def structure(number: int, key: str, kind: CodeEntry = LUNG, side: CodeEntry | None = None) -> Structure:
    coding = Coding(category=CATEGORY, type=kind, modifier=side, rgb=(1, 2, 3))
    return Structure(number=number, key=key, label=key, coding=coding)


def keys(*structures: Structure) -> list[tuple[str, str]]:
    return [(left.key, right.key) for left, right in paired(structures)]


def test_keys_that_differ_in_the_side_make_a_pair_in_either_order() -> None:
    a = structure(1, "kidney_right", KIDNEY, RIGHT)
    b = structure(2, "kidney_left", KIDNEY, LEFT)
    assert keys(a, b) == [("kidney_left", "kidney_right")]
    assert keys(structure(1, "left_rib_2"), structure(2, "right_rib_2")) == [("left_rib_2", "right_rib_2")]


def test_one_code_with_either_side_makes_a_pair_whatever_the_keys() -> None:
    assert keys(structure(1, "lul", LUNG, LEFT), structure(2, "rul", LUNG, RIGHT)) == [("lul", "rul")]


def test_what_has_another_code_on_either_side_is_no_pair() -> None:
    """Else "Left atrium, bilateral" would be the finding."""
    atria = [Structure(number=n, key=f"{side}_atrium", label=side) for n, side in ((1, "left"), (2, "right"))]
    assert keys(*atria) == []
    assert keys(structure(1, "a_left", LUNG, LEFT), structure(2, "a_right", KIDNEY, RIGHT)) == []


def test_a_code_with_several_structures_on_one_side_tells_no_pair() -> None:
    lobes = [structure(1, "a", LUNG, LEFT), structure(2, "b", LUNG, LEFT), structure(3, "c", LUNG, RIGHT)]
    assert keys(*lobes) == []


def test_the_side_of_the_code_goes_before_that_of_the_key() -> None:
    wrong = structure(1, "kidney_left", KIDNEY, RIGHT)
    assert side_of(wrong) == "right"
    assert keys(wrong, structure(2, "kidney_right", KIDNEY, RIGHT)) == []


def test_unpaired_structures_make_no_pair() -> None:
    assert keys(structure(1, "liver"), structure(2, "kidney_left", KIDNEY, LEFT)) == []
    assert side_of(structure(1, "cleft_palate")) == ""


def test_difference_and_ratio_are_left_against_right() -> None:
    left, right = structure(1, "lung_left", LUNG, LEFT), structure(2, "lung_right", LUNG, RIGHT)
    (pair,) = found_pairs([Measurement(right, 9, 200.0, None), Measurement(left, 5, 150.0, None)])
    assert (pair.difference, pair.ratio, pair.of_areas) == (-50.0, 0.75, False)
    (flat,) = found_pairs([Measurement(right, 9, 0.0, None, 40.0), Measurement(left, 5, 0.0, None, 50.0)])
    assert (flat.difference, flat.ratio, flat.of_areas) == (10.0, pytest.approx(1.25), True)


def test_a_pair_of_which_one_side_was_not_found_is_not_compared() -> None:
    left, right = structure(1, "lung_left", LUNG, LEFT), structure(2, "lung_right", LUNG, RIGHT)
    assert found_pairs([Measurement(left, 5, 150.0, None), Measurement(right, 0, 0.0, None)]) == ()
