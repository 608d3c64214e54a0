"""The voxels of a Segmentation as the bytes of its frames: bits, numbers or occupancies.

Nothing is made that is as large as the pixel data: each frame is cut to the rows that hold its segment and is
written where it belongs. A fractional Segmentation is made of a label map, which is a decision: each voxel
is inside (255) or outside (0), and none is in part. Its type is OCCUPANCY and not PROBABILITY, for the
probabilities that the model had are not kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders.base import JPEGLSLosslessEncoder
from pydicom.uid import UID, JPEGLSLossless, RLELossless

from ai.results.seg.extent import Extent
from ai.results.seg.frames import Frame
from ai.results.seg.plan import SegPlan
from ai.results.seg.prototype import FULL
from ai.results.seg.rle import encode_rle
from ai.volume import LabelArray

_Bytes = npt.NDArray[np.uint8]
_NUMBERS = 256
_BITS = 8


def _jpeg_ls(plane: _Bytes) -> bytes:
    rows, columns = plane.shape
    return JPEGLSLosslessEncoder.encode(
        plane,
        encoding_plugin="pyjpegls",
        rows=rows,
        columns=columns,
        samples_per_pixel=1,
        bits_allocated=_BITS,
        bits_stored=_BITS,
        pixel_representation=0,
        photometric_interpretation="MONOCHROME2",
        number_of_frames=1,
    )


_ENCODERS: dict[UID, Callable[[_Bytes], bytes]] = {RLELossless: encode_rle, JPEGLSLossless: _jpeg_ls}


class FramePixels:
    """The voxels of the frames of one object.

    Parameters
    ----------
    labels
        uint8 ``(slices, rows, columns)``.
    """

    def __init__(self, plan: SegPlan, labels: LabelArray, extent: Extent, frames: Sequence[Frame]) -> None:
        self.plan = plan
        self.labels = labels
        self.frames = frames
        self.tables = [_table(s.numbers) for s in plan.structures]
        self.numbers = np.zeros(_NUMBERS, np.uint8)
        for segment, structure in enumerate(plan.structures, start=1):
            self.numbers[structure.number] = segment
        present = np.array(extent.numbers, np.intp)
        self.is_as_it_is = bool((self.numbers[present] == present).all())

    @property
    def size(self) -> int:
        """Bytes of all frames, native: bits run on without padding between frames (PS3.5 8.1.1)."""
        voxels = len(self.frames) * int(self.labels[0].size)
        return (voxels + _BITS - 1) // _BITS if self.plan.kind == "binary" else voxels

    def write(self, target: _Bytes) -> None:
        """Write the frames, native, into a buffer of ``size`` zeros."""
        if self.plan.kind == "binary":
            self._write_bits(target)
            return
        planes = target.reshape(-1, *self.labels.shape[1:])
        for plane, frame in zip(planes, self.frames, strict=True):
            self._fill(plane, frame)

    def compressed(self, transfer_syntax_uid: UID) -> bytes:
        """The frames, each compressed, as items of an encapsulated element (PS3.5 A.4)."""
        return encapsulate(list(self._compressed(transfer_syntax_uid)))

    def _compressed(self, transfer_syntax_uid: UID) -> Iterator[bytes]:
        encode = _ENCODERS[transfer_syntax_uid]
        for frame in self.frames:
            plane = np.zeros(self.labels.shape[1:], np.uint8)
            self._fill(plane, frame)
            yield encode(plane)

    def _fill(self, plane: _Bytes, frame: Frame) -> None:
        """Write one frame of 8 bits over zeros ``(rows, columns)``."""
        rows = plane[frame.first : frame.stop]
        if self.plan.kind == "fractional":
            np.multiply(self._mask(frame).view(np.uint8), np.uint8(FULL), out=rows)
        elif self.is_as_it_is:
            rows[:] = self.labels[frame.index, frame.first : frame.stop]
        else:
            np.take(self.numbers, self.labels[frame.index, frame.first : frame.stop], out=rows)

    def _mask(self, frame: Frame) -> npt.NDArray[np.bool_]:
        """Which voxels belong to the segment, in the rows of a frame that can hold any."""
        rows = self.labels[frame.index, frame.first : frame.stop]
        numbers = self.plan.structures[frame.segment - 1].numbers
        return rows == numbers[0] if len(numbers) == 1 else self.tables[frame.segment - 1][rows]

    def _write_bits(self, target: _Bytes) -> None:
        """A frame may begin within a byte, which it shares with the one before."""
        _, rows, columns = self.labels.shape
        for position, frame in enumerate(self.frames):
            start, offset = divmod((position * rows + frame.first) * columns, _BITS)
            mask = self._mask(frame).reshape(-1)
            if offset:
                mask = np.concatenate([np.zeros(offset, np.bool_), mask])
            packed = np.packbits(mask, bitorder="little")
            target[start : start + packed.size] |= packed


def _table(numbers: Sequence[int]) -> npt.NDArray[np.bool_]:
    table = np.zeros(_NUMBERS, np.bool_)
    table[list(numbers)] = True
    return table
