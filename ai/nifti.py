"""NIfTI-1 in and out, without loss of position.

A NIfTI image is stored as ``(columns, rows, slices)``, first index fastest, with an affine to RAS
millimetres; our arrays are ``(slices, rows, columns)`` with an affine to LPS. So the voxels are written
transposed, and x and y change sign. ITK-based readers (ITK-SNAP, SimpleITK, 3D Slicer) then see the same
grid as they do for the DICOM series: SimpleITK's ``GetArrayFromImage`` gives our array back. Both the
sform and the qform are written, as scanner coordinates (code 1), in millimetres.

:mod:`ai.nifti_image` reads images for models.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.filebasedimages import ImageFileError

from ai.errors import AiError
from ai.geometry import VolumeGeometry

Affine = npt.NDArray[np.float64]

_Nifti1Image: Any = nib.Nifti1Image  # the package is untyped
_LONGEST_SIDE = 32767
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_REVERSED = np.eye(4)[[2, 1, 0, 3]]  # (column, row, slice) to (slice, row, column)
_MOST_VALUES = 1 << 32  # of all channels together


@dataclass(frozen=True)
class Grid:
    """Voxels on a grid, read from a file.

    Attributes
    ----------
    voxels
        ``(slices, rows, columns)``, that is the third, second and first index of the file.
    index_to_lps
        4 × 4 affine of those indices to LPS millimetres.
    """

    voxels: npt.NDArray[Any]
    index_to_lps: Affine


def write_nifti(path: Path, voxels: npt.NDArray[Any], geometry: VolumeGeometry) -> None:
    """Write an image or label map ``(slices, rows, columns)`` as ``.nii`` or ``.nii.gz``.

    The same input gives the same bytes: the gzip header carries no time.

    Raises
    ------
    AiError
        ``NIFTI_TOO_LARGE``: NIfTI-1 stores sizes as 16-bit signed integers.
    """
    if voxels.shape != geometry.shape:
        raise ValueError(f"the voxels are {voxels.shape}, the geometry {geometry.shape}")
    if max(voxels.shape) > _LONGEST_SIDE:
        size = " × ".join(str(n) for n in voxels.shape)
        raise AiError(
            "NIFTI_TOO_LARGE",
            f"{size} voxels do not fit into NIfTI-1: no side is longer than {_LONGEST_SIDE}.",
        )
    affine = LPS_TO_RAS @ geometry.index_to_lps @ _REVERSED
    image = _Nifti1Image(voxels.transpose(2, 1, 0), affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


def read_nifti(path: Path) -> Grid:
    """Read a three-dimensional NIfTI image or label map.

    Raises
    ------
    AiError
        ``NIFTI_UNREADABLE``: missing, not NIfTI, damaged, not three-dimensional, or without affine.
    """
    image, voxels = load(path)
    if voxels.ndim == 4 and voxels.shape[3] == 1:
        voxels = voxels[..., 0]
    affine = np.asarray(image.affine, np.float64)
    if voxels.ndim != 3 or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise AiError(
            "NIFTI_UNREADABLE", f"{path.name} holds an array of shape {voxels.shape}; one volume is needed."
        )
    return Grid(np.ascontiguousarray(voxels.transpose(2, 1, 0)), LPS_TO_RAS @ affine @ _REVERSED)


def load(path: Path) -> tuple[Any, npt.NDArray[Any]]:
    """The image of nibabel, and its array as the file has it, scaled: integers where there is no scale.

    Raises AiError NIFTI_UNREADABLE: missing, not NIfTI, damaged, not numbers, or too many of them.
    """
    try:
        image: Any = nib.load(path)
        if not isinstance(image, _Nifti1Image):
            raise AiError("NIFTI_UNREADABLE", f"{path.name} is no NIfTI file.")
        count = math.prod(image.shape)
        if image.get_data_dtype().kind not in "biuf":
            raise AiError("NIFTI_UNREADABLE", f"{path.name} holds colours or such; numbers are read.")
        if count > _MOST_VALUES:
            reason = f"{path.name} holds {count} values; at most {_MOST_VALUES} are read."
            raise AiError("NIFTI_UNREADABLE", reason)
        return image, _values(image)
    except (OSError, EOFError, ValueError, zlib.error, ImageFileError) as error:
        raise AiError("NIFTI_UNREADABLE", f"{path.name} cannot be read as NIfTI: {error}") from error


def _values(image: Any) -> npt.NDArray[Any]:
    """Integers as they are; with a slope and intercept in float32, where int16 times a slope is exact."""
    stored = image.dataobj
    if getattr(stored, "slope", 1.0) == 1.0 and getattr(stored, "inter", 0.0) == 0.0:
        return np.asanyarray(stored)
    return np.asarray(stored, np.float32)
