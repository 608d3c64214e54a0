"""The header of one file in full, where a scale needs sequences or private attributes."""

from __future__ import annotations

from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset

from ai.errors import SeriesRefused
from ai.quiet import quiet
from ai.source import SourceFile


def whole_header(file: SourceFile) -> Dataset:
    """Everything in front of the pixels. Raises SeriesRefused (TRUNCATED_FILE) if it is damaged."""
    try:
        with quiet():
            return dcmread(file.path, stop_before_pixels=True)
    except Exception as error:  # malformed headers raise many types
        raise SeriesRefused(
            "TRUNCATED_FILE", f"The header of {file.path.name} is damaged ({type(error).__name__})."
        ) from error


def private_number(dataset: Dataset, group: int, creator: str, element: int) -> float | None:
    """The single number of a private attribute; None where it is absent or no number."""
    try:
        with quiet():
            value: Any = dataset.private_block(group, creator)[element].value
            return float(value)
    except (KeyError, TypeError, ValueError):
        return None
