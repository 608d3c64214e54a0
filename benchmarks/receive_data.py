"""The series that benchmarks/receive.py sends: CT slices with correlated noise, new UIDs for every round.

Every round needs UIDs that no receiver has seen: what is known already takes another way in each of them.
All UIDs of the series begin with the same prefix of fixed length, which is exchanged in place.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.uid import ExplicitVRLittleEndian

from tests.builders import ct_series, write_series

SLICES, ROWS, COLUMNS = 400, 512, 512


def draw(
    folder: Path, slices: int = SLICES, rows: int = ROWS, columns: int = COLUMNS, *, number: int = 1
) -> list[Path]:
    """Write a series; ``number`` tells series of one benchmark apart."""
    voxels = _voxels(slices, rows, columns, number)
    series = ct_series((slices, rows, columns), (0.8, 0.7, 0.7), voxels=voxels)
    prefix = f"2.25.7{0:09d}{number:03d}"
    for index, dataset in enumerate(series):
        dataset.StudyInstanceUID = f"{prefix}000001"
        dataset.SeriesInstanceUID = f"{prefix}000002"
        dataset.FrameOfReferenceUID = f"{prefix}000003"
        dataset.SOPInstanceUID = f"{prefix}1{index:05d}"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    paths = write_series(series, folder)
    longest = max(path.stat().st_size for path in paths)
    for dataset, path in zip(
        series, paths, strict=True
    ):  # one size, so that the limits need not read lengths
        dataset.ImageComments = "." * (longest - path.stat().st_size + 2)
    return write_series(series, folder)


def _voxels(slices: int, rows: int, columns: int, seed: int) -> npt.NDArray[np.int16]:
    """A cylinder of soft tissue in air, under noise whose neighbours resemble each other."""
    rng = np.random.default_rng(seed)
    y, x = np.ogrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    body = np.where(x**2 + (1.4 * y) ** 2 < 0.6, 40, -1000).astype(np.int16)
    voxels = np.empty((slices, rows, columns), np.int16)
    for each in voxels:
        noise = 30 * rng.standard_normal((rows, columns), np.float32)
        rolled = (noise, np.roll(noise, 1, 0), np.roll(noise, 1, 1), np.roll(noise, (1, 1), (0, 1)))
        each[:] = np.clip(body + sum(rolled), -1024, 3071)
    return voxels
