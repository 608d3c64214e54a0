"""The table of coded structures."""

from __future__ import annotations

import re
from importlib import resources

import highdicom
import numpy as np
import pytest
from pydicom.sr import _concepts_dict
from pydicom.sr._snomed_dict import mapping as SNOMED
from pydicom.sr.codedict import codes

from ai import terminology
from ai.errors import ModelError
from ai.loaders.totalsegmentator.cards import _NAMES
from ai.loaders.totalsegmentator.tasks import table
from ai.model import find_card
from ai.terminology.check_digit import is_snomed_identifier
from ai.terminology.naming import PRIVATE_SCHEME, structure_entries

ROWS = list(terminology.structures().values())
CODES = sorted(
    {code for row in ROWS for code in (row.category, row.type, row.modifier, row.region) if code is not None},
    key=lambda code: (code.scheme, code.value, code.meaning),
)
MAPPING = "TotalSegmentator 2.18.0 snomed mapping (Apache-2.0)"
MAPPED = {terminology.Code("91381003", "SCT", "Pleural cavity")}
"""Regions that the published mapping has, and PS3.16 has not."""
NONE = "No concept in PS3.16 as pydicom 3.0.2 has it: private code"
ALIKE = {("brain_tumor", "brain_tumor_core")}
"""The core is the tumour itself, without the oedema around it: the same concept under two names."""
BUNDLES = {
    "spleen_ct_segmentation": ["spleen"],
    "brats_mri_segmentation": ["Tumor core", "Whole tumor", "Enhancing tumor"],
    "prostate_mri_anatomy": ["central gland", "peripheral zone"],
    "pancreas_ct_dints_segmentation": ["pancreas", "pancreatic tumor"],
    "lung_nodule": ["lung nodule"],
    "lungs": ["left lung", "right lung"],
    "globes": ["left globe", "right globe"],
    "vertebrae": [f"vertebrae_{v}" for v in ("C1", "C7", "T1", "T12", "L1", "L5")],
    "swin_unetr_btcv_segmentation": [
        "Spleen",
        "Right Kidney",
        "Left Kideny",
        "Gallbladder",
        "Esophagus",
        "Liver",
        "Stomach",
        "Aorta",
        "IVC",
        "Portal and Splenic Veins",
        "Pancreas",
        "Right adrenal gland",
        "Left adrenal gland",
    ],
    "wholeBrainSeg_Large_UNEST_segmentation": [
        "3rd-Ventricle",
        "Right-Accumbens-Area",
        "Left-Cerebellum-Exterior",
        "Right-Ventral-DC",
        "Brain-Stem",
        "Cerebellar-Vermal-Lobules-I-V",
        "Left-Basal-Forebrain",
        "Right-ACgG--anterior-cingulate-gyrus",
        "Left-AnG---angular-gyrus",
        "Right-MPoG--postcentral-gyrus",
        "Right-PoG---postcentral-gyrus",
        "Left-OpIFG-opercular-part-of-the-IFG",
        "Left-Ent---entorhinal-area",
        "Right-TTG---transverse-temporal-gyrus",
    ],
}
"""Names that public MONAI bundles give their channels (channel_def); those of the whole body are those of
TotalSegmentator 1, and of the whole brain some of each kind."""


def known(code: terminology.Code) -> set[str]:
    """Meanings of a concept in the dictionary of PS3.16."""
    concepts = _concepts_dict.concepts.get(code.scheme, {}).values()
    return {c[code.value][0].removesuffix(" (body structure)") for c in concepts if code.value in c}


def context_groups(code: terminology.Code) -> set[int]:
    concepts = _concepts_dict.concepts.get(code.scheme, {}).values()
    return {cid for concept in concepts if code.value in concept for cid in concept[code.value][1]}


def test_every_snomed_identifier_has_a_correct_check_digit() -> None:
    identifiers = {code.value for code in CODES if code.scheme == "SCT"}
    assert len(identifiers) > 250
    for value in identifiers:
        assert is_snomed_identifier(value), value
        assert not is_snomed_identifier(str(int(value) + 1))
        swapped = value[1] + value[0] + value[2:]
        assert value[0] == value[1] or not is_snomed_identifier(swapped), "two digits exchanged"
    assert not any(is_snomed_identifier(text) for text in ("", "12345", "٣٩٦٠٧٠٠٨", "39607008 ", "0" * 8))


def test_codes_fit_their_attributes() -> None:
    assert {code.scheme for code in CODES} == {"SCT", "DCM", "NCIt", PRIVATE_SCHEME}
    for code in CODES:
        assert 1 <= len(code.value) <= 16, code
        assert 1 <= len(code.meaning) <= 64, code
        assert "\\" not in code.meaning
    assert all(len(row.label) <= 64 for row in ROWS)


def test_the_category_is_that_of_cid_7150_and_the_file_says_why() -> None:
    """91723000 and not 123037004, as pydicom and, through it, highdicom have it."""
    current = codes.cid7150.AnatomicalStructure
    assert (current.value, current.meaning) == ("91723000", "Anatomical Structure")
    assert highdicom.sr.CodedConcept(*current[:3]).value == "91723000"
    other = terminology.Code("123037004", "SCT", "")
    assert known(other) == {"Body structure"}
    assert not context_groups(other), "it is in no context group of PS3.16"
    assert SNOMED["SCT"]["123037004"] == "T-D000A", "the code of DICOM before 2016"
    assert {row.category.value for row in ROWS} == {
        "91723000",
        "49755003",
        "85756007",
        "260787004",
        "91720002",
    }
    file = resources.files("ai.terminology").joinpath("codes.csv").read_text(encoding="utf-8")
    said = " ".join(line.removeprefix("# ") for line in file.splitlines() if line.startswith("#"))
    assert "91723000 or 123037004" in said
    assert "So 91723000 is written here" in said
    assert "123037004" not in file.partition("key,label")[2]


def test_categories_are_members_of_cid_7150_and_sides_of_cid_244() -> None:
    for row in ROWS:
        assert 7150 in context_groups(row.category), row.key
        assert row.category.meaning in known(row.category), row.key
        if row.modifier and row.key not in ("anterior_hippocampus", "posterior_hippocampus"):
            assert 244 in context_groups(row.modifier), row.key
        for code in (row.modifier, row.region):
            assert code is None or code.meaning in known(code) or code in MAPPED, row.key


def test_a_type_is_a_concept_of_dicom_or_of_the_mapping_or_said_to_be_private() -> None:
    foreign = {row.key for row in ROWS if not known(row.type)}
    for row in ROWS:
        if row.type.scheme == PRIVATE_SCHEME:
            assert row.source.startswith(NONE), row.key
        elif row.key in foreign:
            assert row.source.startswith(MAPPING), row.key
        else:
            assert row.source.startswith("PS3.16 "), row.key
            assert row.type.meaning in known(row.type), row.key
    private = [row for row in ROWS if row.type.scheme == PRIVATE_SCHEME]
    assert len(foreign) - len(private) < len(ROWS) / 10
    standard = [row for row in ROWS if row.type.scheme != PRIVATE_SCHEME]
    most = [row for row in standard if 7151 in context_groups(row.type)]
    assert len(most) > len(standard) * 2 / 3


def test_a_source_that_names_a_context_group_is_right() -> None:
    for row in ROWS:
        if named := re.match(r"PS3\.16 CID (\d+)\b(?! and)", row.source):
            assert int(named[1]) in context_groups(row.type), row.key


def test_what_is_private_has_no_concept_of_its_name_in_the_dictionary() -> None:
    meanings = {
        entry[0].lower().removesuffix(" (body structure)").removesuffix(" structure")
        for scheme in ("SCT", "DCM", "NCIt", "FMA")
        for concept in _concepts_dict.concepts[scheme].values()
        for entry in concept.values()
    }
    for row in ROWS:
        if row.type.scheme == PRIVATE_SCHEME:
            words = row.type.meaning.lower()
            assert not {words, f"{words} muscle", f"{words} bone"} & meanings, row.key


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
    owners: dict[object, list[str]] = {}
    for row in ROWS:
        values = (row.category, row.type, row.modifier, row.region)
        owners.setdefault(tuple(c and (c.value, c.scheme) for c in values), []).append(row.key)
    assert {tuple(keys) for keys in owners.values() if len(keys) > 1} == ALIKE
    assert len({row.rgb for row in ROWS}) == len(ROWS)
    assert all(0 <= value <= 255 for row in ROWS for value in row.rgb)
    assert len({row.label for row in ROWS}) == len(ROWS)


def test_a_code_value_has_one_meaning() -> None:
    meanings: dict[tuple[str, str], set[str]] = {}
    for code in CODES:
        meanings.setdefault((code.scheme, code.value), set()).add(code.meaning)
    assert {key: said for key, said in meanings.items() if len(said) > 1} == {}


def models() -> dict[str, list[str]]:
    """Names of structures by model: every task of TotalSegmentator, our own, and public bundles."""
    found = {task: [_NAMES.get(name, name) for name in table().task(task).classes] for task in table().tasks}
    for name in ("ct-tissue", "hippocampus"):
        found[name] = [structure.key for structure in find_card(name).structures]
    return found | BUNDLES


@pytest.mark.parametrize("model", models())
def test_every_structure_of_a_model_is_coded_and_its_colours_can_be_told_apart(model: str) -> None:
    named = structure_entries(dict(enumerate(models()[model], start=1)))
    assert not named.uncoded
    rows = [terminology.coded(str(entry["key"])) for entry in named.entries]
    lab = np.array([_lab(row.rgb) for row in rows])
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=-1) + 1e3 * np.eye(len(rows))
    one, other = np.unravel_index(apart.argmin(), apart.shape)
    assert apart.min() >= 8.0, (rows[one].key, rows[other].key)  # ΔE*ab; about 2.3 is just seen


def _lab(rgb: tuple[int, int, int]) -> tuple[float, float, float]:
    """CIELab, D50, as the Recommended Display CIELab Value has it."""
    lightness, a, b = highdicom.color.CIELabColor.from_rgb(*rgb).lab
    return lightness, a, b


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
