"""Arguments of MONAI's transforms, and the word that a translation cannot go on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Arguments = Mapping[str, Any]


class NotTranslatable(Exception):
    """A transform that the recipe has no words for; the sentence says which."""


def need(holds: bool, otherwise: str) -> None:
    """Raise NotTranslatable with a sentence unless it holds."""
    if not holds:
        raise NotTranslatable(otherwise)


def one(value: Any) -> Any:
    """MONAI takes one value for each key; with one key that is a list of one."""
    if isinstance(value, (list, tuple)) and value:
        need(all(each == value[0] for each in value), f"the values {value} differ by key")
        return value[0]
    return value
