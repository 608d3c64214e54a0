"""Durations, sizes and shares as people write them: ``30s``, ``512MiB``, ``90%``."""

from __future__ import annotations

import re

_DURATIONS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZES = {"B": 1, "kB": 1000, "MB": 1000**2, "GB": 1000**3, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_NUMBER_UNIT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z%]*)\s*")


def _parse(value: object, units: dict[str, float] | dict[str, int], example: str) -> float:
    match = _NUMBER_UNIT.fullmatch(value) if isinstance(value, str) else None
    if match is None or match[2] not in units:
        raise ValueError(f"write a number with its unit ({', '.join(units)}), for example {example}")
    return float(match[1]) * units[match[2]]


def parse_duration_s(value: object) -> object:
    """Seconds from ``2s``, ``15m``, ``500ms``; numbers (our own defaults) pass."""
    return value if isinstance(value, float) else _parse(value, _DURATIONS, "30s")


def parse_bytes(value: object) -> object:
    """Bytes from ``512MiB``; plain integers are bytes."""
    return value if isinstance(value, int) else int(_parse(value, _SIZES, "512MiB"))


def parse_fraction(value: object) -> object:
    """0 to 1 from ``90%``; numbers (our own defaults) pass."""
    return value if isinstance(value, float) else _parse(value, {"%": 0.01}, "90%")
