"""Received text, made safe for logs, records and status comments."""

from __future__ import annotations

from ai.source.text import escaped


def printable(text: str, limit: int = 64) -> str:
    """``text`` with control characters escaped (``\\x1b``), cut at ``limit`` characters."""
    shown = escaped(text[:limit])
    return shown if len(text) <= limit and len(shown) <= limit else f"{shown[: limit - 1]}…"


def ascii_text(text: str, limit: int) -> str:
    """At most ``limit`` ASCII characters without backslash: fits VR LO in every character set."""
    return printable(text, len(text)).encode("ascii", "replace").decode("ascii").replace("\\", "/")[:limit]
