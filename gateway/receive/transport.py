"""The listening socket: accepts, bounds, and hands over to a thread per connection at once.

Nothing here waits for a peer, so that no peer keeps another from being accepted.
"""

from __future__ import annotations

import errno
import select
import socket
import threading
from contextlib import suppress

from pynetdicom.transport import AddressInformation

from gateway.receive.association.acceptance import Acceptance
from gateway.receive.association.acceptor import GuardedAssociation
from gateway.receive.association.connections import Connections
from gateway.receive.association.wakeup import Bell
from gateway.receive.sockets import caller_address, listen

_BACKLOG = 128
_SHORT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_BREATH_MS = 100
_END_S = 5.0


class GuardedServer:
    """Listens on ``address`` and gives every connection its bounds.

    Parameters
    ----------
    acceptance
        What every connection gets; with ``tls``, connections are TLS or nothing.
    connections
        Bounds those without association; several listeners may share one.
    """

    def __init__(
        self,
        address: tuple[str, int],
        acceptance: Acceptance,
        connections: Connections,
    ) -> None:
        self._acceptance = acceptance
        self._connections = connections
        self._listener = listen(*address, _BACKLOG)
        self._listener.setblocking(False)
        self.server_address = self._listener.getsockname()
        self._local = AddressInformation.from_tuple(self.server_address)
        self._bell = Bell()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._associations: set[GuardedAssociation] = set()
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])

    def start(self, name: str) -> None:
        """Accept, in a thread of this name."""
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def stop_accepting(self) -> None:
        """Close the listening socket; open associations go on."""
        self._stopping.set()
        self._bell.ring()
        if self._thread is not None:
            self._thread.join()
        self._listener.close()
        self._bell.close()

    def abort_all(self) -> None:
        """Abort what is established (A-ABORT), cut off the rest, and wait a little for their threads."""
        with self._lock:
            associations = list(self._associations)
        for association in associations:
            if association.is_established:
                association.abort(block=False)
            elif not association.is_released:  # that one's answer may still be on its way
                association.cut()
        for association in associations:
            association.join(_END_S)
            association.cut()

    def closed(self, association: GuardedAssociation) -> None:
        """To be called by the watcher: its connection is closed."""
        with self._lock:
            self._associations.discard(association)

    # -- the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        poll.register(self._bell.fileno(), select.POLLIN)
        while not self._stopping.is_set():
            poll.poll()
            if self._stopping.is_set():
                return
            try:
                connection, address = self._listener.accept()
            except OSError as error:
                if error.errno in _SHORT_OF_RESOURCES:
                    self._connections.make_room()
                    self._stopping.wait(_BREATH_MS / 1000)
                continue
            self._take(connection, address)

    def _take(self, connection: socket.socket, address: tuple[str, int]) -> None:
        association: GuardedAssociation | None = None
        try:
            remote = AddressInformation(caller_address(address), address[1])
            association = GuardedAssociation(self._acceptance, connection, self._local, remote)
            with self._lock:
                self._associations.add(association)
            self._connections.opened(association, remote.address, association.cut)
            association.start()
        except (OSError, RuntimeError) as error:  # no descriptors or threads left
            self._acceptance.watcher.failed(error)
            if association is not None:
                association.close()
            with suppress(OSError):
                connection.close()
            self._connections.make_room()
