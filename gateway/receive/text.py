"""Received text, made safe for logs, records and status comments."""

from __future__ import annotations


def printable(text: str, limit: int = 64) -> str:
    """``text`` with control characters escaped (``\\x1b``), cut at ``limit`` characters."""
    shown = "".join(c if c.isprintable() else _escape(c) for c in text[:limit])
    return shown if len(text) <= limit and len(shown) <= limit else f"{shown[: limit - 1]}…"


def escaped(text: str) -> str:
    """``text`` in full with control characters escaped."""
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def ascii_text(text: str, limit: int) -> str:
    """At most ``limit`` ASCII characters without backslash: fits VR LO in every character set."""
    return printable(text, len(text)).encode("ascii", "replace").decode("ascii").replace("\\", "/")[:limit]


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
