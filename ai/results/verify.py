"""Read an encoded SEG back and compare it with the label map in patient space (house rule 6).

Written against the standard and not against our writer: the file is parsed with pydicom alone, every
frame is placed by its own functional groups (PS3.3 C.7.6.16), its bits are unpacked here (PS3.5 8.1.1),
and its place is looked up through the affine of the volume. Whatever turned the picture (a flip, a
shifted slice, exchanged segments) is found before the result may leave.

A radiograph has no place in the patient, and neither has its SEG: each of its pixels is that of the image
which the frame cites (PS3.3 A.51.5.1), and so they are compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO

import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import ExplicitVRLittleEndian, SegmentationStorage

from ai.geometry import VerdictCode
from ai.results.context import ResultContext
from ai.results.equipment import MANUFACTURER
from ai.results.planes import SourcePlane, source_planes
from ai.results.verify_segments import check_segments, expect, mismatch

_Array = npt.NDArray[np.float64]

_POSITION_MM = 1e-3  # a frame against its source slice
_SPACING_MM = 1e-4
_COSINE = 2e-3  # noise of orientation within one series: ai.geometry joins up to twice its tolerance
_INDEX = 0.25  # voxels: a frame against the grid, so that the nearest voxel is never in doubt


def verify_segmentation(encoded: bytes, context: ResultContext) -> None:
    """Check that an encoded SEG says exactly what the label map of the run says.

    Identity, frame of reference, every segment's description, the images that it refers to, every frame's
    place, orientation, spacing and source, and every voxel.

    Raises
    ------
    ResultMismatch
        ``SEG_ROUND_TRIP_MISMATCH`` with what differs and by how much.
    """
    try:
        seg = dcmread(BytesIO(encoded))
        _check_identity(seg, context)
        check_segments(seg, context)
        _check_references(seg, context)
        _Frames(seg, context).check()
    except (AttributeError, InvalidDicomError, LookupError, TypeError, ValueError) as error:
        mismatch(f"it cannot be read back ({type(error).__name__}: {error})")


def _check_identity(seg: Dataset, context: ResultContext) -> None:
    source = context.series.datasets[0]
    expected: Mapping[str, object] = {
        "SOPClassUID": SegmentationStorage,
        "SOPInstanceUID": context.instance_uid("seg"),
        "SeriesInstanceUID": context.series_uid("seg"),
        "StudyInstanceUID": source.StudyInstanceUID,
        "FrameOfReferenceUID": context.series.volume.geometry.frame_of_reference_uid,
        "SegmentationType": "BINARY",
        "BitsAllocated": 1,
        "Modality": "SEG",
        "Manufacturer": MANUFACTURER,
        "Rows": context.labels.shape[1],
        "Columns": context.labels.shape[2],
    }
    expect("the transfer syntax", seg.file_meta.TransferSyntaxUID, ExplicitVRLittleEndian)
    for keyword, value in expected.items():
        expect(keyword, seg.get(keyword), value)
    if str(seg.get("PatientID") or "") != str(source.get("PatientID") or ""):
        mismatch("Patient ID is not that of the source")  # without the value: no patient data in errors
    series = [item.SeriesInstanceUID for item in seg.ReferencedSeriesSequence]
    expect("the referenced series", series, [source.SeriesInstanceUID])


def _check_references(seg: Dataset, context: ResultContext) -> None:
    """Both lists of source images hold what the frames cite, and nothing but images of this part."""
    part = set(context.series.volume.geometry.sop_instance_uids)
    cited = {
        image.ReferencedSOPInstanceUID
        for groups in seg.PerFrameFunctionalGroupsSequence
        for image in groups.DerivationImageSequence[0].SourceImageSequence
    }
    lists = {
        "Referenced Series Sequence": seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence,
        "Source Image Sequence": seg.SourceImageSequence,
    }
    for name, items in lists.items():
        listed = {item.ReferencedSOPInstanceUID for item in items}
        if foreign := len(listed - part):
            mismatch(f"its {name} has {foreign} images that are none of the {len(part)} of the source")
        if lacking := len(cited - listed):
            mismatch(f"its {name} lacks {lacking} of the {len(cited)} images that its frames cite")


class _Frames:
    """The frames of a SEG, each placed by its own functional groups."""

    def __init__(self, seg: Dataset, context: ResultContext) -> None:
        self.seg = seg
        self.context = context
        self.labels = context.labels
        self.shared = seg.SharedFunctionalGroupsSequence[0]
        self.planes = source_planes(context.series)
        self.geometry = context.series.volume.geometry
        self.bits = np.frombuffer(seg.PixelData, dtype=np.uint8)

    def check(self) -> None:
        """Compare every frame, then make sure that no voxel of the label map is without its frame."""
        frames = self.seg.PerFrameFunctionalGroupsSequence
        expect("the number of frames", int(self.seg.NumberOfFrames), len(frames))
        needed = len(frames) * self.labels.shape[1] * self.labels.shape[2]
        if len(self.bits) != (needed + 15) // 16 * 2:
            mismatch(f"the pixel data hold {len(self.bits)} bytes for {needed} voxels of 1 bit")
        seen: set[tuple[int, int]] = set()
        for position, groups in enumerate(frames):
            number = int(_group(self.shared, groups, "SegmentIdentificationSequence").ReferencedSegmentNumber)
            find = self._image_of if self.geometry.is_projection else self._slice_of
            index = find(position, groups)
            if (number, index) in seen:
                mismatch(f"segment {number} has slice {index + 1} twice")
            seen.add((number, index))
            self._compare(position, number, index)
        self._none_missing(seen)

    def _slice_of(self, position: int, groups: Dataset) -> int:
        """The slice on which a frame lies, after checks of place, orientation, spacing and source."""
        name = f"frame {position + 1}"
        origin = _vector(_group(self.shared, groups, "PlanePositionSequence").ImagePositionPatient)
        cosines = _vector(_group(self.shared, groups, "PlaneOrientationSequence").ImageOrientationPatient)
        measures = _group(self.shared, groups, "PixelMeasuresSequence")
        spacing = _vector(measures.PixelSpacing)
        self._check_slice_spacing(name, measures)
        index = self._index_on_grid(name, origin, cosines, spacing)
        plane = self.planes[index]
        for what, found, expected, tolerance in (
            ("mm away from its source slice", origin, plane.position.ImagePositionPatient, _POSITION_MM),
            ("off in its direction cosines", cosines, plane.orientation.ImageOrientationPatient, _COSINE),
            ("mm off in its pixel spacing", spacing, self.geometry.spacing_mm[1:], _SPACING_MM),
        ):
            error = float(np.abs(found - _vector(expected)).max())
            if not error <= tolerance:
                mismatch(f"{name} is {error:.6g} {what} (slice {index + 1}; at most {tolerance:g})")
        self._check_source(name, groups, plane)
        return index

    def _image_of(self, position: int, groups: Dataset) -> int:
        """The radiograph on which a frame lies pixel by pixel, for neither has a place in the patient."""
        name = f"frame {position + 1}"
        for keyword in ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence"):
            if keyword in groups or keyword in self.shared:
                mismatch(f"{name} has a {keyword}, and its image has no place in the patient")
        cited = groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        uids = [plane.frame.sop_instance_uid for plane in self.planes]
        if cited not in uids:
            mismatch(f"{name} cites an image that is none of the {len(uids)} of the source")
        self._check_source(name, groups, self.planes[uids.index(cited)])
        return uids.index(cited)

    def _check_source(self, name: str, groups: Dataset, plane: SourcePlane) -> None:
        """A frame cites its slice, and nothing else."""
        sources = groups.DerivationImageSequence[0].SourceImageSequence
        expect(f"the number of source images of {name}", len(sources), 1)
        cited = sources[0]
        expect(f"the source image of {name}", cited.ReferencedSOPInstanceUID, plane.header.SOPInstanceUID)
        expect(f"the source class of {name}", cited.ReferencedSOPClassUID, plane.header.SOPClassUID)
        frame = plane.frame.frame_number if plane.frames > 1 else None
        expect(f"the source frame of {name}", cited.get("ReferencedFrameNumber"), frame)

    def _check_slice_spacing(self, name: str, measures: Dataset) -> None:
        """Spacing Between Slices is optional; uneven slices have none."""
        if "SpacingBetweenSlices" not in measures:
            return
        spacing_mm, between_mm = self.geometry.spacing_mm[0], float(measures.SpacingBetweenSlices)
        if VerdictCode.IRREGULAR_SPACING in self.geometry.needs:
            mismatch(f"{name} has one spacing between slices, {between_mm:.6g} mm, and the volume has none")
        if not abs(between_mm - spacing_mm) <= _SPACING_MM:
            mismatch(
                f"{name} has a spacing between slices of {between_mm:.6g} mm, the volume {spacing_mm:.6g} mm"
            )

    def _index_on_grid(self, name: str, origin: _Array, cosines: _Array, spacing: _Array) -> int:
        """Index of the slice whose four corners are those of the frame, by the geometry of the volume."""
        _, rows, columns = self.labels.shape
        corners = np.array([[0, 0], [rows - 1, 0], [0, columns - 1], [rows - 1, columns - 1]])
        down = cosines[3:] * spacing[0]  # Pixel Spacing: between rows first (PS3.3 10.7.1.3)
        along = cosines[:3] * spacing[1]
        lps = origin + corners[:, :1] * down + corners[:, 1:] * along
        if not np.all(np.isfinite(lps)):
            mismatch(f"{name} has no finite position")
        origins = self.geometry.origins_mm
        index = int(np.argmin(np.linalg.norm(origins - origin, axis=1)))
        steps = self.geometry.index_to_lps[:3, :3]
        found = np.linalg.solve(steps, (lps - origins[index]).T).T
        off = float(np.abs(found - np.c_[np.zeros(4), corners]).max())
        if off > _INDEX:
            mismatch(f"{name} is {off:.2f} voxels off the grid of slice {index + 1}, the nearest")
        return index

    def _compare(self, position: int, number: int, index: int) -> None:
        expected = self.labels[index] == number
        differing = int(np.count_nonzero(self._unpack(position) != expected))
        if differing:
            mismatch(f"{differing} voxels of segment {number} differ on slice {index + 1}")

    def _unpack(self, position: int) -> npt.NDArray[np.bool_]:
        """Voxels of one frame ``(rows, columns)``: bits follow each other without padding, lowest first."""
        rows, columns = self.labels.shape[1:]
        start = position * rows * columns
        stop = start + rows * columns
        bits = np.unpackbits(self.bits[start // 8 : (stop + 7) // 8], bitorder="little")
        return bits[start % 8 : start % 8 + rows * columns].reshape(rows, columns).astype(np.bool_)

    def _none_missing(self, seen: set[tuple[int, int]]) -> None:
        for index, plane in enumerate(self.labels):
            counts = np.bincount(plane.reshape(-1), minlength=256)
            for number in np.flatnonzero(counts[1:]) + 1:
                if (int(number), index) not in seen:
                    mismatch(f"{counts[number]} voxels of number {number} on slice {index + 1} have no frame")


def _vector(values: object) -> _Array:
    return np.asarray(values, dtype=np.float64)


def _group(shared: Dataset, frame: Dataset, keyword: str) -> Dataset:
    """A functional group's item: that of the frame, else the shared one (PS3.3 C.7.6.16.1.1)."""
    holder = frame if keyword in frame else shared
    item: Dataset = holder[keyword].value[0]
    return item
