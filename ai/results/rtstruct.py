"""A label map as a DICOM RT Structure Set (PS3.3 A.19): contours on the source slices, for planning systems.

One region of interest for each structure that was found, in patient space, each contour on its own source
slice. See :mod:`ai.results.rtstruct_contours` for what the contours are. A projection image has no place in
the patient, and no structure set.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from pydicom.charset import default_encoding
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.tag import Tag
from pydicom.uid import RTStructureSetStorage

from ai.model import Structure
from ai.results.coding import concept, identify_private_scheme
from ai.results.context import ResultContext
from ai.results.equipment import add_equipment, algorithm_family, series_attributes, set_series
from ai.results.planes import SourcePlane, reference, references, source_planes
from ai.results.rtstruct_contours import INSET, Mask, Polygon, outlines
from ai.results.source import copy_patient_and_study

_STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"  # Detached Study Management (retired), as C.8.8.5 wants of a study
_ANATOMICAL = frozenset({("91723000", "SCT"), ("123037004", "SCT")})  # CID 7150, now and before
_CONTOUR_DATA = Tag("ContourData")
_SHORT_STRING, _LONG_STRING = 16, 64  # PS3.5 6.2
_LONGEST = 65534  # bytes of a DS in Explicit VR (PS3.5 7.1.2)


def build_rtstruct(context: ResultContext) -> Dataset | None:
    """Build the structure set of a run; the same context, the same data set.

    None where there is nothing to draw: no structure was found, or the series is a projection, whose pixels
    have no place in the patient.
    """
    geometry = context.series.volume.geometry
    if geometry.is_projection or not context.labels.any():
        return None
    planes = source_planes(context.series)
    present = [np.bincount(plane.reshape(-1), minlength=256) > 0 for plane in context.labels]
    found = [
        (structure, [k for k, values in enumerate(present) if values[list(structure.numbers)].any()])
        for structure in context.spec.structures
    ]
    found = [(structure, slices) for structure, slices in found if slices]
    dataset = Dataset()
    copy_patient_and_study(dataset, context.series.datasets[0])
    _set_structure_set(dataset, context, planes)
    cited = [reference(plane) for plane in planes]
    dataset.StructureSetROISequence = DicomSequence([_roi(context, s) for s, _ in found])
    dataset.ROIContourSequence = DicomSequence([_contours(context, s, k, cited) for s, k in found])
    dataset.RTROIObservationsSequence = DicomSequence([_observation(s) for s, _ in found])
    dataset.ApprovalStatus = "UNAPPROVED"
    add_equipment(dataset, context)
    identify_private_scheme(dataset, context.spec)
    return dataset


def _set_structure_set(dataset: Dataset, context: ResultContext, planes: Sequence[SourcePlane]) -> None:
    """Identity, series, frame of reference and the images that contours may lie on."""
    source, spec = context.series.datasets[0], context.spec
    dataset.SOPClassUID = RTStructureSetStorage
    dataset.SOPInstanceUID = context.instance_uid("rtstruct")
    dataset.SeriesInstanceUID = context.series_uid("rtstruct")
    dataset.Modality = "RTSTRUCT"
    dataset.OperatorsName = None
    dataset.FrameOfReferenceUID = context.series.volume.geometry.frame_of_reference_uid
    dataset.PositionReferenceIndicator = source.get("PositionReferenceIndicator")
    set_series(dataset, context, "rtstruct")
    del dataset.ContentDate, dataset.ContentTime  # which a structure set has not
    moment = series_attributes(context, "rtstruct")
    dataset.InstanceNumber = 1
    dataset.StructureSetLabel = spec.title[:_SHORT_STRING].strip()
    dataset.StructureSetName = f"{spec.title} {spec.version}"[:_LONG_STRING].strip()
    dataset.StructureSetDescription = f"{spec.title} {spec.version}. Research use only."
    dataset.StructureSetDate, dataset.StructureSetTime = moment.date, moment.time
    series = Dataset()
    series.SeriesInstanceUID = source.SeriesInstanceUID
    series.ContourImageSequence = DicomSequence(references(planes))
    study = Dataset()
    study.ReferencedSOPClassUID = _STUDY_CLASS
    study.ReferencedSOPInstanceUID = source.StudyInstanceUID
    study.RTReferencedSeriesSequence = DicomSequence([series])
    frame = Dataset()
    frame.FrameOfReferenceUID = dataset.FrameOfReferenceUID
    frame.RTReferencedStudySequence = DicomSequence([study])
    dataset.ReferencedFrameOfReferenceSequence = DicomSequence([frame])


def _roi(context: ResultContext, structure: Structure) -> Dataset:
    """One item of the Structure Set ROI Sequence (PS3.3 C.8.8.5)."""
    spec = context.spec
    algorithm = Dataset()
    algorithm.AlgorithmFamilyCodeSequence = DicomSequence([concept(algorithm_family(spec))])
    algorithm.AlgorithmName = spec.title
    algorithm.AlgorithmVersion = spec.version
    algorithm.AlgorithmSource = spec.manufacturer
    item = Dataset()
    item.ROINumber = structure.number
    item.ReferencedFrameOfReferenceUID = context.series.volume.geometry.frame_of_reference_uid
    item.ROIName = structure.label
    if structure.description:
        item.ROIDescription = structure.description
    item.ROIGenerationAlgorithm = "AUTOMATIC"
    item.ROIDerivationAlgorithmIdentificationSequence = DicomSequence([algorithm])
    item.ROIGenerationDescription = f"{spec.title} {spec.version}"[:_LONG_STRING]
    return item


def _observation(structure: Structure) -> Dataset:
    """One item of the RT ROI Observations Sequence (PS3.3 C.8.8.8), with the codes of the segment."""
    terms = structure.coded
    kind = concept(terms.type)
    if terms.modifier is not None:
        kind.SegmentedPropertyTypeModifierCodeSequence = DicomSequence([concept(terms.modifier)])
    item = Dataset()
    item.ObservationNumber = item.ReferencedROINumber = structure.number
    item.SegmentedPropertyCategoryCodeSequence = DicomSequence([concept(terms.category)])
    item.RTROIIdentificationCodeSequence = DicomSequence([kind])
    if terms.region is not None:
        item.AnatomicRegionSequence = DicomSequence([concept(terms.region)])
    is_organ = (terms.category.value, terms.category.scheme) in _ANATOMICAL
    item.RTROIInterpretedType = "ORGAN" if is_organ else None
    item.ROIInterpreter = None
    return item


def _contours(
    context: ResultContext, structure: Structure, slices: Sequence[int], cited: Sequence[Dataset]
) -> Dataset:
    """One item of the ROI Contour Sequence (PS3.3 C.8.8.6): all contours of a structure, by slice."""
    item = Dataset()
    item.ReferencedROINumber = structure.number
    item.ROIDisplayColor = list(structure.coded.rgb)
    contours: list[Dataset] = []
    for index in slices:
        mask = np.logical_or.reduce([context.labels[index] == value for value in structure.numbers])
        for count, data in _encoded(mask, *_placement(context, index)):
            contour = Dataset()
            contour.ContourImageSequence = DicomSequence([cited[index]])
            contour.ContourGeometricType = "CLOSED_PLANAR"
            contour.NumberOfContourPoints = count
            contour.ContourNumber = len(contours) + 1
            # bytes that are written as they are: a million numbers as objects would take a minute
            contour[_CONTOUR_DATA] = RawDataElement(_CONTOUR_DATA, "DS", len(data), data, 0, False, True)
            contour.set_original_encoding(False, True, default_encoding)
            contours.append(contour)
    item.ContourSequence = DicomSequence(contours)
    return item


def _placement(context: ResultContext, index: int) -> tuple[npt.NDArray[np.float64], int]:
    """Pixel ``(row, column, 1)`` of a slice to LPS mm, ``(3, 3)``; how many decimals tell points apart."""
    geometry = context.series.volume.geometry
    affine = np.column_stack([geometry.index_to_lps[:3, 1:3], geometry.origins_mm[index]])
    step_mm = INSET * min(geometry.spacing_mm[1:]) / 4.0
    return affine, min(max(3, math.ceil(-math.log10(step_mm))), 6)


def _encoded(mask: Mask, to_lps: npt.NDArray[np.float64], decimals: int) -> Iterator[tuple[int, bytes]]:
    """Number of points and Contour Data of every polygon of a mask ``(rows, columns)``.

    A value of Explicit VR has 65534 bytes at most: a mask with an outline beyond is drawn in two halves that
    meet along an edge of pixels, and these likewise.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return
    top, left = rows[0], columns[0]
    box = mask[top : rows[-1] + 1, left : columns[-1] + 1]
    corner = np.array([top, left], np.float64)
    encoded = [(len(p), _contour_data(p + corner, to_lps, decimals)) for p in outlines(box)]
    if all(len(data) <= _LONGEST for _, data in encoded):
        yield from encoded
        return
    for half in _halves(mask, box.shape, top, left):
        yield from _encoded(half, to_lps, decimals)


def _halves(mask: Mask, shape: tuple[int, ...], top: int, left: int) -> Iterator[Mask]:
    """Both halves of a mask, cut across the longer side of its box."""
    first = np.zeros_like(mask)
    if shape[0] >= shape[1]:
        first[: top + shape[0] // 2] = True
    else:
        first[:, : left + shape[1] // 2] = True
    yield mask & first
    yield mask & ~first


def _contour_data(polygon: Polygon, to_lps: npt.NDArray[np.float64], decimals: int) -> bytes:
    """Points ``x\\y\\z\\x…`` as a DS, each number in 16 characters or fewer.

    The last point is never straight above or below the first: plastimatch (1.10) takes points with the same x
    and y for one point that is written twice, whatever their z, and leaves a corner out.
    """
    points = np.round(polygon @ to_lps[:, :2].T + to_lps[:, 2], decimals) + 0.0  # no negative zero
    first, last = points[[0, -1], :2].astype(np.float32)  # as it compares them
    if (first == last).all():
        points = np.roll(points, -1, axis=0)  # neighbours turn at every point: now they differ
    text = "\\".join(map(repr, points.reshape(-1).tolist()))
    return (text + " " * (len(text) % 2)).encode()
