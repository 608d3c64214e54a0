"""``aigw serve``: the gateway until SIGTERM."""

from __future__ import annotations

import os
import sys

from gateway.cli.common import ConfigOption, load


def serve(config_file: ConfigOption) -> None:
    """Receive, process and deliver until SIGTERM; logs are JSON lines on stderr."""
    from gateway import logs
    from gateway.clock import SystemClock
    from gateway.serve import serve as run

    settings = load(config_file)
    code = run(settings, SystemClock(), logs.configure("serve"))
    sys.stderr.flush()
    # Everything of ours is closed. Python would now wait for pynetdicom's threads, which wait for
    # the next bytes of a peer that may have stopped talking.
    os._exit(code)
