"""JSON Schema of the configuration file, for editors that complete and check while one types."""

from __future__ import annotations

import json
from typing import Any

from gateway.settings.model import Settings

_PLACEHOLDER = {"type": "string", "pattern": r"\$\{"}


def schema_text() -> str:
    """The schema as config/schema.json holds it."""
    schema = _with_placeholders(Settings.model_json_schema())
    schema["title"] = "DICOM AI Gateway configuration"
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _with_placeholders(node: Any) -> Any:
    """Allow ``${NAME}`` wherever a number, a choice or a number with a unit stands."""
    if isinstance(node, list):
        return [_with_placeholders(item) for item in node]
    if not isinstance(node, dict):
        return node
    if not _is_restricted(node):
        # The default of a section is that of its settings; written here it would lack the units.
        return {k: _with_placeholders(v) for k, v in node.items() if k != "default" or "$ref" not in node}
    about = {k: node[k] for k in ("title", "description") if k in node}
    if "default" in node and not _has_unit(node):
        about["default"] = node["default"]
    choices = node.get("anyOf") or [{k: v for k, v in node.items() if k not in (*about, "default")}]
    return {**about, "anyOf": [*(c for c in choices if c != {"type": "null"}), _PLACEHOLDER]}


def _is_restricted(node: dict[str, Any]) -> bool:
    """True for a scalar that is not free text."""
    scalar = node.get("type") in ("integer", "number") or isinstance(node.get("enum"), list)
    return scalar or isinstance(node.get("pattern"), str) or isinstance(node.get("anyOf"), list)


def _has_unit(node: dict[str, Any]) -> bool:
    """True for a duration, size or share, whose default is kept as a bare number."""
    bare = not isinstance(node["default"], str)
    return bare and any("pattern" in choice for choice in node.get("anyOf", [node]))
