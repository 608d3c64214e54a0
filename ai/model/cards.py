"""Find and read model cards."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import yaml
from pydantic import ValidationError

from ai.errors import ModelError, UnknownModel
from ai.model.card import ModelSpec
from ai.model.text import read_small_file, read_yaml

_REPOSITORY_CARDS = Path(__file__).parent.parent.parent / "config" / "models"
_CARD_SUFFIXES = frozenset({".yaml", ".yml"})
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
        content = read_small_file(path)
    except OSError as error:
        raise ModelError("MODEL_CARD_INVALID", f"{path}: cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ModelError("MODEL_CARD_INVALID", f"{path}: {error}") from error
    fields = _parse(path, content)
    if "digest" in fields:
        raise ModelError("MODEL_CARD_INVALID", f"{path}: digest: is computed; remove it from the card")
    try:
        spec = ModelSpec.model_validate(fields)
    except ValidationError as error:
        raise ModelError("MODEL_CARD_INVALID", _describe(path, content, error)) from error
    _refuse_uncoded(path, content, spec)
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
    return _named(path, load_card(path))


def find_model(text: str, folders: Sequence[Path] = ()) -> ModelSpec:
    """Find a card as a person names it: by name (see :func:`find_card`), or by the path of the card, or of
    the folder that lies beside the card.

    Raises UnknownModel, or ModelError as :func:`find_card` does.
    """
    path = Path(text)
    is_card = path.suffix in _CARD_SUFFIXES
    if not is_card and not ("/" in text or os.sep in text or path.is_dir()):
        return find_card(text, folders)
    card = path if is_card else path.with_name(f"{path.resolve().name}.yaml")
    if not card.is_file():
        what = "no model card" if is_card else f"no model: {card.name} is missing beside it"
        raise UnknownModel("UNKNOWN_MODEL", f"{path} is {what}.")
    return _named(card, load_card(card))


def list_cards(folders: Sequence[Path] = ()) -> dict[str, Path]:
    """Card files by model name: of the folders given, then of the gateway; an earlier one wins."""
    return _cards((*folders, shipped_card_folder()))


def shipped_card_folder() -> Path:
    """Where the cards of the gateway's own models are: in a wheel ``ai/cards``, else ``config/models``."""
    return _WHEEL_CARDS if _WHEEL_CARDS.is_dir() else _REPOSITORY_CARDS


def _named(path: Path, spec: ModelSpec) -> ModelSpec:
    if spec.id != path.stem:
        reason = f"{path}: id: is {spec.id!r}, but the file is named {path.stem!r}"
        raise ModelError("MODEL_CARD_INVALID", reason)
    return spec


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
        fields = read_yaml(content)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        raise ModelError("MODEL_CARD_INVALID", f"{path}{line}: not YAML of a card: {problem}") from error
    if not isinstance(fields, dict):
        raise ModelError("MODEL_CARD_INVALID", f"{path}: a model card is a mapping of fields")
    return fields


def _refuse_uncoded(path: Path, content: bytes, spec: ModelSpec) -> None:
    for index, structure in enumerate(spec.structures):
        try:
            _ = structure.coded
        except ModelError as error:
            place = ("structures", index, "key")
            line = _line(yaml.compose(content, Loader=yaml.SafeLoader), place)
            reason = f"{path}:{line}: structures.{index}.key: {error.reason}"
            raise ModelError(error.code, reason) from error


def _describe(path: Path, content: bytes, error: ValidationError) -> str:
    """One part per wrong field: ``file:line: field: what is wrong``."""
    root = yaml.compose(content, Loader=yaml.SafeLoader)
    parts = []
    items = error.errors(include_url=False)
    inner = {item["loc"][:-1] for item in items}
    for item in items:
        if item["type"] == "too_short" and item["loc"] in inner:
            continue  # its items are wrong, which is said already
        place = ".".join(str(step) for step in item["loc"]) or "card"
        message = _message(item["type"], item["msg"], item["loc"])
        parts.append(f"{path}:{_line(root, item['loc'])}: {place}: {message}")
    return "; ".join(parts)


def _message(kind: str, message: str, place: tuple[int | str, ...]) -> str:
    """What is wrong with a field, in our words where those of pydantic help nobody who edits a card."""
    if kind == "extra_forbidden":
        close = difflib.get_close_matches(str(place[-1]), _known_fields(), n=1)
        return f"unknown field{f'; did you mean {close[0]}?' if close else ''}"
    if kind == "string_type":
        return "must be text; put it in quotes"
    if kind == "missing":
        return "is missing"
    return message.removeprefix("Value error, ")


@cache
def _known_fields() -> tuple[str, ...]:
    """Every name of a field that a card can have."""
    return tuple(sorted(set(re.findall(r'"(\w+)": \{', json.dumps(ModelSpec.model_json_schema())))))


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
