"""What registering a foreign model yields: the fields of its card and the files to copy.

A source is recognised by what lies in it, never by its name, and nothing of it is run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from ai.errors import ModelError
from ai.model import below_folder
from ai.model.text import read_small_file, read_yaml
from ai.terminology import close_keys
from ai.terminology.given import HOW, Given
from ai.terminology.naming import Named, split_side, with_codes

_GRAPHS = frozenset({".onnx", ".pt2", ".ts", ".xml"})
_RECOGNISED = (
    "a model card (.yaml) with its files beside it; a MONAI bundle (a folder with configs/metadata.json); "
    "an nnU-Net v2 results folder (with dataset.json and plans.json); a graph (.onnx, .pt2, .ts) with a card"
)
_FOLDER_LOADERS = frozenset({"monai_bundle", "nnunet"})  # their models are whole folders
_MALFORMED = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
_MOST_SHOWN = 40
_OWN_FIELDS = ("id", "digest", "files")  # what `aigw model add` fills in


@dataclass(frozen=True)
class Draft:
    """A model about to be registered.

    Attributes
    ----------
    fields
        The card as a mapping, without ``id``, ``digest`` and ``files``.
    files
        Name below the model's folder → file to copy.
    warnings
        What a person should look at, a sentence each.
    name
        The id that the source gives itself; empty if none.
    names
        What the source calls its structures, by number; empty: their codes are in its own card.
    uncoded
        Why a structure has no code but a private one, by number.
    """

    fields: dict[str, object]
    files: Mapping[str, Path]
    warnings: tuple[str, ...] = ()
    name: str = ""
    names: Mapping[int, str] = field(default_factory=dict)
    uncoded: Mapping[int, str] = field(default_factory=dict)


def draft(source: Path) -> Draft:
    """The card and files of a model in a folder or file.

    Raises
    ------
    ModelError
        ``MODEL_SOURCE_MISSING``, ``MODEL_SOURCE_INVALID``, ``MODEL_SOURCE_UNKNOWN`` with what is recognised,
        ``MODEL_FILE_MISSING``, or what the draft of that kind raises.
    """
    if not source.exists():
        raise ModelError("MODEL_SOURCE_MISSING", f"There is no file or folder {source}.")
    card = _card_of(source)
    if card is not None and _speaks_for_a_graph(card):
        return _named(_drafted_by("ai.loaders.graph_draft", card.parent), card.parent)
    if card is not None:
        return _of_card(card)
    if source.is_dir():
        for folder in (source, *_folders_in(source)):
            if (folder / "configs" / "metadata.json").is_file():
                return _named(_drafted_by("ai.loaders.bundle.draft", folder), folder)
        if _is_nnunet(source):
            return _named(_drafted_by("ai.loaders.nnunet_draft", source), source)
    if any(path.suffix.lower() in _GRAPHS for path in (source, *_files_in(source))):
        return _named(_drafted_by("ai.loaders.graph_draft", source), source)
    kind = "folder" if source.is_dir() else "file"
    raise ModelError(
        "MODEL_SOURCE_UNKNOWN",
        f"The {kind} {source} is no model that is recognised. These are: {_RECOGNISED}.",
    )


def with_codes_of(found: Draft, given: Mapping[str, Given], *, private: bool) -> Draft:
    """A draft whose structures are all coded.

    Parameters
    ----------
    given
        Codes that a person gives, by the source's names of structures.
    private
        Whether what has no code then may keep a private one, which is told among the warnings.

    Raises
    ------
    ModelError
        ``STRUCTURE_NOT_CODED`` with the names, keys that are close, and what to do; ``CODE_NAME_UNKNOWN``,
        ``CODE_INVALID``.
    """
    if not found.names:
        if given:
            reason = "This model brings a card with codes of its own; change its structures there."
            raise ModelError("CODE_NAME_UNKNOWN", reason)
        return found
    entries: Any = found.fields["structures"]
    named = with_codes(Named(entries, found.names, found.uncoded), given)
    if named.uncoded and not private:
        raise ModelError("STRUCTURE_NOT_CODED", _without_codes(named))
    told = [
        f"structure {named.names[number]!r} {why}: private code {_type_code(entry)}"
        for entry in named.entries
        if (why := named.uncoded.get(number := int(str(entry["number"]))))
    ]
    return replace(
        found,
        fields={**found.fields, "structures": _kept_parts(entries, named.entries)},
        warnings=(*found.warnings, *told),
        uncoded=named.uncoded,
    )


def _kept_parts(before: Sequence[Mapping[str, object]], after: Sequence[dict[str, object]]) -> list[object]:
    """Entries with what they included before they were given codes."""
    return [
        {**entry, "includes": old["includes"]} if "includes" in old else entry
        for old, entry in zip(before, after, strict=True)
    ]


def _type_code(entry: Mapping[str, Any]) -> str:
    code = entry["coding"]["type"]
    return f"{code['scheme']}:{code['value']}"


def _without_codes(named: Named) -> str:
    """What to say about structures that nobody has coded."""
    lines = []
    for number, why in named.uncoded.items():
        close = close_keys("_".join(split_side(named.names[number])[::-1]).strip("_"))
        hint = f"; close keys: {', '.join(close)}" if close else ""
        lines.append(f"{named.names[number]!r} {why}{hint}")
    shown = "\n  ".join([*lines[:_MOST_SHOWN], *(["…"] if len(lines) > _MOST_SHOWN else [])])
    return (
        f"{len(lines)} of the model's {len(named.names)} structures have no code, and none is made up:\n"
        f"  {shown}\nGive each one: --code {HOW}; or all of them with --codes FILE.csv (columns name and "
        "key). --private-codes registers them under our private scheme 99GATEWAY, which other systems do "
        "not know."
    )


def _drafted_by(module: str, source: Path) -> Draft:
    """The draft that the loader of that kind makes."""
    make: Callable[[Path], Draft] = import_module(module).draft
    try:
        return make(source)
    except _MALFORMED as error:
        cause = f"{type(error).__name__}: {str(error)[:120]}"
        raise ModelError(
            "MODEL_SOURCE_INVALID", f"A file of {source} does not say what those of its kind do ({cause})."
        ) from error


def _named(found: Draft, source: Path) -> Draft:
    return found if found.name else replace(found, name=source.stem if source.is_file() else source.name)


def _is_nnunet(source: Path) -> bool:
    """True for a results folder, or the folder of a data set with one or more of them."""
    return any(
        (folder / "dataset.json").is_file() and (folder / "plans.json").is_file()
        for folder in (source, *_folders_in(source))
    )


def _folders_in(source: Path) -> list[Path]:
    return sorted(path for path in source.iterdir() if path.is_dir()) if source.is_dir() else []


def _files_in(source: Path) -> list[Path]:
    return sorted(path for path in source.iterdir() if path.is_file()) if source.is_dir() else []


def _card_of(source: Path) -> Path | None:
    """The card that a source is or has: a YAML file that names a loader; in a folder the only such file."""
    if source.is_file():
        return source if _is_card(source) else None
    cards = [path for path in _files_in(source) if _is_card(path)]
    beside = source.with_name(f"{source.name}.yaml")
    if not cards and _is_card(beside):
        return beside
    if len(cards) > 1:
        names = ", ".join(path.name for path in cards)
        raise ModelError(
            "MODEL_SOURCE_UNKNOWN", f"The folder {source} has several model cards: {names}. Give one of them."
        )
    return cards[0] if cards else None


def _is_card(path: Path) -> bool:
    return "loader" in _mapping(path)


def _speaks_for_a_graph(card: Path) -> bool:
    """True for a card that a person wrote beside a graph: it pins nothing, and may be short."""
    fields = _mapping(card)
    stem = Path(str(_section(fields, "graph").get("file", ""))).stem
    return fields["loader"] == "graph" and not fields.get("files") and card.stem in ("card", stem)


def _mapping(path: Path) -> dict[str, object]:
    """A small YAML file as a mapping; empty for anything else."""
    if path.suffix.lower() not in {".yaml", ".yml"} or not path.is_file():
        return {}
    try:
        fields = read_yaml(read_small_file(path))
    except (yaml.YAMLError, OSError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _of_card(card: Path) -> Draft:
    """A card and its files, which lie beside it or in the folder of its id."""
    fields = _mapping(card)
    name = str(fields.get("id", "")) or card.stem
    files = {each: _beside(card, name, each) for each in sorted(_file_names(fields))}
    if fields.get("loader") in _FOLDER_LOADERS and not fields.get("files"):
        folder = card.parent / name
        files |= {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}
    kept = {key: value for key, value in fields.items() if key not in _OWN_FIELDS}
    return Draft(kept, files, (), name)


def _file_names(fields: Mapping[str, object]) -> set[str]:
    """Files that a card speaks of: those that it pins, else those that its loader reads."""
    pinned = fields.get("files")
    if isinstance(pinned, Mapping) and pinned:
        return {str(name) for name in pinned}
    network, graph, bundle = (_section(fields, key) for key in ("network", "graph", "bundle"))
    weights = network.get("weights")
    names = [*(weights if isinstance(weights, list) else []), network.get("definition"), graph.get("file")]
    names += [bundle.get("configuration"), bundle.get("weights")]
    found = {str(name) for name in names if name}
    found |= {f"{name[:-4]}.bin" for name in found if name.endswith(".xml")}  # OpenVINO: topology, weights
    return found


def _section(fields: Mapping[str, object], key: str) -> Mapping[str, object]:
    section = fields.get(key)
    return section if isinstance(section, Mapping) else {}


def _beside(card: Path, name: str, file: str) -> Path:
    try:
        below_folder(file)
    except ValueError as error:
        raise ModelError("MODEL_CARD_INVALID", f"{card}: {error}.") from error
    for folder in (card.parent / name, card.parent):
        if (folder / file).is_file():
            return folder / file
    raise ModelError(
        "MODEL_FILE_MISSING", f"{card} speaks of the file {file}, which is neither beside it nor in {name}/."
    )
