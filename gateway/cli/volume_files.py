"""The files that ``aigw volume`` writes: pictures and NIfTI images, one for each volume."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ai.errors import AiError
from ai.geometry import Verdict
from ai.nifti import write_nifti
from ai.picture import Page, draw_volume, write_png
from ai.resample import upright
from ai.sides import Edges, detector_edges
from ai.source.part10 import read_file
from ai.volume import ImageSeries, Volume
from gateway.cli.volume_view import centre_texts, number_text, product, range_text

Record = dict[str, Any]

_PICTURE_ENDINGS = (".png",)
_NIFTI_ENDINGS = (".nii.gz", ".nii")
_COLOURS = {Verdict.ACCEPTED: (129, 199, 132), Verdict.FIXED: (255, 213, 79)}
_INVERTED = "MONOCHROME1"


@dataclass(frozen=True)
class Outputs:
    """Where to write; None where not asked for. ``several``: file names get the number of the volume."""

    picture: Path | None = None
    nifti: Path | None = None
    several: bool = False

    def __post_init__(self) -> None:
        """Raise AiError (OUT_UNUSABLE) for names and folders that cannot be written to."""
        for path, endings in ((self.picture, _PICTURE_ENDINGS), (self.nifti, _NIFTI_ENDINGS)):
            if path is not None:
                _check(path, endings)

    def write(self, image: ImageSeries, record: Record, number: int) -> Record:
        """Write the files of one volume, upright and even; their paths as fields of its record.

        Raises OSError if a file cannot be written.
        """
        if self.picture is None and self.nifti is None:
            return {}
        volume = upright(image.volume).volume
        written: Record = {}
        if self.picture is not None:
            path = self._named(self.picture, _PICTURE_ENDINGS, number)
            write_png(path, draw_volume(volume, _page(image, volume, record)))
            written["picture"] = str(path)
        if self.nifti is not None:
            path = self._named(self.nifti, _NIFTI_ENDINGS, number)
            write_nifti(path, volume.voxels, volume.geometry)
            written["nifti"] = str(path)
        return written

    def _named(self, path: Path, endings: tuple[str, ...], number: int) -> Path:
        if not self.several:
            return path
        ending = next(e for e in endings if path.name.endswith(e))
        return path.with_name(f"{path.name.removesuffix(ending)}-{number}{ending}")


def _check(path: Path, endings: tuple[str, ...]) -> None:
    if not path.name.endswith(endings):
        raise AiError("OUT_UNUSABLE", f"{path} must end in {' or '.join(endings)}.")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
        raise AiError("OUT_UNUSABLE", f"There is no folder {path.parent} that can be written to.")


def _page(image: ImageSeries, volume: Volume, record: Record) -> Page:
    """What stands around the picture; no free text of the header and nothing of the patient."""
    words = [record["modality"] or "image"]
    if record["series_number"]:
        words.append(f"series {record['series_number'][:16]}")
    if record["label"]:
        words.append(record["label"])
    seen = slice(1 if volume.geometry.is_projection else 0, None)  # a detector has no slices
    cells = "pixels" if volume.geometry.is_projection else "voxels"
    detail = f"{product(record['shape'][seen])} {cells} of {product(record['spacing_mm'][seen])} mm"
    if record["axes"]:
        centre = ", ".join(centre_texts(record))
        detail += f"; {record['orientation']} ({record['axes']}); centre {centre} mm"
    detail += f"; {range_text(record)}, mean {number_text(record['intensity_mean'])}"
    verdict = Verdict(record["verdict"])
    return Page(
        title=", ".join(words),
        detail=detail,
        verdict=verdict if verdict == record["code"] else f"{verdict} {record['code']}",
        verdict_rgb=_COLOURS[verdict],
        inverted=image.instances[0].fact("PhotometricInterpretation") == _INVERTED,
        detector_edges=_detector_edges(image) if volume.geometry.is_projection else None,
    )


def _detector_edges(image: ImageSeries) -> Edges | None:
    facts = read_file(image.instances[0].path, frozenset({"PatientOrientation"})).header.facts
    return detector_edges(facts.get("PatientOrientation", ()))
