"""From the names that models give their structures to coded structures."""

from __future__ import annotations

import csv
import hashlib
import re
import unicodedata
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

from ai.terminology import Code, structures
from ai.terminology.colours import Rgb, distinct_colour

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
_ALTERED = Code("49755003", "SCT", "Morphologically Altered Structure")
_LONGEST_LABEL, _LONGEST_CODE = 64, 16


def structure_entries(names: Mapping[int, str]) -> tuple[list[dict[str, object]], list[str]]:
    """Structure sections of a card from what a model calls its labels.

    Parameters
    ----------
    names
        Name by label number; 0 is background and is left out.

    Returns
    -------
    The entries in the order of the numbers, which they keep, and a sentence for each name that got a private
    code, because the table of codes does not know it or has it given to another label of this model.
    """
    entries: list[dict[str, object]] = []
    warnings: list[str] = []
    keys: set[str] = set()
    colours: set[Rgb] = {(0, 0, 0)}
    known = {number: key_of(name) for number, name in names.items()}
    colours |= {structures()[key].rgb for key in known.values() if key}
    for number, name in sorted(names.items()):
        if number == 0:
            continue
        key = known[number]
        if key is not None and key not in keys:
            entry: dict[str, object] = {"number": number, "key": key, "label": structures()[key].label}
        else:
            entry, warning = _private(number, name, keys, colours, twice=key)
            warnings.append(warning)
        keys.add(str(entry["key"]))
        entries.append(entry)
    return entries, warnings


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


def _private(
    number: int, name: str, keys: set[str], colours: set[Rgb], twice: str | None
) -> tuple[dict[str, object], str]:
    """The entry of a structure without a row in the table, and what to say about it."""
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
    entry: dict[str, object] = {
        "number": number,
        "key": key,
        "label": label,
        "coding": {"category": _fields(category), "type": _fields(code), "rgb": list(rgb)},
    }
    why = f"means {twice!r}, which another label of the model means too" if twice else "has no code"
    return entry, f"structure {name!r} {why}: private code {PRIVATE_SCHEME}:{code.value}"


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
