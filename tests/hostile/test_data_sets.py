"""Data sets and UIDs that lie: refused by name, or kept byte for byte for the worker to refuse."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import pytest
from pydicom.dataset import Dataset

from tests.hostile import wire
from tests.hostile.node import HostileNode, good_bytes, good_instance
from tests.hostile.peer import RawPeer, digest
from tests.peers import encoded

EXPLICIT_CONTEXT, IMPLICIT_CONTEXT, BIG_CONTEXT, RLE_CONTEXT = 1, 3, 5, 7
CONTEXTS = (
    wire.Context(1, wire.CT, (wire.EXPLICIT,)),
    wire.Context(3, wire.CT, (wire.IMPLICIT,)),
    wire.Context(5, wire.CT, (b"1.2.840.10008.1.2.2",)),
    wire.Context(7, wire.CT, (b"1.2.840.10008.1.2.5",)),
)


def store(node: HostileNode, uid: bytes, data_set: bytes, context: int = EXPLICIT_CONTEXT) -> int:
    """The status; what is acknowledged must be intact at the end."""
    with RawPeer(node.dicom_port) as peer:
        peer.associated(wire.associate_rq(CONTEXTS))
        status = peer.store(uid, data_set, context).status
        peer.release()
    if status == 0:
        node.acknowledged[uid.decode()] = digest(data_set)
    return status


def refused(
    node: HostileNode, uid: bytes, data_set: bytes, context: int = EXPLICIT_CONTEXT
) -> tuple[int, str]:
    """The status and the recorded name of a refusal that stores nothing."""
    before, stored = len(node.refusals()), node.stored
    status = store(node, uid, data_set, context)
    assert node.stored == stored
    new = node.refusals()[before:]
    assert [subject for subject, _, _ in new] == ["instance"]
    return status, new[0][1]


# -- UIDs ---------------------------------------------------------------------------------------

BAD_UIDS: dict[str, bytes] = {
    "parent": b"../../x",
    "absolute": b"/tmp/aigw-evil",
    "UNC": b"\\\\host\\share",
    "empty": b"",
    "one space": b" ",
    "65 characters": b"1." + b"2" * 63,
    "4,000 characters": b"1.2" * 1333 + b"0",
    "Unicode": "1.2.３.4".encode(),
    "Latin-1": b"1.2.\xe4.4",
    "trailing dot": b"1.2.3.",
    "leading dot": b".1.2.3",
    "two dots": b"1..3",
    "leading zero": b"1.02.3",
    "letters": b"1.2.x.4",
    "NUL inside": b"1.2\x00.3",
    "newline": b"1.2.3\n",
    "escape": b"1.2.\x1b[2J",
    "format": b"%s%n%x.{0}",
    "two values": b"1.2.3\\4.5.6",
    "shell": b"1.2;touch${IFS}x",
    "one component": b"1",
    "sign": b"1.-2.3",
}


@pytest.mark.parametrize("kind", BAD_UIDS)
def test_a_uid_that_is_none_is_refused_in_the_command_and_in_the_data_set(
    node: HostileNode, kind: str
) -> None:
    bad, (uid, good) = BAD_UIDS[kind], good_bytes()
    status, name = refused(node, bad, good)
    assert (status, name) == (0xA900, "UID_INVALID")
    padded = bad + b"\0" * (len(bad) % 2)
    at = good.index(b"\x08\0\x18\0UI")
    length = struct.unpack_from("<H", good, at + 6)[0]
    inside = good[: at + 6] + struct.pack("<H", len(padded)) + padded + good[at + 8 + length :]
    status, name = refused(node, uid, inside)
    assert (status, name) in ((0xA900, "UID_INVALID"), (0xA900, "IDENTITY_MISSING"))


def test_the_uid_of_the_command_must_be_that_of_the_data_set(node: HostileNode) -> None:
    uid, _ = good_bytes()
    assert refused(node, uid, good_bytes()[1]) == (0xA900, "IDENTITY_MISMATCH")


def test_the_class_of_the_data_set_must_be_that_of_the_command(node: HostileNode) -> None:
    dataset = good_instance()
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    uid = str(dataset.SOPInstanceUID).encode()
    assert refused(node, uid, encoded(dataset)) == (0xA900, "IDENTITY_MISMATCH")


# -- structure ----------------------------------------------------------------------------------


def _before_pixels(extra: bytes) -> tuple[bytes, bytes]:
    uid, data = good_bytes()
    at = data.index(b"\xe0\x7f\x10\0")
    return uid, data[:at] + extra + data[at:]


SEQUENCE = struct.pack("<HH2sHL", 0x7FDF, 0x1010, b"SQ", 0, 0xFFFFFFFF)
ITEM = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
ENDS = struct.pack("<HHLHHL", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)


def _nested(levels: int) -> bytes:
    return (SEQUENCE + ITEM) * levels + ENDS * levels


def _nested_defined(levels: int) -> bytes:
    inner = b""
    for _ in range(levels):
        inner = struct.pack("<HHL", 0xFFFE, 0xE000, len(inner)) + inner
        inner = struct.pack("<HH2sHL", 0x7FDF, 0x1010, b"SQ", 0, len(inner)) + inner
    return inner


@pytest.mark.parametrize("levels", [1, 16, 32])
def test_sequences_of_a_depth_that_occurs_are_taken(node: HostileNode, levels: int) -> None:
    assert store(node, *_before_pixels(_nested(levels))) == 0
    assert store(node, *_before_pixels(_nested_defined(levels))) == 0


@pytest.mark.parametrize("levels", [33, 200, 20_000])
def test_sequences_that_are_too_deep_are_refused_by_name(node: HostileNode, levels: int) -> None:
    assert refused(node, *_before_pixels(_nested(levels))) == (0xC000, "NESTED_TOO_DEEPLY")


@pytest.mark.parametrize("levels", [50, 2_000])
def test_deep_sequences_with_lengths_are_refused_too(node: HostileNode, levels: int) -> None:
    assert refused(node, *_before_pixels(_nested_defined(levels))) == (0xC000, "NESTED_TOO_DEEPLY")


LYING: dict[str, tuple[bytes, str]] = {
    "length over the end": (struct.pack("<HH2sHL", 0x7FDF, 0x1010, b"OB", 0, 1 << 30), "TRUNCATED_DATA_SET"),
    "length of 4 GiB": (struct.pack("<HH2sHL", 0x7FDF, 0x1010, b"UN", 0, 0xFFFFFFFE), "TRUNCATED_DATA_SET"),
    "sequence never closed": (SEQUENCE + ITEM, ""),
    "item never closed": (SEQUENCE + ITEM + ENDS[8:], ""),
    "delimiter without sequence": (ENDS, "NOT_PARSEABLE"),
    "item without sequence": (ITEM, "NOT_PARSEABLE"),
    "undefined length of a text": (struct.pack("<HH2sHL", 0x7FDF, 0x1010, b"UT", 0, 0xFFFFFFFF), ""),
    "value representation of zeros": (b"\xdf\x7f\x10\x10" + bytes(8), "NOT_PARSEABLE"),
    "unknown value representation": (struct.pack("<HH2sHL", 0x7FDF, 0x1010, b"ZZ", 0, 1 << 30), ""),
    "item over its sequence": (
        struct.pack("<HH2sHLHHL", 0x7FDF, 0x1010, b"SQ", 0, 8, 0xFFFE, 0xE000, 5000),
        "",
    ),
}


@pytest.mark.parametrize("kind", [k for k in LYING if k != "item over its sequence"])
def test_a_lie_about_lengths_is_refused_by_name(node: HostileNode, kind: str) -> None:
    extra, name = LYING[kind]
    status, found = refused(node, *_before_pixels(extra))
    assert status == 0xC000
    assert found == name if name else found in ("TRUNCATED_DATA_SET", "NOT_PARSEABLE")


def test_a_lie_inside_a_sequence_of_known_length_hurts_nobody(node: HostileNode) -> None:
    assert store(node, *_before_pixels(LYING["item over its sequence"][0])) in (0, 0xC000)


def test_a_giant_private_element_is_kept_and_not_held_in_memory(node: HostileNode) -> None:
    size = 40 << 20
    private = struct.pack("<HH2sHL", 0x7FDF, 0x1010, b"OB", 0, size) + bytes(size)
    assert store(node, *_before_pixels(private)) == 0
    assert node.grown_mib < 100


def test_a_hundred_thousand_elements_are_taken_in_bounded_time(node: HostileNode) -> None:
    many = b"".join(struct.pack("<HH2sHH", 0x7FDD, 0x1000, b"US", 2, 7) for _ in range(100_000))
    assert store(node, *_before_pixels(many)) == 0


@pytest.mark.parametrize(
    "keyword", ["SOPInstanceUID", "SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID"]
)
def test_an_instance_without_identity_is_refused(node: HostileNode, keyword: str) -> None:
    dataset = good_instance()
    uid = str(dataset.SOPInstanceUID).encode()
    delattr(dataset, keyword)
    assert refused(node, uid, encoded(dataset)) == (0xA900, "IDENTITY_MISSING")


NOT_DATA_SETS: dict[str, bytes] = {
    "text": b"not DICOM at all" * 100,
    "zeros": bytes(5000),
    "ones": b"\xff" * 5000,
    "program": b"MZ\x90\0\x03\0\0\0" + bytes(500),
    "a whole Part 10 file": b"MZ" + bytes(126) + b"DICM" + good_bytes()[1],
    "one byte": b"\x08",
    "seven bytes": b"\x08\0\x16\0UI\x1a",
    "deflated": zlib.compress(good_bytes()[1]),
    "deflate bomb": zlib.compress(bytes(50 << 20)),
    "XML": b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><x>&a;</x>' * 10,
}


@pytest.mark.parametrize("context", [EXPLICIT_CONTEXT, IMPLICIT_CONTEXT, BIG_CONTEXT, RLE_CONTEXT])
@pytest.mark.parametrize("kind", NOT_DATA_SETS)
def test_what_is_no_data_set_is_refused_in_every_syntax(node: HostileNode, kind: str, context: int) -> None:
    status, name = refused(node, good_bytes()[0], NOT_DATA_SETS[kind], context)
    assert status in (0xA900, 0xC000)
    assert name in ("NOT_PARSEABLE", "TRUNCATED_DATA_SET", "IDENTITY_MISSING", "NESTED_TOO_DEEPLY")


def test_the_wrong_syntax_for_the_context_is_refused(node: HostileNode) -> None:
    dataset = good_instance()
    uid = str(dataset.SOPInstanceUID).encode()
    assert refused(node, uid, encoded(dataset, implicit_vr=True))[0] in (0xA900, 0xC000)
    assert refused(node, uid, encoded(dataset), IMPLICIT_CONTEXT)[0] in (0xA900, 0xC000)
    assert refused(node, uid, encoded(dataset), BIG_CONTEXT)[0] in (0xA900, 0xC000)


# -- pixels: never decoded here, so these are kept and the worker refuses them -------------------


def _with(**attributes: object) -> Dataset:
    dataset = good_instance()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def _wide_dimensions() -> Dataset:
    dataset = good_instance()
    dataset.add_new("Rows", "UL", 0xFFFFFFFF)
    dataset.add_new("Columns", "UL", 0xFFFFFFFF)
    return dataset


def _short_palette() -> Dataset:
    dataset = _with(PhotometricInterpretation="PALETTE COLOR")
    for colour in ("Red", "Green", "Blue"):
        setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [65535, 0, 16])
        setattr(dataset, f"{colour}PaletteColorLookupTableData", b"\1\2")
    return dataset


PIXELS: dict[str, Callable[[], Dataset]] = {
    "rows x columns x frames overflow": lambda: _with(Rows=65535, Columns=65535, NumberOfFrames="2147483647"),
    "10^11 frames": lambda: _with(NumberOfFrames=10**11),
    "zero rows": lambda: _with(Rows=0),
    "zero columns": lambda: _with(Columns=0),
    "no frames": lambda: _with(NumberOfFrames="0"),
    "negative frames": lambda: _with(NumberOfFrames="-5"),
    "1 bit": lambda: _with(BitsAllocated=1, BitsStored=1, HighBit=0),
    "64 bits": lambda: _with(BitsAllocated=64, BitsStored=64, HighBit=63),
    "0 bits": lambda: _with(BitsAllocated=0, BitsStored=0),
    "65535 bits": lambda: _with(BitsAllocated=65535, BitsStored=65535),
    "0 samples": lambda: _with(SamplesPerPixel=0),
    "65535 samples": lambda: _with(SamplesPerPixel=65535),
    "no pixel data": lambda: Dataset({e.tag: e for e in good_instance() if e.keyword != "PixelData"}),
    "short pixel data": lambda: _with(PixelData=b"\0\0"),
    "UL instead of US": _wide_dimensions,
    "short palette": _short_palette,
}


@pytest.mark.parametrize("kind", PIXELS)
def test_pixels_that_lie_are_kept_as_they_are_and_never_decoded_in_the_node(
    node: HostileNode, kind: str
) -> None:
    dataset = PIXELS[kind]()
    assert store(node, str(dataset.SOPInstanceUID).encode(), encoded(dataset)) in (0, 0xC000)
    assert node.grown_mib < 100


def test_the_preamble_of_a_stored_file_is_zero(node: HostileNode) -> None:
    """A sender cannot place a program before the data set: see also the end of every module."""
    uid, data = good_bytes()
    assert store(node, uid, data) == 0
    for path in node.data.glob("spool/objects/*/*.dcm"):
        assert path.read_bytes()[:132] == bytes(128) + b"DICM"
