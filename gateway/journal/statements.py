"""Loads the named SQL statements."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def load_statements() -> Mapping[str, str]:
    """Read queries.sql: a comment ``-- name: x`` starts the statement x."""
    parts = _NAME.split(read_sql("queries.sql"))
    return dict(zip(parts[1::2], (text.strip() for text in parts[2::2]), strict=True))


def read_sql(name: str) -> str:
    """Text of an SQL file of this package."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
