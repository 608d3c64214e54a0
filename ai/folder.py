"""The DICOM files of a folder, series by series; a folder may be a series, a study or a whole medium."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pydicom import dcmread
from pydicom.dataset import Dataset

from ai.errors import SeriesRefused
from ai.quiet import quiet
from ai.source.part10 import read_file

DICOMDIR = "DICOMDIR"
_MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"  # PS3.4 I: the SOP class of a DICOMDIR
_WANTED = frozenset({"SOPClassUID", "SeriesInstanceUID"})
_MOST_DICOMDIR_BYTES = 256 << 20


@dataclass(frozen=True)
class Damaged:
    """A file that is DICOM or claims to be, and cannot be read: its path below the folder, and why."""

    name: str
    error: SeriesRefused


@dataclass(frozen=True)
class Found:
    """What lies in a folder.

    Attributes
    ----------
    series
        Files of each Series Instance UID, sorted by path; ``""`` for files without one.
    damaged
        Files that cannot be read, sorted by path.
    missing
        Files that a DICOMDIR names and that are not there, as it names them.
    others
        How many files are not DICOM.
    """

    series: Mapping[str, tuple[Path, ...]]
    damaged: tuple[Damaged, ...] = ()
    missing: tuple[str, ...] = ()
    others: int = 0


def find_series(folder: Path) -> dict[str, list[Path]]:
    """Group the DICOM files below a folder by Series Instance UID (``""`` where it is empty).

    Files that are not DICOM, hidden files and DICOMDIRs are passed over. Raises SeriesRefused:
    NOT_DICOM for a folder without any DICOM file; and for a damaged file, so that a hole in the series is
    not blamed on the scanner, what :func:`ai.source.part10.read_file` raises.
    """
    found = survey_folder(folder)
    if found.damaged:
        raise found.damaged[0].error
    if not found.series:
        reason = f"None of the {found.others} files in {folder.name}/ is a DICOM file."
        raise SeriesRefused("NOT_DICOM", reason)
    return {uid: list(files) for uid, files in found.series.items()}


def survey_folder(place: Path) -> Found:
    """As :func:`find_series`, but damaged files are collected and nothing found is an answer, too.

    ``place`` may be a single file, or a DICOMDIR: then the files that it names. In a folder that has one,
    all files count, and those that it names and that are not there are missing.
    """
    if place.is_file():
        return _survey_dicomdir(place) if _is_dicomdir(place) else _sorted_out(place.parent, iter([place]))
    found = _sorted_out(place, _files(place))
    if not _is_dicomdir(place / DICOMDIR):
        return found
    try:
        _, missing = _named_files(place / DICOMDIR)
    except SeriesRefused as error:
        damaged = (*found.damaged, Damaged(DICOMDIR, error))
        return Found(found.series, damaged, others=found.others)
    return Found(found.series, found.damaged, missing, found.others)


def _survey_dicomdir(path: Path) -> Found:
    try:
        files, missing = _named_files(path)
    except SeriesRefused as error:
        return Found({}, (Damaged(path.name, error),))
    found = _sorted_out(path.parent, iter(files))
    return Found(found.series, found.damaged, missing, found.others)


def _is_dicomdir(path: Path) -> bool:
    """True for a DICOMDIR whose header can be read; a damaged one is a damaged file like others."""
    try:
        return path.is_file() and _series_of(path) is None
    except SeriesRefused:
        return False


def _files(folder: Path) -> Iterator[Path]:
    return (p for p in sorted(folder.rglob("*")) if p.is_file() and not p.name.startswith("."))


def _sorted_out(folder: Path, files: Iterator[Path]) -> Found:
    series: dict[str, list[Path]] = {}
    damaged = []
    others = 0
    for path in files:
        try:
            uid = _series_of(path)
        except SeriesRefused as error:
            if error.code == "NOT_DICOM":
                others += 1
            else:
                damaged.append(Damaged(path.relative_to(folder).as_posix(), error))
        else:
            if uid is not None:
                series.setdefault(uid, []).append(path)
    return Found({uid: tuple(paths) for uid, paths in series.items()}, tuple(damaged), others=others)


def _series_of(path: Path) -> str | None:
    """Series Instance UID of an instance, empty if it has none; None for a DICOMDIR."""
    try:
        facts = read_file(path, _WANTED).header.facts
    except OSError as error:
        reason = f"{path.name} cannot be opened: {error.strerror}."
        raise SeriesRefused("FILE_UNREADABLE", reason) from error
    if facts.get("SOPClassUID") == (_MEDIA_STORAGE_DIRECTORY,):
        return None
    return next(iter(facts.get("SeriesInstanceUID", ())), "")


def _named_files(dicomdir: Path) -> tuple[list[Path], tuple[str, ...]]:
    """Files that a DICOMDIR names (PS3.10 8.6): those that are there, and the names of the others.

    Names count without regard to case, since file systems of media change it. A name never leads out of
    the folder. Raises SeriesRefused: TRUNCATED_FILE, HEADER_TOO_LARGE.
    """
    there = {
        path.relative_to(dicomdir.parent).as_posix().casefold(): path for path in _files(dicomdir.parent)
    }
    files, missing = [], []
    for name in dict.fromkeys(_names(_read_directory(dicomdir))):
        path = there.get(name.casefold())
        if path is None:
            missing.append(name)
        else:
            files.append(path)
    return files, tuple(missing)


def _names(directory: Dataset) -> Iterator[str]:
    for record in directory.get("DirectoryRecordSequence") or ():
        components = record.get("ReferencedFileID")
        if components:
            parts = [components] if isinstance(components, str) else list(components)
            yield PurePosixPath(*(str(part).strip() for part in parts)).as_posix()


def _read_directory(path: Path) -> Dataset:
    """The whole DICOMDIR; the bounded reader has walked through it before."""
    size = path.stat().st_size
    if size > _MOST_DICOMDIR_BYTES:
        reason = f"{path.name} has {size:,} bytes; at most {_MOST_DICOMDIR_BYTES:,} are read."
        raise SeriesRefused("HEADER_TOO_LARGE", reason)
    try:
        with quiet():
            return dcmread(path)
    except Exception as error:
        reason = f"{path.name} is damaged ({type(error).__name__})."
        raise SeriesRefused("TRUNCATED_FILE", reason) from error
