"""Our own storage SCU, as small as can be: it measures the receiver, not itself (PS3.8 9.3, PS3.7 9.3.1).

Every PDU is encoded before the clock starts; sending an instance is one ``sendall``, its answer one read.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Sequence
from types import TracebackType

from benchmarks.receive_files import Instance

MAX_PDU_BYTES = 131072
"""The longest that DCMTK takes, and what the gateway takes by default."""
CALLING, CALLED = "SCANNER", "AIGW"
_APPLICATION_CONTEXT = b"1.2.840.10008.3.1.1.1"
_ASSOCIATE_AC, _P_DATA, _RELEASE_RQ = 0x02, 0x04, 0x05
_STATUS = struct.pack("<HHL", 0x0000, 0x0900, 2)
_LAST, _COMMAND = 0x02, 0x01
_PDV_HEADER_BYTES = 6
Context = tuple[bytes, Sequence[bytes]]
"""An abstract syntax and its transfer syntaxes."""


class Association:
    """An association that asks for contexts; use as a context manager.

    ``accepted`` tells the chosen transfer syntax by number of the context, ``max_pdu_bytes`` what the
    receiver takes, at most what was asked for.
    """

    def __init__(
        self,
        port: int,
        contexts: Sequence[Context],
        *,
        called: str = CALLED,
        max_pdu_bytes: int = MAX_PDU_BYTES,
    ) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=600)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(_associate_request(contexts, called))
        kind, body = self._pdu()
        if kind != _ASSOCIATE_AC:
            raise ConnectionError(f"the association was not accepted: PDU type {kind}, {body.hex()}")
        self.accepted: dict[int, bytes] = {}
        self.max_pdu_bytes = max_pdu_bytes
        self._read_accepted(body)

    def __enter__(self) -> Association:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def stored(self) -> None:
        """Read the next C-STORE-RSP; raises ConnectionError if its status is not 0000."""
        kind, body = self._pdu()
        at = body.find(_STATUS)
        if kind != _P_DATA or at < 0:
            raise ConnectionError(f"no C-STORE-RSP: PDU type {kind}, {body.hex()}")
        (status,) = struct.unpack_from("<H", body, at + len(_STATUS))
        if status:
            raise ConnectionError(f"answered 0x{status:04X}: {body[at + len(_STATUS) + 2 :]!r}")

    def release(self) -> None:
        """A-RELEASE; waits for its answer."""
        self.socket.sendall(struct.pack(">BxLL", _RELEASE_RQ, 4, 0))
        self._pdu()

    def _read_accepted(self, body: bytes) -> None:
        for kind, item in _items(body[68:]):
            if kind == 0x21 and item[2] == 0:
                self.accepted[item[0]] = next(value for k, value in _items(item[4:]) if k == 0x40)
            if kind == 0x50:
                (offered,) = struct.unpack(">L", next(value for k, value in _items(item) if k == 0x51))
                self.max_pdu_bytes = min(self.max_pdu_bytes, offered or self.max_pdu_bytes)

    def _pdu(self) -> tuple[int, bytes]:
        kind, length = struct.unpack(">BxL", self._exactly(6))
        return kind, self._exactly(length)

    def _exactly(self, count: int) -> bytes:
        found = b""
        while len(found) < count:
            chunk = self.socket.recv(count - len(found))
            if not chunk:
                raise ConnectionError("the receiver closed the connection")
            found += chunk
        return found


def contexts_of(instances: Sequence[Instance]) -> list[Context]:
    """One context for every pair of SOP class and transfer syntax, so that nothing is converted."""
    pairs = sorted({(each.sop_class_uid, each.transfer_syntax_uid) for each in instances})
    return [(sop_class, (syntax,)) for sop_class, syntax in pairs]


def encode(instance: Instance, context_id: int, message_id: int, max_pdu_bytes: int) -> bytes:
    """A whole C-STORE-RQ: its command set and its data set, as P-DATA-TF PDUs."""
    request = store_request(instance.sop_class_uid, instance.sop_instance_uid, message_id)
    parts = [pdv(request, context_id, _COMMAND | _LAST)]
    step = max_pdu_bytes - _PDV_HEADER_BYTES
    view = memoryview(instance.data_set)
    for start in range(0, len(view), step):
        part = view[start : start + step]
        parts.append(pdv(part, context_id, _LAST if start + step >= len(view) else 0))
    return b"".join(parts)


def store_request(sop_class_uid: bytes, sop_instance_uid: bytes, message_id: int) -> bytes:
    """The command set of a C-STORE-RQ (PS3.7 9.3.1.1), implicit VR little endian."""
    elements = (
        (0x0002, _even(sop_class_uid)),
        (0x0100, b"\x01\x00"),
        (0x0110, struct.pack("<H", message_id % 65536)),
        (0x0700, b"\x00\x00"),
        (0x0800, b"\x00\x00"),
        (0x1000, _even(sop_instance_uid)),
    )
    body = b"".join(struct.pack("<HHL", 0, element, len(value)) + value for element, value in elements)
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def pdv(part: bytes | memoryview, context_id: int, control: int) -> bytes:
    """A P-DATA-TF with one presentation data value (PS3.8 9.3.5)."""
    header = struct.pack(
        ">BxLLBB", _P_DATA, len(part) + _PDV_HEADER_BYTES, len(part) + 2, context_id, control
    )
    return header + bytes(part)


def _associate_request(contexts: Sequence[Context], called: str) -> bytes:
    asked = b"".join(
        _item(
            0x20,
            bytes([2 * number + 1, 0, 0, 0])
            + _item(0x30, abstract)
            + b"".join(_item(0x40, syntax) for syntax in syntaxes),
        )
        for number, (abstract, syntaxes) in enumerate(contexts)
    )
    user = _item(0x50, _item(0x51, struct.pack(">L", MAX_PDU_BYTES)) + _item(0x52, b"2.25.1"))
    body = struct.pack(">H2x16s16s32x", 1, called.ljust(16).encode(), CALLING.ljust(16).encode())
    body += _item(0x10, _APPLICATION_CONTEXT) + asked + user
    return struct.pack(">BxL", 0x01, len(body)) + body


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        kind, length = struct.unpack_from(">BxH", data)
        yield kind, data[4 : 4 + length]
        data = data[4 + length :]


def _item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value


def _even(uid: bytes) -> bytes:
    return uid + b"\0" * (len(uid) % 2)
