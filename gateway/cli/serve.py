"""``aigw serve``: the gateway until SIGTERM."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from gateway.cli.common import ConfigOption, load

if TYPE_CHECKING:
    from gateway.settings import Problem


def serve(config_file: ConfigOption) -> None:
    """Receive, process and deliver until SIGTERM (exit 0); logs are JSON lines on stderr.

    Exit 78 when the configuration has problems, 1 when it cannot start or a part of it fails.
    """
    from gateway import logs
    from gateway.clock import SystemClock
    from gateway.serve import serve as run

    warnings: list[Problem] = []
    settings = load(config_file, starts=True, warnings=warnings)
    log = logs.configure("serve")
    for each in warnings:
        log.warning("configuration_warning", setting=each.path, line=each.line, reason=each.message)
    code = run(settings, SystemClock(), log)
    sys.stderr.flush()
    # Everything of ours is closed. Python would now wait for pynetdicom's threads, which wait for
    # the next bytes of a peer that may have stopped talking.
    os._exit(code)
