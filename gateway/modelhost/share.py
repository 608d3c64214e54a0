"""Voxels and labels in memory that two processes share: anonymous files, handed over as descriptors.

Nothing has a name that a killed process could leave behind, and sizes are sealed, so that neither side can
pull the memory away from under the other.
"""

from __future__ import annotations

import fcntl
import math
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ai.geometry import VerdictCode, VolumeGeometry
from ai.volume import LabelArray, Volume

_SIZE_STAYS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
_TYPES = ("int16", "float32")


@dataclass(frozen=True)
class VolumeInfo:
    """A volume without its voxels, JSON types only; identifiers of the source do not cross over.

    Attributes
    ----------
    index_to_lps
        Rows of the 4 × 4 affine, see :class:`ai.geometry.VolumeGeometry`.
    origins_mm
        LPS centre of the first voxel of each slice.
    """

    shape: tuple[int, int, int]
    type: str
    index_to_lps: tuple[tuple[float, ...], ...]
    origins_mm: tuple[tuple[float, ...], ...]
    slice_thickness_mm: float | None
    needs: tuple[str, ...]
    is_projection: bool
    unit: str

    @property
    def size_bytes(self) -> int:
        """Of the voxels."""
        return math.prod(self.shape) * np.dtype(self.type).itemsize

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Along (slices, rows, columns)."""
        return self.geometry().spacing_mm

    def geometry(self) -> VolumeGeometry:
        """Where the slices lie, without their source."""
        return VolumeGeometry(
            np.array(self.index_to_lps, np.float64),
            self.shape,
            (),
            np.array(self.origins_mm, np.float64).reshape(-1, 3),
            None,
            self.slice_thickness_mm,
            needs=tuple(VerdictCode(each) for each in self.needs),
            is_projection=self.is_projection,
        )


def describe(volume: Volume) -> VolumeInfo:
    """What the other side must know besides the voxels."""
    geometry = volume.geometry
    return VolumeInfo(
        shape=geometry.shape,
        type=volume.voxels.dtype.name,
        index_to_lps=tuple(tuple(row) for row in geometry.index_to_lps.tolist()),
        origins_mm=tuple(tuple(row) for row in geometry.origins_mm.tolist()),
        slice_thickness_mm=geometry.slice_thickness_mm,
        needs=tuple(str(need) for need in geometry.needs),
        is_projection=geometry.is_projection,
        unit=volume.unit,
    )


def info_from(fields: dict[str, object]) -> VolumeInfo:
    """From decoded JSON; raises ValueError for what describes no volume."""
    try:
        info = VolumeInfo(**{name: _frozen(value) for name, value in fields.items()})  # type: ignore[arg-type]
    except TypeError as error:
        raise ValueError(f"not a volume: {error}") from error
    sizes: tuple[int, ...] = info.shape
    if info.type not in _TYPES or len(sizes) != 3 or min(sizes) < 1:
        raise ValueError("not a volume that is handed over")
    return info


def lend(size_bytes: int) -> int:
    """A descriptor of fresh shared memory, all zero; its size can not be changed by anybody."""
    with _lack_of_memory(size_bytes):
        handle = os.memfd_create("aigw", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        with _closed_on_error(handle):
            os.ftruncate(handle, max(size_bytes, 1))
            fcntl.fcntl(handle, fcntl.F_ADD_SEALS, _SIZE_STAYS)
    return handle


def lend_volume(volume: Volume) -> int:
    """A descriptor of shared memory with the voxels, in C order, which nobody can change any more."""
    handle = lend(volume.voxels.nbytes)
    with _lack_of_memory(volume.voxels.nbytes), _closed_on_error(handle):
        shared = as_array(handle, volume.voxels.shape, volume.voxels.dtype.name)
        shared[...] = volume.voxels
        del shared  # a mapping that can write would forbid the seal
        fcntl.fcntl(handle, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    return handle


def borrow_volume(handle: int, info: VolumeInfo) -> Volume:
    """The volume in shared memory, without a copy; the descriptor may be closed then."""
    voxels = as_array(handle, info.shape, info.type, writable=False)
    return Volume(voxels, info.geometry(), info.unit)


def labels_in(handle: int, shape: tuple[int, ...]) -> LabelArray:
    """A copy of the labels: the other process can change what is shared, but not this."""
    labels: LabelArray = as_array(handle, shape, "uint8", writable=False).copy()
    return labels


def as_array(
    handle: int, shape: tuple[int, ...], type_name: str, *, writable: bool = True
) -> npt.NDArray[Any]:
    """Shared memory as an array; raises ValueError where there is less of it than the shape needs."""
    kind = np.dtype(type_name)
    size_bytes = math.prod(shape) * kind.itemsize
    if os.fstat(handle).st_size < size_bytes:
        raise ValueError("the shared memory is smaller than it was said to be")
    access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
    memory = mmap.mmap(handle, size_bytes, access=access)
    return np.frombuffer(memory, kind).reshape(shape)


@contextmanager
def _lack_of_memory(size_bytes: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MemoryError(f"{size_bytes} bytes of shared memory cannot be had: {error.strerror}") from error


@contextmanager
def _closed_on_error(handle: int) -> Iterator[None]:
    try:
        yield
    except BaseException:
        os.close(handle)
        raise


def _frozen(value: object) -> object:
    return tuple(_frozen(each) for each in value) if isinstance(value, list) else value
