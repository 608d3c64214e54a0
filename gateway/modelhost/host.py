"""The model process: ``python -m gateway.modelhost.host PARENT_PID SOCKET SCRATCH``; not meant for people.

It shuts itself in before anything else is imported, so this module imports next to nothing itself.
"""

from __future__ import annotations

import sys
from pathlib import Path

from gateway.child import limit_memory, live_with
from gateway.modelhost import sandbox

_OOM_SCORE = 700  # before the worker, which can start us again


def main() -> None:
    """Serve requests until the worker ends."""
    live_with(int(sys.argv[1]), _OOM_SCORE)
    box = sandbox.enter(Path(sys.argv[3]))
    import socket

    from gateway import logs
    from gateway.modelhost.protocol import Begin, Line

    log = logs.configure("model")
    line = Line(socket.socket(fileno=int(sys.argv[2])))
    begin = line.receive()
    if not isinstance(begin, Begin):
        raise SystemExit("the first message must be Begin")
    if begin.memory_limit_bytes is not None:
        limit_memory(begin.memory_limit_bytes)
    from gateway.modelhost.serving import Host

    Host(line, begin, box, log).serve()


if __name__ == "__main__":
    main()
