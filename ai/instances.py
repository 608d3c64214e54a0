"""DICOM files of a series as header data sets, with a complete identity and a digest each."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian

from ai.errors import SeriesRefused
from ai.geometry import Note, NoteCode, SliceHeader
from ai.quiet import quiet
from ai.uids import derived_uid

# What result objects copy from their source and may not find empty (PS3.3 C.7.1, C.7.2: type 2).
_EMPTY_IF_ABSENT = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
_MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"  # a DICOMDIR
_SAID_IF_ABSENT = ("PatientID", "SeriesNumber")


@dataclass(frozen=True)
class Instance:
    """One file: its header without pixel data, and the digest of its data set as stored.

    ``digest`` covers everything after the file meta information, so the sender's file and the
    gateway's stored copy have the same one.
    """

    path: Path
    header: Dataset
    digest: str

    @property
    def sop_instance_uid(self) -> str:
        """SOP Instance UID, completed from the file meta information where it was empty."""
        return str(self.header.SOPInstanceUID)


def find_series(folder: Path) -> dict[str, list[Path]]:
    """Group the DICOM files below a folder by Series Instance UID (``""`` where it is empty).

    Files that are not DICOM, hidden files and DICOMDIRs are passed over. Raises SeriesRefused:
    NOT_DICOM for a folder without any DICOM file, EMPTY_FILE and TRUNCATED_FILE for one that is
    damaged, so that a hole in the series is not blamed on the scanner, and DEFLATED_FILE.
    """
    found: dict[str, list[Path]] = {}
    others = 0
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")):
        series = _series_of(path)
        if series is None:
            others += 1
        else:
            found.setdefault(series, []).append(path)
    if not found:
        raise SeriesRefused("NOT_DICOM", f"None of the {others} files in {folder.name}/ is a DICOM file.")
    return found


def _series_of(path: Path) -> str | None:
    """Series Instance UID of a file; None if it is no instance."""
    if path.stat().st_size == 0:
        raise SeriesRefused("EMPTY_FILE", f"{path.name} has 0 bytes.")
    _refuse_deflated(path)
    try:
        with quiet():
            header = dcmread(path, stop_before_pixels=True)
    except InvalidDicomError:
        return None
    except Exception as error:
        raise _damaged(path, error) from error
    if _is_cut(header):
        raise _damaged(path, EOFError())
    if str(header.file_meta.get("MediaStorageSOPClassUID", "")) == _MEDIA_STORAGE_DIRECTORY:
        return None
    with quiet():
        return str(header.get("SeriesInstanceUID") or "")


def _refuse_deflated(path: Path) -> None:
    """A deflated data set is inflated whole when it is opened: 1 MiB can become 1 GiB."""
    try:
        syntax = read_file_meta_info(path).get("TransferSyntaxUID")
    except Exception:  # noqa: BLE001 - reading the whole file, next, says what is wrong
        return
    if syntax == DeflatedExplicitVRLittleEndian:
        reason = f"{path.name} is a deflated data set, which is not taken: give Explicit VR Little Endian."
        raise SeriesRefused("DEFLATED_FILE", reason)


def _damaged(path: Path, error: Exception) -> SeriesRefused:
    reason = f"The header of {path.name} ends early or is damaged ({type(error).__name__})."
    return SeriesRefused("TRUNCATED_FILE", reason)


def read_instances(files: Sequence[Path]) -> tuple[list[Instance], tuple[Note, ...]]:
    """Read the headers of one series; copies of the same instance are read once.

    Raises
    ------
    SeriesRefused
        EMPTY_FILE, NOT_DICOM, TRUNCATED_FILE, DEFLATED_FILE, SEVERAL_SERIES, SEVERAL_STUDIES,
        SEVERAL_PATIENTS, SEVERAL_MODALITIES, DUPLICATE_SOP_INSTANCE.
    """
    instances = [_read(path) for path in files]
    completed = _complete_instances(instances)
    series = Counter(str(i.header.get("SeriesInstanceUID") or "") for i in instances)
    if len(series) > 1:
        listing = ", ".join(f"{uid or '(no UID)'} with {n} files" for uid, n in sorted(series.items()))
        raise SeriesRefused("SEVERAL_SERIES", f"The files belong to {len(series)} series: {listing}.")
    _refuse_mixed(instances)
    unique = _without_copies(instances)
    completed |= _complete_series(unique)
    if not completed:
        return unique, ()
    text = f"The source lacks {', '.join(sorted(completed))}; a derived or empty value stands in the results."
    return unique, (Note(NoteCode.IDENTITY_DERIVED, text),)


def _refuse_mixed(instances: Sequence[Instance]) -> None:
    """A series belongs to one study of one patient: results take over those of one image for all."""
    for keyword, code, name, what in (
        ("StudyInstanceUID", "SEVERAL_STUDIES", "Study Instance UID", "studies"),
        ("PatientID", "SEVERAL_PATIENTS", "Patient ID", "patients"),
        ("Modality", "SEVERAL_MODALITIES", "Modality", "modalities"),
    ):
        counts = Counter(str(i.header.get(keyword) or "") for i in instances)
        if len(counts) > 1:  # without the values: a Patient ID does not belong in a message
            numbers = ", ".join(str(n) for _, n in counts.most_common(5))
            reason = f"The {len(instances)} images of one series have {len(counts)} values of {name} "
            reason += f"({numbers} images each), as if {what} had been mixed: send each as its own series."
            raise SeriesRefused(code, reason)


def _read(path: Path) -> Instance:
    _refuse_deflated(path)
    content = path.read_bytes()
    if not content:
        raise SeriesRefused("EMPTY_FILE", f"{path.name} has 0 bytes.")
    try:
        with quiet():  # a malformed value is judged where it is used
            header = dcmread(io.BytesIO(content), stop_before_pixels=True)
            header.buffer = None  # else every header keeps its whole file in memory
    except InvalidDicomError:
        raise SeriesRefused("NOT_DICOM", f"{path.name} is not a DICOM file.") from None
    except Exception as error:
        raise _damaged(path, error) from error
    if _is_cut(header):
        raise _damaged(path, EOFError())
    return Instance(path, header, hashlib.sha256(_data_set(content)).hexdigest())


def _is_cut(header: Dataset) -> bool:
    """True if a value is shorter than its length says; pydicom reads such a file without a word."""
    raw = (element for element in header.values() if isinstance(element, RawDataElement))
    return any(e.value is not None and e.length != 0xFFFFFFFF and len(e.value) < e.length for e in raw)


def _data_set(content: bytes) -> memoryview:
    """The bytes after the file meta information (PS3.10 7.1); everything if there is none."""
    view = memoryview(content)
    if content[128:132] != b"DICM" or content[132:138] != b"\x02\x00\x00\x00UL":
        return view
    return view[144 + int.from_bytes(content[140:144], "little") :]


def _complete_instances(instances: Sequence[Instance]) -> set[str]:
    """Fill in SOP class and instance UIDs; returns the keywords that had to be."""
    lacking = set()
    for instance in instances:
        header, meta = instance.header, getattr(instance.header, "file_meta", Dataset())
        sources = (
            ("SOPClassUID", meta.get("MediaStorageSOPClassUID") or ""),
            (
                "SOPInstanceUID",
                meta.get("MediaStorageSOPInstanceUID") or derived_uid("instance", instance.digest),
            ),
        )
        for keyword, value in sources:
            if not header.get(keyword):
                setattr(header, keyword, value)
                lacking.add(keyword)
    return lacking


def _without_copies(instances: Sequence[Instance]) -> list[Instance]:
    by_uid: dict[str, Instance] = {}
    for instance in instances:
        first = by_uid.setdefault(instance.sop_instance_uid, instance)
        if first.digest != instance.digest:
            raise SeriesRefused(
                "DUPLICATE_SOP_INSTANCE",
                f"{first.path.name} and {instance.path.name} have the same SOP Instance UID but other bytes: "
                "keep the right one.",
            )
    return list(by_uid.values())


def _complete_series(instances: Sequence[Instance]) -> set[str]:
    """Give every header the attributes that results copy; returns the keywords worth a note."""
    uids = sorted(i.sop_instance_uid for i in instances)
    derived = {
        "StudyInstanceUID": derived_uid("study", *uids),
        "SeriesInstanceUID": derived_uid("series", *uids),
    }
    lacking = set()
    for header in (i.header for i in instances):
        for keyword, value in derived.items():
            if not header.get(keyword):
                setattr(header, keyword, value)
                lacking.add(keyword)
        lacking |= {k for k in _SAID_IF_ABSENT if header.get(k) in (None, "")}
        for keyword in _EMPTY_IF_ABSENT:
            if keyword not in header:
                setattr(header, keyword, "")
    return lacking


def slice_header(dataset: Dataset) -> SliceHeader:
    """Read the geometry facts of one instance; malformed values count as absent."""
    position, orientation = (
        _numbers(dataset, "ImagePositionPatient", 3),
        _numbers(dataset, "ImageOrientationPatient", 6),
    )
    spacing, thickness = _numbers(dataset, "PixelSpacing", 2), _numbers(dataset, "SliceThickness", 1)
    image_type = dataset.get("ImageType") or ()
    return SliceHeader(
        sop_instance_uid=str(dataset.get("SOPInstanceUID", "")),
        rows=_count(dataset, "Rows"),
        columns=_count(dataset, "Columns"),
        position_mm=(position[0], position[1], position[2]) if position else None,
        orientation=tuple(orientation) if orientation else None,  # type: ignore[arg-type]
        pixel_spacing_mm=(spacing[0], spacing[1]) if spacing else None,
        frame_of_reference_uid=str(dataset.get("FrameOfReferenceUID") or "") or None,
        number_of_frames=_count(dataset, "NumberOfFrames") or 1,
        image_type=(image_type,) if isinstance(image_type, str) else tuple(str(v) for v in image_type),
        slice_thickness_mm=thickness[0] if thickness else None,
    )


def _numbers(dataset: Dataset, keyword: str, count: int) -> list[float] | None:
    try:
        value: Any = dataset.get(keyword)
        numbers = [float(v) for v in (value if count > 1 else [value])]
    except (TypeError, ValueError):
        return None
    finite = all(abs(n) < 1e9 for n in numbers)
    return numbers if len(numbers) == count and finite else None


def _count(dataset: Dataset, keyword: str) -> int | None:
    numbers = _numbers(dataset, keyword, 1)
    return int(numbers[0]) if numbers and numbers[0] >= 1 else None
