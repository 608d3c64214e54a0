"""Identifiers that arrive from outside, checked once at the door."""

from __future__ import annotations

import re

_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+")
_AE_TITLE = re.compile(r"[\x20-\x5b\x5d-\x7e]{1,16}")


def is_uid(text: str) -> bool:
    """True for a UID of at most 64 characters as in PS3.5 9.1; never for ``..`` or a path."""
    return len(text) <= 64 and _UID.fullmatch(text) is not None


def is_ae_title(text: str) -> bool:
    """True for 1 to 16 printable characters without backslash, not all spaces (PS3.5 6.2, VR AE)."""
    return _AE_TITLE.fullmatch(text) is not None and bool(text.strip())
