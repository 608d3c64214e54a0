"""Functional groups of enhanced multi-frame images, read within bounds (PS3.3 C.7.6.16)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from pydicom.datadict import tag_for_keyword

from ai.errors import HeaderError
from ai.source.elements import Element, ElementReader, Encoding, inside
from ai.source.values import Facts, ValueReader, table

MAX_FRAMES = 50_000
MAX_FACTS_BYTES = 32 << 20  # of all frames of an instance, as text
MAX_DIMENSIONS = 32

SHARED, PER_FRAME, DIMENSIONS = 0x52009229, 0x52009230, 0x00209222

ALIASES: Mapping[str, str] = {
    "EffectiveEchoTime": "EchoTime",
    "FrameAcquisitionDateTime": "AcquisitionTime",
    "FrameAcquisitionNumber": "AcquisitionNumber",
    "FrameLaterality": "ImageLaterality",
    "InversionTimes": "InversionTime",
    "NominalCardiacTriggerDelayTime": "TriggerTime",
}
"""Attribute of a functional group → the one of single-frame images that means the same."""


def _tags(*keywords: str) -> frozenset[int]:
    return frozenset(int(tag_for_keyword(keyword) or 0) for keyword in keywords)


# Only these are opened: others, private ones above all, repeat standard attributes with another meaning.
_MACROS = _tags(
    "CTAcquisitionDetailsSequence",
    "CTAcquisitionTypeSequence",
    "CTImageFrameTypeSequence",
    "CTReconstructionSequence",
    "CTXRayDetailsSequence",
    "CardiacSynchronizationSequence",
    "ContrastBolusUsageSequence",
    "FrameAnatomySequence",
    "FrameContentSequence",
    "MREchoSequence",
    "MRDiffusionSequence",
    "MRImageFrameTypeSequence",
    "MRModifierSequence",
    "MRTimingAndRelatedParametersSequence",
    "PETFrameCorrectionFactorsSequence",
    "PETFrameTypeSequence",
    "PETReconstructionSequence",
    "PixelMeasuresSequence",
    "PixelValueTransformationSequence",
    "PlaneOrientationSequence",
    "PlanePositionSequence",
    "RespiratorySynchronizationSequence",
    "TemporalPositionSequence",
    "XRay3DFrameTypeSequence",
)
_INNER = _tags("DiffusionGradientDirectionSequence")
# Legacy converted images keep attributes of the single-frame image here (PS3.3 C.7.6.16.2.26).
_UNASSIGNED = _tags(
    "UnassignedPerFrameConvertedAttributesSequence", "UnassignedSharedConvertedAttributesSequence"
)
_OPENED = _MACROS | _UNASSIGNED
_POINTER = _tags("DimensionIndexPointer")

_DATE_DIGITS = 8
_Group = dict[str, tuple[str, ...]]


class FrameReader:
    """Reads wanted attributes from the functional groups of one data set."""

    def __init__(
        self, reader: ElementReader, values: ValueReader, wanted: frozenset[str], encoding: Encoding
    ) -> None:
        self._reader = reader
        self._values = values
        self._keywords = wanted
        self._wanted = table(wanted | {name for name, usual in ALIASES.items() if usual in wanted})
        self._encoding = encoding

    def frames(self, shared: Element | None, per_frame: Element | None) -> tuple[Facts, ...]:
        """Facts of each frame, those of the shared groups under its own.

        Without per-frame groups: the shared ones as the only frame. Raises HeaderError:
        HEADER_TOO_LARGE, and what :class:`ElementReader` raises.
        """
        common = {} if shared is None else next(self._items(shared), {})
        if per_frame is None:
            return (common,) if common else ()
        common_size = _size(common)
        frames: list[Facts] = []
        size = 0
        for own in self._items(per_frame):
            size += common_size + _size(own)
            frames.append({**common, **own})
            if len(frames) > MAX_FRAMES or size > MAX_FACTS_BYTES:
                raise HeaderError(
                    "HEADER_TOO_LARGE",
                    f"The functional groups of the first {len(frames)} frames take {size >> 20} MiB; at most "
                    f"{MAX_FRAMES} frames with {MAX_FACTS_BYTES >> 20} MiB are read.",
                )
        return tuple(frames)

    def dimension_pointers(self, dimensions: Element) -> tuple[str, ...]:
        """Dimension Index Pointer of each item of the Dimension Index Sequence, empty where it has none.

        () if nobody wants them.
        """
        if "DimensionIndexPointer" not in self._keywords:
            return ()
        encoding = inside(dimensions, self._encoding)
        pointers: list[str] = []
        for start, end in self._reader.items(dimensions, encoding):
            element = next(self._reader.elements(start, end, encoding, _POINTER), None)
            texts = self._values.values(element, "AT", encoding) if element else ()
            pointers.append(texts[0] if texts else "")
            if len(pointers) == MAX_DIMENSIONS:
                break
        return tuple(pointers)

    def _items(self, groups: Element) -> Iterator[_Group]:
        encoding = inside(groups, self._encoding)
        for start, end in self._reader.items(groups, encoding):
            own: _Group = {}
            unassigned: _Group = {}
            for macro in self._reader.elements(start, end, encoding, _OPENED):
                self._read(macro, encoding, unassigned if macro.tag in _UNASSIGNED else own)
            yield self._with_usual_names(unassigned | own)

    def _read(
        self, macro: Element, encoding: Encoding, facts: _Group, inner: frozenset[int] = _INNER
    ) -> None:
        """Wanted attributes of the first item of a macro; what stands there first counts."""
        encoding = inside(macro, encoding)
        start, end = next(self._reader.items(macro, encoding), (0, 0))
        for element in self._reader.elements(start, end, encoding, self._wanted.keys() | inner):
            if element.tag in inner:
                self._read(element, encoding, facts, inner=frozenset())
                continue
            keyword, vr = self._wanted[element.tag]
            if keyword not in facts and (values := self._values.values(element, vr, encoding)):
                facts[keyword] = values

    def _with_usual_names(self, facts: _Group) -> _Group:
        for name, usual in ALIASES.items():
            if name in facts and usual in self._keywords:
                is_date = name == "FrameAcquisitionDateTime"
                values = _time_of_day(facts[name]) if is_date else facts[name]
                if any(values):
                    facts.setdefault(usual, values)
            if name not in self._keywords:
                facts.pop(name, None)
        return facts


def _time_of_day(values: tuple[str, ...]) -> tuple[str, ...]:
    """HHMMSS.FFFFFF of dates and times (VR DT, PS3.5 6.2)."""
    return tuple(re.split("[+-]", value[_DATE_DIGITS:])[0] for value in values)


def _size(facts: Facts) -> int:
    return sum(len(keyword) + sum(map(len, values)) for keyword, values in facts.items())
