"""Writes ai/terminology/codes.csv and synonyms.csv again from published tables of codes.

    seed_codes.py MAPPING.csv

MAPPING.csv is ``totalsegmentator_snomed_mapping.csv`` of the package TotalSegmentator 2.18.0 (Apache-2.0).
Nothing is made up here: the value of a code comes from that table or is named below, and stands in the
output only if the concept dictionary of PS3.16 (as pydicom has it) knows it, or if that table alone does.
The meaning is the dictionary's where it has the value. Rows of codes.csv that were there are kept.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from pydicom.sr import _concepts_dict

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from ai.terminology.colours import Rgb, distinct_colour  # noqa: E402 - the path comes first
from ai.terminology.naming import split_side  # noqa: E402 - the path comes first

FOLDER = ROOT / "ai" / "terminology"
KEPT = ("body", "left_lung", "right_lung", "bone", "metal_implant")  # coded by hand, first of all
ANATOMY, ALTERED, TISSUE, SUBSTANCE = "91723000", "49755003", "85756007", "91720002"
BODY_STRUCTURE = "123037004"  # what the mapping writes for Anatomical Structure
SIDES = {"left": "7771000", "right": "24028007"}
ANTERIOR, POSTERIOR = "255549009", "255551008"
BRAIN, LUNG, VENTRICLES, INTRACRANIAL = "12738006", "39607008", "35764002", "1101003"
OKABE_ITO = "Okabe-Ito"
MAPPING = "TotalSegmentator 2.18.0 snomed mapping (Apache-2.0)"

KEYS = {  # name in the mapping → our key, where turning the side to the front is not enough
    "heart_atrium_left": "left_atrium",
    "heart_atrium_right": "right_atrium",
    "heart_ventricle_left": "left_ventricle",
    "heart_ventricle_right": "right_ventricle",
    "heart_myocardium": "myocardium",
    "lung_middle_lobe_right": "right_lung_middle_lobe",
    "ribs": "rib",
    "tarsal": "tarsal_bones",
    "metatarsal": "metatarsal_bones",
    "carpal": "carpal_bones",
    "metacarpal": "metacarpal_bones",
    "body_trunc": "trunk",
    "body_extremities": "extremities",
    "vertebrae_body": "vertebral_body",
    "vertebrae_lumbar": "lumbar_vertebra",
    "vertebrae_thoracic": "thoracic_vertebra",
    "vertebrae_cervical": "cervical_vertebra",
    "atrial_appendage_left": "left_atrial_appendage",
    "lung_pleural": "pleura",
    "costal_cartilages": "costal_cartilage",
}
BASES = {"clavicula": "clavicle", "iliac_vena": "iliac_vein", "autochthon": "deep_back_muscle"}
CORRECTED = {  # name in the mapping without its side → value, where the dictionary shows the mapping wrong
    "subclavian_artery": "36765005",  # 29700009 is the right one, also written for the left
    "gluteus_minimus": "75297007",  # without a side the mapping repeats gluteus medius
    "atrial_appendage": "33626005",  # left auricular appendage, in CID 4
}
MEANINGS = {"75297007": "Gluteus minimus muscle", "38848004": "Duodenum"}  # typing mistakes of the mapping
REGIONS = {"phalanges_feet": "56459004", "phalanges_hand": "85562004"}  # foot, hand: else one code for both
LEFT_OUT = {"lung_covid_infiltrate"}  # its modifier is a disease, which a type of segment has no place for


class Own(NamedTuple):
    """A structure that the mapping lacks. ``sides``: also a left and a right one."""

    key: str
    type: str
    category: str = ANATOMY
    modifier: str = ""
    region: str = ""
    sides: bool = False
    label: str = ""
    rgb: Rgb | None = None
    names: tuple[str, ...] = ()
    palette: str = "FreeSurfer colour table"


OWN = (
    Own("lung", LUNG, names=("lungs",)),
    Own("cerebral_white_matter", "68523003", sides=True, rgb=(245, 245, 245)),
    Own("cerebral_cortex", "40146001", sides=True, rgb=(205, 62, 78)),
    Own("lateral_ventricle", "66720007", sides=True, rgb=(120, 18, 134)),
    Own(
        "inferior_lateral_ventricle",
        "53118009",
        sides=True,
        rgb=(196, 58, 250),
        names=("inf_lat_vent", "inferior_horn_of_lateral_ventricle"),
    ),
    Own(
        "cerebellar_white_matter",
        "33060004",
        sides=True,
        rgb=(220, 248, 164),
        names=("cerebellum_white_matter",),
    ),
    Own("cerebellar_cortex", "25991003", sides=True, rgb=(230, 148, 34), names=("cerebellum_cortex",)),
    Own("thalamus", "42695009", sides=True, rgb=(0, 118, 14), names=("thalamus_proper",)),
    Own("caudate_nucleus", "11000004", sides=True, rgb=(122, 186, 220), names=("caudate",)),
    Own("putamen", "89278009", sides=True, rgb=(236, 13, 176)),
    Own("globus_pallidus", "14738005", sides=True, rgb=(12, 48, 255), names=("pallidum",)),
    Own("third_ventricle", "49841001", rgb=(204, 182, 142), names=("3rd_ventricle",)),
    Own("fourth_ventricle", "35918002", rgb=(42, 204, 164), names=("4th_ventricle",)),
    Own("brain_stem", "119238007", rgb=(119, 159, 176), names=("brainstem",)),
    Own("hippocampus", "5366008", sides=True, rgb=(220, 216, 20)),
    Own(
        "anterior_hippocampus",
        "5366008",
        modifier=ANTERIOR,
        rgb=(213, 94, 0),
        names=("hippocampus_anterior",),
        palette=OKABE_ITO,
    ),
    Own(
        "posterior_hippocampus",
        "5366008",
        modifier=POSTERIOR,
        rgb=(0, 114, 178),
        names=("hippocampus_posterior",),
        palette=OKABE_ITO,
    ),
    Own("amygdala", "4958002", sides=True, rgb=(103, 255, 255)),
    Own(
        "nucleus_accumbens", "427667007", sides=True, rgb=(255, 165, 0), names=("accumbens_area", "accumbens")
    ),
    Own("white_matter", "389080008"),
    Own("gray_matter", "389081007"),
    Own("cerebellum", "113305005", sides=True),
    Own("cerebrospinal_fluid", "65216001", category=SUBSTANCE, names=("csf",)),
    Own("brain_ventricle", VENTRICLES, names=("brain_ventricles", "ventricular_system")),
    Own("subarachnoid_space", "35951006"),
    Own("frontal_lobe", "83251001", sides=True),
    Own("parietal_lobe", "16630005", sides=True),
    Own("occipital_lobe", "31065004", sides=True),
    Own("temporal_lobe", "78277001", sides=True),
    Own("insula", "36169008", sides=True, names=("insular_cortex",)),
    Own("internal_capsule", "85637007", sides=True),
    Own("optic_chiasm", "244453006", names=("chiasm",)),
    Own("optic_nerve", "18234004", sides=True),
    Own("eyeball", "79652003", sides=True, names=("globe", "eye_globe")),
    Own("eye", "81745001", sides=True),
    Own("lens", "78076003", sides=True, names=("eye_lens",)),
    Own("orbit", "363654007", sides=True),
    Own("parotid_gland", "45289007", sides=True, names=("parotid",)),
    Own("submandibular_gland", "54019009", sides=True, names=("submandibular",)),
    Own("mandible", "91609006"),
    Own("maxilla", "70925003"),
    Own("tongue", "21974007"),
    Own("larynx", "4596009"),
    Own("pharynx", "54066008"),
    Own("nasopharynx", "360955006"),
    Own("oropharynx", "31389004", label="Oropharynx"),
    Own("hypopharynx", "81502006"),
    Own("internal_carotid_artery", "86117002", sides=True),
    Own("internal_jugular_vein", "12123001", sides=True),
    Own("vertebra", "51282000", names=("vertebrae",)),
    Own("spine", "421060004", names=("vertebral_column",)),
    Own("airway", "89187006", names=("airways",)),
    Own("bronchus", "955009"),
    Own("mediastinum", "72410000"),
    Own("diaphragm", "5798000"),
    Own("breast", "76752008", sides=True),
    Own("uterus", "35039007"),
    Own("ovary", "15497006", sides=True),
    Own("testis", "40689003", sides=True),
    Own("prostate_transition_zone", "399384005", names=("transition_zone", "transition_zone_of_prostate")),
    Own("prostate_peripheral_zone", "279706003", names=("peripheral_zone", "peripheral_zone_of_prostate")),
    Own("renal_artery", "2841007", sides=True),
    Own("renal_vein", "56400007", sides=True),
    Own("skin", "39937001", category=TISSUE),
    Own("muscle", "91727004", category=TISSUE),
    Own("fat", "55603005", category=TISSUE, names=("adipose_tissue",)),
    Own("intraventricular_hemorrhage", "50960005", ALTERED, region=VENTRICLES, names=("ivh",)),
    Own(
        "extraaxial_hemorrhage",
        "50960005",
        ALTERED,
        region=INTRACRANIAL,
        label="Extra-axial hemorrhage",
        names=("eah", "extra_axial_hemorrhage"),
    ),
    Own("brain_edema", "79654002", ALTERED, region=BRAIN, names=("perilesional_edema",)),
    Own("brain_lesion", "52988006", ALTERED, region=BRAIN),
    Own("brain_tumor", "108369006", ALTERED, region=BRAIN),
    Own("lung_nodule", "27925004", ALTERED, region=LUNG, names=("lung_nodules",)),
    Own("lung_lesion", "52988006", ALTERED, region=LUNG),
    Own("lung_tumor", "108369006", ALTERED, region=LUNG),
    Own("pancreas_tumor", "108369006", ALTERED, region="15776009"),
    Own("kidney_tumor", "108369006", ALTERED, region="64033007"),
    Own("colon_tumor", "108369006", ALTERED, region="71854001"),
    Own("liver_lesion", "52988006", ALTERED, region="10200004", names=("liver_lesions",)),
)
MORE_NAMES = {  # what models call structures that the mapping has
    "liver_tumor": ("hepatic_tumor",),
    "liver_vessels": ("hepatic_vessels",),
    "intracerebral_hemorrhage": ("intraparenchymal_hemorrhage", "iph"),
    "small_bowel": ("small_intestine",),
    "urinary_bladder": ("bladder",),
    "brain": ("brain_mask", "whole_brain"),
    "gallbladder": ("gall_bladder",),
    "deep_back_muscle": ("autochthonous_back_muscle",),
    "left_ventricle": ("left_ventricular_cavity", "left_ventricle_cavity"),
    "inferior_vena_cava": ("ivc", "postcava"),
    "superior_vena_cava": ("svc",),
    "portal_vein_and_splenic_vein": ("portal_and_splenic_veins",),
    "thyroid_gland": ("thyroid",),
    "adrenal_gland": ("adrenal",),
}
LABELS = {"trunk": "Trunk", "left_atrial_appendage": "Left atrial appendage", "rib": "Ribs"}


class Row(NamedTuple):
    """One structure; codes as ``(value, meaning)``."""

    key: str
    label: str
    category: str
    type: tuple[str, str]
    modifier: str
    region: tuple[str, str]
    rgb: Rgb | None
    source: str


def meaning_of(value: str, preferred: str = "") -> str:
    """What PS3.16 calls a concept; empty where its dictionary has no such value."""
    found = [
        (meaning, cids)
        for concept in _concepts_dict.concepts["SCT"].values()
        for code, (meaning, cids) in concept.items()
        if code == value
    ]
    meanings = [m for m, _ in sorted(found, key=lambda item: (7151 not in item[1], not item[1], item[0]))]
    return preferred if preferred in meanings else next(iter(meanings), "")


def group_of(value: str) -> str:
    """Where PS3.16 has a value: the context group for types of segments first."""
    groups = {
        cid
        for concept in _concepts_dict.concepts["SCT"].values()
        if value in concept
        for cid in concept[value][1]
    }
    if not groups:
        return "PS3.16 Annex O"
    return f"PS3.16 CID {7151 if 7151 in groups else min(groups)}"


def main(mapping: Path) -> None:
    """Write both tables."""
    kept = read_kept()
    rows: dict[str, Row] = {}
    names: dict[str, str] = {}
    for row, name in from_mapping(mapping):
        rows.setdefault(row.key, row)
        base, side = split_side(name)
        plain = f"{side}_{base}" if side else base
        if plain != row.key:
            names[plain] = row.key
    for own in OWN:
        for row in from_own(own):
            rows.setdefault(row.key, row)
        names |= dict.fromkeys(own.names, own.key)
    names |= {name: key for key, others in MORE_NAMES.items() for name in others}
    write(kept, [row for key, row in rows.items() if key not in KEPT])
    with (FOLDER / "synonyms.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("name", "key"))
        writer.writerows(sorted(names.items()))


def read_kept() -> list[dict[str, str]]:
    """The rows that were coded by hand."""
    with (FOLDER / "codes.csv").open(encoding="utf-8", newline="") as file:
        found = {row["key"]: row for row in csv.DictReader(file)}
    return [found[key] for key in KEPT]


def from_mapping(path: Path) -> Iterator[tuple[Row, str]]:
    """Rows of the published mapping, each with its name there."""
    with path.open(encoding="utf-8", newline="") as file:
        for fields in csv.DictReader(file):
            name = fields["Structure"]
            if name not in LEFT_OUT:
                yield mapped(name, fields), name


def mapped(name: str, fields: dict[str, str]) -> Row:
    """One row of the mapping, held against the dictionary."""
    kind, region = "SegmentedPropertyTypeCodeSequence", "AnatomicRegionSequence"
    base, _ = split_side(name)
    corrected = CORRECTED.get(base, "")
    value = corrected or fields[f"{kind}.CodeValue"]
    known = meaning_of(value, fields[f"{kind}.CodeMeaning"])
    meaning = MEANINGS.get(value) or known or fields[f"{kind}.CodeMeaning"]
    category = fields["SegmentedPropertyCategoryCodeSequence.CodeValue"].replace(BODY_STRUCTURE, ANATOMY)
    key = key_of(name)
    modifier = fields["SegmentedPropertyTypeModifierCodeSequence.CodeValue"]
    modifier = modifier or fields["AnatomicRegionModifierSequence.CodeValue"]
    if base == "atrial_appendage":
        modifier = ""  # its side is in the concept
    source = f"{group_of(value)}; colour {MAPPING}" if known else MAPPING
    red, green, blue = (int(part) for part in fields["DicomRGBColor"].split(","))
    return Row(
        key=key,
        label=LABELS.get(key) or label_of(key),
        category=category,
        type=(value, meaning.removesuffix(" (body structure)")),
        modifier=modifier,
        region=(REGIONS.get(name) or fields[f"{region}.CodeValue"], fields[f"{region}.CodeMeaning"]),
        rgb=(red, green, blue),
        source=source + ("; corrected" if corrected else ""),
    )


def key_of(name: str) -> str:
    """Our key of a name in the mapping."""
    if name in KEYS:
        return KEYS[name]
    base, side = split_side(name)
    base = BASES.get(base, base)
    return f"{side}_{base}" if side else base


def label_of(key: str) -> str:
    """A key as people write it."""
    words = key.split("_")
    if words[0] == "vertebra" and len(words) == 2:
        return f"Vertebra {words[1].upper()}"
    return " ".join(words).capitalize()


def from_own(own: Own) -> Iterator[Row]:
    """The row, and those of its sides."""
    meaning = meaning_of(own.type, own.label or label_of(own.key)).removesuffix(" (body structure)")
    if not meaning:
        raise SystemExit(f"{own.key}: PS3.16 does not know {own.type}")
    source = group_of(own.type)
    row = Row(
        key=own.key,
        label=own.label or label_of(own.key),
        category=own.category,
        type=(own.type, meaning),
        modifier=own.modifier,
        region=(own.region, ""),
        rgb=own.rgb,
        source=source + (f"; colour {own.palette}" if own.rgb else ""),
    )
    yield row
    for side in SIDES if own.sides else ():
        label = f"{side} {row.label[0].lower()}{row.label[1:]}".capitalize()
        yield row._replace(
            key=f"{side}_{own.key}", label=label, modifier=SIDES[side], rgb=None, source=source
        )


def write(kept: list[dict[str, str]], rows: Iterable[Row]) -> None:
    """codes.csv; where two rows would look the same, the later one gets another colour."""
    columns = ["key", "label"]
    columns += [
        f"{r}_{p}" for r in ("category", "type", "modifier", "region") for p in ("value", "scheme", "meaning")
    ]
    columns += ["red", "green", "blue", "source"]
    taken: set[Rgb] = {(int(row["red"]), int(row["green"]), int(row["blue"])) for row in kept}
    rows = list(rows)
    wanted = {row.rgb for row in rows if row.rgb}
    with (FOLDER / "codes.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(kept)
        for row in rows:
            rgb = row.rgb
            if rgb is None or rgb in taken:
                rgb = distinct_colour(row.key, taken | wanted)
            taken.add(rgb)
            writer.writerow(encoded(row, rgb))


def encoded(row: Row, rgb: Rgb) -> dict[str, object]:
    """A row as codes.csv has it."""
    fields: dict[str, object] = {"key": row.key, "label": row.label, "source": row.source}
    fields |= zip(("red", "green", "blue"), rgb, strict=True)
    others = (("category", row.category, ""), ("modifier", row.modifier, ""), ("region", *row.region))
    for role, value, published in others:
        if value:
            meaning = meaning_of(value, published) or published
            if not meaning:
                raise SystemExit(f"{row.key}: no table knows the {role} {value}")
            fields |= {f"{role}_value": value, f"{role}_scheme": "SCT", f"{role}_meaning": meaning}
    fields |= {"type_value": row.type[0], "type_scheme": "SCT", "type_meaning": row.type[1]}
    return fields


if __name__ == "__main__":
    main(Path(sys.argv[1]))
