"""Durations, sizes and shares as people write them: ``30s``, ``512MiB``, ``90%``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationInfo

DURATION_UNITS: Mapping[str, float] = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
SIZE_UNITS: Mapping[str, float] = {
    "B": 1,
    "kB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
}
FROM_FILE = "from a file"
"""Validation context of values that a person wrote: there a bare number has no unit."""

_NUMBER_UNIT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z%]*)\s*")


def _parse(value: object, units: Mapping[str, float], example: str) -> float:
    match = _NUMBER_UNIT.fullmatch(value) if isinstance(value, str) else None
    if match is None or match[2] not in units:
        raise ValueError(f"write a number with its unit ({', '.join(units)}), for example {example}")
    number = float(match[1]) * units[match[2]]
    if not math.isfinite(number):
        raise ValueError("is too large to be meant")
    return number


def parse_duration_s(value: object, info: ValidationInfo) -> object:
    """Seconds from ``2s``, ``15m``, ``500ms``; floats (from our own code) pass."""
    if isinstance(value, float) and info.context != FROM_FILE:
        return value
    return _parse(value, DURATION_UNITS, "30s")


def parse_bytes(value: object) -> object:
    """Bytes from ``512MiB``; plain integers are bytes."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    text = value if not isinstance(value, str) or not value.isdigit() else f"{value}B"
    return int(_parse(text, SIZE_UNITS, "512MiB"))


def parse_fraction(value: object, info: ValidationInfo) -> object:
    """0 to 1 from ``90%``; floats (from our own code) pass."""
    if isinstance(value, float) and info.context != FROM_FILE:
        return value
    return _parse(value, {"%": 1.0}, "90%") / 100.0


def text_schema(units: Mapping[str, float]) -> dict[str, Any]:
    """JSON Schema of a number with its unit, for editors."""
    bare = [{"type": "integer", "minimum": 0}] if "B" in units else []
    text = {"type": "string", "pattern": rf"^\s*\d+(\.\d+)?\s*({'|'.join(units)})\s*$"}
    return {"anyOf": [text, *bare]} if bare else text
