"""Facts of instances that an older version of the gateway entered: read once more, from the spool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ai.errors import SeriesRefused
from ai.source import read_file
from gateway.header import FACT_KEYWORDS
from gateway.journal.records import Member


def with_all_facts(members: Sequence[Member], spool_root: Path) -> list[Member]:
    """The members, each with the facts that are kept today.

    Beside an instance that has them, one that lacks some would seem to be of another volume.
    """
    return [member if member.has_all_facts else _read_again(member, spool_root) for member in members]


def _read_again(member: Member, spool_root: Path) -> Member:
    """The member as its file tells; unchanged where that cannot be read, which its job will say by name."""
    try:
        header = read_file(spool_root / member.path, FACT_KEYWORDS).header
    except (SeriesRefused, OSError):
        return member
    return replace(member, facts=header.facts, frames=header.frames, has_all_facts=True)
