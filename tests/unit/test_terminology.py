"""The table of coded structures."""

from __future__ import annotations

import pytest
from pydicom.sr import _concepts_dict

from ai import terminology
from ai.errors import ModelError

ROWS = list(terminology.structures().values())
CODES = sorted(
    {code for row in ROWS for code in (row.category, row.type, row.modifier, row.region) if code is not None},
    key=lambda code: code.value,
)
MAPPING = "TotalSegmentator 2.18.0 snomed mapping (Apache-2.0)"


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


def known(value: str) -> set[str]:
    """Meanings of a concept in the dictionary of PS3.16."""
    concepts = _concepts_dict.concepts["SCT"].values()
    return {concept[value][0].removesuffix(" (body structure)") for concept in concepts if value in concept}


def context_groups(value: str) -> set[int]:
    concepts = _concepts_dict.concepts["SCT"].values()
    return {cid for concept in concepts if value in concept for cid in concept[value][1]}


def test_every_snomed_identifier_has_a_correct_check_digit() -> None:
    assert len(CODES) > 180
    for code in CODES:
        assert code.scheme == "SCT"
        assert verhoeff_remainder(code.value) == 0, code
        assert verhoeff_remainder(str(int(code.value) + 1)) != 0


def test_categories_are_members_of_cid_7150_and_sides_of_cid_244() -> None:
    for row in ROWS:
        assert 7150 in context_groups(row.category.value), row.key
        if row.modifier and row.key not in ("anterior_hippocampus", "posterior_hippocampus"):
            assert 244 in context_groups(row.modifier.value), row.key


def test_a_type_is_a_concept_of_dicom_or_of_the_published_mapping_that_its_row_names() -> None:
    foreign = {row.key for row in ROWS if not known(row.type.value)}
    assert len(foreign) < len(ROWS) / 5
    for row in ROWS:
        if row.key in foreign:
            assert row.source.startswith(MAPPING), row.key
        else:
            assert row.source.startswith("PS3.16 "), row.key
            assert row.type.meaning in known(row.type.value), row.key
    most = [row for row in ROWS if 7151 in context_groups(row.type.value)]
    assert len(most) > len(ROWS) * 3 / 4


def test_the_mapping_s_mistakes_are_not_repeated() -> None:
    left, right = (terminology.coded(f"{side}_subclavian_artery") for side in ("left", "right"))
    assert left.type == right.type == terminology.Code("36765005", "SCT", "Subclavian artery")
    assert terminology.coded("gluteus_minimus").type != terminology.coded("gluteus_medius").type


def test_what_is_found_in_many_places_says_where() -> None:
    bleedings = [row for row in ROWS if row.type.value == "50960005"]
    assert {row.region.meaning for row in bleedings if row.region} == {
        "Brain",
        "Brain ventricle",
        "Intracranial",
    }
    for row in ROWS:
        if row.category.value == "49755003":
            assert row.region is not None, row.key


def test_two_structures_never_share_their_codes_or_their_colour() -> None:
    assert len({(row.category, row.type, row.modifier, row.region) for row in ROWS}) == len(ROWS)
    assert len({row.rgb for row in ROWS}) == len(ROWS)
    assert all(0 <= value <= 255 for row in ROWS for value in row.rgb)
    assert len({row.label for row in ROWS}) == len(ROWS)


def test_lungs_differ_by_their_side_only() -> None:
    left, right = terminology.coded("left_lung"), terminology.coded("right_lung")
    assert (left.category, left.type) == (right.category, right.type)
    assert left.modifier == terminology.Code("7771000", "SCT", "Left")
    assert right.modifier == terminology.Code("24028007", "SCT", "Right")


def test_a_structure_without_a_row_is_refused_and_never_coded_by_default() -> None:
    with pytest.raises(ModelError, match="STRUCTURE_NOT_CODED") as refused:
        terminology.coded("left_lungg")
    assert "codes.csv" in refused.value.reason
    assert "left_lung" in refused.value.reason.partition("Close ones are")[2]
