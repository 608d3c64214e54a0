"""A graph and a partial card beside it, as a draft of a model.

What a graph expects of its images cannot be read from it, so a person writes that down: in ``card.yaml``
beside the graph, or in a file of the graph's name that ends in ``.yaml``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml

from ai.errors import ModelError
from ai.loaders.drafts import Draft
from ai.model.text import read_small_file, read_yaml
from ai.terminology.naming import nested_parts, structure_entries, with_parts

_GRAPHS = (".onnx", ".pt2", ".ts", ".xml", ".pt")
_REQUIRED = ("accepts", "recipe", "structures", "licence")
_OWN_FIELDS = ("id", "digest", "files", "loader")
EXAMPLE = """\
licence: {spdx: Apache-2.0, commercial: "yes"}
accepts: {modalities: [CT]}
recipe:
  grid: {axes: RAS, spacing_mm: [1.5, 1.5, 1.5]}   # what the network was trained on
  intensity: [{op: rescale, source: [-1000, 1000], target: [0, 1], clip: true}]
  tiles: {size: [96, 96, 96], step: 0.5}
structures: {1: left lung, 2: right lung}          # channel 0 is the background
"""
"""A partial card, as a person would write it."""


def draft(source: Path) -> Draft:
    """The card and files of a graph.

    Parameters
    ----------
    source
        The graph file, or the folder that it lies in.

    Returns
    -------
    Fields of the partial card with what it leaves open filled in; structures given as names by number have
    codes. The files are the graph and the files of weights that it names.

    Raises
    ------
    ModelError
        ``MODEL_SOURCE_UNKNOWN`` with no graph, or several to choose from; ``MODEL_CARD_INCOMPLETE`` with the
        sections that are missing and an example; ``MODEL_CARD_INVALID``.
    """
    folder = source if source.is_dir() else source.parent
    graphs = _graphs_in(folder) if source.is_dir() else [source]
    card = _card_beside(folder, graphs)
    given = _read(card) if card is not None else {}
    graph = _graph_of(folder, graphs, given)
    missing = [name for name in _REQUIRED if not given.get(name)]
    if missing:
        where = f"{card} lacks" if card is not None else f"There is no card.yaml beside {graph}. It needs"
        raise ModelError(
            "MODEL_CARD_INCOMPLETE",
            f"{where} the sections {', '.join(missing)}: they cannot be read from a graph. An example to "
            f"change:\n{EXAMPLE}",
        )
    structures, names, uncoded = _structures(given["structures"])
    warnings = _doubts(given["recipe"], structures)
    section = given.get("graph")
    fields: dict[str, object] = {
        "version": "1",
        "title": graph.stem[:64],
        "algorithm": f"Neural network ({graph.suffix.lower().removeprefix('.')})",
        "manufacturer": "Unknown",
        "intended_use": "Not stated by its maker. Research only; not for diagnosis.",
        "limits": [],
        "references": [],
        **{key: value for key, value in given.items() if key not in _OWN_FIELDS},
        "loader": "graph",
        "graph": {**(section if isinstance(section, Mapping) else {}), "file": graph.name},
        "structures": structures,
    }
    if "intended_use" not in given:
        warnings.append("The card does not say what the model is intended for (intended_use).")
    name = str(given.get("id") or _name(source, graph))
    return Draft(fields, _files(graph), tuple(warnings), name, names, uncoded)


def _name(source: Path, graph: Path) -> str:
    return source.name if source.is_dir() and graph.stem in ("model", "network", "graph") else graph.stem


def _graphs_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in _GRAPHS and path.is_file())


def _graph_of(folder: Path, graphs: list[Path], given: Mapping[str, object]) -> Path:
    section = given.get("graph")
    named = section.get("file") if isinstance(section, Mapping) else None
    found = [path for path in graphs if named in (None, path.name)]
    if len(found) == 1 and found[0].is_file():
        return found[0]
    listed = ", ".join(path.name for path in graphs) or "none"
    raise ModelError(
        "MODEL_SOURCE_UNKNOWN",
        f"One graph ({', '.join(_GRAPHS)}) is needed, and {folder} has: {listed}. Give the file itself, or "
        "name it in card.yaml as graph: {file: NAME}.",
    )


def _card_beside(folder: Path, graphs: list[Path]) -> Path | None:
    names = [*(path.with_suffix(suffix).name for path in graphs for suffix in (".yaml", ".yml"))]
    for name in (*names, "card.yaml", "card.yml"):
        if (folder / name).is_file():
            return folder / name
    return None


def _read(card: Path) -> dict[str, object]:
    try:
        fields = read_yaml(read_small_file(card))
    except (yaml.YAMLError, OSError) as error:
        raise ModelError("MODEL_CARD_INVALID", f"{card}: not YAML: {error}") from error
    if not isinstance(fields, dict):
        raise ModelError("MODEL_CARD_INVALID", f"{card}: a model card is a mapping of sections")
    return {str(key): value for key, value in fields.items()}


def _structures(given: object) -> tuple[object, Mapping[int, str], Mapping[int, str]]:
    """Structures as a card has them, their names where there were only names, and why some have no code.

    Names by number, or names in order, get their codes.
    """
    names = dict(enumerate(given, 1)) if isinstance(given, list) else given
    if not isinstance(names, Mapping) or not all(isinstance(name, str) for name in names.values()):
        return given, {}, {}
    if not all(isinstance(number, int) for number in names):
        raise ModelError("MODEL_CARD_INVALID", "structures: names stand by their numbers, such as {1: liver}")
    found = structure_entries(names)
    return with_parts(found.entries, nested_parts(found.names)), found.names, found.uncoded


def _doubts(recipe: object, structures: object) -> list[str]:
    """A note where regions may overlap and nobody says which holds which."""
    output = recipe.get("output") if isinstance(recipe, Mapping) else None
    regions = isinstance(output, Mapping) and output.get("kind") == "regions"
    entries = structures if isinstance(structures, list) else []
    if not regions or len(entries) < 2 or any(isinstance(e, Mapping) and e.get("includes") for e in entries):
        return []
    return [
        "regions may overlap, and no structure says what it includes: where two are found, only the later "
        "one is kept; write includes if one holds the other"
    ]


def _files(graph: Path) -> dict[str, Path]:
    """The graph and its weights beside it: the ``.bin`` of an IR, the files that an ONNX graph names."""
    files = {graph.name: graph}
    if graph.suffix.lower() == ".xml":
        weights = graph.with_suffix(".bin")
        if not weights.is_file():
            raise ModelError("MODEL_FILE_MISSING", f"{graph} needs its weights {weights.name} beside it.")
        files[weights.name] = weights
    if graph.suffix.lower() == ".onnx":
        content = graph.read_bytes()
        beside = (path for path in graph.parent.iterdir() if path.is_file() and path != graph)
        files |= {path.name: path for path in sorted(beside) if _names(content, path.name)}
    return files


def _names(content: bytes, name: str) -> bool:
    """Whether an ONNX graph names a file as the place of its weights (a string of protobuf: length, text)."""
    text = name.encode()
    return len(text) < 128 and b"\x0a\x08location\x12" + bytes([len(text)]) + text in content
