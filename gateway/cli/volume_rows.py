"""What ``aigw volume`` says of a folder: one row for each volume, and for everything that makes none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ai.errors import SeriesRefused
from ai.folder import Found
from ai.geometry import NotAVolume, Part, Verdict, VolumeGeometry
from ai.instances import Instance
from ai.pixels.suv import suv_bw_factor
from ai.quiet import quiet
from ai.resample import upright_geometry
from ai.sides import axis_code, plane_name
from ai.source.part10 import read_file
from ai.volume import ImageSeries, Survey, Volume, read_part, survey

Record = dict[str, Any]

_EMPTY: Record = {
    "series_instance_uid": None,
    "study_instance_uid": None,
    "modality": None,
    "series_number": None,
    "part": "",
    "label": "",
    "images": 0,
    "verdict": str(Verdict.REFUSED),
    "code": "",
    "reason": "",
    "notes": [],
    "shape": None,
    "spacing_mm": None,
    "affine_lps": None,
    "orientation": None,
    "axes": None,
    "centre_lps_mm": None,
    "unit": None,
    "intensity_minimum": None,
    "intensity_maximum": None,
    "intensity_mean": None,
    "files": [],
}


@dataclass(frozen=True)
class Row:
    """One volume, or one thing that is none.

    Attributes
    ----------
    record
        What ``--json`` prints of it.
    image
        Its voxels; None where refused.
    """

    record: Record
    image: ImageSeries | None = None


@dataclass(frozen=True)
class SurveyedSeries:
    """The headers of one series: what they make, or why nothing can be said of them.

    ``uid`` is the Series Instance UID, derived where the files have none.
    """

    uid: str
    files: Sequence[Path]
    content: Survey | SeriesRefused

    @property
    def parts(self) -> tuple[Part, ...]:
        """Its parts; none where the series as a whole is refused."""
        return self.content.parts if isinstance(self.content, Survey) else ()

    def volumes(self, part_key: str | None = None) -> int:
        """How many of its parts, or of those with the key, are volumes by their geometry."""
        wanted = (part for part in self.parts if part_key is None or part.key == part_key)
        return sum(isinstance(part.geometry, VolumeGeometry) for part in wanted)


def survey_series(found: Found) -> list[SurveyedSeries]:
    """Read the headers of every series that was found; no pixel is read."""
    return [_survey(uid, files) for uid, files in found.series.items()]


def _survey(uid: str, files: Sequence[Path]) -> SurveyedSeries:
    try:
        with quiet():
            content = survey(files)
    except SeriesRefused as error:
        return SurveyedSeries(uid, files, error)
    return SurveyedSeries(content.instances[0].fact("SeriesInstanceUID"), files, content)


def rows_of_series(series: SurveyedSeries, part_key: str | None = None) -> Iterator[Row]:
    """A row for each part of a series, its voxels decoded; with a key for that part only.

    Rows come one by one, so that the voxels of one part are given up before the next is read.
    """
    if isinstance(series.content, SeriesRefused):
        first = Instance(read_file(series.files[0]))
        yield _refused({**_identity(first), "images": len(series.files)}, series.content)
        return
    for part in series.content.parts:
        if part_key is None or part.key == part_key:
            yield _row(series.content, part)


def rows_of_files(found: Found) -> Iterator[Row]:
    """A row for each file that cannot be read, and one for those that a DICOMDIR names in vain."""
    for damaged in found.damaged:
        yield _refused({"files": [damaged.name]}, damaged.error)
    if found.missing:
        count = len(found.missing)
        names = ", ".join(found.missing[:5]) + (f" and {count - 5} more" if count > 5 else "")
        what = "1 file that is" if count == 1 else f"{count} files that are"
        reason = f"The DICOMDIR names {what} not there: {names}. Copy the medium again."
        yield _refused({"files": list(found.missing)}, SeriesRefused("FILES_MISSING", reason))


def _row(found: Survey, part: Part) -> Row:
    identity = _identity_of_part(found, part)
    if isinstance(part.geometry, NotAVolume):
        return _refused(identity, SeriesRefused(part.geometry.code, part.geometry.reason))
    try:
        with quiet():
            image = read_part(found, part)
            grid = upright_geometry(image.volume.geometry)
    except SeriesRefused as error:
        return _refused(identity, error)
    except MemoryError:
        slices, rows, columns = part.geometry.shape
        reason = f"There is not enough memory for {slices} × {rows} × {columns} voxels."
        return _refused(identity, SeriesRefused("OUT_OF_MEMORY", reason))
    geometry = image.volume.geometry
    judged = {
        "verdict": str(geometry.verdict),
        "code": geometry.code,
        "reason": geometry.reason,
        "notes": [{"code": str(note.code), "text": note.text} for note in geometry.notes],
    }
    seen = {**_grid(grid), **_intensities(image.volume), **_suv(image.instances[0])}
    return Row({**_EMPTY, **identity, **judged, **seen}, image)


def _refused(identity: Record, error: SeriesRefused) -> Row:
    return Row({**_EMPTY, **identity, "code": str(error.code), "reason": error.reason})


def _identity_of_part(found: Survey, part: Part) -> Record:
    uid = part.frames[0].sop_instance_uid if part.frames else ""
    first = next((i for i in found.instances if i.sop_instance_uid == uid), found.instances[0])
    return {**_identity(first), "part": part.key, "label": part.label, "images": len(part.frames)}


def _identity(instance: Instance) -> Record:
    return {
        "series_instance_uid": instance.fact("SeriesInstanceUID"),
        "study_instance_uid": instance.fact("StudyInstanceUID"),
        "modality": instance.fact("Modality"),
        "series_number": instance.fact("SeriesNumber"),
    }


def _grid(geometry: VolumeGeometry) -> Record:
    """Where the voxels lie; of a tilted or uneven stack where those of its upright, even grid do."""
    middle = np.append((np.asarray(geometry.shape) - 1) / 2.0, 1.0)
    return {
        "shape": list(geometry.shape),
        "spacing_mm": list(geometry.spacing_mm),
        "affine_lps": geometry.index_to_lps.tolist(),
        "orientation": "detector plane" if geometry.is_projection else plane_name(geometry.index_to_lps),
        "axes": None if geometry.is_projection else axis_code(geometry.index_to_lps),
        "centre_lps_mm": (geometry.index_to_lps @ middle)[:3].tolist(),
    }


def _intensities(volume: Volume) -> Record:
    """Of the voxels as they were read, before any resampling."""
    return {
        "unit": volume.unit,
        "intensity_minimum": float(volume.voxels.min()),
        "intensity_maximum": float(volume.voxels.max()),
        "intensity_mean": float(volume.voxels.mean(dtype=np.float64)),
    }


def _suv(instance: Instance) -> Record:
    """For PET what a voxel value is multiplied with to be a SUV by body weight; or why it cannot be."""
    if instance.fact("Modality") != "PT":
        return {}
    try:
        return {"suv_bw_factor": suv_bw_factor(instance.file)}
    except SeriesRefused as error:
        return {"suv_bw_factor": None, "suv_bw_reason": f"{error.code}: {error.reason}"}
