"""What is wrong in a configuration file, where, and how it is shown to a person."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from gateway.errors import ConfigurationError

Location = tuple[str | int, ...]
"""Keys and list positions from the top of the file to a value."""


@dataclass(frozen=True, order=True)
class Problem:
    """One problem; ``line`` and ``column`` count from 1."""

    line: int
    column: int
    path: str
    message: str
    file: str = ""
    source: str = ""

    def __str__(self) -> str:
        """``file:line:column  dotted.path: message``, then the source line and a caret."""
        where = f"{self.file}:{self.line}:{self.column}"
        head = f"{where}  {self.path}: {self.message}" if self.path else f"{where}  {self.message}"
        if not self.source.strip():
            return head
        # A caret under the tab-free picture of the line stays in its column.
        caret = " " * (self.column - 1) + "^"
        return f"{head}\n   {self.line:>3} | {self.source.replace(chr(9), ' ')}\n       | {caret}"


class SettingsError(ConfigurationError):
    """The file cannot be used; ``details`` holds every problem, sorted by line."""

    def __init__(self, details: Sequence[Problem]) -> None:
        self.details = tuple(sorted(details))
        super().__init__(tuple(str(problem) for problem in self.details))


def dotted(location: Location) -> str:
    """``peers.pacs.roles.0``."""
    return ".".join(str(step) for step in location)


def did_you_mean(name: str, known: Collection[str]) -> str:
    """``, did you mean "x"?`` when something known is close, else the list of what is known."""
    by_case = {item.casefold(): item for item in known}
    close = difflib.get_close_matches(name.casefold(), by_case, 1)
    if close:
        return f', did you mean "{by_case[close[0]]}"?'
    return f"; known: {', '.join(sorted(known)) or 'none'}"
