"""How much memory the node takes while much arrives: many long instances at once, and one of 2 GB.

The instances are multi-frame images that are made while they are sent; neither side holds one. Each
association sends one instance of the size asked for: that is harder on memory than many short ones.
"""

from __future__ import annotations

import shutil
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.receive_peers import Server
from benchmarks.receive_report import Report, Verdict
from benchmarks.receive_wire import Association, Context, pdv, store_request

PARALLEL, MB = 20, 1_000_000
_PARALLEL_MB, _LONG_MB = 500, 2000
_MOST_GROWTH_MB = 64.0  # less than a seventh of one instance, and 3 MB for each of 20 associations
_MULTI_FRAME_GRAYSCALE_WORD = b"1.2.840.10008.5.1.4.1.1.7.3"
_EXPLICIT = b"1.2.840.10008.1.2.1"
_CONTEXT: Context = (_MULTI_FRAME_GRAYSCALE_WORD, (_EXPLICIT,))
_ROWS = _COLUMNS = 1000  # a frame of 16 bit is 2 MB
_FRAME_BYTES = 2 * _ROWS * _COLUMNS


@dataclass
class Peak:
    """Resident bytes of the node: before, and the most while it received."""

    before_bytes: int
    most_bytes: int

    @property
    def growth_mb(self) -> float:
        """By how much it grew."""
        return (self.most_bytes - self.before_bytes) / MB


def memory(report: Report, server: Server, scratch: Path, scale: float = 1.0) -> None:
    """20 associations with 500 MB each, then one instance of 2 GB; less where the disk is small."""
    free_mb = shutil.disk_usage(scratch).free / MB / 2
    each_mb = min(_PARALLEL_MB * scale, free_mb / PARALLEL)
    long_mb = min(_LONG_MB * scale, free_mb)
    warm_up(server)
    for count, size_mb in ((PARALLEL, each_mb), (1, long_mb)):
        sizes = [int(size_mb * MB)] * count
        peak = peak_while_receiving(server, sizes, seed=count)
        report.note(
            f"memory, {count} × {size_mb:.0f} MB",
            f"{peak.before_bytes / MB:.0f} MB before, {peak.most_bytes / MB:.0f} MB at the peak",
        )
        what = f"(g) growth of resident memory, {count} × {size_mb:.0f} MB"
        report.judge(Verdict(what, peak.growth_mb, _MOST_GROWTH_MB, "MB", at_least=False))


def warm_up(server: Server, associations: int = PARALLEL) -> None:
    """Threads and caches that the node makes once are not what is measured."""
    peak_while_receiving(server, [2 * _FRAME_BYTES] * associations, seed=0)


def peak_while_receiving(server: Server, sizes: list[int], seed: int) -> Peak:
    """Send an instance of each size, all at once; the peak of the node's resident size (VmHWM)."""
    before = _resident(server.process_id, "VmRSS")
    Path(f"/proc/{server.process_id}/clear_refs").write_text("5")  # the peak begins anew (man 5 proc)
    together = threading.Barrier(len(sizes))
    with ThreadPoolExecutor(len(sizes)) as senders:
        waiting = [
            senders.submit(_send, server, size, f"2.25.8{seed:03d}{number:03d}", together)
            for number, size in enumerate(sizes)
        ]
        for each in waiting:
            each.result()
    return Peak(before, _resident(server.process_id, "VmHWM"))


def data_set_parts(uid: str, frames: int) -> Iterator[bytes]:
    """The encoded data set of a multi-frame image, explicit VR: its header, then frame by frame."""
    elements = (
        (0x0008, 0x0016, b"UI", _MULTI_FRAME_GRAYSCALE_WORD),
        (0x0008, 0x0018, b"UI", uid.encode()),
        (0x0008, 0x0060, b"CS", b"OT"),
        (0x0010, 0x0020, b"LO", b"MEMORY"),
        (0x0020, 0x000D, b"UI", f"{uid}.1".encode()),
        (0x0020, 0x000E, b"UI", f"{uid}.2".encode()),
        (0x0020, 0x0013, b"IS", b"1"),
        (0x0028, 0x0002, b"US", struct.pack("<H", 1)),
        (0x0028, 0x0004, b"CS", b"MONOCHROME2 "),
        (0x0028, 0x0008, b"IS", str(frames).encode()),
        (0x0028, 0x0010, b"US", struct.pack("<H", _ROWS)),
        (0x0028, 0x0011, b"US", struct.pack("<H", _COLUMNS)),
        (0x0028, 0x0100, b"US", struct.pack("<H", 16)),
        (0x0028, 0x0101, b"US", struct.pack("<H", 16)),
        (0x0028, 0x0102, b"US", struct.pack("<H", 15)),
        (0x0028, 0x0103, b"US", struct.pack("<H", 0)),
    )
    yield b"".join(_element(*each) for each in elements)
    yield struct.pack("<HH2sxxL", 0x7FE0, 0x0010, b"OW", frames * _FRAME_BYTES)
    pattern = bytes(range(256)) * (_FRAME_BYTES // 256 + 1)
    for number in range(frames):
        yield struct.pack("<L", number) + pattern[: _FRAME_BYTES - 4]


def _send(server: Server, size_bytes: int, uid: str, together: threading.Barrier) -> None:
    frames = max(1, size_bytes // _FRAME_BYTES)
    with Association(server.port, [_CONTEXT], called=server.called) as association:
        together.wait(timeout=60)
        request = store_request(_MULTI_FRAME_GRAYSCALE_WORD, uid.encode(), 1)
        association.socket.sendall(pdv(request, 1, 0x03))
        step = association.max_pdu_bytes - 6
        for part in data_set_parts(uid, frames):
            for start in range(0, len(part), step):
                association.socket.sendall(pdv(part[start : start + step], 1, 0x00))
        association.socket.sendall(pdv(b"", 1, 0x02))
        association.stored()
        association.release()


def _element(group: int, element: int, vr: bytes, value: bytes) -> bytes:
    if len(value) % 2:
        value += b"\0" if vr == b"UI" else b" "
    return struct.pack("<HH2sH", group, element, vr, len(value)) + value


def _resident(process_id: int, field: str) -> int:
    """Bytes of a field of /proc/PID/status."""
    lines = Path(f"/proc/{process_id}/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024
