"""The header of one encoded data set as facts: text by keyword, frame by frame, and where the pixels are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from mmap import mmap

from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from ai.errors import HeaderError
from ai.source.elements import PIXEL_DATA_TAGS, Element, ElementReader, Encoding
from ai.source.functional_groups import DIMENSIONS, PER_FRAME, SHARED, FrameReader
from ai.source.private import PRIVATE_TAGS, private_facts
from ai.source.values import Facts, ValueReader, table

__all__ = ["Bytes", "Facts", "Header", "PixelData", "read_encoded", "read_header"]

Bytes = bytes | bytearray | memoryview | mmap

_CHARACTER_SET, _PIXEL_REPRESENTATION = 0x00080005, 0x00280103
_GROUPS = frozenset({DIMENSIONS, SHARED, PER_FRAME})
_ALWAYS = frozenset({_CHARACTER_SET, _PIXEL_REPRESENTATION}) | _GROUPS | PIXEL_DATA_TAGS.keys()


@dataclass(frozen=True)
class PixelData:
    """Where the pixels stand.

    Attributes
    ----------
    keyword
        PixelData, FloatPixelData or DoubleFloatPixelData.
    offset
        Of the value, from the start of the data set: of the Basic Offset Table item where encapsulated.
    length
        Bytes, as claimed; None for undefined length (encapsulated, PS3.5 A.4).
    """

    keyword: str
    offset: int
    length: int | None


@dataclass(frozen=True)
class Header:
    """What was wanted of a data set.

    ``frames`` has one mapping for each item of the Per-frame Functional Groups, shared groups merged under
    it; attributes of the data set itself are in ``facts`` only. It is empty for single-frame images.
    """

    facts: Facts
    frames: tuple[Facts, ...] = ()
    pixel_data: PixelData | None = None


def read_header(
    data: Bytes, transfer_syntax_uid: str, wanted: frozenset[str], *, check_pixels: bool = True
) -> Header:
    """Wanted attributes of an encoded data set (no preamble, no file meta information).

    Parameters
    ----------
    check_pixels
        False: pixel data is not looked through, so it may be cut off; PixelData says what it claims.

    Raises
    ------
    HeaderError
        EMPTY_DATA_SET, TRUNCATED_DATA_SET, NOT_PARSEABLE, NESTED_TOO_DEEPLY, HEADER_TOO_LARGE,
        TRANSFER_SYNTAX_REFUSED.
    """
    encoding = _encoding(transfer_syntax_uid)
    with memoryview(data) as whole, whole.cast("B") as view:
        return read_encoded(view, encoding, wanted, check_pixels=check_pixels)


def read_encoded(
    view: memoryview, encoding: Encoding, wanted: frozenset[str], *, check_pixels: bool
) -> Header:
    """As :func:`read_header`, for a known encoding."""
    if not view:
        raise HeaderError("EMPTY_DATA_SET", "The object has no data set: 0 bytes arrived.")
    reader = ElementReader(view, check_pixels=check_pixels)
    found: dict[int, Element] = {}
    pixel_data = None
    for element in reader.elements(0, reader.size, encoding, _looked_for(wanted)):
        if element.tag in PIXEL_DATA_TAGS:
            pixel_data = PixelData(PIXEL_DATA_TAGS[element.tag], element.start, element.length)
        else:
            found[element.tag] = element
    values = ValueReader(view)
    if _CHARACTER_SET in found:
        values.use_character_set(found[_CHARACTER_SET])
    if _PIXEL_REPRESENTATION in found:
        values.signed = values.values(found[_PIXEL_REPRESENTATION], "US", encoding) == ("1",)
    facts = private_facts(found, values, encoding, wanted)
    tags = table(wanted)
    for tag, element in found.items():
        attribute = tags.get(tag)
        if attribute is not None and (texts := values.values(element, attribute.vr, encoding)):
            facts[attribute.keyword] = texts
    if not found.keys() & _GROUPS:
        return Header(facts, pixel_data=pixel_data)
    groups = FrameReader(reader, values, wanted, encoding)
    if DIMENSIONS in found and (pointers := groups.dimension_pointers(found[DIMENSIONS])):
        facts["DimensionIndexPointer"] = pointers
    return Header(facts, groups.frames(found.get(SHARED), found.get(PER_FRAME)), pixel_data)


@lru_cache(maxsize=32)
def _looked_for(wanted: frozenset[str]) -> frozenset[int]:
    return frozenset(table(wanted)) | _ALWAYS | PRIVATE_TAGS


def _encoding(transfer_syntax_uid: str) -> Encoding:
    if transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
        raise HeaderError(
            "TRANSFER_SYNTAX_REFUSED", "Deflated data sets are not taken: send Explicit VR Little Endian."
        )
    if transfer_syntax_uid == ImplicitVRLittleEndian:
        return Encoding(explicit_vr=False)
    return Encoding(explicit_vr=True, big_endian=transfer_syntax_uid == ExplicitVRBigEndian)
