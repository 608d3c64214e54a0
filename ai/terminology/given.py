"""Codes that a person gives to the structures of a model: a key of the table, or a code of its own."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ai.errors import ModelError
from ai.terminology import Code, coded
from ai.terminology.check_digit import is_snomed_identifier

_ROLES = ("category", "type", "modifier", "region")
_LARGEST_BYTES = 1 << 20
_LONGEST_VALUE, _LONGEST_MEANING = 16, 64  # SH and LO (PS3.5 6.2)
HOW = (
    "NAME=key with a key of ai/terminology/codes.csv, or NAME=SCHEME:VALUE:MEANING such as "
    '"left lobe=SCT:49341008:Left lobe of liver"'
)


@dataclass(frozen=True)
class Given:
    """What a person says of one structure: a key of the table; or else its codes by their role."""

    key: str = ""
    codes: Mapping[str, Code] | None = None


def given_in(text: str) -> tuple[str, Given]:
    """The name and codes of one ``NAME=key`` or ``NAME=SCHEME:VALUE:MEANING``.

    Raises ModelError CODE_INVALID, or STRUCTURE_NOT_CODED where the table has no such key.
    """
    name, equals, said = (part.strip() for part in text.partition("="))
    if not (name and equals and said):
        raise ModelError("CODE_INVALID", f"{text!r} gives no code; write {HOW}.")
    if ":" not in said:
        return name, Given(key=coded(said).key)
    parts = [part.strip() for part in said.split(":", 2)]
    if len(parts) < 3:
        raise ModelError("CODE_INVALID", f"{text!r} lacks the meaning of the code; write {HOW}.")
    scheme, value, meaning = parts
    return name, Given(codes={"type": _valid(Code(value, scheme, meaning), name)})


def given_in_file(path: Path) -> dict[str, Given]:
    """Codes by name from a CSV file in UTF-8.

    Its columns are ``name`` and ``key``; or instead of the key those of ai/terminology/codes.csv:
    ``type_value``, ``type_scheme``, ``type_meaning``, likewise ``category_…``, ``modifier_…`` and
    ``region_…``, all but the type as one likes. Lines that begin with ``#`` are left out.

    Raises ModelError CODE_INVALID, or STRUCTURE_NOT_CODED where the table has no such key.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            text = file.read(_LARGEST_BYTES + 1)
        rows = list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ModelError("CODE_INVALID", f"{path} cannot be read as CSV in UTF-8: {error}") from error
    if len(text) > _LARGEST_BYTES or not rows or "name" not in rows[0]:
        raise ModelError("CODE_INVALID", f"{path} needs the columns name and key, and at most 1 MiB.")
    return {str(row["name"] or "").strip(): _row(row, path) for row in rows}


def _row(row: Mapping[str, str | None], path: Path) -> Given:
    fields = {column: (value or "").strip() for column, value in row.items() if isinstance(value, str)}
    name = fields.get("name", "")
    if fields.get("key"):
        return Given(key=coded(fields["key"]).key)
    codes = {
        role: _valid(
            Code(*(fields.get(f"{role}_{part}", "") for part in ("value", "scheme", "meaning"))), name
        )
        for role in _ROLES
        if fields.get(f"{role}_value")
    }
    if not name or "type" not in codes:
        raise ModelError("CODE_INVALID", f"{path}: the row {name!r} has neither a key nor a type_value.")
    return Given(codes=codes)


def _valid(code: Code, name: str) -> Code:
    """A code that a DICOM file can hold; of SNOMED CT one with a right check digit."""
    wrong = ""
    if not (code.value and code.scheme and code.meaning) or "\\" in "".join(
        (code.value, code.scheme, code.meaning)
    ):
        wrong = "needs scheme, value and meaning, without a backslash"
    elif max(len(code.value), len(code.scheme)) > _LONGEST_VALUE or len(code.meaning) > _LONGEST_MEANING:
        most = f"{_LONGEST_VALUE} characters, meaning {_LONGEST_MEANING}"
        wrong = f"is too long: value and scheme have at most {most}"
    elif code.scheme == "SCT" and not is_snomed_identifier(code.value):
        wrong = "is no identifier of SNOMED CT: its check digit is wrong"
    if wrong:
        told = f"The code {code.scheme}:{code.value}:{code.meaning} of {name!r} {wrong}."
        raise ModelError("CODE_INVALID", told)
    return code
