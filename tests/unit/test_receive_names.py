"""Every name by which something is refused while receiving stands in the document."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
NAME = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+|[A-Z]{6,}")


def names_in(source: str) -> Iterator[str]:
    """Names that are given to an error, or to a function that makes one: its first argument."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            for argument in [*node.args[:2], *(keyword.value for keyword in node.keywords)]:
                if isinstance(argument, ast.Constant) and NAME.fullmatch(str(argument.value)):
                    yield str(argument.value)


def test_every_name_of_a_refusal_is_in_the_document() -> None:
    sources = [*(ROOT / "gateway" / "receive").rglob("*.py"), ROOT / "gateway" / "web" / "stow.py"]
    names = {name for path in sources for name in names_in(path.read_text(encoding="utf-8"))}
    assert {"STOPPING", "NOT_PART_10", "STUDY_MISMATCH", "NO_SUCH_ACTION", "IDLE_TIMEOUT"} <= names
    assert len(names) > 100
    text = (ROOT / "docs" / "receive.md").read_text(encoding="utf-8")
    assert sorted(name for name in names if f"`{name}`" not in text) == []
