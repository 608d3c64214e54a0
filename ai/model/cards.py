"""Find and read model cards."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Sequence
from pathlib import Path

import yaml
from pydantic import ValidationError

from ai.errors import ModelError, UnknownModel
from ai.model.card import ModelSpec

_REPOSITORY_CARDS = Path(__file__).parent.parent.parent / "config" / "models"
_WHEEL_CARDS = Path(__file__).parent.parent / "cards"


def load_card(path: Path) -> ModelSpec:
    """Read and check one card.

    Raises
    ------
    ModelError
        ``MODEL_CARD_INVALID`` with file, line, field and what is wrong with each; or
        ``STRUCTURE_NOT_CODED`` when a structure has no row in ``terminology/codes.csv``.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError("MODEL_CARD_INVALID", f"{path}: cannot be read: {error.strerror}") from error
    fields = _parse(path, content)
    if "digest" in fields:
        raise ModelError("MODEL_CARD_INVALID", f"{path}: digest: is computed; remove it from the card")
    try:
        spec = ModelSpec.model_validate(fields)
    except ValidationError as error:
        raise ModelError("MODEL_CARD_INVALID", _describe(path, content, error)) from error
    for structure in spec.structures:
        _ = structure.coded
    spec = spec.model_copy(update={"digest": hashlib.sha256(content).hexdigest()})
    spec._folder = path.parent / spec.id
    return spec


def find_card(name: str, folders: Sequence[Path] = ()) -> ModelSpec:
    """Find ``name.yaml`` in the folders given, then among the cards that ship with the gateway.

    Raises
    ------
    UnknownModel
        No such card; the sentence lists what exists and the closest name.
    ModelError
        The card is wrong (see :func:`load_card`), or its ``id`` is not its file name.
    """
    cards = _cards((*folders, shipped_card_folder()))
    path = cards.get(name)
    if path is None:
        raise UnknownModel("UNKNOWN_MODEL", _unknown(name, sorted(cards)))
    spec = load_card(path)
    if spec.id != name:
        raise ModelError("MODEL_CARD_INVALID", f"{path}: id: is {spec.id!r}, but the file is named {name!r}")
    return spec


def shipped_card_folder() -> Path:
    """Where the cards of the gateway's own models are: in a wheel ``ai/cards``, else ``config/models``."""
    return _WHEEL_CARDS if _WHEEL_CARDS.is_dir() else _REPOSITORY_CARDS


def _cards(folders: Sequence[Path]) -> dict[str, Path]:
    """Card files by model name; an earlier folder wins."""
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.glob("*.yaml")):
            found.setdefault(path.stem, path)
    return found


def _unknown(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    return f"There is no model {name!r}.{hint} Known models: {', '.join(known) or 'none'}."


def _parse(path: Path, content: bytes) -> dict[str, object]:
    try:
        fields = yaml.safe_load(content)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "cannot be parsed"
        raise ModelError("MODEL_CARD_INVALID", f"{path}{line}: not YAML: {problem}") from error
    if not isinstance(fields, dict):
        raise ModelError("MODEL_CARD_INVALID", f"{path}: a model card is a mapping of fields")
    return fields


def _describe(path: Path, content: bytes, error: ValidationError) -> str:
    """One part per wrong field: ``file:line: field: what is wrong``."""
    root = yaml.compose(content, Loader=yaml.SafeLoader)
    parts = []
    for item in error.errors(include_url=False):
        place = ".".join(str(step) for step in item["loc"]) or "card"
        message = item["msg"].removeprefix("Value error, ")
        parts.append(f"{path}:{_line(root, item['loc'])}: {place}: {message}")
    return "; ".join(parts)


def _line(node: yaml.Node | None, location: tuple[int | str, ...]) -> int:
    """Line of the deepest node that the location reaches."""
    line = node.start_mark.line + 1 if node else 1
    for step in location:
        if isinstance(node, yaml.MappingNode):
            child = next((pair for pair in node.value if pair[0].value == step), None)
            if child is None:
                break
            line, node = child[0].start_mark.line + 1, child[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            line = node.start_mark.line + 1
        else:
            break
    return line
