"""Coded terms of the structures that models may name: category, type, side, display colour.

``codes.csv`` is the only place where a structure gets its codes; a structure without a row is refused
when its model card is read, never coded by default. Decisions behind the table:

- The category "Anatomical Structure" is 91723000, not 123037004; the table itself says why.
- Bone is all bone tissue in the scan, not one bone: category Tissue (85756007), type Bone (3138006),
  from CID 7166.
- The side is a modifier of the type (PS3.3 C.8.20.2, Segmented Property Type Modifier Code Sequence).
- Colours of our own models are the Okabe-Ito palette (Okabe and Ito, "Color Universal Design", 2008): they
  stay apart for people with colour vision deficiency. Those of other models are published ones where they
  differ enough from each other.
"""

from __future__ import annotations

import csv
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

from ai.errors import ModelError

_TABLE = Path(__file__).with_name("codes.csv")


@dataclass(frozen=True)
class Code:
    """A coded concept (PS3.3 8.8): value, coding scheme designator, meaning."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True)
class CodedStructure:
    """One row of the table.

    Attributes
    ----------
    modifier
        Of the type: the side, or another part of it (anterior).
    rgb
        sRGB, 0..255.
    source
        Where codes and colour come from.
    region
        Where in the body something lies that is found in many places, such as a haemorrhage
        (Anatomic Region Sequence, PS3.3 C.8.20.2).
    """

    key: str
    label: str
    category: Code
    type: Code
    modifier: Code | None
    rgb: tuple[int, int, int]
    source: str
    region: Code | None = None


@cache
def structures() -> Mapping[str, CodedStructure]:
    """Every coded structure by its key."""
    with _TABLE.open(encoding="utf-8", newline="") as file:
        lines = (line for line in file if not line.startswith("#"))
        rows = [_structure(row) for row in csv.DictReader(lines)]
    return MappingProxyType({row.key: row for row in rows})


def coded(key: str) -> CodedStructure:
    """The coded terms of one structure; ``ModelError("STRUCTURE_NOT_CODED", …)`` if it has no row."""
    found = structures().get(key)
    if found is None:
        close = close_keys(key)
        hint = f" Close ones are: {', '.join(close)}." if close else ""
        raise ModelError(
            "STRUCTURE_NOT_CODED",
            f"The structure {key!r} has no row in ai/terminology/codes.csv, so its segment could not be "
            f"coded; give its codes in the card (coding), or use one of the {len(structures())} rows.{hint}",
        )
    return found


def close_keys(name: str) -> list[str]:
    """Keys of the table that are written like a name, at most three, the closest first."""
    return difflib.get_close_matches(name, structures(), n=3)


def _structure(row: Mapping[str, str]) -> CodedStructure:
    return CodedStructure(
        key=row["key"],
        label=row["label"],
        category=_code(row, "category"),
        type=_code(row, "type"),
        modifier=_code(row, "modifier") if row["modifier_value"] else None,
        rgb=(int(row["red"]), int(row["green"]), int(row["blue"])),
        source=row["source"],
        region=_code(row, "region") if row["region_value"] else None,
    )


def _code(row: Mapping[str, str], role: str) -> Code:
    return Code(row[f"{role}_value"], row[f"{role}_scheme"], row[f"{role}_meaning"])
