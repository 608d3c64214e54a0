"""Warnings of libraries that read and write headers, kept silent."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings: those of pydicom and highdicom quote header values, which may name a patient."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
