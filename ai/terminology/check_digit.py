"""The check digit of SNOMED CT identifiers (Verhoeff 1969, in the dihedral group of order ten)."""

from __future__ import annotations

_PERMUTATION = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)
_LENGTHS = range(6, 19)  # SNOMED CT Release File Specification: 6 to 18 digits


def is_snomed_identifier(text: str) -> bool:
    """Whether a text is an identifier of SNOMED CT by its form: digits, length, check digit."""
    plain = text.isascii() and text.isdigit() and len(text) in _LENGTHS and not text.startswith("0")
    return plain and _remainder(text) == 0


def _remainder(digits: str) -> int:
    check = 0
    for position, character in enumerate(reversed(digits)):
        digit = int(character)
        for _ in range(position % 8):
            digit = _PERMUTATION[digit]
        check = _product(check, digit)
    return check


def _product(a: int, b: int) -> int:
    """Product in the dihedral group of order ten."""
    if a < 5:
        return (a + b) % 5 if b < 5 else (a + b - 5) % 5 + 5
    return (a - 5 - b) % 5 + 5 if b < 5 else (a - b) % 5
