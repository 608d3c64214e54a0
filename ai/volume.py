"""Voxels of a series: decoded, in modality units, on one grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from ai.geometry import Note, SliceHeader, VolumeGeometry

LabelArray = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Volume:
    """A scalar image on a regular grid.

    Attributes
    ----------
    voxels
        float32 or int16 array ``(slices, rows, columns)`` in ``unit`` (HU for CT).
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
        SHA-256 hex over the sorted ``SOP Instance UID + digest of the stored bytes`` lines:
        the identity of the input set (house rule 3).
    """

    datasets: tuple[Dataset, ...]
    volume: Volume
    input_digest: str
    notes: tuple[Note, ...] = ()


def slice_header(dataset: Dataset) -> SliceHeader:
    """Read the geometry facts of one instance; malformed values count as absent."""
    raise NotImplementedError


def find_series(folder: Path) -> dict[str, list[Path]]:
    """Group the DICOM files below a folder by Series Instance UID."""
    raise NotImplementedError


def read_series(files: Sequence[Path]) -> ImageSeries:
    """Read, check and decode one series."""
    raise NotImplementedError
