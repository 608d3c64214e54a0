"""How a model process is started: its end of the socket, its environment, and what it must not read."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from gateway.child import environment_for_child
from gateway.modelhost.protocol import Line
from gateway.modelhost.sandbox import scratch_environment

HOST_COMMAND = (sys.executable, "-m", "gateway.modelhost.host")
_STDERR = 2
_INSTALLED = Path(__file__).parent.parent.parent
"""Where ``-m`` looks first; never where somebody happens to be, whose files could stand in for libraries."""


@dataclass(frozen=True)
class Places:
    """Files that are hidden from the process, and folders in which it must find what is put there later."""

    hidden: tuple[str, ...] = ()
    needed: tuple[str, ...] = ()


def start(command: Sequence[str], scratch: Path, places: Places) -> tuple[subprocess.Popen[bytes], Line]:
    """A fresh process, and our end of its socket; OSError when there can be none."""
    environment = {**environment_for_child(os.environ), **scratch_environment(scratch)}
    ours, theirs = socket.socketpair()
    arguments = [os.getpid(), theirs.fileno(), scratch.absolute(), json.dumps(asdict(places))]
    try:
        with theirs:
            process = subprocess.Popen(
                [*command, *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=_STDERR,
                cwd=_INSTALLED,
                env=environment,
                pass_fds=(theirs.fileno(),),
            )
    except OSError:
        ours.close()
        raise
    return process, Line(ours)
