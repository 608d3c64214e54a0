"""What the functional groups of every frame of a SEG say (PS3.3 C.7.6.16), read from the bytes at once.

Frames that are written alike differ only in five values: position, segment number, dimension indices, source
instance and source frame. One frame of each kind is decoded in full with pydicom; of the others every byte
outside of the five values is compared with it, and the five are taken from where they lie.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset

from ai.results.verify_elements import Element, Path, elements, path, text

_IntArray = npt.NDArray[np.intp]
_T = TypeVar("_T", bound=Hashable)

_POSITION = path("PlanePositionSequence", "ImagePositionPatient")
_NUMBER = path("SegmentIdentificationSequence", "ReferencedSegmentNumber")
_INDICES = path("FrameContentSequence", "DimensionIndexValues")
_SOURCE = path("DerivationImageSequence", "SourceImageSequence", "ReferencedSOPInstanceUID")
_SOURCE_FRAME = path("DerivationImageSequence", "SourceImageSequence", "ReferencedFrameNumber")
_OWN = frozenset((_POSITION, _NUMBER, _INDICES, _SOURCE, _SOURCE_FRAME))
_MOST_KINDS = 1024


@dataclass(frozen=True)
class FrameTable:
    """The frames of a SEG; equal values are held once, and arrays of ``frames`` say which one is whose.

    Attributes
    ----------
    samples, sample_of
        Functional groups of one frame of each kind, decoded. Other frames of that kind differ from it in
        nothing but what this table has.
    positions, position_of
        Image Position (Patient) as text ``x\\y\\z``; empty where there is none.
    sources, source_of
        Referenced SOP Instance UID and Referenced Frame Number of the source image, as text.
    numbers
        Referenced Segment Number; 0 where there is none.
    indices
        Dimension Index Values, ``(frames, dimensions)``.
    """

    samples: tuple[Dataset, ...]
    sample_of: _IntArray
    positions: tuple[str, ...]
    position_of: _IntArray
    sources: tuple[tuple[str, str], ...]
    source_of: _IntArray
    numbers: _IntArray
    indices: _IntArray

    def __len__(self) -> int:
        return len(self.sample_of)


def table_of_items(data: bytes, spans: Sequence[tuple[int, int]], shared: Dataset) -> FrameTable:
    """The table of the items that start and stop at these bytes; ``shared`` has the groups of all frames."""
    columns = _Columns(len(spans), shared)
    by_length: dict[int, list[int]] = {}
    for frame, (start, stop) in enumerate(spans):
        by_length.setdefault(stop - start, []).append(frame)
    for length, frames in by_length.items():
        joined = b"".join([data[spans[frame][0] : spans[frame][1]] for frame in frames])
        block = np.frombuffer(joined, np.uint8).reshape(len(frames), length)
        left = np.array(frames, np.intp)
        while len(left):
            own = _own_values(block[0].tobytes())
            alike = _same_around(block, own)
            columns.add(left[alike], block[alike], own)
            left, block = left[~alike], block[~alike]
    return columns.table()


def _own_values(item: bytes) -> dict[Path, Element]:
    """The first of each of the five values in an item; a second one is part of what is around them."""
    own: dict[Path, Element] = {}
    for element in elements(item, 0, len(item)):
        if element.path in _OWN:
            own.setdefault(element.path, element)
    return own


def _same_around(block: npt.NDArray[np.uint8], own: dict[Path, Element]) -> npt.NDArray[np.bool_]:
    """Which rows have every byte of the first but those of the five values."""
    around = np.ones(block.shape[1], np.bool_)
    for element in own.values():
        around[element.start : element.stop] = False
    return np.asarray(((block == block[0]) | ~around).all(axis=1))


class _Columns:
    """The table while kinds of frames are added to it."""

    def __init__(self, count: int, shared: Dataset) -> None:
        self.of_all = _written(_value(shared, "PlanePositionSequence", "ImagePositionPatient")) or b""
        number = int(_value(shared, "SegmentIdentificationSequence", "ReferencedSegmentNumber") or 0)
        self.samples: list[Dataset] = []
        self.positions: dict[bytes, int] = {}
        self.sources: dict[tuple[bytes, bytes], int] = {}
        self.sample_of, self.position_of, self.source_of = np.zeros((3, count), np.intp)
        self.numbers = np.full(count, number, np.intp)
        self.indices: _IntArray | None = None

    def add(self, frames: _IntArray, block: npt.NDArray[np.uint8], own: dict[Path, Element]) -> None:
        """Frames that are written alike, as rows of bytes."""
        if len(self.samples) == _MOST_KINDS:
            raise ValueError(f"its frames are written in more than {_MOST_KINDS} ways")
        self.sample_of[frames] = len(self.samples)
        item = BytesIO(block[0].tobytes())
        self.samples.append(read_dataset(item, is_implicit_VR=False, is_little_endian=True))
        places = _texts(block, own[_POSITION]) if _POSITION in own else [self.of_all] * len(block)
        self.position_of[frames] = _numbered(places, self.positions)
        uids = _texts(block, own.get(_SOURCE))
        cited = zip(uids, _texts(block, own.get(_SOURCE_FRAME)), strict=True)
        self.source_of[frames] = _numbered(cited, self.sources)
        if _NUMBER in own:
            self.numbers[frames] = _numbers(block, own[_NUMBER], "<u2")[:, 0]
        indices = _numbers(block, own[_INDICES], "<u4") if _INDICES in own else np.zeros((len(block), 0))
        if self.indices is None:
            self.indices = np.zeros((len(self.numbers), indices.shape[1]), np.intp)
        self.indices[frames] = indices

    def table(self) -> FrameTable:
        """All frames."""
        return FrameTable(
            samples=tuple(self.samples),
            sample_of=self.sample_of,
            positions=tuple(text(value) for value in self.positions),
            position_of=self.position_of,
            sources=tuple((text(uid), text(frame)) for uid, frame in self.sources),
            source_of=self.source_of,
            numbers=self.numbers,
            indices=np.zeros((0, 0), np.intp) if self.indices is None else self.indices,
        )


def _numbered(values: Iterable[_T], known: dict[_T, int]) -> list[int]:
    """The number of each value; one that is new gets the next."""
    return [known.setdefault(value, len(known)) for value in values]


def _texts(block: npt.NDArray[np.uint8], element: Element | None) -> list[bytes]:
    """A value of every row, without NUL at its end; empty where there is none."""
    if element is None or element.stop == element.start:
        return [b""] * len(block)
    values = np.ascontiguousarray(block[:, element.start : element.stop])
    found: list[bytes] = values.view(f"S{values.shape[1]}")[:, 0].tolist()
    return found


def _numbers(block: npt.NDArray[np.uint8], element: Element, kind: str) -> npt.NDArray[Any]:
    """The numbers of a value of every row, ``(rows, numbers)``."""
    return np.ascontiguousarray(block[:, element.start : element.stop]).view(kind)


def _written(value: Any) -> bytes | None:
    """A value, or several, as DICOM writes them in text."""
    if value is None:
        return None
    several = isinstance(value, Sequence) and not isinstance(value, str)
    return ("\\".join(str(v) for v in value) if several else str(value)).encode()


def _value(groups: Dataset, sequence: str, keyword: str) -> Any:
    found = groups.get(sequence)
    return found[0].get(keyword) if found else None
