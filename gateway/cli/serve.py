"""``aigw serve``: the gateway until SIGTERM."""

from __future__ import annotations

import typer

from gateway.cli.common import ConfigOption, load


def serve(config_file: ConfigOption) -> None:
    """Receive, process and deliver until SIGTERM; logs are JSON lines on stderr."""
    from gateway import logs
    from gateway.clock import SystemClock
    from gateway.serve import serve as run

    settings = load(config_file)
    raise typer.Exit(run(settings, SystemClock(), logs.configure("serve")))
