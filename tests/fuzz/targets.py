"""What may be fuzzed, one function per reader of hostile bytes: returns, or raises what is a bug.

Each is called by property tests (test_fuzz_readers.py) and by the coverage-guided loop
(coverage_guided.py). The only error that a reader may have is the one that it names.
"""

from __future__ import annotations

import hashlib
import struct
import time
import tracemalloc
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from gateway.errors import Rejected
from gateway.header import InstanceHeader
from gateway.receive.association.association_request import read_association_request
from gateway.receive.association.commands import encode_response, parse_command
from gateway.receive.association.inbound import Inbound, Interrupted
from gateway.receive.association.messages import MessageLimits, Messages
from gateway.receive.association.violations import Violation
from gateway.receive.commitment.codec import Request, read_request, write_report
from gateway.receive.stow.inflate import Inflater
from gateway.receive.stow.multipart import MultipartError, MultipartLimits, MultipartParser
from gateway.receive.stow.part10_stream import Part10Reader
from gateway.receive.stow.request import StowRefused
from gateway.receive.tags import read_header
from gateway.uids import is_uid
from tests.fuzz.upper_layer import Party, Pieces, read_pdus
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


def pdus(stream: bytes, pieces: Sequence[int] = (65536,)) -> list[object]:
    """A connection from its first byte through our upper layer; everything that happened, in order."""
    with bounded(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        events, violation = read_pdus(stream, pieces)
    if violation is not None:
        _check(violation.name, violation.reason)
    return events


def commitment(data: bytes, *, explicit_vr: bool, memory_bytes: int | None = None) -> Request | None:
    """A request for storage commitment: Rejected, or one that the report on it repeats."""
    with bounded(memory_bytes):
        try:
            request = read_request(data, explicit_vr=explicit_vr)
        except Rejected as rejection:
            _check(rejection.name, rejection.reason, rejection.dimse_status in (0x0115, 0x0213))
            return None
    assert all(is_uid(uid) for reference in request.references for uid in reference)
    report = write_report(request.transaction_uid, request.references, [], explicit_vr=explicit_vr)
    assert read_request(report, explicit_vr=explicit_vr) == request
    return request


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


def messages(stream: bytes, pieces: Sequence[int] = (65536,)) -> list[object]:
    """P-DATA-TF PDUs as they come, cut into ``pieces``; everything that happened, in order."""
    party = Party()
    inbound = Inbound(Pieces(stream, pieces).receive_into, lambda: False, 8192)
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


def gzip(data: bytes, pieces: Sequence[int] = (65536,)) -> tuple[str, str]:
    """A gzip stream: how it ended, and the digest of what it holds; zlib says the same of it."""
    inflater, digest = Inflater(), hashlib.sha256()
    with bounded():
        try:
            for piece in cut(data, pieces):
                for inflated in inflater.feed(piece):
                    assert 0 < len(inflated) <= 1 << 18
                    digest.update(inflated)
            inflater.finish()
        except StowRefused as refusal:
            _check(refusal.name, refusal.reason, refusal.status in (400, 413))
            return refusal.name, ""
    assert digest.digest() == hashlib.sha256(zlib.decompress(data, 31)).digest()
    return "complete", digest.hexdigest()


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


def _pdus(data: bytes) -> None:
    assert pdus(data) == pdus(data, (1, 5, 900))


def _commitment(data: bytes) -> None:
    if data:
        commitment(data[1:], explicit_vr=bool(data[0] & 1))


def _gzip(data: bytes) -> None:
    assert gzip(data) == gzip(data, (1, 9, 200))


def _part10(data: bytes) -> None:
    assert part10(data) == part10(data, (1, 100))


def _multipart(data: bytes) -> None:
    assert multipart(data) == multipart(data, (1, 7, 300))


TARGETS: dict[str, Callable[[bytes], None]] = {
    "tags": _tags,
    "association_request": association_request,
    "command_set": command_set,
    "pdu": _pdus,
    "messages": _messages,
    "commitment": _commitment,
    "gzip": _gzip,
    "part10": _part10,
    "multipart": _multipart,
}
