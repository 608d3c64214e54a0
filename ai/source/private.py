"""Diffusion attributes from private elements, where a header has no public ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ai.source.elements import Element, Encoding
from ai.source.values import ValueReader


class _Private(NamedTuple):
    """Where a vendor writes an attribute; ``vr`` counts where the header says UN or nothing."""

    keyword: str
    creator: str
    group: int
    numbers: tuple[int, ...]
    vr: str


_SOURCES = (
    _Private("DiffusionBValue", "GEMS_PARM_01", 0x0043, (0x39,), "IS"),
    _Private("DiffusionBValue", "SIEMENS MR HEADER", 0x0019, (0x0C,), "IS"),
    _Private("DiffusionBValue", "Philips Imaging DD 001", 0x2001, (0x03,), "FL"),
    _Private("DiffusionGradientOrientation", "GEMS_ACQU_01", 0x0019, (0xBB, 0xBC, 0xBD), "DS"),
    _Private("DiffusionGradientOrientation", "SIEMENS MR HEADER", 0x0019, (0x0E,), "FD"),
    _Private("DiffusionGradientOrientation", "Philips MR Imaging DD 001", 0x2005, (0xB0, 0xB1, 0xB2), "FL"),
)
_BLOCKS = range(0x10, 0x20)  # PS3.5 7.8.1 allows up to 0xFF; scanners use the first few
_COUNTS: Mapping[str, int] = {"DiffusionBValue": 1, "DiffusionGradientOrientation": 3}
_GE_OFFSET = 1_000_000_000  # GE adds it to a b-value to mark how it was computed

PRIVATE_TAGS: frozenset[int] = frozenset(
    source.group << 16 | element
    for source in _SOURCES
    for block in _BLOCKS
    for element in (block, *(block << 8 | number for number in source.numbers))
)


def private_facts(
    found: Mapping[int, Element], values: ValueReader, encoding: Encoding, wanted: frozenset[str]
) -> dict[str, tuple[str, ...]]:
    """b-value and gradient direction from private elements of GE, Siemens or Philips."""
    facts: dict[str, tuple[str, ...]] = {}
    if PRIVATE_TAGS.isdisjoint(found):
        return facts
    for source in _SOURCES:
        if source.keyword in wanted and source.keyword not in facts:
            texts = _texts(source, found, values, encoding)[: _COUNTS[source.keyword]]
            if len(texts) == _COUNTS[source.keyword]:
                facts[source.keyword] = tuple(map(_without_offset, texts))
    return facts


def _texts(
    source: _Private, found: Mapping[int, Element], values: ValueReader, encoding: Encoding
) -> tuple[str, ...]:
    """Values of the elements in the block that the creator has reserved."""
    for block in _BLOCKS:
        reserved = found.get(source.group << 16 | block)
        if reserved and values.values(reserved, "LO", encoding) == (source.creator,):
            tags = (source.group << 16 | block << 8 | number for number in source.numbers)
            elements = (found[tag] for tag in tags if tag in found)
            return tuple(text for e in elements for text in values.values(e, source.vr, encoding))
    return ()


def _without_offset(text: str) -> str:
    if text.isdecimal() and len(text) <= 12 and int(text) >= _GE_OFFSET:
        return str(int(text) % _GE_OFFSET)
    return text
