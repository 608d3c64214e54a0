"""The table of coded structures."""

from __future__ import annotations

import pytest
from pydicom.sr import _concepts_dict

from ai import terminology
from ai.errors import ModelError

CODES = [
    code
    for row in terminology.structures().values()
    for code in (row.category, row.type, row.modifier)
    if code is not None
]


def dihedral(a: int, b: int) -> int:
    """Product in the dihedral group of order ten, on which the check digit of Verhoeff rests."""
    if a < 5:
        return (a + b) % 5 if b < 5 else (a + b - 5) % 5 + 5
    return (a - 5 - b) % 5 + 5 if b < 5 else (a - b) % 5


def verhoeff_remainder(identifier: str) -> int:
    permutation = [1, 5, 7, 6, 2, 8, 3, 0, 9, 4]
    check = 0
    for position, character in enumerate(reversed(identifier)):
        digit = int(character)
        for _ in range(position % 8):
            digit = permutation[digit]
        check = dihedral(check, digit)
    return check


def context_groups(value: str) -> set[int]:
    concepts = _concepts_dict.concepts["SCT"].values()
    return {cid for concept in concepts if value in concept for cid in concept[value][1]}


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.meaning)
def test_every_snomed_identifier_has_a_correct_check_digit(code: terminology.Code) -> None:
    assert code.scheme == "SCT"
    assert verhoeff_remainder(code.value) == 0
    assert verhoeff_remainder(str(int(code.value) + 1)) != 0


def test_categories_are_members_of_cid_7150_and_types_of_cid_7151() -> None:
    for row in terminology.structures().values():
        assert 7150 in context_groups(row.category.value), row.key
        assert 7151 in context_groups(row.type.value), row.key
        if row.modifier:
            assert 244 in context_groups(row.modifier.value), row.key


def test_meanings_are_those_of_the_dicom_dictionary() -> None:
    for code in CODES:
        meanings = {
            concept[code.value][0]
            for concept in _concepts_dict.concepts["SCT"].values()
            if code.value in concept
        }
        assert code.meaning in meanings


def test_two_structures_never_share_their_codes_or_their_colour() -> None:
    rows = list(terminology.structures().values())
    assert len({(row.category, row.type, row.modifier) for row in rows}) == len(rows)
    assert len({row.rgb for row in rows}) == len(rows)
    assert all(0 <= value <= 255 for row in rows for value in row.rgb)


def test_lungs_differ_by_their_side_only() -> None:
    left, right = terminology.coded("left_lung"), terminology.coded("right_lung")
    assert (left.category, left.type) == (right.category, right.type)
    assert left.modifier == terminology.Code("7771000", "SCT", "Left")
    assert right.modifier == terminology.Code("24028007", "SCT", "Right")


def test_a_structure_without_a_row_is_refused_and_never_coded_by_default() -> None:
    with pytest.raises(ModelError, match="STRUCTURE_NOT_CODED") as refused:
        terminology.coded("spleen")
    assert "codes.csv" in refused.value.reason
    assert "left_lung" in refused.value.reason
