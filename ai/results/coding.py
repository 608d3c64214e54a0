"""Coded concepts of the code table as highdicom wants them."""

from __future__ import annotations

from typing import Any

from highdicom.sr import CodedConcept

from ai.terminology import Code


def concept(code: Code) -> Any:
    """A coded concept (PS3.3 8.8)."""
    return CodedConcept(value=code.value, scheme_designator=code.scheme, meaning=code.meaning)
