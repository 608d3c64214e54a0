"""A peer on a bare socket, good or hostile."""

from __future__ import annotations

import hashlib
import socket
import struct
import time
from types import TracebackType
from typing import NamedTuple

from tests.hostile import wire


class Pdu(NamedTuple):
    """What came back."""

    kind: int
    body: bytes


class Answer(NamedTuple):
    """A DIMSE response: the command field and its status; ``elements`` are those of the command set."""

    field: int
    status: int
    message_id: int
    elements: dict[int, bytes]


class Gone(Exception):
    """The other side has closed, reset or aborted."""


class RawPeer:
    """One TCP connection. ``source`` is the loopback address to call from."""

    def __init__(self, port: int, source: str = "127.0.0.1", receive_buffer_bytes: int = 0) -> None:
        self.socket = socket.socket()
        if receive_buffer_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(20)
        self.socket.bind((source, 0))
        self.socket.connect(("127.0.0.1", port))
        self._kept = b""

    def __enter__(self) -> RawPeer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close, without a word."""
        self.socket.close()

    def reset(self) -> None:
        """Close by RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send all; raises Gone if nobody takes it any more."""
        try:
            self.socket.sendall(data)
        except (ConnectionError, BrokenPipeError) as error:
            raise Gone from error

    def trickle(self, data: bytes, interval_s: float) -> int:
        """Send byte by byte; returns how many went out before the other side was gone."""
        for count in range(len(data)):
            try:
                self.send(data[count : count + 1])
            except Gone:
                return count
            time.sleep(interval_s)
        return len(data)

    def read_pdu(self, timeout_s: float = 10.0) -> Pdu:
        """The next PDU. Raises Gone at the end of the connection, TimeoutError when nothing comes."""
        deadline_s = time.monotonic() + timeout_s
        head = self._read(6, deadline_s)
        return Pdu(head[0], self._read(struct.unpack(">L", head[2:])[0], deadline_s))

    def _read(self, count: int, deadline_s: float) -> bytes:
        while len(self._kept) < count:
            self.socket.settimeout(max(deadline_s - time.monotonic(), 0.001))
            try:
                more = self.socket.recv(65536)
            except ConnectionError as error:
                raise Gone from error
            finally:
                self.socket.settimeout(20)
            if not more:
                raise Gone
            self._kept += more
        found, self._kept = self._kept[:count], self._kept[count:]
        return found

    def until_closed(self, timeout_s: float) -> list[Pdu]:
        """All PDUs up to the end of the connection; raises TimeoutError if it does not end."""
        deadline_s, found = time.monotonic() + timeout_s, []
        try:
            while True:
                found.append(self.read_pdu(max(deadline_s - time.monotonic(), 0.001)))
        except Gone:
            return found

    def ended(self, timeout_s: float) -> bool:
        """True when the other side ends the association (A-ABORT, A-ASSOCIATE-RJ or close) in this time."""
        deadline_s = time.monotonic() + timeout_s
        try:
            while self.read_pdu(max(deadline_s - time.monotonic(), 0.001)).kind not in (
                wire.ABORT,
                wire.ASSOCIATE_RJ,
            ):
                pass
        except Gone:
            return True
        except TimeoutError:
            return False
        return True

    # -- what a good peer does ----------------------------------------------------------------

    def associate(self, request: bytes = b"", timeout_s: float = 10.0) -> Pdu:
        """Ask for an association; the answer, whatever it is."""
        self.send(request or wire.associate_rq())
        return self.read_pdu(timeout_s)

    def associated(self, request: bytes = b"") -> RawPeer:
        """Ask for an association and have it accepted."""
        answer = self.associate(request)
        assert answer.kind == wire.ASSOCIATE_AC, answer
        return self

    def answer(self, timeout_s: float = 20.0) -> Answer:
        """The next DIMSE response, from one PDV. Raises Gone when the association is aborted instead."""
        found = self.read_pdu(timeout_s)
        if found.kind == wire.ABORT:
            raise Gone
        assert found.kind == wire.P_DATA_TF, found
        assert found.body[5] & 1, "a data set came back where a command was due"
        elements = wire.read_command(found.body[6:])
        return Answer(
            wire.us_value(elements[0x100]),
            wire.us_value(elements.get(0x900, b"\xff\xff")),
            wire.us_value(elements.get(0x120, b"\0\0")),
            elements,
        )

    def echo(self, context: int = 3, message_id: int = 1, timeout_s: float = 10.0) -> int:
        """C-ECHO; the status."""
        self.send(wire.message(context, wire.c_echo_rq(message_id)))
        answer = self.answer(timeout_s)
        assert answer[0::2] == (wire.C_ECHO_RSP, message_id)
        return answer.status

    def store(
        self, uid: str | bytes, data_set: bytes, context: int = 1, sop_class_uid: bytes = wire.CT
    ) -> Answer:
        """C-STORE; the answer."""
        name = uid if isinstance(uid, bytes) else uid.encode()
        self.send(wire.message(context, wire.c_store_rq(name, 1, sop_class_uid), data_set))
        answer = self.answer()
        assert answer.field == wire.C_STORE_RSP
        return answer

    def release(self) -> None:
        """A-RELEASE, answered and closed."""
        self.send(wire.release_rq())
        assert self.read_pdu().kind == wire.RELEASE_RP
        self.close()


def accepted(answer: Pdu) -> dict[int, int]:
    """Presentation context → result (0: acceptance) of an A-ASSOCIATE-AC (PS3.8 9.3.3.2)."""
    assert answer.kind == wire.ASSOCIATE_AC, answer
    at, found = 68, {}
    while at + 4 <= len(answer.body):
        kind, _, length = struct.unpack_from(">BBH", answer.body, at)
        if kind == 0x21:
            found[answer.body[at + 4]] = answer.body[at + 6]
        at += 4 + length
    return found


def digest(data_set: bytes) -> str:
    """SHA-256 in hex, as the journal has it."""
    return hashlib.sha256(data_set).hexdigest()
