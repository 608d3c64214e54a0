"""Read the encoded SEGs of a run back and compare them with the label map in patient space (house rule 6).

Written against the standard and not against our writer: headers and one frame of each kind are decoded with
pydicom, every frame is placed by its own functional groups (PS3.3 C.7.6.16) through the affine of the volume,
and every voxel is compared in the form in which it is stored. Whatever turned the picture (a flip, a shifted
slice, exchanged segments or colours) is found before a result may leave.

All objects of a profile are read together: each structure must be in exactly one of them, in the segment that
the plan says, with all its voxels and nothing more.

What it costs is measured by ``python -m benchmarks.results_verify``: most of it is reading what was written.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.encaps import parse_fragments
from pydicom.errors import InvalidDicomError
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
    SegmentationStorage,
)

from ai.results.context import ResultContext
from ai.results.equipment import MANUFACTURER, series_attributes
from ai.results.seg.plan import SegPlan
from ai.results.verify_differences import find_difference
from ai.results.verify_elements import path, text, values_of_items
from ai.results.verify_file import SegFile, read_header, read_seg
from ai.results.verify_places import slices_of_frames
from ai.results.verify_segments import check_segments, expect, mismatch
from ai.results.verify_voxels import (
    FULL,
    Frames,
    binary_counts,
    count_voxels,
    fractional_counts,
    is_label_map,
)
from ai.volume import LabelArray

LABEL_MAP_STORAGE = UID("1.2.840.10008.5.1.4.1.1.66.7")

_TYPES = {"binary": "BINARY", "label_map": "LABELMAP", "fractional": "FRACTIONAL"}
_SYNTAXES = {"none": ExplicitVRLittleEndian, "rle": RLELossless, "jpeg_ls": JPEGLSLossless}
_DECODERS = {
    RLELossless: "pydicom",
    JPEGLSLossless: "pyjpegls",
}  # the plugins of pydicom that are always there
_DELIMITER = b"\xfe\xff\xdd\xe0\0\0\0\0"  # of a sequence (PS3.5 A.4)
_UID = path("ReferencedSOPInstanceUID")
_IN_SERIES = path("ReferencedInstanceSequence", "ReferencedSOPInstanceUID")
_IMAGE: tuple[str, ...] = (
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
)
_IMAGE += ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")
_OF_FRAMES = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SpacingBetweenSlices")
_UNREADABLE = (
    *(AttributeError, InvalidDicomError, LookupError, OverflowError, RuntimeError, TypeError, ValueError),
    *(EOFError, NotImplementedError, OSError, struct.error),
)


def verify_segmentations(objects: Sequence[tuple[SegPlan, bytes]], context: ResultContext) -> None:
    """Check that the encoded SEGs of one profile together say exactly what the label map of the run says.

    Identity and numbers, frame of reference, every segment's description, codes and colour, the images that
    are referred to, every frame's place, orientation, spacing and source, and every voxel.

    Parameters
    ----------
    objects
        The plan of each object, and the object as a DICOM file.

    Raises
    ------
    ResultMismatch
        ``SEG_ROUND_TRIP_MISMATCH`` with what differs and by how much.
    """
    plans = [plan for plan, _ in objects]
    _check_plans(plans, context)
    if any(plan.kind == "label_map" for plan in plans):  # others are found incomplete
        _check_numbers_known(context)
    counts: dict[int, int] = {}
    placed = []
    for plan, encoded in objects:
        try:
            frames = _read_frames(plan, encoded, context)
            counts |= _check_voxels(plan, frames, context.labels)
        except _UNREADABLE as error:
            mismatch(f"it cannot be read back ({type(error).__name__}: {error})")
        placed.append((plan, frames))
    if not _is_complete(counts, context):
        _check_numbers_known(context)
        for plan, frames in placed:
            find_difference(plan.kind, frames, plan.structures, context.labels)
        mismatch("its segments have not all voxels of the label map")


def _check_plans(plans: Sequence[SegPlan], context: ResultContext) -> None:
    """Every structure of the card is in one object, or is not found and said absent in the report."""
    expect("the list of instance numbers", [p.number for p in plans], list(range(1, len(plans) + 1)))
    planned = Counter(structure.number for plan in plans for structure in plan.structures)
    for number, count in planned.items():
        if count > 1:
            mismatch(f"structure {number} is in {count} segments")
    for structure in context.spec.structures:
        if structure.number in planned:
            continue
        if context.profile.absent == "segment":
            mismatch(f"structure {structure.number}, {structure.label!r}, has no segment")
        if count := count_voxels(context.labels, structure.numbers):
            mismatch(f"{count} voxels of {structure.label!r}, which was found, have no segment")
    if strangers := set(planned) - {structure.number for structure in context.spec.structures}:
        mismatch(f"structure {min(strangers)} is none of the model's")


def _check_numbers_known(context: ResultContext) -> None:
    known, last = len(context.spec.structures), int(context.labels.max(initial=0))
    if last > known:
        mismatch(f"the label map has the number {last}, and the model {known} structures")


def _read_frames(plan: SegPlan, encoded: bytes, context: ResultContext) -> Frames:
    """Check all of one object but its voxels, and read these."""
    _check_identity(read_header(encoded)[0], plan, context)
    seg = read_seg(encoded)
    check_segments(seg, plan, context)
    expect("the number of frames", len(seg.frames), int(seg.header.NumberOfFrames))
    _check_references(seg, context)
    _check_numbers(seg, plan)
    slices = slices_of_frames(seg, context)
    return _frames(seg, plan, slices)


def _check_identity(seg: Dataset, plan: SegPlan, context: ResultContext) -> None:
    source = context.series.datasets[0]
    is_binary, is_label_map = plan.kind == "binary", plan.kind == "label_map"
    bits = 1 if is_binary else 8
    expected: Mapping[str, object] = {
        "SOPClassUID": LABEL_MAP_STORAGE if is_label_map else SegmentationStorage,
        "SOPInstanceUID": context.instance_uid("seg", plan.number),
        "SeriesInstanceUID": context.series_uid("seg"),
        "StudyInstanceUID": source.StudyInstanceUID,
        "FrameOfReferenceUID": context.series.volume.geometry.frame_of_reference_uid,
        "InstanceNumber": plan.number,
        "SeriesNumber": context.series_number_base + 1,
        "SegmentationType": _TYPES[plan.kind],
        "SegmentationFractionalType": "OCCUPANCY" if plan.kind == "fractional" else None,
        "MaximumFractionalValue": FULL if plan.kind == "fractional" else None,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": 0,
        "PixelPaddingValue": 0 if is_label_map else None,  # what viewers leave transparent
        "PixelPaddingRangeLimit": None,
        "PresentationLUTShape": "IDENTITY",  # INVERSE would show what is outside
        **dict.fromkeys(_OF_FRAMES),
        "SeriesDescription": series_attributes(context, "seg").description,
        "Modality": "SEG",
        "Manufacturer": MANUFACTURER,
        "Rows": context.labels.shape[1],
        "Columns": context.labels.shape[2],
    }
    if plan.compression not in ("none", context.profile.compression):
        mismatch(f"it is planned with compression {plan.compression}, which is not that of the destination")
    expect("the transfer syntax", seg.file_meta.TransferSyntaxUID, _SYNTAXES[plan.compression])
    for keyword, value in expected.items():
        expect(keyword, seg.get(keyword), value)
    for keyword in ("SOPClassUID", "SOPInstanceUID"):
        expect(f"MediaStorage{keyword}", seg.file_meta[f"MediaStorage{keyword}"].value, seg[keyword].value)
    if str(seg.get("PatientID") or "") != str(source.get("PatientID") or ""):
        mismatch("Patient ID is not that of the source")  # without the value: no patient data in errors


def _check_references(seg: SegFile, context: ResultContext) -> None:
    """Both lists of source images hold what the frames cite, and nothing but images of this part."""
    part = set(context.series.volume.geometry.sop_instance_uids)
    cited = {uid for uid, _ in seg.frames.sources}
    (series,) = values_of_items(seg.header, "ReferencedSeriesSequence")
    of_series = [text(uid) for uid in series[path("SeriesInstanceUID")]]
    expect("the referenced series", of_series, [context.series.datasets[0].SeriesInstanceUID])
    lists = {
        "Referenced Series Sequence": series[_IN_SERIES],
        "Source Image Sequence": [uid for item in seg.sources for uid in item[_UID]],
    }
    for name, listed in lists.items():
        uids = {text(uid) for uid in listed}
        if foreign := len(uids - part):
            mismatch(f"its {name} has {foreign} images that are none of the {len(part)} of the source")
        if lacking := len(cited - uids):
            mismatch(f"its {name} lacks {lacking} of the {len(cited)} images that its frames cite")


def _check_numbers(seg: SegFile, plan: SegPlan) -> None:
    """A frame belongs to one segment that there is; in a label map to none, for it shows all of them."""
    numbers = seg.frames.numbers
    last = 0 if plan.kind == "label_map" else len(plan.structures)
    wrong = (numbers != 0) if plan.kind == "label_map" else (numbers < 1) | (numbers > last)
    for frame in np.flatnonzero(wrong)[:1]:
        mismatch(f"frame {frame + 1} is of segment {numbers[frame]}, and frames may have {last} segments")


def _frames(seg: SegFile, plan: SegPlan, slices: npt.NDArray[np.intp]) -> Frames:
    """The stored voxels, as many as there are frames; encapsulated ones are decoded one by one."""
    header, numbers = seg.header, seg.frames.numbers
    voxels = len(seg.frames) * header.Rows * header.Columns
    syntax = header.file_meta.TransferSyntaxUID
    if not syntax.is_compressed:
        used = (voxels + 7) // 8 if plan.kind == "binary" else voxels
        if len(seg.pixels) != used + used % 2:
            mismatch(f"the pixel data hold {len(seg.pixels)} bytes for {voxels} voxels")
        stored = np.frombuffer(seg.pixels, np.uint8, used)
        if plan.kind == "binary":
            return Frames(numbers, slices, bits=stored)
        return Frames(numbers, slices, planes=lambda: stored.reshape(-1, header.Rows, header.Columns))
    image = Dataset()
    for keyword in _IMAGE:
        image[keyword] = header[keyword]
    image.file_meta = header.file_meta
    image.PixelData = bytes(seg.pixels)
    image["PixelData"].is_undefined_length = True
    fragments, starts = parse_fragments(image.PixelData)
    expect("the number of encapsulated frames", fragments - 1, len(seg.frames))  # less the offset table
    last = seg.pixels[starts[-1] + 4 :]  # after its tag: its length, its bytes, and the end
    if bytes(last[4 + int.from_bytes(last[:4], "little") :]) != _DELIMITER:
        mismatch("its encapsulated frames are not the end of it")
    plugin = _DECODERS[syntax]
    return Frames(numbers, slices, planes=lambda: iter_pixels(image, raw=True, decoding_plugin=plugin))


def _check_voxels(plan: SegPlan, frames: Frames, labels: LabelArray) -> dict[int, int]:
    """Compare one object; how many voxels its segments have, by structure, unless it is a label map."""
    structures = plan.structures
    counts: list[int] | None = []
    if plan.kind == "label_map":
        is_same = is_label_map(frames, structures, labels)
    else:
        compare = binary_counts if plan.kind == "binary" else fractional_counts
        counts = compare(frames, structures, labels)
        is_same = counts is not None
    if not is_same:
        find_difference(plan.kind, frames, structures, labels)
        mismatch("its voxels are not those of the label map")
    return dict(zip((s.number for s in structures), counts or (), strict=False))


def _is_complete(counts: Mapping[int, int], context: ResultContext) -> bool:
    """Whether no voxel of the label map is left out: what segments were found to have is all there is.

    Structures that are not in a label map and include no other have their numbers for themselves, so that
    they are counted together; label maps were compared voxel by voxel.
    """
    labels, structures = context.labels, context.spec.structures
    alone = [s for s in structures if s.number in counts and not s.includes]
    others = [s for s in structures if s.number not in counts or s.includes]
    if any(counts[s.number] != count_voxels(labels, s.numbers) for s in others if s.number in counts):
        return False
    if not alone:
        return True
    labelled = sum(int(np.count_nonzero(plane)) for plane in labels)
    rest = count_voxels(labels, [s.number for s in others])
    return sum(counts[s.number] for s in alone) == labelled - rest
