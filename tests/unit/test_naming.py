"""From the names that models give their structures to codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ai import terminology
from ai.errors import ModelError
from ai.model import Structure
from ai.terminology import Code
from ai.terminology.colours import distinct_colour
from ai.terminology.given import given_in, given_in_file
from ai.terminology.naming import (
    key_of,
    nested_parts,
    private_code,
    split_side,
    structure_entries,
    with_codes,
)

WEIGHTS = Path(__file__).parents[3] / "shared" / "data" / "weights"


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("kidney_left", "left_kidney"),
        ("Left Kidney", "left_kidney"),
        ("L-Kidney", "left_kidney"),
        ("kidney R", "right_kidney"),
        ("rib_left_12", "left_rib_12"),
        ("vertebrae_L5", "vertebra_l5"),
        ("Left-Thalamus-Proper", "left_thalamus"),
        ("lh_hippocampus", "left_hippocampus"),
        ("CerebralWhiteMatter", "cerebral_white_matter"),
        ("3rd-Ventricle", "third_ventricle"),
        ("Oesophagus", "esophagus"),
        ("Liver tumour", "liver_tumor"),
        ("IVH", "intraventricular_hemorrhage"),
        ("heart_atrium_left", "left_atrium"),
        ("iliac_vena_right", "right_iliac_vein"),
        ("inferior_vena_cava", "inferior_vena_cava"),
        ("spleen", "spleen"),
        ("right globe", "right_eyeball"),
        ("background", None),
        ("left", None),
        ("", None),
    ],
)
def test_a_name_is_understood_however_it_is_written(name: str, key: str | None) -> None:
    assert key_of(name) == key


def test_a_side_is_a_word_or_a_letter_at_an_end() -> None:
    assert split_side("lung_upper_lobe_left") == ("lung_upper_lobe", "left")
    assert split_side("l_lung") == ("lung", "left")
    assert split_side("vertebra_l_1") == ("vertebra_l_1", "")
    assert split_side("R") == ("r", "")


def test_every_row_of_the_table_is_found_by_its_key_and_its_label() -> None:
    for key, row in terminology.structures().items():
        assert key_of(key) == key
        assert key_of(row.label) == key, row.label


def test_an_unknown_name_gets_a_private_code_that_never_changes_and_is_told() -> None:
    found = structure_entries({0: "background", 1: "spleen", 2: "Whatsit of Doe, posterior part"})
    assert found.entries[0] == {"number": 1, "key": "spleen", "label": "Spleen"}
    structure = Structure.model_validate(found.entries[1])
    assert (structure.number, structure.key) == (2, "whatsit_of_doe_posterior_part")
    assert structure.coded.type.scheme == "99GATEWAY"
    assert len(structure.coded.type.value) <= 16
    assert structure.coded.type.value.startswith("WHATSIT_O_")
    again = structure_entries({5: "Whatsit of Doe, posterior part"})
    assert again.entries[0]["coding"] == found.entries[1]["coding"]
    assert found.uncoded == {2: "has no code"}
    assert found.names == {1: "spleen", 2: "Whatsit of Doe, posterior part"}


def test_what_is_diseased_is_no_anatomical_structure() -> None:
    tumour, organ = structure_entries({1: "enhancing tumour", 2: "organoid"}).entries
    assert Structure.model_validate(tumour).coded.category.meaning == "Morphologically Abnormal Structure"
    assert Structure.model_validate(organ).coded.category.meaning == "Anatomical Structure"


def test_two_labels_that_mean_the_same_stay_two_structures() -> None:
    found = structure_entries({1: "kidney_left", 2: "Left kidney", 3: "foo bar", 4: "foo-bar"})
    structures = [Structure.model_validate(entry) for entry in found.entries]
    assert len({structure.key for structure in structures}) == 4
    assert len({structure.coded.type.value + str(structure.coded.modifier) for structure in structures}) == 4
    assert len({structure.coded.rgb for structure in structures}) == 4
    assert found.uncoded[2] == "means 'left_kidney', which another label of the model means too"


def test_the_parts_of_a_brain_tumour_are_known_together_and_not_alone() -> None:
    names = {1: "Whole tumour", 2: "tumor core", 3: "Enhancing tumor"}
    keys = [entry["key"] for entry in structure_entries(names).entries]
    assert keys == ["brain_whole_tumor", "brain_tumor_core", "brain_enhancing_tumor"]
    assert structure_entries({1: "tumor core", 2: "liver"}).uncoded == {1: "has no code"}
    assert nested_parts(names) == {1: [2, 3], 2: [3]}
    assert nested_parts({1: "liver", 2: "enhancing tumor", 3: "tumor core"}) == {3: [2]}
    assert nested_parts({1: "left atrium", 2: "left heart"}) == {}


def test_a_person_gives_codes_by_key_or_in_full() -> None:
    found = structure_entries({1: "spleen", 2: "left thingummy", 3: "gizmo"})
    given = dict(
        given_in(text)
        for text in ("Left Thingummy = left_lung", "gizmo=SCT:10200004:Liver")  # however it is written
    )
    said = with_codes(found, given)
    lung, liver = (Structure.model_validate(entry) for entry in said.entries[1:])
    assert (lung.number, lung.key, lung.label, lung.coding) == (2, "left_lung", "Left lung", None)
    assert (liver.key, liver.coded.type) == ("gizmo", Code("10200004", "SCT", "Liver"))
    assert liver.coded.category.value == "91723000"
    assert said.uncoded == {}
    assert found.uncoded.keys() == {2, 3}, "nothing is changed in place"


def test_codes_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "codes.csv"
    roles, columns = ("category", "type", "region"), ("value", "scheme", "meaning")
    lines = [
        "# ours",
        ",".join(["name", "key", *(f"{role}_{column}" for role in roles for column in columns)]),
        "thingummy,spleen,,,,,,,,,",
        "gizmo,,49755003,SCT,Morphologically Abnormal Structure,41699000,SCT,Effusion,39607008,SCT,Lung",
    ]
    path.write_text("\n".join(lines), encoding="utf-8-sig")
    said = with_codes(structure_entries({1: "Gizmo", 2: "thingummy"}), given_in_file(path))
    gizmo, spleen = (Structure.model_validate(entry).coded for entry in said.entries)
    assert (gizmo.category.value, gizmo.type.meaning) == ("49755003", "Effusion")
    assert gizmo.region == Code("39607008", "SCT", "Lung")
    assert spleen.key == "spleen"


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("gizmo", "CODE_INVALID", "NAME=key"),
        ("=liver", "CODE_INVALID", "NAME=key"),
        ("gizmo=livre", "STRUCTURE_NOT_CODED", "liver"),
        ("gizmo=SCT:10200004", "CODE_INVALID", "lacks the meaning"),
        ("gizmo=SCT:10200005:Liver", "CODE_INVALID", "check digit"),
        ("gizmo=99LAB:01234567890123456:Liver", "CODE_INVALID", "too long"),
        ("gizmo=99LAB:L\\:Liver", "CODE_INVALID", "without a backslash"),
        (f"gizmo=99LAB:L:{'x' * 65}", "CODE_INVALID", "too long"),
    ],
)
def test_a_code_that_is_none_is_refused(text: str, code: str, says: str) -> None:
    with pytest.raises(ModelError) as refused:
        given_in(text)
    assert refused.value.code == code
    assert says in refused.value.reason


def test_names_that_the_model_has_not_and_keys_that_are_taken_are_refused() -> None:
    found = structure_entries({1: "spleen", 2: "gizmo"})
    with pytest.raises(ModelError, match="CODE_NAME_UNKNOWN") as refused:
        with_codes(found, dict([given_in("gadget=liver")]))
    assert "it has spleen, gizmo" in refused.value.reason
    with pytest.raises(ModelError, match="CODE_INVALID"):
        with_codes(found, dict([given_in("gizmo=spleen")]))


@pytest.mark.parametrize("content", [b"", b"key\nliver\n", b"\xff\xfe\x00", b"name,key\ngizmo,\n"])
def test_a_file_without_codes_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "codes.csv").write_bytes(content)
    with pytest.raises(ModelError, match="CODE_INVALID"):
        given_in_file(tmp_path / "codes.csv")


@pytest.mark.parametrize("name", ["", "  ", "€€€", "a" * 300, "Größe 1", "-", "_x_"])
def test_any_text_makes_a_valid_structure(name: str) -> None:
    (entry,) = structure_entries({7: name}).entries
    structure = Structure.model_validate(entry)
    assert structure.coded.type.value
    assert structure.coded.type.meaning


def test_private_codes_of_long_names_differ_where_the_names_do() -> None:
    one, other = (private_code(f"A very long name of something, part {n}", "x").value for n in (1, 2))
    assert one != other
    assert max(len(one), len(other)) <= 16


def test_two_hundred_unknown_structures_have_colours_that_differ() -> None:
    found = structure_entries({n: f"unknown thing {n}" for n in range(1, 201)})
    colours = {Structure.model_validate(entry).coded.rgb for entry in found.entries}
    assert len(colours) == len(found.uncoded) == 200


def test_a_colour_is_never_one_that_is_taken() -> None:
    levels = range(0, 256, 127)
    taken = {(r, g, b) for r in levels for g in levels for b in levels}  # no free place between them
    for _ in range(100):  # more than there are candidates
        colour = distinct_colour("one name", taken)
        assert colour not in taken
        taken.add(colour)


def test_the_structures_of_the_brain_networks_have_codes() -> None:
    path = WEIGHTS / "brainchop_meshnet" / "model18cls" / "colormap.json"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    names = json.loads(path.read_text(encoding="utf-8"))["labels"]
    found = structure_entries(dict(enumerate(names)))
    assert len(found.entries) == 17
    assert not found.uncoded
