"""YAML of cards, read with bounds: a few lines of aliases can stand for billions of values."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from ai.model.paths import open_regular

MOST_BYTES = 1 << 20
"""More than any card has."""

_MOST_VALUES = 50_000
_DEEPEST = 32
_MERGE = "tag:yaml.org,2002:merge"
_NOT_SHOWN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def read_yaml(content: bytes) -> object:
    """Plain values of one YAML document; None for an empty one.

    Raises
    ------
    yaml.YAMLError
        It is no YAML; or no card can look like this: larger than ``MOST_BYTES``, nested too deeply, more than
        50 000 values with its aliases written out, a key given twice, characters that terminals obey.
    """
    if len(content) > MOST_BYTES:
        raise yaml.YAMLError(f"larger than any card, which has at most {MOST_BYTES} bytes")
    try:
        root = yaml.compose(content, Loader=yaml.SafeLoader)
        if root is None:
            return None
        _Bounds().check(root, 0)
        return yaml.SafeLoader("").construct_document(root)
    except RecursionError as error:
        raise yaml.YAMLError("nested too deeply") from error
    except (ValueError, OverflowError) as error:  # a number of 5000 digits, the 31st of June
        raise yaml.YAMLError(f"a value cannot be read: {str(error)[:120]}") from error


def read_small_file(path: Path) -> bytes:
    """A regular file of a card's size; raises OSError or yaml.YAMLError for anything else."""
    with open_regular(path) as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise yaml.YAMLError(f"larger than any card, which has at most {MOST_BYTES} bytes")
    return content


class _Bounds:
    """Counts the values that nodes stand for, each alias anew."""

    def __init__(self) -> None:
        self._values = 0

    def check(self, node: yaml.Node, depth: int) -> None:
        self._values += 1
        if self._values > _MOST_VALUES or depth > _DEEPEST:
            raise _problem(node, "too many values, or nested too deeply")
        if isinstance(node, yaml.ScalarNode):
            unseen = _NOT_SHOWN.search(node.value)
            if unseen:
                raise _problem(node, f"the character {unseen.group()!r} is not allowed")
        elif isinstance(node, yaml.SequenceNode):
            for child in node.value:
                self.check(child, depth + 1)
        elif isinstance(node, yaml.MappingNode):
            seen: dict[str, yaml.Node] = {}
            for key, value in node.value:
                self.check(key, depth + 1)
                self.check(value, depth + 1)
                if key.tag != _MERGE and isinstance(key, yaml.ScalarNode):
                    if key.value in seen:
                        first = seen[key.value].start_mark.line + 1
                        raise _problem(key, f"{key.value!r} is given twice; the first is in line {first}")
                    seen[key.value] = key


def _problem(node: yaml.Node, what: str) -> yaml.YAMLError:
    return yaml.MarkedYAMLError(problem=what, problem_mark=node.start_mark)
