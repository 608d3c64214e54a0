"""Compare two segmentations structure by structure: Dice and difference in volume.

Either side is a NIfTI label map or a DICOM SEG (BINARY or LABELMAP). The truth is brought onto the grid of
the mask by the two affines: exactly, by index, where both grids have the same voxel centres up to order and
direction of the axes; else by nearest neighbour, and the result says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ai.errors import AiError
from ai.measure import dice
from ai.nifti import read_nifti

Mask = npt.NDArray[np.bool_]
Affine = npt.NDArray[np.float64]

_SAME_GRID_VOXELS = 1e-2  # voxel centres nearer than this are the same
_DICOM_PREFIX = slice(128, 132)


@dataclass(frozen=True)
class Row:
    """One structure. ``dice`` is None where neither side has it; volumes are each on its own grid.

    ``difference_percent`` is relative to the truth, None where the truth is empty.
    """

    number: int
    label: str
    truth: str
    dice: float | None
    volume_ml: float
    truth_volume_ml: float
    difference_ml: float
    difference_percent: float | None


@dataclass(frozen=True)
class Comparison:
    """The rows, how the grids were matched, and what was left without a partner."""

    rows: tuple[Row, ...]
    same_grid: bool
    only_in_mask: tuple[str, ...]
    only_in_truth: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


class Segmentation(Protocol):
    """One side of a comparison: named masks on one grid."""

    @property
    def names(self) -> Mapping[int, str | None]:
        """Label numbers with their names, None where the file has no names."""
        ...

    @property
    def index_to_lps(self) -> Affine:
        """4 × 4, ``(slice, row, column, 1)`` to LPS millimetres."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """``(slices, rows, columns)``."""
        ...

    def mask(self, numbers: Sequence[int]) -> Mask:
        """Union of the given labels, ``(slices, rows, columns)``."""
        ...


def compare_files(
    mask: Path,
    truth: Path,
    mapping: Mapping[str, Sequence[int]] | None = None,
    names: Mapping[int, str] | None = None,
) -> Comparison:
    """Compare two files.

    Parameters
    ----------
    mapping
        For the mask's labels (by name, or by number written as text) the numbers in the truth that
        together make the structure. Without it labels match by name where both sides have names, else
        by number.
    names
        Names for the numbers of a NIfTI mask; by default those of a ``run.json`` beside it.

    Raises
    ------
    AiError
        ``FILE_UNREADABLE``, ``NIFTI_UNREADABLE``, ``SEG_UNREADABLE``, ``LABEL_UNKNOWN`` or ``GRIDS_APART``.
    """
    return compare(read_segmentation(mask, names or _names_beside(mask)), read_segmentation(truth), mapping)


def compare(
    mask: Segmentation, truth: Segmentation, mapping: Mapping[str, Sequence[int]] | None = None
) -> Comparison:
    """Compare two segmentations; see :func:`compare_files`."""
    pairs = _pairs(mask.names, truth.names, mapping)
    lookup = _Lookup.between(mask.index_to_lps, mask.shape, truth.index_to_lps, truth.shape)
    rows = tuple(_row(mask, truth, number, partners, lookup) for number, partners in pairs.items())
    used = {partner for partners in pairs.values() for partner in partners}
    return Comparison(
        rows=rows,
        same_grid=lookup.exact,
        only_in_mask=tuple(_name(mask.names, number) for number in mask.names if number not in pairs),
        only_in_truth=tuple(_name(truth.names, number) for number in truth.names if number not in used),
    )


def read_segmentation(path: Path, names: Mapping[int, str] | None = None) -> Segmentation:
    """Read a NIfTI label map or a DICOM SEG, told apart by content."""
    if _is_dicom(path):
        return _Seg.read(path)
    grid = read_nifti(path)
    labels = np.rint(grid.voxels).astype(np.int32)
    present = {int(number) for number in np.unique(labels)} - {0}
    known = dict(names or {})
    return _LabelMap(
        labels=labels,
        index_to_lps=grid.index_to_lps,
        names={number: known.get(number) for number in sorted(present | set(known))},
    )


@dataclass(frozen=True)
class _LabelMap:
    labels: npt.NDArray[np.int32]
    index_to_lps: Affine
    names: Mapping[int, str | None]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.labels.shape

    def mask(self, numbers: Sequence[int]) -> Mask:
        return np.isin(self.labels, list(numbers))


@dataclass(frozen=True)
class _Seg:
    """A DICOM SEG; segments may overlap, so each is read on its own."""

    image: Any
    index_to_lps: Affine
    shape: tuple[int, ...]
    names: Mapping[int, str | None]

    @classmethod
    def read(cls, path: Path) -> _Seg:
        import highdicom as hd

        try:
            image = hd.seg.segread(path)
            geometry = image.get_volume_geometry()
        except Exception as error:
            raise AiError("SEG_UNREADABLE", f"{path.name} cannot be read as DICOM SEG: {error}") from error
        if geometry is None:
            reason = f"The frames of {path.name} do not form one regular volume: they are tilted, uneven or "
            reason += "incomplete. Of a result of ours compare mask.nii.gz, which lies on an even grid."
            raise AiError("SEG_UNREADABLE", reason)
        names = {
            int(item.SegmentNumber): str(item.SegmentLabel)
            for item in image.SegmentSequence
            if int(item.SegmentNumber) != 0  # the background of a LABELMAP
        }
        return cls(image, np.asarray(geometry.affine, np.float64), geometry.spatial_shape, names)

    def mask(self, numbers: Sequence[int]) -> Mask:
        if not numbers:
            return np.zeros(self.shape, np.bool_)
        segments = self.image.get_volume(segment_numbers=list(numbers), combine_segments=False).array
        return np.asarray((segments > 0).any(axis=-1), np.bool_)


@dataclass(frozen=True)
class _Lookup:
    """The way from indices of the mask's grid to the nearest voxels of the truth's grid."""

    affine: Affine
    shape: tuple[int, ...]
    truth_shape: tuple[int, ...]
    exact: bool

    @classmethod
    def between(
        cls, mask: Affine, shape: tuple[int, ...], truth: Affine, truth_shape: tuple[int, ...]
    ) -> _Lookup:
        affine = np.asarray(np.linalg.solve(truth, mask), np.float64)
        corners = np.array(np.meshgrid(*[[0, length - 1] for length in shape], [1])).reshape(4, -1)
        reached = (affine @ corners)[:3]
        size = np.asarray(truth_shape)[:, None]
        if ((reached.max(1) < -0.5) | (reached.min(1) > size[:, 0] - 0.5)).any():
            raise AiError("GRIDS_APART", "The two segmentations do not overlap in patient space.")
        exact = bool(np.abs(reached - np.rint(reached)).max() < _SAME_GRID_VOXELS) and bool(
            (np.abs(np.rint(affine[:3, :3])).sum(0) == 1).all()
        )
        return cls(affine, shape, truth_shape, exact)

    def apply(self, truth: Mask) -> Mask:
        """The truth on the grid of the mask, slice by slice; outside the truth's grid there is none."""
        result = np.zeros(self.shape, np.bool_)
        rows, columns = np.indices(self.shape[1:])
        for i in range(self.shape[0]):
            index = [
                np.rint(a[0] * i + a[1] * rows + a[2] * columns + a[3]).astype(np.intp)
                for a in self.affine[:3]
            ]
            inside = np.logical_and.reduce(
                [(axis >= 0) & (axis < size) for axis, size in zip(index, self.truth_shape, strict=True)]
            )
            result[i][inside] = truth[tuple(axis[inside] for axis in index)]
        return result


def _row(
    mask: Segmentation, truth: Segmentation, number: int, partners: Sequence[int], lookup: _Lookup
) -> Row:
    ours, theirs = mask.mask((number,)), truth.mask(partners)
    volume = int(ours.sum()) * _voxel_ml(mask.index_to_lps)
    reference = int(theirs.sum()) * _voxel_ml(truth.index_to_lps)
    difference = volume - reference
    return Row(
        number=number,
        label=_name(mask.names, number),
        truth=" + ".join(_name(truth.names, partner) for partner in partners),
        dice=dice(ours, lookup.apply(theirs)) if volume or reference else None,
        volume_ml=volume,
        truth_volume_ml=reference,
        difference_ml=difference,
        difference_percent=100.0 * difference / reference if reference else None,
    )


def _pairs(
    ours: Mapping[int, str | None],
    theirs: Mapping[int, str | None],
    mapping: Mapping[str, Sequence[int]] | None,
) -> dict[int, tuple[int, ...]]:
    """For each of our numbers the numbers of the truth that make the same structure."""
    if mapping is not None:
        return {_number(label, ours): tuple(partners) for label, partners in mapping.items()}
    by_name = {_plain(name): number for number, name in theirs.items() if name}
    if by_name and any(ours.values()):
        named = {number: by_name.get(_plain(name)) for number, name in ours.items() if name}
        return {number: (partner,) for number, partner in named.items() if partner is not None}
    return {number: (number,) for number in sorted(set(ours) | set(theirs))}


def _number(label: str, names: Mapping[int, str | None]) -> int:
    for number, name in names.items():
        if name is not None and _plain(name) == _plain(label):
            return number
    if label.strip().isdigit():
        return int(label)
    known = ", ".join(_name(names, number) for number in names)
    raise AiError("LABEL_UNKNOWN", f"The mask has no label {label!r}; it has {known or 'none'}.")


def _name(names: Mapping[int, str | None], number: int) -> str:
    return names.get(number) or str(number)


def _plain(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").split())


def _voxel_ml(index_to_lps: Affine) -> float:
    return float(abs(np.linalg.det(index_to_lps[:3, :3]))) / 1000.0


def _is_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(132)[_DICOM_PREFIX] == b"DICM"
    except OSError as error:
        raise AiError("FILE_UNREADABLE", f"{path} cannot be read: {error.strerror}") from error


def _names_beside(mask: Path) -> Mapping[int, str] | None:
    """Names from the ``run.json`` that the gateway writes beside its mask."""
    try:
        segments = json.loads((mask.parent / "run.json").read_text(encoding="utf-8"))["segments"]
        return {int(segment["number"]): str(segment["label"]) for segment in segments}
    except (OSError, ValueError, KeyError, TypeError):
        return None
