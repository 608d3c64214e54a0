"""Synthetic CT series for tests: one builder, and small functions that each break one thing.

``ct_series`` builds a correct series; the others take a list of datasets and give a changed copy,
so that faults can be combined: ``without_slice(with_jitter(ct_series(), 0.01), 4)``.
"""

from __future__ import annotations

import copy
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from ai.torso import draw_torso

FloatArray = npt.NDArray[np.float64]
_NAMESPACE = uuid.UUID("b0f6c3a2-5b1d-5f5e-8f43-0a7f2f3f9c55")

# (cosines along a row, cosines along a column, PatientPosition); LPS. Slices go along row × column.
_ORIENTATIONS: dict[str, tuple[tuple[float, ...], tuple[float, ...], str]] = {
    "HFS": ((1, 0, 0), (0, 1, 0), "HFS"),
    # Feet first, shown as acquired: a half turn about the vertical axis, slices run to the feet.
    "FFS": ((-1, 0, 0), (0, 1, 0), "FFS"),
    # Feet first, shown in the usual radiological way: only PatientPosition tells.
    "FFS_REFORMATTED": ((1, 0, 0), (0, 1, 0), "FFS"),
    "prone": ((-1, 0, 0), (0, -1, 0), "HFP"),
    "decubitus_left": ((0, -1, 0), (1, 0, 0), "HFDL"),
    "decubitus_right": ((0, 1, 0), (-1, 0, 0), "HFDR"),
    "coronal": ((1, 0, 0), (0, 0, -1), "HFS"),
    "sagittal": ((0, 1, 0), (0, 0, -1), "HFS"),
}
ORIENTATIONS = (*_ORIENTATIONS, "oblique")


def uid(seed: int, *parts: object) -> str:
    """A UID that depends on the seed and the parts only."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, '|'.join(map(str, (seed, *parts)))).int}"


def axes(orientation: str) -> FloatArray:
    """3 × 3 rotation; columns are the unit steps of (slice, row, column) index in LPS."""
    if orientation == "oblique":  # HFS turned 20° about x, then 15° about z: nothing is axis-aligned
        a, b = np.radians(20.0), np.radians(15.0)
        about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
        about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
        return np.asarray(about_z @ about_x @ axes("HFS"), dtype=np.float64)
    along_row, along_column, _ = _ORIENTATIONS[orientation]
    return np.stack([np.cross(along_row, along_column), along_column, along_row], axis=1).astype(np.float64)


def affine(
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    orientation: str = "HFS",
    origin_mm: tuple[float, float, float] | None = None,
) -> FloatArray:
    """4 × 4 index (slice, row, column, 1) to LPS; without an origin the grid is centred on 0."""
    matrix = np.eye(4)
    matrix[:3, :3] = axes(orientation) * np.asarray(spacing_mm)
    if origin_mm is None:
        matrix[:3, 3] = -matrix[:3, :3] @ ((np.asarray(shape) - 1) / 2.0)
    else:
        matrix[:3, 3] = origin_mm
    return matrix


def counting_voxels(shape: tuple[int, int, int]) -> npt.NDArray[np.int16]:
    """HU (slices, rows, columns) in which no two neighbours agree: any flip or swap shows."""
    return (np.arange(np.prod(shape)) % 3989 - 1000).astype(np.int16).reshape(shape)


def torso_voxels(
    shape: tuple[int, int, int], index_to_lps: FloatArray
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]:
    """The sample's torso drawn in patient space on any grid: HU and true labels, no noise.

    Labels: 1 body, 2 left lung, 3 right lung, 4 bone, 5 metal. The torso is about 330 × 236 mm,
    its lungs span z from -105 to 110 mm; LPS zero is the middle of the chest.
    """
    hu = np.empty(shape, dtype=np.int16)
    labels = np.empty(shape, dtype=np.uint8)
    rows, columns = np.mgrid[: shape[1], : shape[2]]
    for i in range(shape[0]):
        index = np.stack([np.full(rows.shape, i), rows, columns, np.ones(rows.shape)])
        x, y, z = np.tensordot(index_to_lps[:3], index, axes=1)
        drawn, labels[i] = draw_torso(x, y, z)
        hu[i] = np.rint(drawn)
    return hu, labels


def ct_series(
    shape: tuple[int, int, int] = (12, 32, 40),
    spacing_mm: tuple[float, float, float] = (3.0, 0.8, 0.7),
    orientation: str = "HFS",
    voxels: npt.NDArray[np.int16] | None = None,
    origin_mm: tuple[float, float, float] | None = None,
    *,
    seed: int = 1,
    **attributes: object,
) -> list[Dataset]:
    """A correct CT series, slices in the order of the volume (along row × column).

    Parameters
    ----------
    shape, spacing_mm
        (slices, rows, columns) and the distances along them.
    orientation
        One of ``ORIENTATIONS``.
    voxels
        HU, int16, of that shape; without it ``counting_voxels``.
    origin_mm
        LPS of the first voxel; without it the grid is centred on 0.
    seed
        UIDs are the same for the same seed and differ between seeds.
    attributes
        DICOM keywords set on every instance; ``None`` deletes.
    """
    hu = counting_voxels(shape) if voxels is None else voxels
    if hu.shape != shape:
        raise ValueError(f"voxels have shape {hu.shape}, not {shape}")
    matrix = affine(shape, spacing_mm, orientation, origin_mm)
    patient_position = "HFS" if orientation == "oblique" else _ORIENTATIONS[orientation][2]
    series = [_instance(hu[i], matrix, i, seed) for i in range(shape[0])]
    for dataset in series:
        dataset.PatientPosition = patient_position
        dataset.SliceThickness = ds(spacing_mm[0])
    return with_attributes(series, **attributes) if attributes else series


def torso_series(
    orientation: str = "HFS",
    shape: tuple[int, int, int] = (48, 96, 96),
    spacing_mm: tuple[float, float, float] = (5.0, 4.0, 4.0),
    *,
    seed: int = 1,
    **attributes: object,
) -> tuple[list[Dataset], npt.NDArray[np.uint8]]:
    """The same asymmetric torso scanned in any orientation, with its true labels."""
    hu, labels = torso_voxels(shape, affine(shape, spacing_mm, orientation))
    series = ct_series(shape, spacing_mm, orientation, hu, seed=seed)
    return with_attributes(series, **attributes), labels


def with_attributes(series: Sequence[Dataset], **attributes: object) -> list[Dataset]:
    """Set DICOM keywords on every instance; ``None`` deletes."""
    changed = copy.deepcopy(list(series))
    for dataset in changed:
        for keyword, value in attributes.items():
            if value is not None:
                setattr(dataset, keyword, value)
            elif keyword in dataset:
                delattr(dataset, keyword)
    return changed


def without(series: Sequence[Dataset], *keywords: str) -> list[Dataset]:
    """Delete attributes from every instance, e.g. ``"FrameOfReferenceUID"``."""
    return with_attributes(series, **dict.fromkeys(keywords))


def without_slice(series: Sequence[Dataset], *indices: int) -> list[Dataset]:
    """Leave out slices by index."""
    return [copy.deepcopy(dataset) for i, dataset in enumerate(series) if i not in indices]


def with_duplicate_position(series: Sequence[Dataset], index: int) -> list[Dataset]:
    """Add an instance with a UID of its own at the position of another, its voxels one higher."""
    changed = copy.deepcopy(list(series))
    extra = copy.deepcopy(changed[index])
    _rename(extra, f"{extra.SOPInstanceUID}.1")
    extra.InstanceNumber = len(changed) + 1
    stored = np.frombuffer(extra.PixelData, dtype="<i2")
    extra.PixelData = (stored + 1).astype("<i2").tobytes()
    return [*changed, extra]


def moved(series: Sequence[Dataset], shifts_mm: npt.ArrayLike) -> list[Dataset]:
    """Move each slice by its own LPS vector: shifts of shape (slices, 3)."""
    changed = copy.deepcopy(list(series))
    for dataset, shift in zip(changed, np.asarray(shifts_mm, dtype=np.float64), strict=True):
        dataset.ImagePositionPatient = [
            ds(v) for v in np.asarray(dataset.ImagePositionPatient, float) + shift
        ]
    return changed


def with_jitter(series: Sequence[Dataset], amplitude_mm: float, *, seed: int = 1) -> list[Dataset]:
    """Move slices along the normal by up to ``amplitude_mm``; the end slices stay."""
    steps = np.random.default_rng(seed).uniform(-amplitude_mm, amplitude_mm, len(series))
    steps[[0, -1]] = 0.0
    return moved(series, steps[:, None] * normal(series[0]))


def with_sheared_tilt(series: Sequence[Dataset], degrees: float) -> list[Dataset]:
    """Gantry tilt as some scanners write it: axial orientation, positions creep along the columns."""
    along_column = np.asarray(series[0].ImageOrientationPatient[3:], dtype=np.float64)
    heights = positions(series) @ normal(series[0])
    creep = (heights - heights[0]) * np.tan(np.radians(degrees))
    return moved(series, creep[:, None] * along_column)


def with_true_tilt(series: Sequence[Dataset], degrees: float) -> list[Dataset]:
    """Gantry tilt as others write it: planes turned about the row axis, table moving straight."""
    row = np.asarray(series[0].ImageOrientationPatient[:3], dtype=np.float64)
    column = np.asarray(series[0].ImageOrientationPatient[3:], dtype=np.float64)
    angle = np.radians(degrees)
    turned = column * np.cos(angle) + np.cross(row, column) * np.sin(angle)
    return with_attributes(
        series, ImageOrientationPatient=[ds(v) for v in (*row, *turned)], GantryDetectorTilt=ds(degrees)
    )


def with_localizer(series: Sequence[Dataset], count: int = 1) -> list[Dataset]:
    """Add coronal localizers of another size in front of the series."""
    first = series[0]
    localizers = []
    for i in range(count):
        localizer = copy.deepcopy(first)
        _rename(localizer, f"{first.SOPInstanceUID}.9{i}")
        localizer.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        localizer.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
        _resize(localizer, first.Rows * 2, first.Columns)
        localizers.append(localizer)
    return [*localizers, *copy.deepcopy(list(series))]


def with_mixed_size(series: Sequence[Dataset], index: int) -> list[Dataset]:
    """Give one slice twice the rows."""
    changed = copy.deepcopy(list(series))
    _resize(changed[index], changed[index].Rows * 2, changed[index].Columns)
    return changed


def compressed(series: Sequence[Dataset], transfer_syntax_uid: str) -> list[Dataset]:
    """Compress every instance without loss (RLE, JPEG-LS, JPEG 2000)."""
    changed = copy.deepcopy(list(series))
    for dataset in changed:
        dataset.compress(transfer_syntax_uid, generate_instance_uid=False)
    return changed


def write_series(series: Sequence[Dataset], folder: Path) -> list[Path]:
    """Write DICOM files ``0000.dcm`` … into the folder (made if missing), in the order given."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i:04d}.dcm" for i in range(len(series))]
    for dataset, path in zip(series, paths, strict=True):
        dataset.save_as(path, enforce_file_format=True)
    return paths


def positions(series: Sequence[Dataset]) -> FloatArray:
    """Image Position (Patient) of every instance, (n, 3), LPS millimetres."""
    return np.array([d.ImagePositionPatient for d in series], dtype=np.float64)


def normal(dataset: Dataset) -> FloatArray:
    """Slice normal: row cosines × column cosines."""
    cosines = np.asarray(dataset.ImageOrientationPatient, dtype=np.float64)
    return np.asarray(np.cross(cosines[:3], cosines[3:]), dtype=np.float64)


def _instance(hu: npt.NDArray[np.int16], matrix: FloatArray, index: int, seed: int) -> Dataset:
    dataset = Dataset()
    _set_patient_and_study(dataset, seed)
    dataset.SOPClassUID = CTImageStorage
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    _rename(dataset, uid(seed, "instance", index))
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.InstanceNumber = index + 1
    dataset.AcquisitionNumber = 1
    dataset.KVP = 120
    dataset.ImagePositionPatient = [ds(v) for v in (matrix @ [index, 0, 0, 1])[:3]]
    unit = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)
    dataset.ImageOrientationPatient = [ds(v) for v in (*unit[:, 2], *unit[:, 1])]
    dataset.PixelSpacing = [ds(np.linalg.norm(matrix[:3, 1])), ds(np.linalg.norm(matrix[:3, 2]))]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = hu.shape
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = 1
    dataset.RescaleIntercept = -1024
    dataset.RescaleSlope = 1
    dataset.RescaleType = "HU"
    dataset.WindowCenter, dataset.WindowWidth = 40, 400
    dataset.PixelData = (hu.astype(np.int32) + 1024).astype("<i2").tobytes()
    return dataset


def _set_patient_and_study(dataset: Dataset, seed: int) -> None:
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientName = f"TEST^SERIES{seed}"
    dataset.PatientID = f"TEST-{seed}"
    dataset.PatientBirthDate = "19600101"
    dataset.PatientSex = "O"
    dataset.StudyInstanceUID = uid(seed, "study")
    dataset.StudyDate = dataset.SeriesDate = dataset.ContentDate = "20260105"
    dataset.StudyTime = dataset.SeriesTime = dataset.ContentTime = "101500"
    dataset.StudyID = str(seed)
    dataset.AccessionNumber = f"ACC{seed}"
    dataset.ReferringPhysicianName = ""
    dataset.StudyDescription = "Synthetic study"
    dataset.Modality = "CT"
    dataset.SeriesInstanceUID = uid(seed, "series")
    dataset.SeriesNumber = 2
    dataset.SeriesDescription = "Synthetic CT"
    dataset.BodyPartExamined = "CHEST"
    dataset.FrameOfReferenceUID = uid(seed, "frame of reference")
    dataset.PositionReferenceIndicator = ""
    dataset.Manufacturer = "Synthetic"


def _rename(dataset: Dataset, sop_instance_uid: str) -> None:
    dataset.SOPInstanceUID = UID(sop_instance_uid)
    dataset.file_meta.MediaStorageSOPInstanceUID = UID(sop_instance_uid)


def _resize(dataset: Dataset, rows: int, columns: int) -> None:
    dataset.Rows, dataset.Columns = rows, columns
    dataset.PixelData = np.full((rows, columns), 24, dtype="<i2").tobytes()


def ds(value: float | np.floating) -> str:
    """A decimal string of at most 16 characters (PS3.5 6.2) with all digits that fit."""
    text = f"{float(value) + 0.0:.12f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text[:16]
