"""Writes the documents made from code: docs/states.md, docs/model-card.md and config/schema.json."""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from ai.model import ModelSpec  # noqa: E402 - the path comes first
from gateway.settings.schema import schema_text  # noqa: E402 - the path comes first
from gateway.states import COMMITMENT, DELIVERY, JOB, SERIES, Machine  # noqa: E402 - the path comes first


def states_markdown() -> str:
    """The state machines as Mermaid diagrams."""
    parts = ["# States\n\nDrawn from `gateway/states.py` by `make docs`; a test keeps this file current.\n"]
    machines: tuple[Machine[Any, Any], ...] = (SERIES, JOB, DELIVERY, COMMITMENT)
    for machine in machines:
        edges = "\n".join(f"    {a} --> {b}: {event}" for (a, event), b in machine.edges.items())
        diagram = f"stateDiagram-v2\n    [*] --> {machine.initial}\n{edges}"
        parts.append(f"## {machine.name}\n\n```mermaid\n{diagram}\n```\n")
    return "\n".join(parts)


def model_card_markdown() -> str:
    """Every field of a model card: kind, default, meaning."""
    parts = [
        "# Fields of a model card\n\nDrawn from `ai/model` by `make docs`; a test keeps this file current. "
        "What a card leaves out has its default; unknown fields are errors.\n"
    ]
    schema = ModelSpec.model_json_schema()
    for section in _sections(ModelSpec):
        about, meanings = _meanings(section)
        own = schema if section is ModelSpec else schema["$defs"][section.__name__]
        rows = [
            f"| `{name}` | {_kind(field)} | {_default(name, field, own)} | {meanings.get(name, '')} |"
            for name, field in own["properties"].items()
            if section is not ModelSpec or name != "digest"  # of the card itself, which is computed
        ]
        table = "\n".join(["| field | kind | default | meaning |", "|---|---|---|---|", *rows])
        title = "The card" if section is ModelSpec else section.__name__
        parts.append(f"## {title}\n\n{about}\n\n{table}\n")
    return "\n".join(parts)


def _sections(model: type[BaseModel]) -> list[type[BaseModel]]:
    """A section and those below it, each once, in the order of their fields; they may hold one another."""
    model.model_rebuild()  # names that stand before their class are strings until then
    found = {model: None}
    waiting = [model]
    while waiting:
        section = waiting.pop(0)
        below = [each for field in section.model_fields.values() for each in _models_in(field.annotation)]
        waiting += [each for each in dict.fromkeys(below) if each not in found]
        found |= dict.fromkeys(below)
    return list(found)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _meanings(section: type[BaseModel]) -> tuple[str, dict[str, str]]:
    """What a docstring says of a section, and of each attribute (numpydoc)."""
    text = inspect.cleandoc(section.__doc__ or "").replace("``", "`")
    text = re.sub(r":\w+:`~?([\w.]+)`", r"`\1`", text)
    about, _, attributes = text.partition("Attributes\n----------\n")
    meanings: dict[str, str] = {}
    names: list[str] = []
    for line in attributes.splitlines():
        if line and not line.startswith(" "):
            names = line.split(", ")
        elif line.strip():
            for name in names:
                meanings[name] = f"{meanings.get(name, '')} {line.strip()}".strip()
    unknown = meanings.keys() - section.model_fields.keys()
    if unknown:
        raise ValueError(f"{section.__name__} has no field {', '.join(sorted(unknown))}")
    return about.strip(), {name: meaning.replace("|", "\\|") for name, meaning in meanings.items()}


def _kind(schema: dict[str, Any]) -> str:
    """A JSON Schema in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "enum" in schema or "const" in schema:
        return " or ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    choices = schema.get("anyOf") or schema.get("oneOf")
    if choices:
        return " or ".join(dict.fromkeys(_kind(choice) for choice in choices if choice.get("type") != "null"))
    if schema.get("type") == "array":
        items = schema.get("items") or next(iter(schema.get("prefixItems", [])), {})
        return f"list of {_kind(items)}"
    if schema.get("type") == "object":
        below = schema.get("additionalProperties", {})
        return f"mapping to {_kind(below)}" if isinstance(below, dict) and below else "mapping"
    words = {"integer": "whole number", "number": "number", "boolean": "`true` or `false`", "string": "text"}
    return words.get(schema.get("type", ""), "anything") + _bounds(schema)


def _bounds(schema: dict[str, Any]) -> str:
    words = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return "".join(f" {sign} {schema[key]:g}" for key, sign in words.items() if key in schema)


def _default(name: str, field: dict[str, Any], section: dict[str, Any]) -> str:
    if name in section.get("required", ()):
        return "**required**"
    value = field.get("default")
    is_empty = value in (None, "", [], {}) or isinstance(value, dict)
    return "" if is_empty else f"`{json.dumps(value, ensure_ascii=False)}`"


if __name__ == "__main__":
    (ROOT / "config" / "schema.json").write_text(schema_text(), encoding="utf-8")
    (ROOT / "docs" / "states.md").write_text(states_markdown(), encoding="utf-8")
    (ROOT / "docs" / "model-card.md").write_text(model_card_markdown(), encoding="utf-8")
