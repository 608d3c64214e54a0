"""The sample chest CT that ships with the product: drawn, not scanned, so no patient is in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from ai.torso import METAL, METAL_HU, Array, Mask, Point, draw_torso
from ai.uids import derived_uid

NOISE_SD_HU = 17.0


@dataclass(frozen=True)
class SampleTruth:
    """What was written, and the truth about it.

    Attributes
    ----------
    files
        One path per slice, feet first (the order of ``labels``).
    labels
        uint8 ``(slices, rows, columns)``: 0 outside, then the numbers of ``ai.torso``, exclusive.
    index_to_lps
        4 × 4 affine: (slice, row, column, 1) to LPS millimetres.
    """

    files: tuple[Path, ...]
    labels: npt.NDArray[np.uint8]
    index_to_lps: npt.NDArray[np.float64]
    study_instance_uid: str
    series_instance_uid: str


def write_sample_series(
    folder: Path,
    *,
    seed: int = 1,
    shape: tuple[int, int, int] = (100, 256, 256),
    spacing_mm: tuple[float, float, float] = (2.5, 1.5, 1.5),
) -> SampleTruth:
    """Write the sample series into a folder (made if missing), as a scanner would.

    The same seed gives the same bytes: same noise, same UIDs, so a second send of the sample is
    the same study. Another seed gives another study.
    """
    folder.mkdir(parents=True, exist_ok=True)
    matrix = np.diag([0.0, 0.0, 0.0, 1.0])
    for index_axis, (lps_axis, step) in enumerate(zip((2, 1, 0), spacing_mm, strict=True)):
        matrix[lps_axis, index_axis] = step
        matrix[lps_axis, 3] = -step * (shape[index_axis] - 1) / 2.0
    labels = np.empty(shape, dtype=np.uint8)
    noise = np.random.default_rng(seed)
    x = (matrix[0, 3] + spacing_mm[2] * np.arange(shape[2], dtype=np.float32))[None, :]
    y = (matrix[1, 3] + spacing_mm[1] * np.arange(shape[1], dtype=np.float32))[:, None]
    files = []
    for i in range(shape[0]):
        position = (float(matrix[0, 3]), float(matrix[1, 3]), float(matrix[2, 3] + i * spacing_mm[0]))
        hu, labels[i] = draw_torso(x, y, np.float32(position[2]))
        dataset = _header(seed, i, shape, spacing_mm, position)
        stored = _acquire(hu, labels[i] == METAL, noise)
        dataset.PixelData = stored.tobytes()
        path = folder / f"sample-{i + 1:04d}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        files.append(path)
    return SampleTruth(tuple(files), labels, matrix, _uid(seed, "study"), _uid(seed, "series"))


def _acquire(hu: Array, metal: Mask, noise: np.random.Generator) -> npt.NDArray[np.uint16]:
    """Blur a little, add noise, saturate: 12-bit stored values, 0 is -1024 HU."""
    grain = _blur(noise.standard_normal(hu.shape, dtype=np.float32))
    scanned = _blur(hu) + grain * np.float32(NOISE_SD_HU / 0.375)  # the blur leaves 0.375 of the SD
    scanned[metal] = METAL_HU
    return np.clip(np.rint(scanned + 1024.0), 0, 4095).astype("<u2")


def _blur(image: Array) -> Array:
    """Weights 1-2-1 along rows and columns, edges repeated."""
    padded = np.pad(image, 1, mode="edge")
    rows = 0.25 * padded[:-2] + 0.5 * padded[1:-1] + 0.25 * padded[2:]
    return np.asarray(0.25 * rows[:, :-2] + 0.5 * rows[:, 1:-1] + 0.25 * rows[:, 2:])


def _uid(seed: int, *parts: object) -> str:
    return derived_uid("sample", *map(str, (seed, *parts)))


def _header(
    seed: int,
    index: int,
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    position: Point,
) -> Dataset:
    """The header of one slice: CT Image Storage (PS3.3 A.3), every type 1 and 2 attribute."""
    dataset = _study_header(seed)
    dataset.SOPInstanceUID = _uid(seed, "instance", index)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.InstanceNumber = shape[0] - index  # scanned from the head down
    dataset.SliceThickness = f"{spacing_mm[0]:g}"
    dataset.ImagePositionPatient = [f"{v:.4f}" for v in position]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.SliceLocation = f"{position[2]:.4f}"
    dataset.PixelSpacing = [f"{spacing_mm[1]:g}", f"{spacing_mm[2]:g}"]
    dataset.Rows, dataset.Columns = shape[1:]
    return dataset


def _study_header(seed: int) -> Dataset:
    dataset = Dataset()
    fields: dict[str, object] = {
        "SpecificCharacterSet": "ISO_IR 192",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "SOPClassUID": CTImageStorage,
        "AccessionNumber": f"SAMPLE{seed}",
        "Modality": "CT",
        "Manufacturer": "Synthetic",
        "ManufacturerModelName": "Sample phantom",
        "ReferringPhysicianName": "",
        "StudyDescription": "Thorax",
        "SeriesDescription": "Thorax 2.5 sample",
        "PatientName": "SAMPLE^SYNTHETIC",
        "PatientID": "AIGW-SAMPLE",
        "PatientBirthDate": "",
        "PatientSex": "O",
        "BodyPartExamined": "CHEST",
        "KVP": 120,
        "PatientPosition": "HFS",
        "StudyInstanceUID": _uid(seed, "study"),
        "SeriesInstanceUID": _uid(seed, "series"),
        "FrameOfReferenceUID": _uid(seed, "frame of reference"),
        "PositionReferenceIndicator": "",
        "StudyID": f"S{seed}",
        "SeriesNumber": 2,
        "AcquisitionNumber": 1,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        "WindowCenter": 40,
        "WindowWidth": 400,
        "RescaleIntercept": -1024,
        "RescaleSlope": 1,
        "RescaleType": "HU",
    }
    for moment in ("Study", "Series", "Acquisition", "Content"):
        fields[f"{moment}Date"], fields[f"{moment}Time"] = "20260105", "101500"
    for keyword, value in fields.items():
        setattr(dataset, keyword, value)
    return dataset
