"""The gateway's receiver that flushes nothing, for benchmarks/receive.py: it is not how a hospital runs it.

    python -m benchmarks.receive_node FOLDER

prints its port and serves until SIGTERM. Spool and journal are told not to wait for the disk; everything else
is the receiver of ``aigw serve``.
"""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

from tests.peers import receiver


def main() -> None:
    """Serve until SIGTERM."""
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    with receiver(Path(sys.argv[1]), max_associations=40, durable=False) as running:
        print(running.port, flush=True)
        stopping.wait()


if __name__ == "__main__":
    main()
