"""The command ``aigw``. A verb's module is imported only when that verb is called.

A new verb is one line in ``COMMANDS``: a function of a module of this package, or a
``typer.Typer`` of it for a noun with verbs of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Annotated

import typer

from gateway import __version__
from gateway.cli.common import EXIT_CONFIGURATION, EXIT_FAILED, print_problems
from gateway.errors import ConfigurationError, GatewayError

COMMANDS: Mapping[str, str] = {
    "serve": "serve:serve",
    "segment": "segment:segment",
    "volume": "volume:volume",
    "model": "model:model",
    "compare": "segment:compare",
    "study": "study:study",
    "results": "results:results",
    "status": "status:status",
    "check": "check:check",
    "config": "check:config",
    "echo": "peer:echo",
    "send": "peer:send",
    "demo": "demo:demo",
}
"""Verb or noun → ``module:attribute`` below gateway.cli."""


def build_app(only: str = "") -> typer.Typer:
    """The application: with one command, or with all of them (for ``--help``)."""
    app = typer.Typer(
        help="DICOM AI Gateway: image series in, segmentations and reports out. Research use only.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,  # its tracebacks show local variables, and those may hold headers
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for name in (only,) if only in COMMANDS else COMMANDS:
        module, _, attribute = COMMANDS[name].partition(":")
        command = getattr(import_module(f"gateway.cli.{module}"), attribute)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name)(command)
    return app


def run(arguments: Sequence[str] | None = None) -> None:
    """Parse and run; always ends in SystemExit with one of the codes in :mod:`gateway.cli.common`."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        build_app(given[0] if given else "")(args=given, prog_name="aigw")
    except ConfigurationError as error:
        print_problems(error)
        sys.exit(EXIT_CONFIGURATION)
    except GatewayError as error:
        sys.stderr.write(f"{error.name}: {error.reason}\n")
        sys.exit(EXIT_FAILED)


def _show_version(value: bool) -> None:
    if value:
        sys.stdout.write(f"aigw {__version__}\n")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """DICOM AI Gateway: image series in, segmentations and reports out. Research use only."""
