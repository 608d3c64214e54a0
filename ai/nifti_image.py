"""Images for models from NIfTI files, and label maps back onto the very grid of the file.

What geometry asks of a volume holds: slices are stacked along their normal (row cosine × column cosine), so
the array is reversed along the slices where the file runs the other way. The third axis of the file runs
through the slices, unless another one is 1.5 times as coarse: that was the scanner's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from ai.errors import SeriesRefused
from ai.geometry import VolumeGeometry
from ai.nifti import LPS_TO_RAS, Affine, load
from ai.volume import LabelArray, Volume

_Nifti1Image: Any = nib.Nifti1Image
_MILLIMETRES = {"unknown": 1.0, "mm": 1.0, "meter": 1000.0, "micron": 0.001}
_RIGHT_ANGLE = 1e-3  # cosine of two axes that are still taken as perpendicular
_COARSER = 1.5
_APART_MM = 0.1  # sform and qform, or two channels, that differ by more do not agree
_INT16 = np.iinfo(np.int16)


@dataclass(frozen=True)
class Stored:
    """How a file stores its grid.

    Attributes
    ----------
    shape
        Of one channel, as in the file: two or three sides.
    affine
        4 × 4, indices of the file to RAS in the units of the file.
    order
        Axis of the file for each of (slices, rows, columns).
    is_reversed
        The slices of the array run against those of the file.
    """

    shape: tuple[int, ...]
    affine: Affine
    units: str
    order: tuple[int, int, int]
    is_reversed: bool


@dataclass(frozen=True)
class NiftiImage:
    """One image or several on one grid.

    Attributes
    ----------
    notes
        Sentences: what was replaced, and what had to be taken for granted.
    """

    channels: tuple[Volume, ...]
    stored: Stored
    notes: tuple[str, ...] = ()


def read_nifti_image(files: Sequence[Path], unit: str = "") -> NiftiImage:
    """Read the channels of one case: three-dimensional files, or one with channels along its fourth axis.

    Values are int16 where that is exact, else float32, after the file's slope and intercept. NaN and
    infinite values become the lowest of the others, with a note.

    Parameters
    ----------
    unit
        Of the values, which the file does not say; ``HU`` for CT.

    Raises
    ------
    AiError
        NIFTI_UNREADABLE, see :func:`ai.nifti.load`.
    SeriesRefused
        ``NIFTI_NO_POSITION``: neither sform nor qform says where the voxels lie; ``NIFTI_SHEARED``;
        ``NIFTI_GRIDS_DIFFER``: channels on several grids; ``NIFTI_DIMENSIONS``; ``NIFTI_NO_VALUES``.
    """
    images = [_read(path, unit) for path in files]
    first = images[0]
    for path, other in zip(files, images, strict=True):
        corner_mm = (
            _corners_mm(first.stored) - _corners_mm(other.stored) if _same_shape(first, other) else None
        )
        if corner_mm is None or float(np.abs(corner_mm).max()) > _APART_MM:
            reason = f"{path.name} lies on another grid than {files[0].name}; channels of a case share one."
            raise SeriesRefused("NIFTI_GRIDS_DIFFER", reason)
    geometry = first.channels[0].geometry
    channels = [replace(channel, geometry=geometry) for image in images for channel in image.channels]
    notes = tuple(dict.fromkeys(note for image in images for note in image.notes))
    return NiftiImage(tuple(channels), first.stored, notes)


def write_labels(path: Path, labels: LabelArray, stored: Stored) -> None:
    """Write a label map of the array that was read: shape, order and affine are those of the source file.

    Parameters
    ----------
    labels
        uint8 ``(slices, rows, columns)``.
    """
    back = labels[::-1] if stored.is_reversed else labels
    voxels = back.transpose(np.argsort(stored.order)).reshape(stored.shape)
    image = _Nifti1Image(voxels, stored.affine)
    image.set_sform(stored.affine, code=1)
    image.set_qform(stored.affine, code=1)
    image.header.set_xyzt_units(stored.units)
    nib.save(image, path)


def _read(path: Path, unit: str) -> NiftiImage:
    """One file: its channels on its grid."""
    image, values = load(path)
    shape = tuple(int(n) for n in values.shape)
    spatial = shape[:3] if len(shape) > 2 else (*shape, *([1] * (3 - len(shape))))
    extra = int(np.prod(shape[3:], dtype=np.int64))
    if len(shape) < 2 or 0 in shape or max(shape[3:], default=1) != extra:
        size = " × ".join(str(n) for n in shape)
        raise SeriesRefused(
            "NIFTI_DIMENSIONS", f"{path.name} has {size} values; one volume, or one and channels."
        )
    affine = _affine(path, image)
    units = image.header.get_xyzt_units()[0]
    to_lps = LPS_TO_RAS @ np.diag([*[_MILLIMETRES.get(units, 1.0)] * 3, 1.0]) @ affine
    _refuse_shear(path, to_lps)
    order, is_reversed = _order(to_lps)
    stored = Stored(shape[:3], affine, units, order, is_reversed)
    geometry = _geometry(stored, to_lps, (spatial[0], spatial[1], spatial[2]))
    notes = _notes(path, image)
    channels = []
    for one in np.moveaxis(values.reshape(*spatial, extra), 3, 0):
        turned = one.transpose(order)
        voxels, told = _exact(turned[::-1] if is_reversed else turned, path)
        notes += told
        channels.append(Volume(voxels, geometry, unit))
    return NiftiImage(tuple(channels), stored, tuple(notes))


def _affine(path: Path, image: Any) -> Affine:
    header = image.header
    if not int(header["sform_code"]) and not int(header["qform_code"]):
        reason = f"{path.name} has neither sform nor qform: nothing says which side of the patient is which. "
        raise SeriesRefused(
            "NIFTI_NO_POSITION", f"{reason}Convert it from its source again, with an orientation."
        )
    affine = np.asarray(image.affine, np.float64)
    if not np.isfinite(affine).all() or np.linalg.norm(affine[:3, :3], axis=0).min() < 1e-6:
        raise SeriesRefused("NIFTI_NO_POSITION", f"The affine of {path.name} has an axis without length.")
    return affine


def _refuse_shear(path: Path, to_lps: Affine) -> None:
    directions = to_lps[:3, :3] / np.linalg.norm(to_lps[:3, :3], axis=0)
    cosines = np.abs(directions.T @ directions - np.eye(3))
    if cosines.max() > _RIGHT_ANGLE:
        degrees = np.degrees(np.arcsin(min(float(cosines.max()), 1.0)))
        reason = f"The axes of {path.name} are {degrees:.2f}° off a right angle: the grid is sheared. "
        raise SeriesRefused(
            "NIFTI_SHEARED", f"{reason}Resample it to an upright grid, or give the DICOM files."
        )


def _order(to_lps: Affine) -> tuple[tuple[int, int, int], bool]:
    """Axes of the file as (slices, rows, columns), and whether the slices have to be reversed."""
    spacing = np.linalg.norm(to_lps[:3, :3], axis=0)
    coarsest = int(spacing.argmax())
    through = coarsest if spacing[coarsest] > _COARSER * spacing[2] else 2
    columns, rows = (axis for axis in range(3) if axis != through)
    normal = np.cross(to_lps[:3, columns], to_lps[:3, rows])
    return (through, rows, columns), bool(normal @ to_lps[:3, through] < 0)


def _geometry(stored: Stored, to_lps: Affine, spatial: tuple[int, int, int]) -> VolumeGeometry:
    matrix = to_lps[:, [*stored.order, 3]].copy()
    slices, rows, columns = (spatial[axis] for axis in stored.order)
    if stored.is_reversed:
        matrix[:3, 3] += (slices - 1) * matrix[:3, 0]
        matrix[:3, 0] *= -1.0
    origins_mm = matrix[:3, 3] + np.arange(slices)[:, None] * matrix[:3, 0]
    return VolumeGeometry(matrix, (slices, rows, columns), (), origins_mm, None)


def _notes(path: Path, image: Any) -> list[str]:
    """What is odd about the header."""
    (sform, sform_code), (qform, qform_code) = (
        image.header.get_sform(coded=True),
        image.header.get_qform(coded=True),
    )
    if not sform_code or not qform_code:
        return []
    corners = np.array(np.meshgrid(*[[0, n - 1] for n in image.shape[:3]], [1])).reshape(
        len(image.shape[:3]) + 1, -1
    )
    if corners.shape[0] != 4:
        return []
    apart_mm = float(np.abs((sform - qform)[:3] @ corners).max())
    if apart_mm <= _APART_MM:
        return []
    return [f"sform and qform of {path.name} differ by up to {apart_mm:.1f} mm; the sform is used."]


def _exact(values: npt.NDArray[Any], path: Path) -> tuple[npt.NDArray[Any], list[str]]:
    """int16 where that is exact, else float32, contiguous; and what was replaced."""
    if values.dtype.kind in "biu":
        fits = int(values.min()) >= _INT16.min and int(values.max()) <= _INT16.max
        return np.ascontiguousarray(values, np.int16 if fits else np.float32), []
    finite = np.isfinite(values)
    bad = values.size - int(np.count_nonzero(finite))
    if bad == values.size:
        raise SeriesRefused("NIFTI_NO_VALUES", f"{path.name} holds no finite value.")
    notes = []
    if bad:
        lowest = float(values[finite].min())
        values = np.where(finite, values, lowest)
        notes = [f"{bad} values of {path.name} are not finite; they were taken as {lowest:g}, the lowest."]
    inside = bool(values.min() >= _INT16.min and values.max() <= _INT16.max)
    if inside and all(bool((plane == np.rint(plane)).all()) for plane in values):
        return np.ascontiguousarray(values, np.int16), notes
    return np.ascontiguousarray(values, np.float32), notes


def _same_shape(one: NiftiImage, other: NiftiImage) -> bool:
    return one.stored.shape == other.stored.shape


def _corners_mm(stored: Stored) -> npt.NDArray[np.float64]:
    sides = [*stored.shape, 1, 1][:3]
    corners = np.array(np.meshgrid(*[[0, n - 1] for n in sides], [1])).reshape(4, -1)
    scale = _MILLIMETRES.get(stored.units, 1.0)
    return np.asarray(scale * (stored.affine @ corners)[:3], np.float64)
