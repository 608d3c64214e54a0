"""Writes the documents that are made from code: docs/states.md and config/schema.json."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from gateway.settings.schema import schema_text  # noqa: E402 - the path comes first
from gateway.states import DELIVERY, JOB, SERIES, Machine  # noqa: E402 - the path comes first


def states_markdown() -> str:
    """The state machines as Mermaid diagrams."""
    parts = ["# States\n\nDrawn from `gateway/states.py` by `make docs`; a test keeps this file current.\n"]
    machines: tuple[Machine[Any, Any], ...] = (SERIES, JOB, DELIVERY)
    for machine in machines:
        edges = "\n".join(f"    {a} --> {b}: {event}" for (a, event), b in machine.edges.items())
        diagram = f"stateDiagram-v2\n    [*] --> {machine.initial}\n{edges}"
        parts.append(f"## {machine.name}\n\n```mermaid\n{diagram}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    (ROOT / "config" / "schema.json").write_text(schema_text(), encoding="utf-8")
    (ROOT / "docs" / "states.md").write_text(states_markdown(), encoding="utf-8")
