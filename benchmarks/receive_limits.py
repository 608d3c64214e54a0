"""What this machine can do at best: receivers that understand no DICOM, and the flush time of the disk.

    python -m benchmarks.receive_limits STAGE FOLDER MESSAGE_BYTES

prints its port, then serves associations, each in a process of its own: every message of MESSAGE_BYTES is
read into one buffer and answered with a fixed C-STORE-RSP. STAGE names what is done with it: ``socket`` only
reads, ``write`` writes a file, ``hash`` takes its SHA-256 as it comes, ``flush`` does fsync → rename → fsync
of the directory, ``commit`` adds a page to a log of the association and waits for fdatasync.
"""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import statistics
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.receive_wire import MAX_PDU_BYTES, pdv

STAGES = (
    "socket",
    "socket+write",
    "socket+write+flush",
    "socket+write+hash",
    "socket+write+hash+flush",
    "socket+write+hash+flush+commit",
)
_CHUNK_BYTES = 128 << 10
_PAGE = bytes(4096)
_CONTEXT_ID = 1


def main() -> None:
    """Serve until the process is ended."""
    stage, folder, message_bytes = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    number = 0
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        target = folder / f"{number}"
        number += 1
        if os.fork() == 0:
            listener.close()
            _serve_association(connection, stage, target, message_bytes)
            os._exit(0)
        connection.close()


def flush_times_s(folder: Path, size_bytes: int, count: int = 40) -> list[float]:
    """Seconds that fsync of a new file of this size takes, each."""
    body, times_s = os.urandom(size_bytes), []
    for number in range(count):
        path = folder / f"flush-{number}"
        with path.open("wb", buffering=0) as file:
            file.write(body)
            start_s = time.perf_counter()
            os.fsync(file.fileno())
            times_s.append(time.perf_counter() - start_s)
        path.unlink()
    return times_s


def hash_rate_bytes_s(size_bytes: int, count: int = 40) -> float:
    """Bytes per second of SHA-256 on one core, which the node takes of every instance."""
    body, times_s = os.urandom(size_bytes), []
    for _ in range(count):
        start_s = time.perf_counter()
        hashlib.sha256(body).digest()
        times_s.append(time.perf_counter() - start_s)
    return size_bytes / statistics.median(times_s)


def _serve_association(connection: socket.socket, stage: str, folder: Path, message_bytes: int) -> None:
    folder.mkdir()
    buffer = memoryview(bytearray(_CHUNK_BYTES))
    _accept(connection)
    for number in range(1 << 30):
        if not _take(connection, stage, folder / f"{number}", message_bytes, buffer):
            return
        connection.sendall(_STORED)


def _take(connection: socket.socket, stage: str, path: Path, message_bytes: int, buffer: memoryview) -> bool:
    """Read one message; False at the end of the association."""
    start = connection.recv_into(buffer)
    if start <= 10:  # A-RELEASE-RQ
        connection.sendall(struct.pack(">BxLL", 0x06, 4, 0))
        connection.close()
        return False
    if stage == "socket":
        _read(connection, message_bytes, start, buffer, lambda _: None)
        return True
    digest = hashlib.sha256()
    handle = os.open(path.with_suffix(".part"), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)

    def keep(chunk: memoryview) -> None:
        os.write(handle, chunk)
        if "hash" in stage:
            digest.update(chunk)

    _read(connection, message_bytes, start, buffer, keep)
    if "flush" in stage:
        os.fsync(handle)
    os.close(handle)
    path.with_suffix(".part").rename(path)
    if "flush" in stage:
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(directory)
        os.close(directory)
    if "commit" in stage:
        with path.with_name("log").open("ab", buffering=0) as log:
            log.write(_PAGE)
            os.fdatasync(log.fileno())
    return True


def _read(
    connection: socket.socket,
    message_bytes: int,
    start: int,
    buffer: memoryview,
    keep: Callable[[memoryview], None],
) -> None:
    keep(buffer[:start])
    left = message_bytes - start
    while left:
        count = connection.recv_into(buffer[: min(left, len(buffer))], 0, socket.MSG_WAITALL)
        keep(buffer[:count])
        left -= count


def _accept(connection: socket.socket) -> None:
    """Whatever is asked for, the first context is accepted with explicit VR little endian."""
    kind, length = struct.unpack(">BxL", connection.recv(6, socket.MSG_WAITALL))
    body = connection.recv(length, socket.MSG_WAITALL)
    if kind != 0x01:
        raise ConnectionError("not an A-ASSOCIATE-RQ")
    chosen = b"\x40\x00\x00\x13" + b"1.2.840.10008.1.2.1"
    context = struct.pack(">BxHBxxx", 0x21, len(chosen) + 4, _CONTEXT_ID) + chosen
    name = b"1.2.840.10008.3.1.1.1"
    user = struct.pack(">BxHBxHL", 0x50, 8, 0x51, 4, MAX_PDU_BYTES)
    answer = body[:68] + struct.pack(">BxH", 0x10, len(name)) + name + context + user
    connection.sendall(struct.pack(">BxL", 0x02, len(answer)) + answer)


def _response() -> bytes:
    elements = b"".join(
        struct.pack("<HHLH", 0, element, 2, value)
        for element, value in ((0x0100, 0x8001), (0x0120, 0), (0x0800, 0x0101), (0x0900, 0))
    )
    command = struct.pack("<HHLL", 0, 0, 4, len(elements)) + elements
    return pdv(command, _CONTEXT_ID, 0x03)


_STORED = _response()

if __name__ == "__main__":
    main()
