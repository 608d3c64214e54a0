"""``aigw check`` and ``aigw config``: is the configuration usable, and what can it hold?"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from gateway.cli.common import EXIT_CONFIGURATION, ConfigOption, JsonOption, load, place_text, print_json

if TYPE_CHECKING:
    from gateway.settings import Problem, Settings
    from gateway.settings.dicom import Peer


_SHADOW = "shadow: computed and kept, NOTHING is sent (results: {status: live} sends)"

config = typer.Typer(help="About the configuration file.", no_args_is_help=True)


def check(config_file: ConfigOption, as_json: JsonOption = False) -> None:
    """Check the configuration without starting anything; exit 78 if it has problems.

    With --json: {"file", "ok", "problems": [{"line", "column", "path", "message"}], "warnings", "summary"}.
    """
    from gateway.settings import SettingsError

    report: dict[str, Any] = {"file": str(config_file), "ok": True, "problems": [], "warnings": []}
    warnings: list[Problem] = []
    try:
        settings = load(config_file, starts=True, warnings=warnings)
    except SettingsError as error:
        if not as_json:
            raise
        print_json({**report, "ok": False, "problems": _records(error.details), "summary": None})
        raise typer.Exit(EXIT_CONFIGURATION) from error
    summary = _summary(settings)
    if as_json:
        print_json({**report, "warnings": _records(warnings), "summary": summary})
        return
    sys.stderr.writelines(f"{warning}\n" for warning in warnings)
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


@config.command("show")
def config_show(config_file: ConfigOption, as_json: JsonOption = False) -> None:
    """Print every setting that is in force, with defaults and environment; secrets are shown as ***."""
    import yaml

    settings = load(config_file)
    shown = _redacted(settings.model_dump(mode="json", exclude_none=True))
    if as_json:
        print_json(shown)
        return
    sys.stdout.write(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, default_flow_style=None))


@config.callback()
def _config() -> None:
    """About the configuration file."""


def _redacted(value: Any) -> Any:
    from gateway.settings.secret_places import SECRETS

    if isinstance(value, dict):
        return {k: "***" if k in SECRETS else _redacted(v) for k, v in value.items()}
    return [_redacted(each) for each in value] if isinstance(value, list) else value


def _records(found: Sequence[Problem]) -> list[dict[str, Any]]:
    return [{"line": p.line, "column": p.column, "path": p.path, "message": p.message} for p in found]


def _summary(settings: Settings) -> dict[str, Any]:
    from gateway.settings.runtime import routes

    dicom, web, tls = settings.dicom, settings.web.listen, settings.dicom.tls
    secure = (
        f"{place_text(tls.listen.host, tls.listen.port)}, client certificates {tls.client_certificates}"
        if tls
        else ""
    )
    peers = [f"{name}: {_peer_text(peer)}" for name, peer in settings.peers.items()]
    return {
        "ae_title": f"{dicom.ae_title} on {place_text(dicom.listen.host, dicom.listen.port)}",
        **({"tls": secure} if tls else {}),
        "web": f"{place_text(web.host, web.port)}, {'HTTPS' if settings.web.tls else 'HTTP'}",
        "data_dir": str(settings.data_dir),
        "peers": peers or ["none"],
        "models": [f"{name}: card {choice.card}" for name, choice in settings.models.items()] or ["none"],
        "routes": [route.describe() for route in routes(settings)] or ["none: nothing is processed"],
        "results": "live" if settings.results.status == "live" else _SHADOW,
        "device": ", ".join(settings.workers.device),
    }


def _peer_text(peer: Peer) -> str:
    """``CT_1 @ 192.0.2.11:any port, source, from 10.1.0.0/16, TLS required, web``."""
    further = [
        f"from {', '.join(peer.addresses)}" if peer.addresses else "",
        "TLS required" if peer.tls == "required" or peer.certificate else "",
        f"certificate {peer.certificate}" if peer.certificate else "",
        "web" if peer.web else "",
    ]
    text = f"{peer.ae_title} @ {place_text(peer.host, peer.port or 'any port')}, {', '.join(peer.roles)}"
    return ", ".join([text, *(each for each in further if each)])
