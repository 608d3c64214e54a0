"""What the verbs share: exit codes, the option ``--config``, output for people and for programs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console

if TYPE_CHECKING:
    from gateway.errors import ConfigurationError
    from gateway.settings import Problem, Settings


EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_PARTLY = 3
EXIT_PEER = 4
EXIT_NOT_FOUND = 5
EXIT_STATE = 6
EXIT_CONFIGURATION = 78

ConfigOption = Annotated[
    Path,
    # Whether it can be read is found out, and said, where it is read.
    typer.Option("--config", "-c", envvar="AIGW_CONFIG", readable=False, help="Configuration file (YAML)."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, for programs.")]


def load(config: Path, *, starts: bool = False, warnings: list[Problem] | None = None) -> Settings:
    """Settings of a configuration file, with every model's card checked.

    ``starts``: a gateway is to start with it, so the files of TLS are checked too. ``warnings`` gets what
    works, and should be seen to.

    Raises ConfigurationError, which :func:`gateway.cli.app.run` shows and answers with exit 78.
    """
    from ai.model import find_card
    from gateway.settings import load_settings

    if not starts:
        return load_settings(config, os.environ, find_card, warnings=warnings)
    from gateway.settings.tls_check import check_tls_files

    return load_settings(config, os.environ, find_card, further=(check_tls_files,), warnings=warnings)


def print_problems(error: ConfigurationError) -> None:
    """Every problem of a configuration on stderr, and how many there are."""
    count = len(error.problems)
    for problem in error.problems:
        sys.stderr.write(f"{problem}\n")
    sys.stderr.write(f"{count} problem{'' if count == 1 else 's'}. Nothing was changed.\n")


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON object on stdout."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def console() -> Console:
    """Stdout for people: colours and the terminal's width on a terminal, wide plain text elsewhere."""
    width = None if sys.stdout.isatty() else 200
    # No emoji: to rich, the :AB: of a fingerprint is one.
    return Console(width=width, highlight=False, markup=False, emoji=False, soft_wrap=not sys.stdout.isatty())


def fail(name: str, reason: str, code: int) -> NoReturn:
    """Say on stderr what is wrong, by name and in a sentence, and leave."""
    sys.stderr.write(f"{name}: {reason}\n")
    raise typer.Exit(code)


def where_hint(folders: Sequence[Path]) -> str:
    """What a person may have forgotten who names a model that is not there."""
    return "" if folders else " Your own models are looked for with --model-dir DIR or --config FILE."


def prepare_folder(out: Path) -> None:
    """Make a folder for results before any work is done; leave with EXIT_USAGE if that cannot be."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        usable = os.access(out, os.W_OK | os.X_OK)
    except OSError as error:
        fail("OUT_UNUSABLE", f"{out} cannot be a folder for results: {error.strerror}.", EXIT_USAGE)
    if not usable:
        fail("OUT_UNUSABLE", f"{out} cannot be written to.", EXIT_USAGE)


def place_text(host: str, port: int | str) -> str:
    """``127.0.0.1:104``; an IPv6 address stands in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def clock_text(at_s: float | None) -> str:
    """``2026-11-21 07:41:10Z`` from seconds since 1970."""
    return "-" if at_s is None else datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
