"""Read one side of a comparison from a file: NIfTI, DICOM SEG or RTSTRUCT, told apart by content."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import RTStructureSetStorage

from ai.compare.contours import rasterise
from ai.compare.segmentation import HIGHEST_LABEL, Affine, Segmentation, pack
from ai.errors import AiError
from ai.nifti import read_nifti
from ai.quiet import quiet

Parts = Mapping[int, Sequence[int]]
"""Further numbers of a label map that belong to a number."""
_DICOM_PREFIX = slice(128, 132)


def read_pair(
    mask: Path, truth: Path, names: Mapping[int, str] | None = None, parts: Parts | None = None
) -> tuple[Segmentation, Segmentation]:
    """Read both sides; contours of one are rasterised on the grid of the other.

    ``names`` and ``parts`` are those of a NIfTI mask, see :func:`read_segmentation`.

    Raises AiError: what :func:`read_segmentation` raises; CONTOURS_WITHOUT_GRID where both are contours.
    """
    if _is_contours(mask):
        if _is_contours(truth):
            reason = f"Both {mask.name} and {truth.name} are contours; one side must have voxels."
            raise AiError("CONTOURS_WITHOUT_GRID", reason)
        theirs = read_segmentation(truth)
        return read_segmentation(mask, names, theirs), theirs
    ours = read_segmentation(mask, names, parts=parts)
    return ours, read_segmentation(truth, None, ours)


def read_segmentation(
    path: Path,
    names: Mapping[int, str] | None = None,
    grid: Segmentation | None = None,
    parts: Parts | None = None,
) -> Segmentation:
    """Read a NIfTI label map, a DICOM SEG, or an RTSTRUCT on the grid of another segmentation.

    Parameters
    ----------
    names
        Names for the numbers of a NIfTI label map.
    parts
        For numbers of a NIfTI label map those that belong to them as well.

    Raises
    ------
    AiError
        ``FILE_UNREADABLE``, ``NIFTI_UNREADABLE``, ``NO_LABEL_MAP``, ``SEG_UNREADABLE``,
        ``RTSTRUCT_UNREADABLE``, ``CONTOURS_OBLIQUE`` or ``CONTOURS_WITHOUT_GRID``.
    """
    if not _is_dicom(path):
        image = read_nifti(path)
        frame_uid = _frame_of_reference_beside(path)
        return label_map(image.voxels, image.index_to_lps, names, path.name, frame_uid, parts)
    if not _is_contours(path):
        return _read_seg(path)
    if grid is None:
        raise AiError("CONTOURS_WITHOUT_GRID", f"{path.name} holds contours; they need a grid with voxels.")
    return rasterise(_read_dicom(path), grid)


def label_map(
    voxels: npt.NDArray[Any],
    index_to_lps: Affine,
    names: Mapping[int, str] | None = None,
    source: str = "the label map",
    frame_of_reference_uid: str | None = None,
    parts: Parts | None = None,
) -> Segmentation:
    """One array of label numbers ``(slices, rows, columns)`` as a segmentation; fractions are rounded.

    Raises AiError NO_LABEL_MAP for numbers below 0 or above 65535: that is an image.
    """
    whole = np.rint(voxels) if voxels.dtype.kind == "f" else voxels
    low, high = float(whole.min(initial=0)), float(whole.max(initial=0))
    if not (low >= 0 and high <= HIGHEST_LABEL):  # NaN, too
        reason = f"{source} holds values from {low:g} to {high:g}; a label map has numbers from 0 to "
        raise AiError("NO_LABEL_MAP", f"{reason}{HIGHEST_LABEL}.")
    labels = whole.astype(np.uint8 if high < 256 else np.uint16, copy=False)
    known = dict(names or {})
    found = Segmentation((labels,), index_to_lps, {})
    numbers = sorted(found.own.boxes.keys() | known.keys())
    return Segmentation(
        layers=(labels,),
        index_to_lps=index_to_lps,
        names={number: known.get(number) for number in numbers},
        frame_of_reference_uid=frame_of_reference_uid,
        parts=dict(parts or {}),
    )


def names_beside(mask: Path) -> Mapping[int, str] | None:
    """Names from the ``run.json`` that the gateway writes beside its mask."""
    try:
        segments = _run_beside(mask)["segments"]
        return {int(segment["number"]): str(segment["label"]) for segment in segments}
    except (KeyError, TypeError, ValueError):
        return None


def parts_beside(mask: Path) -> Parts | None:
    """What structures include, from the ``run.json`` that the gateway writes beside its mask."""
    try:
        segments = _run_beside(mask)["segments"]
        return {int(s["number"]): [int(n) for n in s.get("includes", ())] for s in segments}
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _frame_of_reference_beside(mask: Path) -> str | None:
    try:
        return str(_run_beside(mask)["source"]["frame_of_reference_uid"])
    except (KeyError, TypeError):
        return None


def _run_beside(mask: Path) -> Any:
    try:
        return json.loads((mask.parent / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _read_seg(path: Path) -> Segmentation:
    """A SEG; where segments overlap it takes several layers."""
    import highdicom as hd

    try:
        with quiet():
            image = hd.seg.segread(path)
            geometry = image.get_volume_geometry()
            if geometry is None:
                raise AiError("SEG_UNREADABLE", _irregular(path))
            names = {
                int(item.SegmentNumber): str(item.SegmentLabel)
                for item in image.SegmentSequence
                if int(item.SegmentNumber) != 0  # the background of a LABELMAP
            }
            layers = _seg_layers(image, names, geometry.spatial_shape)
    except AiError:
        raise
    except Exception as error:
        raise AiError("SEG_UNREADABLE", f"{path.name} cannot be read as DICOM SEG: {error}") from error
    return Segmentation(
        layers=layers,
        index_to_lps=np.asarray(geometry.affine, np.float64),
        names=names,
        is_image_grid=False,
        frame_of_reference_uid=str(image.get("FrameOfReferenceUID", "")) or None,
    )


def _seg_layers(
    image: Any,
    names: Mapping[int, str],
    shape: tuple[int, int, int],
) -> tuple[npt.NDArray[Any], ...]:
    def masks() -> Any:
        for number in names:
            segment = image.get_volume(segment_numbers=[number], combine_segments=False).array
            yield number, segment[..., 0] > 0

    return pack(masks(), shape)


def _irregular(path: Path) -> str:
    reason = f"The frames of {path.name} do not form one regular volume: they are tilted, uneven or "
    return f"{reason}incomplete. Of a result of ours compare mask.nii.gz, which lies on an even grid."


def _is_contours(path: Path) -> bool:
    if not _is_dicom(path):
        return False
    try:
        with quiet():
            header = dcmread(path, specific_tags=["SOPClassUID"], stop_before_pixels=True)
    except Exception as error:
        raise AiError("FILE_UNREADABLE", f"{path.name} cannot be read as DICOM: {error}") from error
    return bool(header.get("SOPClassUID") == RTStructureSetStorage)


def _read_dicom(path: Path) -> Dataset:
    try:
        with quiet():
            return dcmread(path)
    except Exception as error:
        raise AiError("RTSTRUCT_UNREADABLE", f"{path.name} cannot be read: {error}") from error


def _is_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(132)[_DICOM_PREFIX] == b"DICM"
    except OSError as error:
        raise AiError("FILE_UNREADABLE", f"{path} cannot be read: {error.strerror}") from error
