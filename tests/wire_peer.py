"""An acceptor that answers with bytes, right or wrong on purpose; see :mod:`tests.hostile.wire`."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Sequence
from contextlib import suppress

from tests.hostile import wire

_LAST_DATA_AT = 5  # of a P-DATA-TF with one PDV: its length, its context, its message control header


def associate_ac(
    contexts: Sequence[tuple[int, bytes | None]] = ((1, wire.EXPLICIT),), user: bytes | None = None
) -> bytes:
    """An A-ASSOCIATE-AC that accepts each (context ID, transfer syntax or none)."""
    fixed = struct.pack(">HH", 1, 0) + b"PACS".ljust(16) + b"AIGW".ljust(16) + bytes(32)
    items = wire.item(0x10, wire.APPLICATION_CONTEXT)
    for number, syntax in contexts:
        accepted = wire.item(0x40, syntax) if syntax is not None else b""
        items += wire.item(0x21, bytes([number, 0, 0, 0]) + accepted)
    return wire.pdu(wire.ASSOCIATE_AC, fixed + items + (wire.user_information() if user is None else user))


def response(
    field: int, status: int | None, *, sop_class: str, answers: int = 1, context_id: int = 1
) -> bytes:
    """A P-DATA-TF with a response to the message of ID ``answers``."""
    elements = [wire.ui(0x0002, sop_class.encode()), wire.us(0x0100, field), wire.us(0x0120, answers)]
    elements.append(wire.us(0x0800, wire.NO_DATA_SET))
    if status is not None:
        elements.append(wire.us(0x0900, status))
    return wire.p_data(wire.pdv(context_id, wire.LAST_COMMAND, wire.command(*elements)))


class WirePeer:
    """``with WirePeer(associate_ac(), answer) as pacs``: ``answer`` follows each message with a data set."""

    def __init__(self, acceptance: bytes, answer: bytes = b"", port: int = 0) -> None:
        self._acceptance, self._answer = acceptance, answer
        self._server = socket.create_server(("127.0.0.1", port))
        self.port = int(self._server.getsockname()[1])
        self.kinds: list[int] = []
        """PDU types that came, on all connections."""

    def __enter__(self) -> WirePeer:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)  # else accept() holds the port
        self._server.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError), connection.makefile("rb") as stream:
            while len(header := stream.read(6)) == 6:
                kind, length = struct.unpack(">BxL", header)
                body = stream.read(length)
                self.kinds.append(kind)
                if kind == wire.ASSOCIATE_RQ:
                    connection.sendall(self._acceptance)
                elif kind == wire.P_DATA_TF and body[_LAST_DATA_AT] == wire.LAST_DATA:
                    connection.sendall(self._answer)
                elif kind == wire.RELEASE_RQ:
                    connection.sendall(wire.pdu(wire.RELEASE_RP, bytes(4)))
                elif kind == wire.ABORT:
                    return
