"""Right inputs to begin with, for each target; the mutations make them wrong."""

from __future__ import annotations

import gzip
import zlib
from functools import cache
from io import BytesIO
from pathlib import Path

import pydicom
import pydicom.data
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from gateway.receive.commitment.codec import write_report
from tests.builders import ct_series
from tests.fuzz.targets import BOUNDARY, SYNTAXES
from tests.hostile import wire
from tests.peers import encoded

MAX_SEED_BYTES = 20_000


@cache
def data_sets() -> dict[UID, tuple[bytes, ...]]:
    """Built and real data sets by their transfer syntax."""
    built = ct_series((1, 4, 4))[0]
    big = DicomBytesIO()
    big.is_little_endian, big.is_implicit_VR = False, False
    write_dataset(big, built)
    found: dict[UID, list[bytes]] = {
        ExplicitVRLittleEndian: [encoded(built)],
        ImplicitVRLittleEndian: [encoded(built, implicit_vr=True)],
        ExplicitVRBigEndian: [big.getvalue()],
        RLELossless: [],
    }
    for path in sorted((Path(pydicom.data.__file__).parent / "test_files").glob("*.dcm")):
        if path.stat().st_size <= MAX_SEED_BYTES and (real := _real(path)) is not None:
            found.get(real[0], []).append(real[1])
    return {syntax: tuple(sorted(each, key=len)[:12]) for syntax, each in found.items()}


def _real(path: Path) -> tuple[UID, bytes] | None:
    try:
        dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SOPInstanceUID"])
        start = 132 + 12 + int(dataset.file_meta.FileMetaInformationGroupLength)
        return UID(dataset.file_meta.TransferSyntaxUID), path.read_bytes()[start:]
    except Exception:  # noqa: BLE001 - broken on purpose, as some of them are
        return None


@cache
def streams() -> tuple[bytes, ...]:
    """P-DATA-TF streams: C-STOREs and C-ECHOs, whole and in fragments."""
    data = encoded(ct_series((1, 4, 4))[0])
    store = wire.c_store_rq(b"1.2.3.4")
    return (
        wire.message(1, store, data),
        wire.message(1, store, data, fragment=100) + wire.message(3, wire.c_echo_rq(2)),
        wire.message(3, wire.c_echo_rq()) * 3,
        wire.p_data(wire.pdv(1, 1, store[:30]), wire.pdv(1, 3, store[30:]), wire.pdv(1, 2, data[:200])),
        wire.message(1, wire.command(wire.us(0x100, 0x0FFF), wire.us(0x800, 0x101))),
        wire.message(1, wire.command(wire.us(0x100, 0x20), wire.us(0x110, 5), wire.us(0x800, 1)), b"ab" * 9),
    )


@cache
def files() -> tuple[bytes, ...]:
    """DICOM files."""
    buffer = BytesIO()
    ct_series((1, 4, 4))[0].save_as(buffer, enforce_file_format=True)
    return (buffer.getvalue(),)


@cache
def multiparts() -> tuple[bytes, ...]:
    """multipart/related messages with two files, and one with odd headers."""
    (file,) = files()
    part = b"--" + BOUNDARY + b"\r\nContent-Type: application/dicom\r\n\r\n" + file[:600] + b"\r\n"
    odd = b"--" + BOUNDARY + b' \t\r\ncontent-type:\r\n application/dicom; x="a\\"b"\r\nX: y\r\n\r\n\r\n'
    end = b"--" + BOUNDARY + b"--\r\n"
    return (part * 2 + end, b"before\r\n" + odd + part + end + b"after")


@cache
def connections() -> tuple[bytes, ...]:
    """From the first byte to the last: association, messages, release or abort."""
    request = wire.associate_rq()
    store, *_ = streams()
    return (
        request + store + wire.message(3, wire.c_echo_rq(2)) + wire.release_rq(),
        request + wire.message(3, wire.c_echo_rq()) + wire.abort(),
        request + wire.p_data(wire.pdv(1, wire.COMMAND, wire.c_store_rq(b"1.2.3")[:30])) + wire.release_rq(),
        wire.abort(),
    )


@cache
def commitments() -> dict[bool, tuple[bytes, ...]]:
    """Whether they are in Explicit VR → requests for storage commitment."""
    references = [("1.2.840.10008.5.1.4.1.1.2", f"1.2.3.{number}") for number in range(4)]
    return {
        explicit_vr: (
            write_report("1.2.3.4", references, [], explicit_vr=explicit_vr),
            write_report("1.2.3.4", references[:1], [(*references[1], 0x0110)], explicit_vr=explicit_vr),
        )
        for explicit_vr in (True, False)
    }


@cache
def gzips() -> tuple[bytes, ...]:
    """gzip streams: dynamic, stored and fixed blocks, and a header with a name (RFC 1952 2.3)."""
    named = zlib.compressobj(wbits=-15)
    head = b"\x1f\x8b\x08\x08" + bytes(4) + b"\0\xff" + b"name\0"
    body = named.compress(b"x" * 50) + named.flush()
    tail = zlib.crc32(b"x" * 50).to_bytes(4, "little") + (50).to_bytes(4, "little")
    return (
        gzip.compress(multiparts()[0], mtime=0),
        gzip.compress(bytes(range(256)) * 3, compresslevel=0, mtime=0),
        gzip.compress(bytes(300_000), mtime=0),
        gzip.compress(b"", mtime=0),
        head + body + tail,
    )


def of(target: str) -> tuple[bytes, ...]:
    """Seeds of a target of the coverage-guided loop."""
    requests = (wire.associate_rq()[6:], wire.associate_rq([wire.Context(1, wire.CT)] * 3)[6:])
    commands = (wire.c_store_rq(b"1.2.3"), wire.c_echo_rq(), wire.command())
    by_syntax = [bytes([i]) + each for i, s in enumerate(SYNTAXES) for each in data_sets()[s][:4]]
    return {
        "tags": tuple(by_syntax),
        "association_request": requests,
        "command_set": commands,
        "pdu": connections(),
        "messages": streams(),
        "commitment": tuple(bytes([vr]) + each for vr, found in commitments().items() for each in found),
        "gzip": gzips(),
        "part10": files(),
        "multipart": multiparts(),
    }[target]
