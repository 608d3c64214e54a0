"""YAML text to plain values with the place of each: the part that knows lines and columns.

Scalars follow the YAML 1.2 core schema: only ``true`` and ``false`` are booleans, so that ``no``
and ``off`` stay text. ``${NAME}`` and ``${NAME:-default}`` are replaced inside scalars after
parsing, so that what the environment holds is never read as YAML; ``$${`` is a literal ``${``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import yaml

from gateway.settings.problems import Location, Problem, dotted
from gateway.settings.secret_places import is_secret, may_be_shown, secret_lines, shown, without_quotes

_MOST_VALUES = 20_000  # a few nested aliases can stand for billions of values
_DEEPEST = 24
_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_VARIABLE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_PLAIN_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "seq", "map")}


class _TooBig(Exception):
    """The document stands for more values than a configuration can need."""


@dataclass
class Document:
    """Values of a configuration file, with marks (line, column from 1) and problems found so far."""

    file: str
    lines: list[str]
    values: object = None
    marks: dict[Location, tuple[int, int]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    broken: set[Location] = field(default_factory=set)
    """Values that already have a problem, about which nothing more needs to be said."""
    warnings: list[Problem] = field(default_factory=list)
    """What works, and should be seen to."""
    from_environment: set[Location] = field(default_factory=set)
    """Values in which an environment variable stands."""
    hidden_lines: frozenset[int] | None = None
    """Lines that may hold a secret; None while the file could not be parsed."""

    def mark(self, location: Location) -> tuple[int, int]:
        """Place of a value, or of the nearest thing around it that is in the file."""
        while location and location not in self.marks:
            location = location[:-1]
        return self.marks.get(location, (1, 1))

    def add(self, location: Location, message: str, at: tuple[int, int] | None = None) -> None:
        """Note a problem with a value."""
        problem = self._problem(location, message, at)
        if problem not in self.problems:
            self.problems.append(problem)
        self.broken.add(location)

    def warn(self, location: Location, message: str) -> None:
        """Note something that does not keep the gateway from running."""
        self.warnings.append(self._problem(location, f"warning: {message}", None))

    def _problem(self, location: Location, message: str, at: tuple[int, int] | None) -> Problem:
        line, column = at or self.mark(location)
        source = self.lines[line - 1] if may_be_shown(self.lines, line, self.hidden_lines) else ""
        return Problem(line, column, dotted(shown(location)), message, self.file, source)


def parse(text: str, file: str, environment: Mapping[str, str]) -> Document:
    """Parse a configuration file; problems are in the document, never raised."""
    document = Document(file, text.splitlines())
    try:
        root = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.MarkedYAMLError as error:
        _syntax_error(document, error)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        document.add((), f"not YAML: the character {error.character!r} is not allowed", (line, 1))
    except RecursionError:
        document.add((), "not a configuration: nested too deeply", (1, 1))
    else:
        if root is None:
            document.add((), "the file is empty; see config/gateway.yaml for every setting", (1, 1))
            return document
        try:
            document.hidden_lines = secret_lines(root)
            document.values = _Builder(document, environment).build(root, ())
        except _TooBig:
            document.add((), "not a configuration: too many values or nested too deeply", (1, 1))
    return document


class _Builder:
    """Turns composed nodes into values; counts them, so that aliases cannot explode."""

    def __init__(self, document: Document, environment: Mapping[str, str]) -> None:
        self._document = document
        self._environment = environment
        self._values = 0

    def build(self, node: yaml.Node, location: Location) -> object:
        self._values += 1
        if self._values > _MOST_VALUES or len(location) > _DEEPEST:
            raise _TooBig
        mark = (node.start_mark.line + 1, node.start_mark.column + 1)
        self._document.marks.setdefault(location, mark)
        if node.tag not in _PLAIN_TAGS:
            named = "" if is_secret(location) else f" such as {node.tag}"
            self._document.add(location, f"YAML tags{named} are not allowed", mark)
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, location)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(child, (*location, index)) for index, child in enumerate(node.value)]
        plain = isinstance(node, yaml.ScalarNode) and node.style is None
        return self._scalar(str(node.value), plain, location)

    def _mapping(self, node: yaml.MappingNode, location: Location) -> dict[str, object]:
        values: dict[str, object] = {}
        for key_node, value_node in node.value:
            mark = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            if not isinstance(key_node, yaml.ScalarNode):
                self._document.add(location, "a key must be plain text; put ${…} in quotes", mark)
                continue
            key = str(key_node.value)
            here = (*location, key)
            if key in values:
                first = self._document.marks[here][0]
                self._document.add(here, f"is given twice; the first is in line {first}", mark)
                continue
            self._document.marks[here] = mark
            values[key] = self.build(value_node, here)
        return values

    def _scalar(self, text: str, plain: bool, location: Location) -> object:
        if plain and text in ("", "~", "null"):
            self._document.add(location, "has no value; write one or remove the line")
            return None
        if "${" in text:
            return self._substitute(text, location)
        if not plain:
            return text
        if text in ("true", "false"):
            return text == "true"
        if _INTEGER.fullmatch(text) and len(text) <= 20:
            return int(text)
        return float(text) if _FLOAT.fullmatch(text) else text

    def _substitute(self, text: str, location: Location) -> str:
        def value(match: re.Match[str]) -> str:
            if match[0] == "$${":
                return "${"
            found = self._environment.get(match[1]) or match[2]
            if found is None:
                state = "is empty" if match[1] in self._environment else "is not set"
                self._document.add(location, f"environment variable {match[1]} {state}")
                return ""
            return found

        self._document.from_environment.add(location)
        left = _VARIABLE.sub("", text)
        if "${" in left:
            self._document.add(location, "write ${NAME} or ${NAME:-default}; $${ stands for a plain ${")
        return _VARIABLE.sub(value, text)


def _syntax_error(document: Document, error: yaml.MarkedYAMLError) -> None:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    line = min(line, max(len(document.lines), 1))
    source = document.lines[line - 1] if document.lines else ""
    begun = f" (begun in line {error.context_mark.line + 1})" if error.context_mark else ""
    message = f"not YAML: {error.context or ''}{begun} {error.problem or ''}".replace("  ", " ").rstrip()
    if error.problem and "'\\t'" in error.problem:
        message = "not YAML: a tab; indent with spaces"
    elif "${" in source:
        message += '; inside { } and [ ] write "${NAME}" in quotes'
    open_to_all = may_be_shown(document.lines, line, None)
    document.add((), message if open_to_all else without_quotes(message), (line, column))
