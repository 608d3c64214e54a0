"""The text of a model card: YAML that people read and edit."""

from __future__ import annotations

import re
from collections.abc import Mapping

import yaml

from ai.errors import ModelError

_HEAD = """\
# Card of the model {name}, made by `aigw model add` and meant to be edited.
# Its SHA-256 is part of each result's identity. `aigw model verify {name}` checks it and the files.
# docs/model-card.md explains every field.
"""
_BEFORE = {
    "intended_use": "What it is for, and what a reader of its results must know.",
    "licence": (
        "Terms. Unless commercial is yes, it runs only when accepted_by says who accepted them:\n"
        "aigw model add ID --accept-licence NAME"
    ),
    "accepts": (
        "What input it is made for; anything else is refused by name. Also known here:\n"
        "body_parts: [CHEST]   orientations: [axial]   contrast: required   maximum_pixel_spacing_mm: 1.5\n"
        "maximum_slice_thickness_mm: 5   field_of_view_mm: {minimum: {superior_inferior: 100}}"
    ),
    "structures": "What it looks for. A key names its codes in ai/terminology/codes.csv; or write coding.",
    "quality": (
        "Plausibility rules for its results, for example:\n"
        "{kind: volume_ml, structures: [liver], minimum: 500}"
    ),
    "files": "SHA-256 of each file in the folder beside this card. A file that differs is never read.",
}
_ORDER = (
    *(
        "id",
        "version",
        "title",
        "loader",
        "algorithm",
        "manufacturer",
        "intended_use",
        "limits",
        "references",
    ),
    *("licence", "accepts", "recipe", "network", "graph", "bundle", "nnunet", "stages", "parameters"),
    *("structures", "quality", "memory_bytes", "files"),
)
_LONGEST_FLOW = 8


def card_text(name: str, fields: Mapping[str, object]) -> str:
    """The card as a file, sections in the order in which people read them."""
    ordered = [key for key in _ORDER if key in fields] + [key for key in fields if key not in _ORDER]
    parts = [_HEAD.format(name=name)]
    for key in ordered:
        if key in _BEFORE:
            parts.append("\n" + "".join(f"# {line}\n" for line in _BEFORE[key].splitlines()))
        parts.append(_dump({key: fields[key]}))
    return "".join(parts)


def with_acceptance(text: str, who: str) -> str:
    """A card's text in which ``licence.accepted_by`` says who; everything else is left as it is."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    licence = _child(root, "licence")
    if licence is None or not licence.value:
        raise ModelError("MODEL_CARD_INVALID", "The card has no licence section to be accepted.")
    value = yaml.safe_dump(who, default_style='"', width=1000).strip()
    old = next((node for key, node in licence.value if key.value == "accepted_by"), None)
    if old is not None:
        return text[: old.start_mark.index] + value + text[old.end_mark.index :]
    first = licence.value[0][0].start_mark
    between = ", " if licence.flow_style else "\n" + " " * first.column
    return f"{text[: first.index]}accepted_by: {value}{between}{text[first.index :]}"


def _child(node: yaml.Node | None, key: str) -> yaml.MappingNode | None:
    pairs = node.value if isinstance(node, yaml.MappingNode) else ()
    return next((v for k, v in pairs if k.value == key and isinstance(v, yaml.MappingNode)), None)


class _Dumper(yaml.SafeDumper):
    """Block style; short lists of numbers and words stay on one line."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        """Indent the items of lists too."""
        super().increase_indent(flow, indentless=False)


def _list(dumper: yaml.SafeDumper, items: list[object] | tuple[object, ...]) -> yaml.Node:
    is_flow = len(items) <= _LONGEST_FLOW and all(_is_short(item) for item in items)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=is_flow)


def _is_short(item: object) -> bool:
    if isinstance(item, str):
        return re.fullmatch(r"[\w./+-]{1,24}", item) is not None
    return item is None or isinstance(item, (int, float))


_Dumper.add_representer(list, _list)
_Dumper.add_representer(tuple, _list)


def _dump(fields: Mapping[str, object]) -> str:
    text: str = yaml.dump(
        dict(fields), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100, default_flow_style=False
    )
    return text
