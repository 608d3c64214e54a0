"""``aigw check`` and ``aigw config``: is the configuration usable, and what can it hold?"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import typer

from gateway.cli.common import EXIT_CONFIGURATION, ConfigOption, JsonOption, load, print_json

if TYPE_CHECKING:
    from gateway.settings import Settings, SettingsError


_SHADOW = "shadow: computed and kept, NOTHING is sent (results: {status: live} sends)"

config = typer.Typer(help="About the configuration file.", no_args_is_help=True)


def check(config_file: ConfigOption, as_json: JsonOption = False) -> None:
    """Check the configuration without starting anything; exit 78 if it has problems.

    With --json: {"file", "ok", "problems": [{"line", "column", "path", "message"}], "summary"}.
    """
    from gateway.settings import SettingsError

    try:
        settings = load(config_file)
    except SettingsError as error:
        if not as_json:
            raise
        print_json({"file": str(config_file), "ok": False, "problems": _records(error), "summary": None})
        raise typer.Exit(EXIT_CONFIGURATION) from error
    summary = _summary(settings)
    if as_json:
        print_json({"file": str(config_file), "ok": True, "problems": [], "summary": summary})
        return
    sys.stdout.write(f"{config_file}: ok\n")
    for name, value in summary.items():
        text = (
            "\n".join(f"  {'':<13} {line}" for line in value).lstrip() if isinstance(value, list) else value
        )
        sys.stdout.write(f"  {name:<13} {text}\n")


@config.command("schema")
def config_schema() -> None:
    """Print the JSON Schema of the configuration file, for editors."""
    from gateway.settings.schema import schema_text

    sys.stdout.write(schema_text())


@config.callback()
def _config() -> None:
    """About the configuration file."""


def _records(error: SettingsError) -> list[dict[str, Any]]:
    return [{"line": p.line, "column": p.column, "path": p.path, "message": p.message} for p in error.details]


def _summary(settings: Settings) -> dict[str, Any]:
    from gateway.settings.runtime import routes

    dicom, web = settings.dicom, settings.web.listen
    peers = [
        f"{name}: {peer.ae_title} @ {peer.host}:{peer.port or 'any port'}, {', '.join(peer.roles)}"
        for name, peer in settings.peers.items()
    ]
    return {
        "ae_title": f"{dicom.ae_title} on {dicom.listen.host}:{dicom.listen.port}",
        "web": f"{web.host}:{web.port}",
        "data_dir": str(settings.data_dir),
        "peers": peers or ["none"],
        "models": [f"{name}: card {choice.card}" for name, choice in settings.models.items()] or ["none"],
        "routes": [route.describe() for route in routes(settings)] or ["none: nothing is processed"],
        "results": "live" if settings.results.status == "live" else _SHADOW,
        "device": ", ".join(settings.workers.device),
    }
