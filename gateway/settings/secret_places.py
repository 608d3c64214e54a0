"""Where secrets may stand in a configuration file, so that they are never shown: rather hide too much.

Names are mistyped, indentation slips, and a file may not even be YAML. So this asks where a line stands, not
whether its setting is spelled well.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence

import yaml

from gateway.settings.dicom import Peer, ResultProfile, WebAccess
from gateway.settings.model import Settings
from gateway.settings.problems import Location
from gateway.settings.section import Listen
from gateway.settings.web import Stow, Web, WebTls

SECRETS = ("token", "password")
"""Settings whose value is never shown."""
HIDDEN = "***"

_LIKE_A_SECRET = re.compile(r"web|token|passw|pwd|secret|bearer|credential", re.IGNORECASE)
_OPEN_SETTINGS = frozenset(Peer.model_fields) - {"web"}
"""Settings of a peer that hold no secret."""
_OPEN_SECTIONS = frozenset(Settings.model_fields) - {"peers", "web"}
_KNOWN = frozenset[str]().union(
    *(each.model_fields for each in (Settings, Peer, WebAccess, ResultProfile, Web, WebTls, Stow, Listen))
)
_SECTION = re.compile(r"([A-Za-z_]+):(\s|$)")
_WORD = re.compile(r"[A-Za-z_-]{1,30}")
_QUOTED = re.compile(r"'[^'<][^']+'")


def is_secret(location: Location) -> bool:
    """Whether what stands at a location may be a secret, or hold one."""
    of_peer = location[:1] == ("peers",)
    keys = location[2:] if of_peer else location  # a peer may have any name
    if any(isinstance(step, str) and _LIKE_A_SECRET.search(step) for step in keys):
        return True
    return of_peer and len(location) > 2 and location[2] not in _OPEN_SETTINGS


def shown(location: Location) -> Location:
    """A location without keys that may be secrets themselves: ``{token:abc}`` is one key to YAML."""
    return tuple(
        HIDDEN if _is_secret_key(location[: end + 1]) else location[end] for end in range(len(location))
    )


def _is_secret_key(location: Location) -> bool:
    key = location[-1]
    if isinstance(key, int) or key in _KNOWN or not is_secret(location):
        return False
    if not _WORD.fullmatch(key):
        return True
    within = is_secret(location[:-1])
    return within and not difflib.get_close_matches(key.casefold(), _KNOWN, 1)


def without_quotes(message: str) -> str:
    """A message of the YAML parser without the names of anchors, aliases and tags that it cites."""
    return _QUOTED.sub(f"'{HIDDEN}'", message)


def secret_lines(root: yaml.Node) -> frozenset[int]:
    """Lines (from 1) of a composed file in which a secret may stand."""
    hidden: set[int] = set()
    seen: set[tuple[int, Location, bool]] = set()

    def walk(node: yaml.Node, location: Location, secret: bool) -> None:
        visit = (id(node), location[:3], secret)
        if visit in seen:  # an alias, which may even stand within itself
            return
        seen.add(visit)
        if secret:
            hidden.update(_lines(node))
        for key, value in _children(node):
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else HIDDEN
            here = (*location[:3], name)
            in_secret = secret or is_secret(here)
            within = in_secret or _is_misplaced(here, value)
            if in_secret:
                hidden.update(_lines(key))
            walk(key, here, within)
            walk(value, here, within)

    walk(root, (), False)
    return frozenset(hidden)


def _children(node: yaml.Node) -> Iterator[tuple[yaml.Node, yaml.Node]]:
    if isinstance(node, yaml.MappingNode):
        yield from node.value
    elif isinstance(node, yaml.SequenceNode):
        yield from ((yaml.ScalarNode("", "-", each.start_mark, each.start_mark), each) for each in node.value)


def _is_misplaced(location: Location, value: yaml.Node) -> bool:
    """A value that slipped out of its section: under a name that is none, or where a peer should be."""
    if len(location) == 1:
        return location[0] not in Settings.model_fields
    return len(location) == 2 and location[0] == "peers" and isinstance(value, yaml.ScalarNode)


def _lines(node: yaml.Node) -> range:
    is_block = isinstance(node, yaml.CollectionNode) and not node.flow_style
    # A block ends where the next thing begins; its last line is that of its last value.
    return range(node.start_mark.line + 1, node.end_mark.line + (1 if is_block else 2))


def may_be_shown(lines: Sequence[str], line: int, hidden: frozenset[int] | None) -> bool:
    """Whether a line (from 1) surely holds no secret.

    ``hidden`` is what :func:`secret_lines` found; None where the file could not be parsed: then only lines
    below the name of a section without secrets are shown.
    """
    if not 0 < line <= len(lines) or _LIKE_A_SECRET.search(lines[line - 1]):
        return False
    if hidden is not None:
        return line not in hidden
    sections = [found[1] for text in lines[:line] if (found := _SECTION.match(text))]
    return bool(sections) and sections[-1] in _OPEN_SECTIONS
