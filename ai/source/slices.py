"""What geometry may know of an instance: one slice header for each of its image planes."""

from __future__ import annotations

from functools import lru_cache

from pydicom.datadict import keyword_for_tag

from ai.geometry.model import SliceHeader, Vector
from ai.source.facts import Header
from ai.source.functional_groups import ALIASES
from ai.source.keywords import SPLIT_KEYWORDS
from ai.source.values import Facts

# PS3.4 B.5: images of a detector, without a place in the patient.
_PROJECTION_CLASSES = frozenset(
    f"1.2.840.10008.5.1.4.1.1.{suffix}"
    for suffix in (
        "1",  # Computed Radiography
        "1.1",  # Digital X-Ray, for presentation
        "1.1.1",  # Digital X-Ray, for processing
        "1.2",  # Digital Mammography
        "1.2.1",
        "1.3",  # Digital Intra-Oral
        "1.3.1",
        "12.1",  # X-Ray Angiographic
        "12.1.1",  # Enhanced XA
        "12.2",  # X-Ray Radiofluoroscopic
        "12.2.1",  # Enhanced XRF
        "12.3",  # X-Ray Angiographic Bi-Plane (retired)
        "13.1.4",  # Breast Projection X-Ray
        "13.1.5",
    )
)
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # and its multi-frame kinds below it
_PROJECTION_MODALITIES = frozenset({"CR", "DX", "IO", "MG", "PX", "RF", "RG", "XA"})
_SEGMENTATIONS = frozenset({"1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"})
# Dimension Index Pointers that say where a frame lies: Image Position, In-Stack Position Number, Plane
# Position; and Stack ID, which is an attribute of its own.
_PLACE_POINTERS = frozenset({"00200032", "00209057", "00209113", "00209056"})
_LONGEST_LENGTH = 1e9  # beyond this a number in a header is none


def slice_headers(header: Header) -> tuple[SliceHeader, ...]:
    """One slice header for each image plane; a malformed number counts as absent.

    A multi-frame instance whose functional groups do not describe each frame makes one header with its
    ``number_of_frames``; a segmentation, whose voxels are labels, makes one without rows and columns.
    """
    facts = header.facts
    count = _count(facts, "NumberOfFrames") or 1
    if _text(facts, "SOPClassUID") in _SEGMENTATIONS:
        return (SliceHeader(_text(facts, "SOPInstanceUID"), None, None, None, None, None),)
    if not header.frames or len(header.frames) != count:
        return (_slice(facts, 1, max(count, len(header.frames))),)
    return tuple(_slice({**facts, **frame}, n, 1) for n, frame in enumerate(header.frames, start=1))


def _slice(facts: Facts, frame_number: int, number_of_frames: int) -> SliceHeader:
    is_projection = _is_projection(facts)
    thickness = _numbers(facts, "SliceThickness", 1)
    return SliceHeader(
        sop_instance_uid=_text(facts, "SOPInstanceUID"),
        rows=_count(facts, "Rows"),
        columns=_count(facts, "Columns"),
        position_mm=_vector(facts, "ImagePositionPatient"),
        orientation=_numbers(facts, "ImageOrientationPatient", 6),  # type: ignore[arg-type]
        pixel_spacing_mm=_pair(facts, "PixelSpacing"),
        frame_of_reference_uid=_text(facts, "FrameOfReferenceUID") or None,
        number_of_frames=number_of_frames,
        image_type=facts.get("FrameType") or facts.get("ImageType", ()),
        slice_thickness_mm=thickness[0] if thickness else None,
        frame_number=frame_number,
        modality=_text(facts, "Modality"),
        detector_spacing_mm=_detector_spacing(facts) if is_projection else None,
        is_projection=is_projection,
        patient_orientation=facts.get("PatientOrientation", ()) if is_projection else (),
        attributes=_attributes(facts),
    )


def _attributes(facts: Facts) -> dict[str, str]:
    """What may tell the volumes of a series apart; several values are joined by a backslash."""
    found = {keyword: facts[keyword] for keyword in SPLIT_KEYWORDS if keyword in facts}
    if "FrameType" in facts:
        found["ImageType"] = facts["FrameType"]
    if "DimensionIndexValues" in found:
        found["DimensionIndexValues"] = _dimensions(facts, found)
    return {keyword: "\\".join(values) for keyword, values in found.items() if values}


def _dimensions(facts: Facts, named: Facts) -> tuple[str, ...]:
    """Dimension index values that say something else than place or a named attribute (PS3.3 C.7.6.17)."""
    values, pointers = facts["DimensionIndexValues"], facts.get("DimensionIndexPointer", ())
    if len(values) != len(pointers):
        return ()
    return tuple(v for v, p in zip(values, pointers, strict=True) if not _is_told(p, named))


def _is_told(pointer: str, named: Facts) -> bool:
    keyword = keyword_for_tag(int(pointer, 16)) if pointer else ""
    return pointer in _PLACE_POINTERS or ALIASES.get(keyword, keyword) in named


def _is_projection(facts: Facts) -> bool:
    sop_class = _text(facts, "SOPClassUID")
    if sop_class in _PROJECTION_CLASSES:
        return True
    if sop_class and not sop_class.startswith(_SECONDARY_CAPTURE):
        return False
    return _text(facts, "Modality") in _PROJECTION_MODALITIES and "ImagePositionPatient" not in facts


def _detector_spacing(facts: Facts) -> tuple[float, float] | None:
    """Pixel Spacing, which is the detector's own or a calibrated one; else Imager Pixel Spacing.

    PS3.3 10.7.1.1: where both are there and differ, Pixel Spacing has been calibrated. A scanned film says
    Nominal Scanned Pixel Spacing.
    """
    names = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
    return next((found for found in (_pair(facts, name) for name in names) if found and min(found) > 0), None)


def _text(facts: Facts, keyword: str) -> str:
    return next(iter(facts.get(keyword, ())), "")


def _vector(facts: Facts, keyword: str) -> Vector | None:
    numbers = _numbers(facts, keyword, 3)
    return (numbers[0], numbers[1], numbers[2]) if numbers else None


def _pair(facts: Facts, keyword: str) -> tuple[float, float] | None:
    numbers = _numbers(facts, keyword, 2)
    return (numbers[0], numbers[1]) if numbers else None


def _numbers(facts: Facts, keyword: str, count: int) -> tuple[float, ...] | None:
    values = facts.get(keyword, ())
    return _parsed(values) if len(values) == count else None


@lru_cache(maxsize=1024)  # most slices share their orientation and spacing
def _parsed(values: tuple[str, ...]) -> tuple[float, ...] | None:
    try:
        numbers = tuple(float(value) for value in values)
    except ValueError:
        return None
    return numbers if all(abs(n) < _LONGEST_LENGTH for n in numbers) else None  # also for NaN


def _count(facts: Facts, keyword: str) -> int | None:
    numbers = _numbers(facts, keyword, 1)
    return int(numbers[0]) if numbers and numbers[0] >= 1 else None
