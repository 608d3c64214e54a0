"""Voxels of a series: decoded, in modality units, on one grid."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.uid import UID

from ai.errors import NotAVolumeError, SeriesRefused
from ai.geometry import NotAVolume, Note, VolumeGeometry, assess
from ai.instances import Instance, find_series, read_instances, slice_header
from ai.pixels import modality_values, read_pixels
from ai.uids import derived_uid

__all__ = ["ImageSeries", "LabelArray", "Volume", "find_series", "read_series", "slice_header"]

LabelArray = npt.NDArray[np.uint8]
Accept = Callable[[str, VolumeGeometry], None]
"""Called with Modality and geometry before any pixel is decoded; raises to refuse the series."""

_INT16 = np.iinfo(np.int16)
_MOST_VOXELS = 1 << 30  # of one series: 4096 slices of 512 × 512, 2 GiB as int16


@dataclass(frozen=True)
class Volume:
    """A scalar image on a regular grid.

    Attributes
    ----------
    voxels
        int16 where that is exact, else float32; ``(slices, rows, columns)`` in ``unit``.
    unit
        ``HU`` for CT, else empty.
    """

    voxels: npt.NDArray[np.int16] | npt.NDArray[np.float32]
    geometry: VolumeGeometry
    unit: str = "HU"


@dataclass(frozen=True)
class ImageSeries:
    """One source series, ready for a model and for results that cite it.

    Attributes
    ----------
    datasets
        Headers without pixel data, in the slice order of ``volume``; identity attributes that
        results need (Frame of Reference UID, Patient ID …) are completed in these copies.
    input_digest
        SHA-256 hex over the sorted lines ``SOP Instance UID`` + space + digest of the data set:
        the identity of the input set.
    notes
        What had to be derived or left out.
    """

    datasets: tuple[Dataset, ...]
    volume: Volume
    input_digest: str
    notes: tuple[Note, ...] = ()


def read_series(files: Sequence[Path], accept: Accept | None = None) -> ImageSeries:
    """Read, check and decode one series; at most one decoded slice is held beside the volume.

    Raises SeriesRefused (UNSUPPORTED_SOP_CLASS, VOLUME_TOO_LARGE; see :mod:`ai.instances`, :mod:`ai.pixels`),
    NotAVolumeError, or what ``accept`` raises.
    """
    instances, notes = read_instances(files)
    geometry = assess([slice_header(instance.header) for instance in instances])
    if isinstance(geometry, NotAVolume):
        raise NotAVolumeError(geometry)
    if accept is not None:
        accept(str(instances[0].header.get("Modality") or ""), geometry)
    _refuse_other_classes(instances)
    if math.prod(geometry.shape) > _MOST_VOXELS:
        size = " × ".join(str(n) for n in geometry.shape)
        raise SeriesRefused(
            "VOLUME_TOO_LARGE", f"The series has {size} voxels; at most {_MOST_VOXELS} are processed."
        )
    by_uid = {instance.sop_instance_uid: instance for instance in instances}
    ordered = [by_uid[uid] for uid in geometry.sop_instance_uids]
    frame_of_reference_uid = _frame_of_reference(ordered, geometry)
    unit = "HU" if ordered[0].header.get("Modality") == "CT" else ""
    geometry = replace(
        geometry, frame_of_reference_uid=frame_of_reference_uid, notes=(*geometry.notes, *notes)
    )
    return ImageSeries(
        datasets=tuple(instance.header for instance in ordered),
        volume=Volume(_decode(ordered, geometry.shape), geometry, unit),
        input_digest=_input_digest(instances),
        notes=geometry.notes,
    )


def _refuse_other_classes(instances: Sequence[Instance]) -> None:
    """Results refer to their source by SOP class; a private or retired one is no known image to a reader."""
    for instance in instances:
        uid = UID(str(instance.header.SOPClassUID))
        if not uid.keyword.endswith("ImageStorage"):
            name = f"{uid} ({uid.name})" if uid.keyword else str(uid)[:64] or "missing"
            reason = f"The SOP Class UID of {instance.path.name} is {name}, no image storage class."
            raise SeriesRefused("UNSUPPORTED_SOP_CLASS", reason)


def _frame_of_reference(ordered: Sequence[Instance], geometry: VolumeGeometry) -> str:
    """The series' Frame of Reference UID, or one derived from the series' UID; set in every header."""
    derived = derived_uid("frame-of-reference", str(ordered[0].header.SeriesInstanceUID))
    uid = geometry.frame_of_reference_uid or derived
    for instance in ordered:
        instance.header.FrameOfReferenceUID = uid
    return uid


def _input_digest(instances: Sequence[Instance]) -> str:
    lines = sorted(f"{instance.sop_instance_uid} {instance.digest}\n" for instance in instances)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _decode(
    ordered: Sequence[Instance], shape: tuple[int, int, int]
) -> npt.NDArray[np.int16] | npt.NDArray[np.float32]:
    """Slices in order, int16 as long as every value is a whole number that fits."""
    voxels: npt.NDArray[np.int16] | npt.NDArray[np.float32] = np.empty(shape, dtype=np.int16)
    for index, instance in enumerate(ordered):
        stored, dataset = read_pixels(instance.path)
        values = modality_values(stored, dataset)
        if voxels.dtype == np.int16 and not _fits_int16(values):
            voxels = voxels.astype(np.float32)
        voxels[index] = values
    return voxels


def _fits_int16(values: npt.NDArray[np.float32]) -> bool:
    whole = np.array_equal(values, np.rint(values))
    return bool(whole and values.min() >= _INT16.min and values.max() <= _INT16.max)
