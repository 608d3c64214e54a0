"""One Segmentation as a file: the header of highdicom, its frames encoded once each, in one buffer."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEGLSLossless, RLELossless

from ai.profile import Compression
from ai.results.context import ResultContext
from ai.results.encode import encode
from ai.results.planes import SourcePlane
from ai.results.seg.extent import Extent
from ai.results.seg.frames import Frame, list_frames
from ai.results.seg.groups import encode_groups
from ai.results.seg.pixels import FramePixels
from ai.results.seg.place import cite, is_even
from ai.results.seg.plan import SegPlan
from ai.results.seg.prototype import Prototype, make_prototype

_SYNTAXES: dict[Compression, UID] = {
    "none": ExplicitVRLittleEndian,
    "rle": RLELossless,
    "jpeg_ls": JPEGLSLossless,
}
_PIXEL_DATA = struct.Struct("<HH2sHL")  # explicit VR OB, little endian (PS3.5 7.1.2)
_TAG = (0x7FE0, 0x0010)
_UNDEFINED_LENGTH = 0xFFFFFFFF
_DELIMITER = b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"


@dataclass(frozen=True)
class SegObject:
    """One encoded Segmentation.

    Attributes
    ----------
    plan
        As it was carried out: what could not be compressed is not, and its notes say so.
    header
        What a report needs of it: all but pixels, and the functional groups of frames only of a radiograph,
        whose report cites frames and not segments.
    content
        The DICOM file.
    """

    plan: SegPlan
    header: Dataset
    content: bytes

    @property
    def transfer_syntax_uid(self) -> str:
        """How it is encoded."""
        return str(_SYNTAXES[self.plan.compression])


def write_seg(
    context: ResultContext, plan: SegPlan, planes: Sequence[SourcePlane], extent: Extent
) -> SegObject:
    """Write one object.

    JPEG-LS makes noise longer, for which the coder has no room: such an object is not compressed.
    """
    prototype = make_prototype(context, plan, planes)
    frames = list_frames(plan, extent, is_reversed=prototype.is_reversed)
    header = _header(prototype, plan, planes, frames, extent)
    pixels = FramePixels(plan, context.labels, extent, frames)
    try:
        fragments = pixels.compressed(_SYNTAXES[plan.compression]) if plan.compression != "none" else None
    except RuntimeError as error:  # of every plugin of pydicom alike
        plan, fragments = _uncompressed(plan, error), None
    start = encode(header, context.software_version, _SYNTAXES[plan.compression])
    start += encode_groups(prototype.groups, planes, frames)
    content = _native(start, pixels) if fragments is None else _encapsulated(start, fragments)
    if context.series.volume.geometry.is_projection:
        written = dcmread(BytesIO(start))
        header.PerFrameFunctionalGroupsSequence = written.PerFrameFunctionalGroupsSequence
    return SegObject(plan, header, content)


def _uncompressed(plan: SegPlan, error: RuntimeError) -> SegPlan:
    """The plan of an object that could not be compressed."""
    reason = str(error).splitlines()[-1].strip()
    note = f"RESULT_NOT_COMPRESSED: {plan.compression} failed, so the object is not compressed ({reason})."
    return replace(plan, compression="none", notes=(*plan.notes, note))


def _header(
    prototype: Prototype,
    plan: SegPlan,
    planes: Sequence[SourcePlane],
    frames: Sequence[Frame],
    extent: Extent,
) -> Dataset:
    """The header with what depends on the voxels: frames, source images, order and overlap."""
    header = prototype.header
    header.NumberOfFrames = len(frames)
    header.SegmentsOverlap = "YES" if _overlap(plan, extent) else "NO"
    cite(header, planes if frames[0].stop else planes[:1])
    header.pop("DimensionOrganizationType", None)  # of the two slices of the prototype
    used = [planes[index] for index in sorted({frame.index for frame in frames})]
    one_channel = plan.kind == "label_map" or len(plan.structures) == 1
    if prototype.in_plane is not None and one_channel and is_even(used, prototype.in_plane):
        header.DimensionOrganizationType = "3D"
    return header


def _overlap(plan: SegPlan, extent: Extent) -> bool:
    """Whether a voxel belongs to two structures of an object."""
    if plan.kind == "label_map":
        return False
    counts = Counter(number for s in plan.structures for number in s.numbers)
    return any(counts[number] > 1 for number in extent.numbers)


def _native(start: bytes, pixels: FramePixels) -> bytes:
    """The whole file in one buffer, which becomes the result without a copy.

    The operating system gives pages of zeros when they are first written: rows without voxels cost none.
    """
    size = pixels.size + pixels.size % 2  # OB is padded with zero (PS3.5 6.2)
    start += _PIXEL_DATA.pack(*_TAG, b"OB", 0, size)
    file = BytesIO(bytes(len(start) + size))
    with file.getbuffer() as view:
        view[: len(start)] = start
        pixels.write(np.frombuffer(view, np.uint8, pixels.size, len(start)))
    return file.getvalue()


def _encapsulated(start: bytes, fragments: bytes) -> bytes:
    """The file with each frame as a fragment of its own, after a table of offsets (PS3.5 A.4)."""
    element = _PIXEL_DATA.pack(*_TAG, b"OB", 0, _UNDEFINED_LENGTH)
    return b"".join([start, element, fragments, _DELIMITER])
