"""What may be fuzzed, one function per reader of hostile bytes: returns, or raises what is a bug.

Each is called by property tests (test_fuzz_readers.py) and by the coverage-guided loop
(coverage_guided.py). The only error that a reader may have is the one that it names.
"""

from __future__ import annotations

import struct
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from gateway.errors import Rejected
from gateway.header import InstanceHeader
from gateway.receive.association.association_request import read_association_request
from gateway.receive.association.commands import Command, encode_response, parse_command
from gateway.receive.association.inbound import Inbound, Interrupted
from gateway.receive.association.messages import Answer, Context, MessageLimits, Messages
from gateway.receive.association.violations import Violation
from gateway.receive.stow.multipart import MultipartError, MultipartLimits, MultipartParser
from gateway.receive.stow.part10_stream import Part10Reader
from gateway.receive.tags import read_header
from tests.hostile import wire

SYNTAXES: tuple[UID, ...] = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    RLELossless,
)
MAX_READ_S = 5.0
MAX_COMMAND_BYTES = 1 << 20
BOUNDARY = b"fuzz"


@contextmanager
def bounded(memory_bytes: int | None = None) -> Iterator[None]:
    """Fails when what is inside takes too long or, if asked for (it is slow), too much memory."""
    if memory_bytes is not None:
        tracemalloc.start()
    started_s = time.monotonic()
    try:
        yield
        assert time.monotonic() - started_s < MAX_READ_S, "it took too long"
        if memory_bytes is not None:
            _, peak = tracemalloc.get_traced_memory()
            assert peak < memory_bytes, f"{peak} bytes were allocated"
    finally:
        if memory_bytes is not None:
            tracemalloc.stop()


def _check(name: str, reason: str, status_is_right: bool = True) -> None:
    """An error has a stable name and a sentence that is safe to show."""
    assert status_is_right
    assert name.isupper()
    assert reason.isprintable()


# -- the data set -------------------------------------------------------------------------------


def tags(data: bytes, syntax: UID, memory_bytes: int | None = None) -> InstanceHeader | None:
    """``read_header``: Rejected or a header; where pydicom can read it too, it sees the same identity."""
    with bounded(memory_bytes):
        try:
            header = read_header(data, syntax)
        except Rejected as rejection:
            _check(rejection.name, rejection.reason, rejection.dimse_status in (0xA900, 0xC000))
            return None
    seen = _by_pydicom(data, syntax)
    for keyword, found in (
        ("SOPClassUID", header.sop_class_uid),
        ("SOPInstanceUID", header.sop_instance_uid),
        ("StudyInstanceUID", header.study_instance_uid),
        ("SeriesInstanceUID", header.series_instance_uid),
    ):
        if seen is not None and keyword in seen:
            raw = seen.get_item(keyword).value
            text = raw.decode("ascii", "replace") if isinstance(raw, bytes) else str(raw)
            assert found == text.strip(" \0"), (keyword, found, raw)
    return header


def _by_pydicom(data: bytes, syntax: UID) -> Dataset | None:
    little = syntax != ExplicitVRBigEndian
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return read_dataset(
                BytesIO(data),
                syntax == ImplicitVRLittleEndian,
                little,
                stop_when=lambda tag, *_: 0x7FE00008 <= tag <= 0x7FE00010,
            )
        except Exception:  # noqa: BLE001 - the oracle may give up on what it likes
            return None


# -- the upper layer ----------------------------------------------------------------------------


def association_request(data: bytes) -> None:
    """What follows the header of an A-ASSOCIATE-RQ."""
    with bounded():
        try:
            read_association_request(data)
        except Violation as violation:
            _check(violation.name, violation.reason)


def command_set(data: bytes) -> None:
    """A command set: ValueError, or something that can be answered within the limits of an answer."""
    try:
        found = parse_command(data)
    except ValueError as error:
        _check("ERROR", str(error))
        return
    assert 0 <= found.field <= 0xFFFF
    answered = wire.read_command(encode_response(found, 0xA900, "UID_INVALID: comment"))
    assert wire.us_value(answered[0x900]) == 0xA900
    assert all(len(value) <= 64 for value in answered.values())


class _Receiver:
    """Remembers what became of one C-STORE."""

    def __init__(self, events: list[object]) -> None:
        self.events = events
        self.data = bytearray()
        self.ends = 0

    def write(self, *chunks: memoryview) -> None:
        assert not self.ends, "data came after the end"
        for chunk in chunks:
            self.data += chunk

    def finish(self) -> Answer:
        self.ends += 1
        self.events.append(("stored", bytes(self.data)))
        return Answer(0)

    def discard(self) -> None:
        self.ends += 1
        self.events.append("discarded")  # how much of it had been handed on by then, depends on the cut


class _Party:
    """Contexts 1 (storage) and 3 (verification); keeps everything that happens."""

    def __init__(self) -> None:
        self.events: list[object] = []
        self.receivers: list[_Receiver] = []

    def context(self, context_id: int) -> Context | None:
        known = {1: wire.CT, 3: wire.VERIFICATION}.get(context_id)
        return None if known is None else Context(context_id, known.decode(), wire.EXPLICIT.decode())

    def begin_store(self, context: Context, request: Command) -> _Receiver:
        self.events.append(("store", context.id, request))
        self.receivers.append(_Receiver(self.events))
        return self.receivers[-1]

    def takes(self, context: Context, request: Command) -> bool:  # noqa: ARG002
        return context.id == 3

    def forward(self, context_id: int, control: int, fragment: bytes) -> None:
        # Their cut follows the wire, not what was read at once.
        self.events.append(("forward", context_id, control, fragment))

    def respond(self, p_data: bytes) -> None:
        self.events.append(("respond", p_data))


def messages(stream: bytes, pieces: Sequence[int] = (65536,)) -> list[object]:
    """P-DATA-TF PDUs as they come, cut into ``pieces``; everything that happened, in order."""
    party, at, turn = _Party(), 0, 0

    def receive_into(view: memoryview) -> int:
        nonlocal at, turn
        if at >= len(stream):
            raise ConnectionResetError
        count = min(max(pieces[turn % len(pieces)], 1), len(view), len(stream) - at)
        turn += 1
        view[:count] = stream[at : at + count]
        at += count
        return count

    inbound = Inbound(receive_into, lambda: False, 8192)
    reader = Messages(inbound, party, MessageLimits(store_bytes=1 << 20, other_bytes=1 << 16, stall_s=60))
    with bounded():
        try:
            while True:
                _, length = struct.unpack(">BxL", inbound.need(6))
                reader.read_pdu(min(length, 131072))
        except (Violation, Interrupted, ConnectionError) as end:
            party.events.append(type(end).__name__)
        finally:
            reader.close()
    assert not reader.is_in_progress
    assert all(receiver.ends == 1 for receiver in party.receivers), "a C-STORE has not one end"
    return party.events


# -- STOW-RS ------------------------------------------------------------------------------------


def part10(data: bytes, pieces: Sequence[int] = (65536,)) -> tuple[object, bytes]:
    """A DICOM file as it arrives: what it says, and its data set."""
    reader, out = Part10Reader(), bytearray()
    try:
        for piece in cut(data, pieces):
            out += reader.feed(piece)
        return reader.finish(), bytes(out)
    except Rejected as rejection:
        _check(rejection.name, rejection.reason, rejection.dimse_status == 0xC000)
        return rejection.name, b""


def multipart(data: bytes, pieces: Sequence[int] = (65536,)) -> tuple[str, bytes, int]:
    """A multipart message: how it ended, the bytes of all parts, and how many there were."""
    parser = MultipartParser(
        BOUNDARY, MultipartLimits(max_parts=50, max_header_bytes=512, max_around_bytes=512)
    )
    out = bytearray()
    with bounded():
        try:
            for piece in cut(data, pieces):
                for event in parser.feed(piece):
                    out += getattr(event, "data", b"")
            parser.finish()
            return "complete", bytes(out), parser.parts
        except MultipartError as error:
            _check(error.name, error.reason)
            return error.name, b"", 0


def cut(data: bytes, pieces: Sequence[int]) -> Iterator[bytes]:
    """``data`` in pieces of these sizes, over and over."""
    at, turn = 0, 0
    while at < len(data):
        size = max(pieces[turn % len(pieces)], 1)
        yield data[at : at + size]
        at, turn = at + size, turn + 1


# -- for the coverage-guided loop: bytes in, nothing out ------------------------------------------


def _tags(data: bytes) -> None:
    if data:
        tags(data[1:], SYNTAXES[data[0] % len(SYNTAXES)])


def _messages(data: bytes) -> None:
    assert messages(data) == messages(data, (1, 3, 700))


def _part10(data: bytes) -> None:
    assert part10(data) == part10(data, (1, 100))


def _multipart(data: bytes) -> None:
    assert multipart(data) == multipart(data, (1, 7, 300))


TARGETS: dict[str, Callable[[bytes], None]] = {
    "tags": _tags,
    "association_request": association_request,
    "command_set": command_set,
    "messages": _messages,
    "part10": _part10,
    "multipart": _multipart,
}
