"""The model process: ``python -m gateway.modelhost.host PARENT_PID SOCKET SCRATCH PLACES``.

Not meant for people. PLACES is JSON: files that are ``hidden`` from it, and folders that are ``needed``.
It shuts itself in before anything else is imported, so this module imports next to nothing itself.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from gateway.child import limit_memory, live_with
from gateway.modelhost import sandbox

_OOM_SCORE = 700  # before the worker, which can start us again


def main() -> None:
    """Serve requests until the worker ends."""
    live_with(int(sys.argv[1]), _OOM_SCORE)
    places = {name: [Path(each) for each in named] for name, named in json.loads(sys.argv[4]).items()}
    box = sandbox.enter(Path(sys.argv[3]), **places)
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
