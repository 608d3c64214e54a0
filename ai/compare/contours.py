"""Contours of an RTSTRUCT (PS3.3 C.8.8.5, C.8.8.6) as voxels of a grid.

Each ROI is filled plane by plane, in patient coordinates: a voxel is inside when its centre is, by the
even-odd rule over all closed contours of that ROI on the plane. So a contour within another one is a hole,
and a hole that is joined to its outline by a narrow channel (the "keyhole" of the standard) is one, too.

A contour stands for the plane it was drawn on, as thick as the smallest distance between planes of the file
(5 mm at most, one step of the grid at least); a slice of the grid takes the nearest plane within half of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from ai.compare.segmentation import HIGHEST_LABEL, Index, Mask, Segmentation, pack
from ai.errors import AiError

Points = npt.NDArray[np.float64]

_CLOSED = frozenset({"CLOSED_PLANAR", "CLOSEDPLANAR_XOR"})
_THICKEST_MM = 5.0
_FLAT_MM = 0.2  # how far the points of a contour may lie from one plane of the grid
_DECIMALS = 6  # of a voxel: the noise of an affine decides nothing
_MOST_VOXELS = 1 << 31


@dataclass(frozen=True)
class _Roi:
    """One structure: its closed contours, each ``(points, 3)`` in indices of the grid."""

    name: str
    contours: tuple[Points, ...]


def rasterise(dataset: Dataset, grid: Segmentation) -> Segmentation:
    """Fill the contours of an RTSTRUCT on the grid of another segmentation, beyond its edges as well.

    ROIs of other frames of reference are left out with a warning where there are some of the grid's own.

    Raises
    ------
    AiError
        ``RTSTRUCT_UNREADABLE``; ``CONTOURS_OBLIQUE`` where the contours lie in no plane of the grid.
    """
    try:
        kept, warnings = _of_frame(_described(dataset), grid.frame_of_reference_uid)
        rois, more = _read(dataset, kept, np.asarray(np.linalg.inv(grid.index_to_lps), np.float64))
    except (AttributeError, TypeError, ValueError) as error:
        raise AiError("RTSTRUCT_UNREADABLE", f"The RTSTRUCT cannot be read: {error}") from error
    contours = [contour for roi in rois.values() for contour in roi.contours]
    steps_mm = np.linalg.norm(grid.index_to_lps[:3, :3], axis=0)
    axis = _plane_axis(contours, steps_mm)
    reach = _half_thickness(contours, axis, float(steps_mm[axis]))
    corner, shape = _extent(contours, axis, reach)

    def masks() -> Iterator[tuple[int, Mask]]:
        for number, roi in rois.items():
            yield number, _fill_roi([c - corner for c in roi.contours], axis, reach, shape)

    moved = grid.index_to_lps.copy()
    moved[:3, 3] = grid.index_to_lps[:3] @ np.array([*corner, 1.0])
    return Segmentation(
        layers=pack(masks(), shape),
        index_to_lps=moved,
        names={number: roi.name for number, roi in rois.items()},
        is_image_grid=False,
        warnings=(*warnings, *more),
    )


def fill(polygons: Sequence[Points], shape: tuple[int, int]) -> Mask:
    """Pixels whose centres lie inside closed polygons, even-odd over all of them together.

    A centre on an edge belongs to the side of higher indices, so polygons that share an edge share no pixel.

    Parameters
    ----------
    polygons
        Each float64 ``(points, 2)``: row and column, where whole numbers are centres.
    """
    rows, columns = shape
    crossings = np.zeros(rows * (columns + 1), np.int64)
    for polygon in polygons:
        start = np.round(polygon, _DECIMALS)
        end = np.roll(start, -1, axis=0)
        low = np.clip(np.ceil(np.minimum(start[:, 0], end[:, 0])), 0, rows).astype(np.intp)
        high = np.clip(np.ceil(np.maximum(start[:, 0], end[:, 0])), 0, rows).astype(np.intp)
        count = high - low
        edge = np.repeat(np.arange(len(start)), count)
        row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + low[edge]
        (y, x), (last_y, last_x) = start[edge].T, end[edge].T
        place = np.round(x + (row - y) * (last_x - x) / (last_y - y), _DECIMALS)
        column = np.clip(np.ceil(place), 0, columns).astype(np.intp)
        crossings += np.bincount(row * (columns + 1) + column, minlength=crossings.size)
    inside = np.cumsum(crossings.reshape(rows, columns + 1), axis=1)[:, :columns] % 2
    return np.asarray(inside == 1)


def _described(dataset: Dataset) -> dict[int, tuple[str, str]]:
    """Name and Frame of Reference UID of each ROI, by ROI Number."""
    return {
        int(item.ROINumber): (
            str(item.get("ROIName") or item.ROINumber),
            str(item.get("ReferencedFrameOfReferenceUID", "")),
        )
        for item in dataset.get("StructureSetROISequence") or ()
    }


def _of_frame(
    described: Mapping[int, tuple[str, str]], wanted: str | None
) -> tuple[dict[int, tuple[str, str]], list[str]]:
    """The ROIs in the grid's frame of reference; where it is unknown there must be only one."""
    frames = Counter(uid for _, uid in described.values())
    chosen = wanted if wanted in frames else next(iter(frames), None)
    if len(frames) > 1 and wanted not in frames:
        reason = f"The contours are in {len(frames)} frames of reference, and it is not known which one is "
        raise AiError("RTSTRUCT_UNREADABLE", f"{reason}that of the mask: compare with a DICOM SEG.")
    kept = {number: roi for number, roi in described.items() if roi[1] == chosen}
    left_out = [name for number, (name, _) in described.items() if number not in kept]
    warnings = [f"In another frame of reference, left out: {', '.join(left_out)}."] if left_out else []
    if wanted and chosen and chosen != wanted:
        warnings.append("The contours have another Frame of Reference UID than the mask.")
    return kept, warnings


def _read(
    dataset: Dataset, described: Mapping[int, tuple[str, str]], to_index: Points
) -> tuple[dict[int, _Roi], list[str]]:
    """The closed contours of each ROI in indices of the grid; what else there is, in words."""
    found: dict[int, list[Points]] = {number: [] for number in described}
    dropped: Counter[tuple[int, str]] = Counter()
    for item in dataset.get("ROIContourSequence") or ():
        number = int(item.ReferencedROINumber)
        for contour in (item.get("ContourSequence") or ()) if number in found else ():
            points = np.asarray(contour.ContourData, np.float64).reshape(-1, 3)
            kind = str(contour.ContourGeometricType)
            if kind not in _CLOSED or len(points) < 3 or not np.isfinite(points).all():
                dropped[number, kind] += 1
                continue
            found[number].append(points @ to_index[:3, :3].T + to_index[:3, 3])
    names = {number: name for number, (name, _) in described.items()}
    numbers = {number: i for i, number in enumerate(names, start=1)}
    if all(0 < number <= HIGHEST_LABEL for number in names):
        numbers = {number: number for number in names}
    warnings = [
        f"{count} contours of {names[number]} are {kind} and enclose nothing; they were left out."
        for (number, kind), count in dropped.items()
    ]
    return {numbers[n]: _Roi(names[n], tuple(contours)) for n, contours in found.items()}, warnings


def _plane_axis(contours: Sequence[Points], steps_mm: npt.NDArray[np.float64]) -> int:
    """The axis of the grid on which every contour is constant."""
    if not contours:
        return 0
    spread_mm = np.array([np.ptp(contour, axis=0) for contour in contours]) * steps_mm
    axis = int(spread_mm.max(axis=0).argmin())
    if spread_mm[:, axis].max() > _FLAT_MM:
        reason = (
            f"A contour lies up to {spread_mm[:, axis].max():.1f} mm off every plane of the mask's grid: "
        )
        raise AiError("CONTOURS_OBLIQUE", f"{reason}compare on the grid of the image it was drawn on.")
    return axis


def _half_thickness(contours: Sequence[Points], axis: int, step_mm: float) -> float:
    """How far a contour reaches along the axis, in steps of the grid."""
    heights = np.unique([_height(contour, axis) for contour in contours])
    gaps_mm = np.diff(heights) * step_mm
    smallest_mm = float(gaps_mm[gaps_mm > _FLAT_MM].min(initial=_THICKEST_MM))
    return max(smallest_mm / step_mm, 1.0) / 2.0 if len(heights) > 1 else 0.5


def _height(contour: Points, axis: int) -> float:
    return round(float(contour[:, axis].mean()), 3)


def _extent(
    contours: Sequence[Points], axis: int, reach: float
) -> tuple[npt.NDArray[np.intp], tuple[int, int, int]]:
    """First index of the box around all contours, and its shape."""
    if not contours:
        return np.zeros(3, np.intp), (1, 1, 1)
    points = np.concatenate(contours)
    margin = np.zeros(3)
    margin[axis] = reach
    low = np.floor(points.min(axis=0) - margin).astype(np.intp)
    size = np.ceil(points.max(axis=0) + margin).astype(np.intp) + 1 - low
    if float(np.prod(size.astype(np.float64))) > _MOST_VOXELS:
        text = " × ".join(str(n) for n in size)
        raise AiError("GRID_TOO_LARGE", f"The contours span {text} voxels; at most {_MOST_VOXELS}.")
    return low, (int(size[0]), int(size[1]), int(size[2]))


def _fill_roi(contours: Sequence[Points], axis: int, reach: float, shape: Index) -> Mask:
    """One ROI on the box of all contours, slice by slice from the nearest plane."""
    mask = np.zeros(shape, np.bool_)
    planes: dict[float, list[Points]] = {}
    for contour in contours:
        planes.setdefault(_height(contour, axis), []).append(np.delete(contour, axis, axis=1))
    if not planes:
        return mask
    heights = np.array(sorted(planes))
    slices = np.moveaxis(mask, axis, 0)
    filled: dict[float, Mask] = {}
    for k, plane in enumerate(slices):
        nearest = float(heights[np.abs(heights - k).argmin()])
        if abs(nearest - k) > reach + 1e-3:
            continue
        if nearest not in filled:
            filled = {nearest: fill(planes[nearest], plane.shape)}
        plane[:] = filled[nearest]
    return mask
