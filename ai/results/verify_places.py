"""Where the frames of a SEG lie, by their own functional groups, against the slices of the source.

Every combination of a position and a way of writing a frame is looked up once in the affine of the volume;
frames of hundreds of segments share a few hundred of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from ai.geometry import VerdictCode, VolumeGeometry
from ai.results.context import ResultContext
from ai.results.planes import SourcePlane, source_planes
from ai.results.verify_file import SegFile
from ai.results.verify_frames import FrameTable
from ai.results.verify_segments import expect, mismatch

_Floats = npt.NDArray[np.float64]
_IntArray = npt.NDArray[np.intp]

_POSITION, _ORIENTATION = Tag("ImagePositionPatient"), Tag("ImageOrientationPatient")
_CLASS, _INSTANCE = Tag("SOPClassUID"), Tag("SOPInstanceUID")  # faster than keywords, in every slice
_POSITION_MM = 1e-3  # a frame against its source slice
_SPACING_MM = 1e-4
_COSINE = 2e-3  # noise of orientation within one series: ai.geometry joins up to twice its tolerance
_SEGMENT_NUMBER = 0x0062000B
_IMAGE_POSITION = 0x00200032
_INDEX = 0.25  # voxels: a frame against the grid, so that the nearest voxel is never in doubt


def slices_of_frames(seg: SegFile, context: ResultContext) -> _IntArray:
    """The slice of the volume on which each frame lies, ``(frames,)``.

    Checked on the way: place, orientation, spacing, the source image and frame cited, the dimension indices,
    and that no segment has a slice twice. A radiograph has no place in the patient, and neither has its
    SEG: each of its frames lies on the image that it cites (PS3.3 A.51.5.1).

    Raises
    ------
    ResultMismatch
        With the first frame that differs, and by how much.
    """
    planes = source_planes(context.series)
    geometry = context.series.volume.geometry
    is_placed = not geometry.is_projection
    slices = _slices_by_place(seg, geometry, planes) if is_placed else _cited_images(seg, planes)
    _check_sources(seg.frames, slices, planes)
    _check_dimensions(seg, slices)
    _none_twice(seg.frames, slices, len(planes))
    return slices


def _slices_by_place(seg: SegFile, geometry: VolumeGeometry, planes: Sequence[SourcePlane]) -> _IntArray:
    table = seg.frames
    combined = table.sample_of * len(table.positions) + table.position_of
    combinations, first, which = np.unique(combined, return_index=True, return_inverse=True)
    samples, positions = np.divmod(combinations, len(table.positions))
    measures = [_group(seg.shared, groups, "PixelMeasuresSequence") for groups in table.samples]
    names = [f"frame {frame + 1}" for frame in first]
    for sample in dict.fromkeys(samples.tolist()):
        frame = int(np.flatnonzero(table.sample_of == sample)[0])
        _check_slice_spacing(f"frame {frame + 1}", measures[sample], geometry)
    orientations = [_group(seg.shared, groups, "PlaneOrientationSequence") for groups in table.samples]
    origins = _vectors((text.split("\\") for text in table.positions), 3)[positions]
    cosines = _vectors((item.ImageOrientationPatient for item in orientations), 6)[samples]
    spacing = _vectors((item.PixelSpacing for item in measures), 2)[samples]
    index = _on_grid(names, origins, cosines, spacing, geometry)
    at = _vectors((plane.position[_POSITION].value for plane in planes), 3)
    turned = _vectors((plane.orientation[_ORIENTATION].value for plane in planes), 6)
    in_plane = np.asarray(geometry.spacing_mm[1:])
    for what, difference, tolerance in (
        ("mm away from its source slice", origins - at[index], _POSITION_MM),
        ("off in its direction cosines", cosines - turned[index], _COSINE),
        ("mm off in its pixel spacing", spacing - in_plane, _SPACING_MM),
    ):
        error = np.abs(difference).max(axis=1)
        for k in _failing(error, tolerance, first):
            mismatch(f"{names[k]} is {error[k]:.6g} {what} (slice {index[k] + 1}; at most {tolerance:g})")
    return np.asarray(index[which], np.intp)


def _on_grid(
    names: Sequence[str], origins: _Floats, cosines: _Floats, spacing: _Floats, geometry: VolumeGeometry
) -> _IntArray:
    """Index of the slice whose four corners are those of the frame, by the geometry of the volume."""
    _, rows, columns = geometry.shape
    corners = np.array([[0, 0], [rows - 1, 0], [0, columns - 1], [rows - 1, columns - 1]])
    down = cosines[:, 3:] * spacing[:, :1]  # Pixel Spacing: between rows first (PS3.3 10.7.1.3)
    along = cosines[:, :3] * spacing[:, 1:]
    lps = origins[:, None] + corners[:, :1] * down[:, None] + corners[:, 1:] * along[:, None]
    for k in np.flatnonzero(~np.isfinite(lps).all(axis=(1, 2)))[:1]:
        mismatch(f"{names[k]} has no finite position")
    heres = np.asarray(geometry.origins_mm)
    squares = (heres**2).sum(axis=1) - 2.0 * origins @ heres.T  # + |origin|², the same for every slice
    index = np.argmin(squares, axis=1)
    steps = geometry.index_to_lps[:3, :3]
    found = (lps - heres[index][:, None]) @ np.linalg.inv(steps).T
    off = np.abs(found - np.c_[np.zeros(4), corners]).max(axis=(1, 2))
    for k in np.flatnonzero(~(off <= _INDEX))[:1]:
        mismatch(f"{names[k]} is {off[k]:.2f} voxels off the grid of slice {index[k] + 1}, the nearest")
    return np.asarray(index, np.intp)


def _failing(error: _Floats, tolerance: float, first: _IntArray) -> list[int]:
    """The combination beyond a tolerance whose frame is first, if there is one."""
    bad = np.flatnonzero(~(error <= tolerance))
    return [int(bad[np.argmin(first[bad])])] if len(bad) else []


def _check_slice_spacing(name: str, measures: Dataset, geometry: VolumeGeometry) -> None:
    """Slice Thickness is that of the source or the grid's; Spacing Between Slices is optional: uneven slices
    have none."""
    thickness_mm = geometry.slice_thickness_mm or geometry.spacing_mm[0]
    if not abs(float(measures.SliceThickness) - thickness_mm) <= _SPACING_MM:
        mismatch(
            f"{name} has slices of {measures.SliceThickness:.6g} mm, expected {thickness_mm:.6g} mm thick"
        )
    if "SpacingBetweenSlices" not in measures:
        return
    spacing_mm, between_mm = geometry.spacing_mm[0], float(measures.SpacingBetweenSlices)
    if VerdictCode.IRREGULAR_SPACING in geometry.needs:
        mismatch(f"{name} has one spacing between slices, {between_mm:.6g} mm, and the volume has none")
    if not abs(between_mm - spacing_mm) <= _SPACING_MM:
        mismatch(
            f"{name} has a spacing between slices of {between_mm:.6g} mm, the volume {spacing_mm:.6g} mm"
        )


def _cited_images(seg: SegFile, planes: Sequence[SourcePlane]) -> _IntArray:
    """The radiograph that each frame cites."""
    table = seg.frames
    for keyword in ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence"):
        for sample, groups in enumerate(table.samples):
            if keyword in groups or keyword in seg.shared:
                frame = int(np.flatnonzero(table.sample_of == sample)[0])
                mismatch(f"frame {frame + 1} has a {keyword}, and its image has no place in the patient")
    places = {plane.frame.sop_instance_uid: index for index, plane in reversed(list(enumerate(planes)))}
    index = np.array([places.get(uid, -1) for uid, _ in table.sources], np.intp)[table.source_of]
    for frame in np.flatnonzero(index < 0)[:1]:
        mismatch(f"frame {frame + 1} cites an image that is none of the {len(places)} of the source")
    return index


def _check_sources(table: FrameTable, slices: _IntArray, planes: Sequence[SourcePlane]) -> None:
    """Every frame cites its slice, and nothing else."""
    for sample, groups in enumerate(table.samples):
        frame = int(np.flatnonzero(table.sample_of == sample)[0])
        images = [i for item in groups.DerivationImageSequence for i in item.SourceImageSequence]
        expect(f"the number of source images of frame {frame + 1}", len(images), 1)
    expected = [
        (plane.header[_INSTANCE].value, str(plane.frame.frame_number) if plane.frames > 1 else "")
        for plane in planes
    ]
    ids = {source: number for number, source in enumerate(table.sources)}
    wanted = np.array([ids.get(source, -1) for source in expected], np.intp)[slices]
    for frame in np.flatnonzero(wanted != table.source_of)[:1]:
        found, right = table.sources[table.source_of[frame]], expected[slices[frame]]
        expect(f"the source image of frame {frame + 1}", found[0], right[0])
        expect(f"the source frame of frame {frame + 1}", found[1], right[1])
    classes = [plane.header[_CLASS].value for plane in planes]
    for both in np.unique(table.sample_of * len(planes) + slices).tolist():
        sample, at = divmod(both, len(planes))
        (image,) = table.samples[sample].DerivationImageSequence[0].SourceImageSequence
        expect(f"the source class of slice {at + 1}", image.ReferencedSOPClassUID, classes[at])


def _check_dimensions(seg: SegFile, slices: _IntArray) -> None:
    """Dimension Index Values count segments and positions in their order (PS3.3 C.7.6.17.2)."""
    pointers = [int(item.DimensionIndexPointer) for item in seg.header.DimensionIndexSequence]
    expect("the number of dimension indices of a frame", seg.frames.indices.shape[1], len(pointers))
    for pointer, values in zip(pointers, seg.frames.indices.T, strict=True):
        if pointer == _SEGMENT_NUMBER and not _is_in_order(values, seg.frames.numbers):
            mismatch("its dimension indices do not follow the segment numbers")
        if pointer == _IMAGE_POSITION and not (
            _is_in_order(values, slices) or _is_in_order(values, slices.max() - slices)
        ):
            mismatch("its dimension indices do not follow the positions of its frames")


def _is_in_order(indices: _IntArray, of: _IntArray) -> bool:
    """Whether equal things have equal indices, and greater ones greater indices."""
    pairs = np.unique(of * (indices.max() + 1) + indices)
    things, ranks = np.divmod(pairs, indices.max() + 1)
    return bool((np.diff(things) > 0).all() and (np.diff(ranks) > 0).all() and ranks[0] > 0)


def _none_twice(table: FrameTable, slices: _IntArray, count: int) -> None:
    keys = table.numbers * count + slices
    order = np.argsort(keys, kind="stable")
    again = order[1:][np.diff(keys[order]) == 0]
    if len(again):
        frame = int(again.min())
        mismatch(f"segment {table.numbers[frame]} has slice {slices[frame] + 1} twice (frame {frame + 1})")


def _vectors(values: Iterable[Iterable[object]], count: int) -> _Floats:
    """Numbers of DICOM headers, ``(vectors, count)``."""
    found = np.array([[float(v) for v in value] for value in values], np.float64)  # type: ignore[arg-type]
    if found.ndim != 2 or found.shape[1] != count:
        raise ValueError(f"a vector has not {count} numbers")
    return found


def _group(shared: Dataset, frame: Dataset, keyword: str) -> Dataset:
    """A functional group's item: that of the frame, else the shared one (PS3.3 C.7.6.16.1.1)."""
    holder = frame if keyword in frame else shared
    item: Dataset = holder[keyword].value[0]
    return item
