"""Series that are not plain CT slices: enhanced multi-frame, phases, uneven gaps, PET, projection images.

Each function takes what :mod:`tests.builders` made, or makes an object of its own.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.uid import (
    DigitalXRayImageStorageForPresentation,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    EnhancedPETImageStorage,
    PositronEmissionTomographyImageStorage,
)

from tests import builders

Kind = Literal["CT", "MR", "PET"]
_CLASSES = {"CT": EnhancedCTImageStorage, "MR": EnhancedMRImageStorage, "PET": EnhancedPETImageStorage}
_MODALITIES = {"CT": "CT", "MR": "MR", "PET": "PT"}
_PER_SLICE = (
    "AcquisitionNumber", "ImageOrientationPatient", "ImagePositionPatient", "ImageType", "InstanceNumber",
    "KVP", "PixelSpacing", "RescaleIntercept", "RescaleSlope", "RescaleType", "SliceThickness",
    "WindowCenter", "WindowWidth",
)  # fmt: skip


_SAME_IN_COPIES = (
    "AccessionNumber", "FrameOfReferenceUID", "PatientID", "PatientName", "SeriesInstanceUID", "StudyID",
    "StudyInstanceUID",
)  # fmt: skip


def item(**attributes: object) -> Dataset:
    """A sequence item."""
    made = Dataset()
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


def enhanced(
    series: Sequence[Dataset],
    kind: Kind = "CT",
    *,
    stacks: Sequence[int] | None = None,
    shared: bool = True,
    seed: int = 1,
) -> Dataset:
    """One enhanced multi-frame image of single-frame slices, in the order given (PS3.3 A.38, A.36, A.56).

    Parameters
    ----------
    stacks
        Stack number of each slice; without it all are in stack 1.
    shared
        Orientation, spacing and rescale in the shared functional groups; else in those of each frame.
    """
    first = series[0]
    numbers = list(stacks) if stacks is not None else [1] * len(series)
    image = Dataset()
    for element in first:
        if element.keyword not in (*_PER_SLICE, "PixelData"):
            image[element.tag] = copy.deepcopy(element)
    image.file_meta = copy.deepcopy(first.file_meta)
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = _CLASSES[kind]
    image.SOPInstanceUID = builders.uid(seed, "enhanced", first.SOPInstanceUID)
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    image.Modality = _MODALITIES[kind]
    image.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    image.InstanceNumber = 1
    image.NumberOfFrames = len(series)
    image.AcquisitionDateTime = "20260105101500"
    _set_dimensions(image, seed)
    in_stack = dict.fromkeys(numbers, 0)
    frames = []
    for dataset, stack in zip(series, numbers, strict=True):
        in_stack[stack] += 1
        frames.append(_frame(dataset, stack, in_stack[stack], kind, with_grid=not shared))
    image.SharedFunctionalGroupsSequence = [_grid(first, kind) if shared else Dataset()]
    image.PerFrameFunctionalGroupsSequence = frames
    image.add_new("PixelData", "OW", b"".join(d.PixelData for d in series))
    return image


def _set_dimensions(image: Dataset, seed: int) -> None:
    organization = builders.uid(seed, "dimension organization")
    image.DimensionOrganizationSequence = [item(DimensionOrganizationUID=organization)]
    image.DimensionIndexSequence = [
        item(
            DimensionOrganizationUID=organization,
            DimensionIndexPointer=pointer,
            FunctionalGroupPointer=0x00209111,
            DimensionDescriptionLabel=label,
        )
        for pointer, label in ((0x00209056, "Stack ID"), (0x00209057, "In-Stack Position Number"))
    ]


def _grid(dataset: Dataset, kind: Kind) -> Dataset:
    """Functional groups that are usually the same for all frames."""
    spacing = item(PixelSpacing=dataset.PixelSpacing, SliceThickness=dataset.SliceThickness)
    group = item(
        PlaneOrientationSequence=[item(ImageOrientationPatient=dataset.ImageOrientationPatient)],
        PixelMeasuresSequence=[spacing],
        PixelValueTransformationSequence=[
            item(
                RescaleIntercept=dataset.RescaleIntercept,
                RescaleSlope=dataset.RescaleSlope,
                RescaleType="HU" if kind == "CT" else "US",
            )
        ],
    )
    frame_type = item(
        FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
        PixelPresentation="MONOCHROME",
        VolumetricProperties="VOLUME",
        VolumeBasedCalculationTechnique="NONE",
    )
    setattr(group, f"{'PET' if kind == 'PET' else f'{kind}Image'}FrameTypeSequence", [frame_type])
    return group


def _frame(dataset: Dataset, stack: int, position: int, kind: Kind, *, with_grid: bool) -> Dataset:
    frame = _grid(dataset, kind) if with_grid else Dataset()
    frame.PlanePositionSequence = [item(ImagePositionPatient=dataset.ImagePositionPatient)]
    frame.FrameContentSequence = [
        item(
            StackID=str(stack),
            InStackPositionNumber=position,
            DimensionIndexValues=[stack, position],
            FrameAcquisitionDateTime="20260105101500",
            FrameReferenceDateTime="20260105101500",
            FrameAcquisitionDuration=1.0,
        )
    ]
    return frame


def copies(
    count: int, shape: tuple[int, int, int] = (6, 16, 16), **attributes: object
) -> list[list[Dataset]]:
    """The same slices several times in one series, with SOP Instance UIDs of their own."""
    first = builders.with_attributes(builders.ct_series(shape, seed=1), **attributes)
    shared = {keyword: first[0][keyword].value for keyword in _SAME_IN_COPIES}
    others = [builders.ct_series(shape, seed=seed) for seed in range(2, count + 1)]
    return [first, *(builders.with_attributes(each, **{**shared, **attributes}) for each in others)]


def phases(count: int, keyword: str, values: Sequence[object], **options: object) -> list[Dataset]:
    """Several copies of the same slices that differ in one attribute, one after the other."""
    made = copies(count, **options)  # type: ignore[arg-type]
    for phase, value in zip(made, values, strict=True):
        for dataset in phase:
            setattr(dataset, keyword, value)
    return [dataset for phase in made for dataset in phase]


def at_heights(series: Sequence[Dataset], heights_mm: npt.ArrayLike) -> list[Dataset]:
    """Put each slice at its own height along the normal, counted from the first slice."""
    wanted = np.asarray(heights_mm, dtype=np.float64)
    normal = builders.normal(series[0])
    present = builders.positions(series) @ normal
    return builders.moved(series, (wanted - (present - present[0]))[:, None] * normal)


def pet_series(shape: tuple[int, int, int] = (6, 16, 16), *, seed: int = 1) -> list[Dataset]:
    """PET in Bq/mL with a Rescale Slope for each slice, and what SUV by body weight needs (PS3.3 C.8.9.2)."""
    series = builders.ct_series(shape, (4.0, 4.0, 4.0), seed=seed)
    for k, dataset in enumerate(series):
        dataset.SOPClassUID = PositronEmissionTomographyImageStorage
        dataset.file_meta.MediaStorageSOPClassUID = PositronEmissionTomographyImageStorage
        dataset.Modality = "PT"
        dataset.RescaleIntercept, dataset.RescaleSlope = 0, builders.ds(0.5 + 0.25 * k)
        del dataset.RescaleType
        dataset.Units, dataset.DecayCorrection = "BQML", "START"
        dataset.CorrectedImage = ["DECY", "ATTN", "SCAT"]
        dataset.PatientWeight = "70"
        dataset.AcquisitionDate, dataset.AcquisitionTime = dataset.SeriesDate, dataset.SeriesTime
        dataset.RadiopharmaceuticalInformationSequence = [
            item(
                RadiopharmaceuticalStartTime="091500",  # an hour before the series
                RadionuclideTotalDose="370000000",
                RadionuclideHalfLife="6586.2",
            )
        ]
    return series


def dx_image(
    shape: tuple[int, int] = (24, 32), spacing_mm: tuple[float, float] = (0.2, 0.1), *, seed: int = 1
) -> Dataset:
    """A projection image: Imager Pixel Spacing, laterality and view, no place in the patient."""
    (image,) = builders.ct_series((1, *shape), seed=seed)
    keywords = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness")
    (image,) = builders.without([image], *keywords, "FrameOfReferenceUID", "RescaleType")
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    image.Modality = "DX"
    image.ImagerPixelSpacing = [builders.ds(v) for v in spacing_mm]
    image.PhotometricInterpretation = "MONOCHROME1"
    image.RescaleIntercept, image.RescaleSlope = 0, 1
    image.ImageLaterality, image.ViewPosition = "U", "PA"
    image.ImageType = ["ORIGINAL", "PRIMARY", ""]
    return image
