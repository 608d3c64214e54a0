"""From the names that models give their structures to coded structures."""

from __future__ import annotations

import csv
import hashlib
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

from ai.errors import ModelError
from ai.terminology import Code, structures
from ai.terminology.colours import Rgb, distinct_colour
from ai.terminology.given import Given

PRIVATE_SCHEME = "99GATEWAY"
"""Coding scheme of structures that no table has a code for; private ones start with 99 (PS3.16 8)."""

_SYNONYMS = Path(__file__).with_name("synonyms.csv")
_SIDES = {"left": "left", "right": "right", "lh": "left", "rh": "right", "lt": "left", "rt": "right"}
_LETTERS = {"l": "left", "r": "right"}  # a side only at the start or the end of a name
_SPELLING = {
    "oesophagus": "esophagus",
    "haemorrhage": "hemorrhage",
    "bleed": "hemorrhage",
    "bleeding": "hemorrhage",
    "oedema": "edema",
    "tumour": "tumor",
    "tumours": "tumor",
    "tumors": "tumor",
    "grey": "gray",
    "vertebrae": "vertebra",
    "kidneys": "kidney",
}
_DISEASED = frozenset(
    {
        "tumor",
        "lesion",
        "lesions",
        "nodule",
        "nodules",
        "mass",
        "cyst",
        "cysts",
        "hemorrhage",
        "edema",
        "infarct",
    }
    | {"stroke", "necrosis", "infiltrate", "effusion", "metastasis", "metastases", "cancer", "calcification"}
    | {"thrombus", "aneurysm", "plaque", "consolidation", "fracture"}
)
_ANATOMY = Code("91723000", "SCT", "Anatomical Structure")
_ALTERED = Code("49755003", "SCT", "Morphologically Abnormal Structure")
_NESTED = {"whole_tumor": 0, "tumor_core": 1, "enhancing_tumor": 2}
_BRAIN_TUMOR = {name: f"brain_{name}" for name in _NESTED}
"""What the parts of a brain tumour are called where all three are there; alone they may be of any organ."""
_LONGEST_LABEL, _LONGEST_CODE = 64, 16


@dataclass(frozen=True)
class Named:
    """Structure sections of a card.

    Attributes
    ----------
    entries
        In the order of the numbers, which they keep.
    names
        What the model calls them, by number.
    uncoded
        Why a structure has a private code, by number: the table does not know its name, or has it given to
        another label of this model.
    """

    entries: list[dict[str, object]]
    names: Mapping[int, str]
    uncoded: Mapping[int, str]


def structure_entries(names: Mapping[int, str]) -> Named:
    """Structure sections of a card from what a model calls its labels.

    Parameters
    ----------
    names
        Name by label number; 0 is background and is left out.
    """
    entries: list[dict[str, object]] = []
    uncoded: dict[int, str] = {}
    keys: set[str] = set()
    colours: set[Rgb] = {(0, 0, 0)}
    known = {number: _key_among(name, names.values()) for number, name in names.items()}
    colours |= {structures()[key].rgb for key in known.values() if key}
    for number, name in sorted(names.items()):
        if number == 0:
            continue
        key = known[number]
        if key is not None and key not in keys:
            entry: dict[str, object] = {"number": number, "key": key, "label": structures()[key].label}
        else:
            entry = _private(number, name, keys, colours)
            uncoded[number] = (
                f"means {key!r}, which another label of the model means too" if key else "has no code"
            )
        keys.add(str(entry["key"]))
        entries.append(entry)
    return Named(entries, {number: name for number, name in names.items() if number}, uncoded)


def with_codes(found: Named, given: Mapping[str, Given]) -> Named:
    """Structures with the codes that a person gives, by the model's own names for them.

    Raises ModelError CODE_NAME_UNKNOWN for a name that the model does not have; CODE_INVALID where two
    structures would share a key.
    """
    numbers = {"_".join(_words(name)): number for number, name in found.names.items()}
    said: dict[int, Given] = {}
    for name, codes in given.items():
        number = numbers.get("_".join(_words(name)))
        if number is None:
            known = ", ".join(found.names.values())
            raise ModelError("CODE_NAME_UNKNOWN", f"The model has no structure {name!r}; it has {known}.")
        said[number] = codes
    entries = []
    for entry in found.entries:
        number = int(str(entry["number"]))
        entries.append(_said(entry, found.names[number], said[number]) if number in said else entry)
    keys = [str(entry["key"]) for entry in entries]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise ModelError("CODE_INVALID", f"Two structures would have the key {twice[0]}; give codes instead.")
    return Named(entries, found.names, {n: why for n, why in found.uncoded.items() if n not in said})


def with_parts(
    entries: Sequence[Mapping[str, object]], parts: Mapping[int, Collection[int]]
) -> list[dict[str, object]]:
    """Structure sections with what each includes, by number."""
    return [
        {**entry, "includes": sorted(parts[number])}
        if parts.get(number := int(str(entry["number"])))
        else dict(entry)
        for entry in entries
    ]


def nested_parts(names: Mapping[int, str]) -> dict[int, list[int]]:
    """What the regions of a tumour include by their definition, by number: a whole, its core, what enhances.

    The definition is that of the Brain Tumor Segmentation challenge (Menze et al., IEEE Trans Med Imaging
    2015;34:1993-2024), whose names many models use. Other names say nothing of what holds what.
    """
    ranks = {n: _NESTED[words] for n, name in names.items() if (words := "_".join(_words(name))) in _NESTED}
    inner = {n: sorted(m for m, other in ranks.items() if other > rank) for n, rank in ranks.items()}
    return {n: within for n, within in inner.items() if within}


def key_of(name: str) -> str | None:
    """Key of the row of codes.csv that a name means, with its side; None if there is none.

    Upper and lower case, separators, the place of the side (``kidney_left``, ``L Kidney``), British and
    American spelling do not matter; synonyms.csv has what models call structures otherwise.
    """
    base, side = split_side(name)
    candidates = [f"{side}_{base}" if side else base]
    if side and (other := _synonyms().get(base)):
        candidates.append(f"{side}_{other}")
    for candidate in candidates:
        key = _synonyms().get(candidate, candidate)
        if key in structures():
            return key
    return None


def _key_among(name: str, others: Iterable[str]) -> str | None:
    """Key of a name, which may mean more in the company of others."""
    plain = "_".join(_words(name))
    if plain in _BRAIN_TUMOR and set(_BRAIN_TUMOR) <= {"_".join(_words(other)) for other in others}:
        return _BRAIN_TUMOR[plain]
    return key_of(name)


def split_side(name: str) -> tuple[str, str]:
    """A name in lower case with underscores, without its side; and the side: ``left``, ``right`` or empty."""
    words = _words(name)
    for place, word in enumerate(words):
        is_end = place in (0, len(words) - 1)
        side = _SIDES.get(word) or (_LETTERS.get(word) if is_end else None)
        if side and len(words) > 1:
            return "_".join(words[:place] + words[place + 1 :]), side
    return "_".join(words), ""


def private_code(name: str, label: str) -> Code:
    """A code of our own for a name: at most 16 characters, the same for the same name."""
    plain = re.sub(r"[^A-Z0-9]+", "_", _plain(name).upper()).strip("_") or "STRUCTURE"
    if len(plain) > _LONGEST_CODE:
        plain = f"{plain[:9].rstrip('_')}_{hashlib.sha256(name.encode()).hexdigest()[:6].upper()}"
    return Code(plain, PRIVATE_SCHEME, label)


def _said(entry: Mapping[str, object], name: str, given: Given) -> dict[str, object]:
    """The entry of a structure with the codes that a person gave it."""
    number = entry["number"]
    if given.codes is None:
        return {"number": number, "key": given.key, "label": structures()[given.key].label}
    coding = entry.get("coding")
    rgb = coding["rgb"] if isinstance(coding, Mapping) else list(structures()[str(entry["key"])].rgb)
    category = {"category": _ALTERED if _DISEASED & set(_words(name)) else _ANATOMY}
    codes = {role: _fields(code) for role, code in (category | dict(given.codes)).items()}
    return {**entry, "coding": {**codes, "rgb": rgb}}


def _private(number: int, name: str, keys: set[str], colours: set[Rgb]) -> dict[str, object]:
    """The entry of a structure without a row in the table."""
    words = _words(name)
    stem = "_".join(words)[:56].strip("_") or f"structure_{number}"
    is_free = stem not in keys and stem not in structures()
    key = stem if is_free else f"{stem}_{number}"
    label = (" ".join(_plain(name).replace("_", " ").split()) or f"Structure {number}")[
        :_LONGEST_LABEL
    ].strip()
    label = label[0].upper() + label[1:]
    code = private_code(name if is_free else f"{name} {number}", label)
    rgb = distinct_colour(key, colours)
    colours.add(rgb)
    category = _ALTERED if _DISEASED & set(words) else _ANATOMY
    return {
        "number": number,
        "key": key,
        "label": label,
        "coding": {"category": _fields(category), "type": _fields(code), "rgb": list(rgb)},
    }


def _fields(code: Code) -> dict[str, str]:
    return {"value": code.value, "scheme": code.scheme, "meaning": code.meaning}


def _words(name: str) -> list[str]:
    """The words of a name in lower case, spelled as the table does."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", _plain(name))
    words = re.findall(r"[a-z0-9]+", parted.lower())
    return [_SPELLING.get(word, word) for word in words]


def _plain(text: str) -> str:
    """Letters without accents."""
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()


@cache
def _synonyms() -> Mapping[str, str]:
    with _SYNONYMS.open(encoding="utf-8", newline="") as file:
        return MappingProxyType({row["name"]: row["key"] for row in csv.DictReader(file)})
