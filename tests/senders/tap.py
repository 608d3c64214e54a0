"""A wire tap: forwards connections to a receiver and keeps what the senders said."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType

_ASSOCIATE_RQ, _ASSOCIATE_AC, _P_DATA = 0x01, 0x02, 0x04
_COMMAND, _LAST = 0x01, 0x02
_BLOCK_BYTES = 1 << 16


@dataclass(frozen=True)
class SentInstance:
    """A data set as it went over the wire.

    ``proposed`` are the transfer syntaxes of its presentation context in the order of the sender.
    """

    data_set: bytes
    transfer_syntax_uid: str
    proposed: tuple[str, ...]


@dataclass
class _Connection:
    said: bytearray = field(default_factory=bytearray)
    heard: bytearray = field(default_factory=bytearray)


class Tap:
    """Listens on a free loopback port, at ``port``, for the receiver at ``target``."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._connections: list[_Connection] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Tap:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def sent(self) -> list[SentInstance]:
        """Every data set of every association so far; waits until these have ended."""
        for thread in self._threads[1:]:
            thread.join(timeout=30)
        return [instance for each in self._connections for instance in _instances(each)]

    def associations(self) -> int:
        """How many connections there were."""
        return len(self._connections)

    def _start(self, function: object, *arguments: object) -> None:
        thread = threading.Thread(target=function, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sender, _ = self._listener.accept()
            except OSError:
                return
            receiver = socket.create_connection(("127.0.0.1", self._target))
            connection = _Connection()
            self._connections.append(connection)
            self._start(_pump, sender, receiver, connection.said)
            self._start(_pump, receiver, sender, connection.heard)


def _pump(source: socket.socket, target: socket.socket, kept: bytearray) -> None:
    with suppress(OSError):
        while block := source.recv(_BLOCK_BYTES):
            kept += block
            target.sendall(block)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _instances(connection: _Connection) -> Iterator[SentInstance]:
    proposed = {
        number: tuple(value.decode() for kind, value in _items(item[4:]) if kind == 0x40)
        for number, item in _contexts(connection.said, _ASSOCIATE_RQ, 0x20)
    }
    accepted = {
        number: next((value.decode() for kind, value in _items(item[4:]) if kind == 0x40), "")
        for number, item in _contexts(connection.heard, _ASSOCIATE_AC, 0x21)
    }
    data_set = bytearray()
    for kind, body in _pdus(connection.said):
        for number, control, part in _pdvs(body) if kind == _P_DATA else ():
            if control & _COMMAND:
                continue
            data_set += part
            if control & _LAST:
                yield SentInstance(bytes(data_set), accepted[number], proposed[number])
                data_set.clear()


def _contexts(stream: bytearray, pdu_kind: int, item_kind: int) -> Iterator[tuple[int, bytes]]:
    for kind, body in _pdus(stream):
        if kind == pdu_kind:
            yield from ((item[0], item) for kind, item in _items(body[68:]) if kind == item_kind)


def _pdus(stream: bytearray) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 6 <= len(stream):
        kind, length = struct.unpack_from(">BxL", stream, at)
        yield kind, bytes(stream[at + 6 : at + 6 + length])
        at += 6 + length


def _pdvs(body: bytes) -> Iterator[tuple[int, int, bytes]]:
    at = 0
    while at < len(body):
        length, number, control = struct.unpack_from(">LBB", body, at)
        yield number, control, body[at + 6 : at + 4 + length]
        at += 4 + length


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(data):
        kind, length = struct.unpack_from(">BxH", data, at)
        yield kind, data[at + 4 : at + 4 + length]
        at += 4 + length
