"""Every voxel of a SEG against the label map, in the form in which it is stored.

A binary segmentation of a hundred structures has gigabits, nearly all zero. Frames of one segment are joined
by OR, which shows the box outside of which none has a bit; within it the label map is packed as the standard
says (PS3.5 8.1.1: bits follow each other, lowest first) and compared byte by byte. What the label map has
outside of boxes and frames is found by counting: all voxels of a structure must have been met.

Here it is only found whether there is a difference; :mod:`ai.results.verify_differences` says where.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ai.model import Structure
from ai.volume import LabelArray

Bytes = npt.NDArray[np.uint8]
_IntArray = npt.NDArray[np.intp]

FULL = 255  # Maximum Fractional Value, and what a voxel inside has (PS3.3 C.8.20.2.3)
_CHUNK = 1 << 19  # voxels compared at once, so that they stay in the cache
_THREADS = 2


@dataclass(frozen=True)
class Frames:
    """Frames of one object in patient space.

    Attributes
    ----------
    numbers, slices
        Segment number (0 in a label map) and slice of the volume of each frame, ``(frames,)``.
    bits
        Of a binary segmentation, packed as they are stored.
    planes
        Gives the frames of another, a byte for each voxel ``(rows, columns)``, in their order.
    """

    numbers: _IntArray
    slices: _IntArray
    bits: Bytes = field(default_factory=lambda: np.zeros(0, np.uint8))
    planes: Callable[[], Iterable[Bytes]] = tuple


def binary_counts(frames: Frames, structures: Sequence[Structure], labels: LabelArray) -> list[int] | None:
    """How many voxels each segment has, if all bits are those of the label map; None where one is not."""
    if labels.shape[2] % 8:
        return _counts_unaligned(frames, structures, labels)
    bits = frames.bits.reshape(-1, labels.shape[1], labels.shape[2] // 8)

    def count(segment: tuple[int, Structure]) -> int | None:
        number, structure = segment
        return _count_in_box(bits, np.flatnonzero(frames.numbers == number), frames.slices, structure, labels)

    with ThreadPoolExecutor(_THREADS) as pool:
        counts = list(pool.map(count, enumerate(structures, start=1)))
    found = [number for number in counts if number is not None]
    return found if len(found) == len(counts) else None


def fractional_counts(
    frames: Frames, structures: Sequence[Structure], labels: LabelArray
) -> list[int] | None:
    """As :func:`binary_counts` for occupancies, of which each is 0 or 255."""
    counts = [0] * (len(structures) + 1)
    for plane, number, index in zip(
        frames.planes(), frames.numbers.tolist(), frames.slices.tolist(), strict=True
    ):
        expected = inside(labels[index], structures[number - 1].numbers)
        if not np.array_equal(plane, np.negative(expected.view(np.uint8))):  # 1 becomes 255
            return None
        counts[number] += int(np.count_nonzero(expected))
    return counts[1:]


def is_label_map(frames: Frames, structures: Sequence[Structure], labels: LabelArray) -> bool:
    """Whether every voxel of every slice has the number of its segment, or 0 where it has none."""
    segments = segment_numbers(structures)
    numbers = np.arange(int(labels.max(initial=0)) + 1)
    is_same = bool((segments[numbers] == numbers).all())
    for plane, index in zip(frames.planes(), frames.slices.tolist(), strict=True):
        if not np.array_equal(plane, labels[index] if is_same else segments[labels[index]]):
            return False
    left_out = np.setdiff1d(np.arange(len(labels)), frames.slices)
    return not any(segments[labels[index]].any() for index in left_out)


def segment_numbers(structures: Sequence[Structure]) -> Bytes:
    """Segment number by value of the label map, ``(256,)``; 0 for values of no structure given.

    Raises ValueError where a value belongs to two of them: a label map has one number for a voxel.
    """
    segments = np.zeros(256, np.uint8)
    for number, structure in enumerate(structures, start=1):
        for value in structure.numbers:
            if segments[value]:
                raise ValueError(f"value {value} belongs to two segments of a label map")
            segments[value] = number
    return segments


def inside(labels: LabelArray, values: Sequence[int]) -> npt.NDArray[np.bool_]:
    """Which voxels of a part of the label map have one of some values."""
    first, *others = values
    found = np.asarray(labels == first)
    for value in others:
        found |= labels == value
    return found


def count_voxels(labels: LabelArray, values: Sequence[int]) -> int:
    """How many voxels have one of some values; a slice at a time, so that no copy of the volume is made."""
    return sum(int(np.count_nonzero(inside(plane, values))) for plane in labels) if values else 0


def _count_in_box(
    bits: Bytes, own: _IntArray, slices: _IntArray, structure: Structure, labels: LabelArray
) -> int | None:
    """Voxels of one segment, if its frames and the label map are the same in the box of its frames' bits."""
    if not len(own):
        return 0
    planes = bits[own[0] : own[-1] + 1] if own[-1] - own[0] + 1 == len(own) else bits[own]
    touched = np.bitwise_or.reduce(planes.reshape(len(own), -1), axis=0).reshape(planes.shape[1:])
    rows, columns = np.flatnonzero(touched.any(axis=1)), np.flatnonzero(touched.any(axis=0))
    if not len(rows):
        return 0
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    voxels = box[0], slice(8 * box[1].start, 8 * box[1].stop)
    size = (box[0].stop - box[0].start) * 8 * (box[1].stop - box[1].start)
    total = 0
    for chunk in _chunks(len(own), max(1, _CHUNK // size)):
        expected = inside(labels[(_run(slices[own[chunk]]), *voxels)], structure.numbers)
        packed = np.packbits(expected.reshape(-1), bitorder="little")
        stored = planes[(chunk, *box)]
        if not np.array_equal(packed.reshape(stored.shape), stored):
            return None
        total += int(np.count_nonzero(expected))
    return total


def _run(indices: _IntArray) -> slice | _IntArray:
    """Consecutive indices as a slice, which makes no copy."""
    steps = np.diff(indices)
    if len(indices) == 1 or (steps == 1).all():
        return slice(int(indices[0]), int(indices[-1]) + 1)
    return indices


def _chunks(count: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def _counts_unaligned(
    frames: Frames, structures: Sequence[Structure], labels: LabelArray
) -> list[int] | None:
    """As :func:`binary_counts` where rows do not begin at whole bytes: eight frames together do."""
    counts = [0] * (len(structures) + 1)
    for chunk in _chunks(len(frames.slices), 8):
        pairs = zip(frames.numbers[chunk].tolist(), frames.slices[chunk].tolist(), strict=True)
        expected = []
        for number, index in pairs:
            expected.append(inside(labels[index], structures[number - 1].numbers))
            counts[number] += int(np.count_nonzero(expected[-1]))
        packed = np.packbits(np.stack(expected).reshape(-1), bitorder="little")
        start = chunk.start * labels[0].size // 8
        if not np.array_equal(packed, frames.bits[start : start + len(packed)]):
            return None
    return counts[1:]
