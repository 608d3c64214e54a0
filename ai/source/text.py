"""Text from headers, made safe for logs, records and messages."""

from __future__ import annotations


def escaped(text: str) -> str:
    """``text`` in full with control characters escaped (``\\x1b``)."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
