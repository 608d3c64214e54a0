"""Received text, made safe for logs, records and status comments."""

from __future__ import annotations

import re

from ai.source.text import escaped

_LONGEST_UID = 64
_NOT_IN_UID = re.compile(r"[^0-9.]")


def printable(text: str, limit: int = 64) -> str:
    """``text`` with control characters escaped (``\\x1b``), cut at ``limit`` characters."""
    shown = escaped(text[:limit])
    return shown if len(text) <= limit and len(shown) <= limit else f"{shown[: limit - 1]}…"


def uid_text(text: str) -> str:
    """What was sent where a UID belongs, with ``?`` for what no UID has (PS3.5 9.1).

    Where values are mixed up it may be the name of a patient.
    """
    shown = _NOT_IN_UID.sub("?", text[:_LONGEST_UID])
    return shown if len(text) <= _LONGEST_UID else f"{shown[:-1]}…"


def ascii_text(text: str, limit: int) -> str:
    """At most ``limit`` ASCII characters without backslash: fits VR LO in every character set."""
    return printable(text, len(text)).encode("ascii", "replace").decode("ascii").replace("\\", "/")[:limit]
