"""Runs the web application in a thread, on a socket that was bound before."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import cast

import uvicorn
from starlette.applications import Starlette

from gateway.receive.sockets import listen
from gateway.web.connections import GuardedProtocol
from gateway.web.tls import TlsDoor

_SHUTDOWN_S = 2
"""For requests under way to be answered; those that store have had their time before (drain_timeout)."""
_BACKLOG = 64
"""asyncio accepts so many connections in one turn: each holds a descriptor before a bound of ours acts."""


class WebServer:
    """Binds at once (OSError if it cannot); answers between ``start`` and ``stop``; ``door``: HTTPS only."""

    def __init__(self, host: str, port: int, door: TlsDoor | None = None) -> None:
        self._door = door
        self._socket = _listen(host, port)
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port that is bound."""
        return int(self._socket.getsockname()[1])

    @property
    def alive(self) -> bool:
        """False when the server has ended."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, app: Starlette) -> None:
        """Start to answer."""
        config = uvicorn.Config(
            app,
            http=cast("type[asyncio.Protocol]", self._door or GuardedProtocol),
            loop="asyncio",
            ws="none",
            log_config=None,
            log_level="error",  # a stranger's broken requests are no news, and would fill the log
            access_log=False,
            lifespan="off",
            server_header=False,
            proxy_headers=False,  # whoever connects is the client, whatever it says about others
            workers=1,
            backlog=_BACKLOG,
            timeout_graceful_shutdown=_SHUTDOWN_S,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="web", daemon=True
        )
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Finish the requests under way and close the socket."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(timeout=timeout_s)
        self._socket.close()


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket whose connections send at once, which accepted ones inherit.

    asyncio would see to that, had they a protocol number. Without it each answer on a kept-alive connection
    waits 40 ms for an acknowledgement that its client delays.
    """
    listening = listen(host, port, _BACKLOG)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening
