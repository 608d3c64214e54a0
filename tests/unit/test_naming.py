"""From the names that models give their structures to codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ai import terminology
from ai.model import Structure
from ai.terminology.colours import distinct_colour
from ai.terminology.naming import key_of, private_code, split_side, structure_entries

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


def test_an_unknown_name_gets_a_private_code_that_never_changes_and_a_warning() -> None:
    entries, warnings = structure_entries({0: "background", 1: "spleen", 2: "Whatsit of Doe, posterior part"})
    assert entries[0] == {"number": 1, "key": "spleen", "label": "Spleen"}
    structure = Structure.model_validate(entries[1])
    assert (structure.number, structure.key) == (2, "whatsit_of_doe_posterior_part")
    assert structure.coded.type.scheme == "99GATEWAY"
    assert len(structure.coded.type.value) <= 16
    assert structure.coded.type.value.startswith("WHATSIT_O_")
    assert structure_entries({5: "Whatsit of Doe, posterior part"})[0][0]["coding"] == entries[1]["coding"]
    (warning,) = warnings
    assert "'Whatsit of Doe, posterior part' has no code" in warning
    assert f"99GATEWAY:{structure.coded.type.value}" in warning


def test_what_is_diseased_is_no_anatomical_structure() -> None:
    (tumour, organ), _ = structure_entries({1: "enhancing tumour", 2: "organoid"})
    assert Structure.model_validate(tumour).coded.category.meaning == "Morphologically Altered Structure"
    assert Structure.model_validate(organ).coded.category.meaning == "Anatomical Structure"


def test_two_labels_that_mean_the_same_stay_two_structures() -> None:
    entries, warnings = structure_entries({1: "kidney_left", 2: "Left kidney", 3: "foo bar", 4: "foo-bar"})
    structures = [Structure.model_validate(entry) for entry in entries]
    assert len({structure.key for structure in structures}) == 4
    assert len({structure.coded.type.value + str(structure.coded.modifier) for structure in structures}) == 4
    assert len({structure.coded.rgb for structure in structures}) == 4
    assert "means 'left_kidney', which another label of the model means too" in warnings[0]


@pytest.mark.parametrize("name", ["", "  ", "€€€", "a" * 300, "Größe 1", "-", "_x_"])
def test_any_text_makes_a_valid_structure(name: str) -> None:
    (entry,), _ = structure_entries({7: name})
    structure = Structure.model_validate(entry)
    assert structure.coded.type.value
    assert structure.coded.type.meaning


def test_private_codes_of_long_names_differ_where_the_names_do() -> None:
    one, other = (private_code(f"A very long name of something, part {n}", "x").value for n in (1, 2))
    assert one != other
    assert max(len(one), len(other)) <= 16


def test_two_hundred_unknown_structures_have_colours_that_differ() -> None:
    entries, warnings = structure_entries({n: f"unknown thing {n}" for n in range(1, 201)})
    colours = {Structure.model_validate(entry).coded.rgb for entry in entries}
    assert len(colours) == len(warnings) == 200


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
    entries, warnings = structure_entries(dict(enumerate(names)))
    assert len(entries) == 17
    assert [w.split("'")[1] for w in warnings] == ["VentralDC"]  # PS3.16 has no code for it
