"""Instances damaged where readers of data sets are weak: headers, lengths, VRs, UIDs, pixel attributes.

What is damaged is the data set of a C-STORE; the request around it is right.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from itertools import islice
from pathlib import Path

import pydicom
import pydicom.data
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import data_element_generator
from pydicom.filewriter import write_dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from tests.builders import compressed, ct_series
from tests.fuzz.mutation import INTERESTING
from tests.hostile import wire

MAX_SEED_BYTES = 20_000
MAX_SEEDS = 24
UID_PREFIX = "2.25.7"

_LENGTHS = (0, 1, 2, 7, 0xFFFE, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
_VRS = (b"SQ", b"UN", b"OB", b"OW", b"UT", b"US", b"PN", b"UI", b"AT", b"ZZ", b"\0\0", b"ob", b"\xff\xff")
_TAGS = (0x00000000, 0x00020010, 0x00080005, 0x00080018, 0x00090010, 0x52009229, 0x52009230, 0x7FE00010)
_DELIMITERS = (0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD, 0xFFFFFFFF)
_UIDS = (b"", b"1", b"../../x\0", b"1.2.3\n", b"1..2", b"1.02", b"1.2\\3.4", b"1." + b"9" * 64, b"1.2\xff.3")
_TEXTS = (
    b"\x1b[2J\x1b$B",
    b"%s%n",
    b"A\n{}",
    b"\\" * 400,
    b"1e999999",
    b"-9" * 30,
    b"nan\\inf",
    b"\xff" * 64,
)
_UID_TAGS = (0x00080016, 0x00080018, 0x0020000D, 0x0020000E)
_PIXEL_TAGS = (0x00280002, 0x00280008, 0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00280103, 0x7FE00010)


@dataclass(frozen=True)
class Element:
    """Where an element of the data set stands; ``vr_at`` is None in implicit VR."""

    tag: int
    start: int
    vr_at: int | None
    length_at: int
    value_at: int
    end: int


@dataclass(frozen=True)
class Seed:
    """A right instance, with its elements outside of sequences."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data_set: bytes
    elements: tuple[Element, ...]

    @property
    def order(self) -> str:
        """Byte order, as `struct` has it."""
        return ">" if self.transfer_syntax_uid == ExplicitVRBigEndian else "<"


Mutation = Callable[[Seed, Element, random.Random], bytes]


def _instead(seed: Seed, start: int, end: int, new: bytes) -> bytes:
    return seed.data_set[:start] + new + seed.data_set[end:]


def _unchanged(seed: Seed, element: Element, chance: random.Random) -> bytes:
    return seed.data_set


def _length(seed: Seed, element: Element, chance: random.Random) -> bytes:
    size = element.value_at - element.length_at
    number = chance.choice((*_LENGTHS, element.end - element.value_at + chance.choice((-2, -1, 1, 2))))
    new = (number % (1 << 8 * size)).to_bytes(size, "big" if seed.order == ">" else "little")
    return _instead(seed, element.length_at, element.value_at, new)


def _value_representation(seed: Seed, element: Element, chance: random.Random) -> bytes:
    if element.vr_at is None:
        return _length(seed, element, chance)
    return _instead(seed, element.vr_at, element.vr_at + 2, chance.choice(_VRS))


def _tag(seed: Seed, element: Element, chance: random.Random) -> bytes:
    tag = chance.choice((*_TAGS, *_DELIMITERS, chance.randrange(1 << 32)))
    new = struct.pack(f"{seed.order}HH", tag >> 16, tag & 0xFFFF)
    return _instead(seed, element.start, element.start + 4, new)


def _value(seed: Seed, element: Element, chance: random.Random) -> bytes:
    value = chance.choice((*_TEXTS, *_UIDS, chance.randbytes(chance.randrange(80))))
    return _with_value(seed, element, value)


def _with_value(seed: Seed, element: Element, value: bytes) -> bytes:
    """With a length that is right."""
    value += b" " * (len(value) % 2)
    size = element.value_at - element.length_at
    length = len(value).to_bytes(size, "big" if seed.order == ">" else "little")
    return _instead(seed, element.length_at, element.end, length + value)


def _uid(seed: Seed, element: Element, chance: random.Random) -> bytes:
    return _with_value(seed, chance.choice(_of(seed, _UID_TAGS) or (element,)), chance.choice(_UIDS))


def _pixels(seed: Seed, element: Element, chance: random.Random) -> bytes:
    number = chance.choice((0, 1, 7, 0x7FFF, 0xFFFF))
    value = chance.choice((struct.pack(f"{seed.order}H", number), b"", b"2147483647", bytes(8)))
    return _with_value(seed, chance.choice(_of(seed, _PIXEL_TAGS) or (element,)), value)


def _of(seed: Seed, tags: Sequence[int]) -> tuple[Element, ...]:
    return tuple(element for element in seed.elements if element.tag in tags)


def _removed(seed: Seed, element: Element, chance: random.Random) -> bytes:
    return _instead(seed, element.start, element.end, b"")


def _repeated(seed: Seed, element: Element, chance: random.Random) -> bytes:
    again = seed.data_set[element.start : element.end][:4096] * chance.choice((1, 2, 40))
    return _instead(seed, element.end, element.end, again)


def _moved(seed: Seed, element: Element, chance: random.Random) -> bytes:
    other = chance.choice(seed.elements)
    return _instead(seed, other.start, other.start, seed.data_set[element.start : element.end][:4096])


def _inserted(seed: Seed, element: Element, chance: random.Random) -> bytes:
    """Items, delimiters, sequences that are never closed."""
    new = chance.choice(INTERESTING) * chance.choice((1, 2, 40))
    return _instead(seed, element.start, element.start, new)


def _cut(seed: Seed, element: Element, chance: random.Random) -> bytes:
    return seed.data_set[: chance.randrange(element.start, element.end + 1)]


def _bytes(seed: Seed, element: Element, chance: random.Random) -> bytes:
    out = bytearray(seed.data_set)
    for _ in range(chance.randint(1, 8)):
        out[chance.randrange(len(out))] = chance.randrange(256)
    return bytes(out)


MUTATIONS: dict[str, Mutation] = {
    "nothing": _unchanged,
    "length": _length,
    "value representation": _value_representation,
    "tag": _tag,
    "value": _value,
    "UID": _uid,
    "pixel attribute": _pixels,
    "removed": _removed,
    "repeated": _repeated,
    "moved": _moved,
    "inserted": _inserted,
    "cut": _cut,
    "bytes": _bytes,
}


@dataclass(frozen=True)
class Damaged:
    """What is sent, and how it came to be. ``uid`` is that of the request, and nobody else's."""

    mutation: str
    context_id: int
    sop_class_uid: bytes
    uid: bytes
    data_set: bytes


def damaged(number: int, chance: random.Random) -> Damaged:
    """The instance of this number: a seed under a UID of its own, changed in one place."""
    index = chance.randrange(len(seeds()))
    seed = seeds()[index]
    name = chance.choice(list(MUTATIONS))
    uid = f"{UID_PREFIX}{number:0{len(seed.sop_instance_uid) - len(UID_PREFIX)}}".encode()
    data_set = MUTATIONS[name](seed, chance.choice(seed.elements), chance)
    data_set = data_set.replace(seed.sop_instance_uid.encode(), uid)
    return Damaged(name, 2 * index + 1, seed.sop_class_uid.encode(), uid, data_set)


def contexts() -> list[wire.Context]:
    """A presentation context for each of the seeds."""
    return [
        wire.Context(2 * i + 1, seed.sop_class_uid.encode(), (seed.transfer_syntax_uid.encode(),))
        for i, seed in enumerate(seeds())
    ]


@cache
def seeds() -> tuple[Seed, ...]:
    """Built ones in four transfer syntaxes, and small real ones."""
    (built,) = ct_series((1, 8, 8), seed=4711)
    (rle,) = compressed([built], RLELossless)
    made = [
        _seed(dataset, syntax)
        for dataset, syntax in (
            (built, ExplicitVRLittleEndian),
            (built, ImplicitVRLittleEndian),
            (built, ExplicitVRBigEndian),
            (rle, RLELossless),
        )
    ]
    files = sorted((Path(pydicom.data.__file__).parent / "test_files").glob("*.dcm"))
    real = (seed for path in files if path.stat().st_size <= MAX_SEED_BYTES and (seed := _real(path)))
    return (*made, *islice(real, MAX_SEEDS))


def _seed(dataset: Dataset, syntax: str) -> Seed:
    buffer = DicomBytesIO()
    buffer.is_little_endian = syntax != ExplicitVRBigEndian
    buffer.is_implicit_VR = syntax == ImplicitVRLittleEndian
    write_dataset(buffer, Dataset({element.tag: element for element in dataset if element.tag.group != 2}))
    data = buffer.getvalue()
    return Seed(
        str(dataset.SOPClassUID), str(dataset.SOPInstanceUID), syntax, data, tuple(_elements(data, syntax))
    )


def _real(path: Path) -> Seed | None:
    """None for those that are no right instances, or whose UID has no room for a number."""
    try:
        dataset = pydicom.dcmread(path)
        seed = _seed(dataset, str(dataset.file_meta.TransferSyntaxUID))
    except Exception:  # noqa: BLE001 - whatever pydicom finds wrong
        return None
    is_usable = (
        seed.transfer_syntax_uid != DeflatedExplicitVRLittleEndian
        and len(seed.sop_instance_uid) >= len(UID_PREFIX) + 8
        and len(_of(seed, _UID_TAGS)) == len(_UID_TAGS)
    )
    return seed if is_usable else None


def _elements(data: bytes, syntax: str) -> list[Element]:
    is_implicit, is_little = syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
    found, start = [], 0
    stream = BytesIO(data)
    for raw in data_element_generator(stream, is_implicit, is_little):
        told = raw.value_tell if isinstance(raw, RawDataElement) else raw.file_tell
        end, value_at = stream.tell(), int(told or 0)
        vr_at = None if is_implicit else start + 4
        length_at = value_at - (4 if is_implicit or value_at - start == 12 else 2)
        found.append(Element(int(raw.tag), start, vr_at, length_at, value_at, end))
        start = end
    return found
