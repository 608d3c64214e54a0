"""Where a SEG and the label map differ: frame by frame, once it is known that they do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from ai.model import Structure
from ai.profile import SegmentationKind
from ai.results.verify_segments import mismatch
from ai.results.verify_voxels import FULL, Frames, inside, segment_numbers
from ai.volume import LabelArray


def find_difference(
    kind: SegmentationKind, frames: Frames, structures: Sequence[Structure], labels: LabelArray
) -> None:
    """Say where an object differs from the label map; raises ResultMismatch if it does."""
    planes = _planes(kind, frames, labels.shape[1:])
    for number, index, stored in zip(frames.numbers.tolist(), frames.slices.tolist(), planes, strict=True):
        if kind == "label_map":
            _compare_numbers(stored, segment_numbers(structures)[labels[index]], structures, index)
            continue
        expected = inside(labels[index], structures[number - 1].numbers)
        if kind == "fractional" and (odd := np.setdiff1d(stored, (0, FULL))).size:
            mismatch(
                f"segment {number} has the fractional value {odd[0]} on slice {index + 1}, not 0 or {FULL}"
            )
        if differing := int(np.count_nonzero((stored != 0) != expected)):
            mismatch(f"{differing} voxels of segment {number} differ on slice {index + 1}")
    _none_missing(kind, frames, structures, labels)


def _compare_numbers(
    stored: npt.NDArray[np.uint8],
    expected: npt.NDArray[np.uint8],
    structures: Sequence[Structure],
    index: int,
) -> None:
    differs = stored != expected
    if not differs.any():
        return
    number = int(np.bincount(np.maximum(stored, expected)[differs]).argmax())
    text = f"{int(np.count_nonzero(differs))} voxels, most of segment {number},"
    if beyond := int(np.count_nonzero(stored > len(structures))):
        text = f"{beyond} voxels have a number of no segment, and {text}"
    mismatch(f"{text} differ on slice {index + 1}")


def _none_missing(
    kind: SegmentationKind, frames: Frames, structures: Sequence[Structure], labels: LabelArray
) -> None:
    for number, structure in enumerate(structures, start=1):
        own = frames.slices if kind == "label_map" else frames.slices[frames.numbers == number]
        for index in np.setdiff1d(np.arange(len(labels)), own).tolist():
            if count := int(np.count_nonzero(inside(labels[index], structure.numbers))):
                mismatch(f"{count} voxels of segment {number} on slice {index + 1} have no frame")


def _planes(
    kind: SegmentationKind, frames: Frames, shape: tuple[int, ...]
) -> Iterable[npt.NDArray[np.uint8]]:
    """Voxels of every frame ``(rows, columns)``."""
    if kind != "binary":
        return frames.planes()
    size = shape[0] * shape[1]
    starts = range(0, len(frames.slices) * size, size)
    return (
        np.unpackbits(frames.bits[start // 8 : (start + size + 7) // 8], bitorder="little")[
            start % 8 : start % 8 + size
        ].reshape(shape)
        for start in starts
    )
