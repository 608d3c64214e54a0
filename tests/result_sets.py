"""All result objects of one run as files: every kind, in every profile, beside what the run found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ai.errors import SeriesRefused
from ai.model import ModelSpec, Prediction, Predictor, Progress
from ai.pipeline import RunOptions, report_not_run, run_series
from ai.profile import Profile
from ai.results.context import ResultContext
from ai.results.write import ResultFile
from ai.volume import LabelArray, Volume
from tests.model_files import COMMON
from tests.runs import CREATED_AT

BINARY, LABEL_MAP, FRACTIONAL = "SEG BINARY", "SEG LABELMAP", "SEG FRACTIONAL"
LABEL_MAP_RLE, LABEL_MAP_JPEG_LS = "SEG LABELMAP, RLE", "SEG LABELMAP, JPEG-LS"
SR, SR_OF_LABEL_MAP, SR_OF_FAILURE = "SR", "SR of a label map", "SR of a failure"
OVERVIEW, RTSTRUCT = "Overview SC", "RTSTRUCT"
PROFILES = {
    BINARY: Profile(rtstruct=True),
    LABEL_MAP: Profile(segmentation="label_map", overview=False),
    LABEL_MAP_RLE: Profile(segmentation="label_map", compression="rle", report=False, overview=False),
    LABEL_MAP_JPEG_LS: Profile(segmentation="label_map", compression="jpeg_ls", report=False, overview=False),
    FRACTIONAL: Profile(segmentation="fractional", compression="rle", report=False, overview=False),
}
"""Each kind of segmentation, and with the first the objects that do not depend on it."""

_LABEL_MAP_STORAGE = "1.2.840.10008.5.1.4.1.1.66.7"
_FAILURE = "PIXELS_NOT_DECODED"
FAILURE_REASON = "Slice 3 cannot be decoded: send the series again."
STRUCTURES = (  # of the models below, which find what they are told
    {"number": 1, "key": "body", "label": "Body"},
    {"number": 2, "key": "left_lung", "label": "Left lung"},
    {"number": 3, "key": "right_lung", "label": "Right lung"},
    {"number": 4, "key": "bone", "label": "Bone"},
    {"number": 5, "key": "metal_implant", "label": "Metal implant"},
)


@dataclass(frozen=True)
class ResultSet:
    """What a series gave.

    Attributes
    ----------
    name
        Of the series, and of its part.
    context
        The run; None when the series was refused.
    objects
        Files by the name of their kind of object.
    """

    name: str
    sources: tuple[Path, ...]
    context: ResultContext | None
    objects: Mapping[str, tuple[Path, ...]]

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files of results."""
        return tuple(path for paths in self.objects.values() for path in paths)

    @property
    def run(self) -> ResultContext:
        """The run of a series that was not refused."""
        assert self.context is not None
        return self.context

    def path(self, name: str) -> Path:
        """The one file of this kind."""
        (path,) = self.objects[name]
        return path


def results_of(
    files: Sequence[Path],
    model: Predictor,
    folder: Path,
    name: str = "",
    part_key: str = "",
    profiles: Mapping[str, Profile] = PROFILES,
) -> ResultSet:
    """Run a series to its end, as the gateway does, and report a failure, too, as if it had come to none."""
    options = RunOptions(CREATED_AT, "1.2.3", part_key=part_key, profiles=tuple(profiles.values()))
    outcome = run_series(files, model, options, lambda _stage, _done: None)
    failed = report_not_run(
        files, model.spec, _FAILURE, FAILURE_REASON, RunOptions(CREATED_AT, "1.2.3", part_key=part_key)
    )
    names = {profile.key: key.partition("; ")[0] for key, profile in profiles.items()}
    objects: dict[str, tuple[Path, ...]] = {}
    for result in outcome.results:
        _write(objects, _object(result, names[result.profiles[0]]), result, folder)
    for result in failed:
        _write(objects, SR_OF_FAILURE, result, folder)
    context = replace(outcome.context, profile=profiles[BINARY])
    return ResultSet(name, tuple(files), context, objects)


def refused(
    files: Sequence[Path],
    spec: ModelSpec,
    refusal: SeriesRefused,
    folder: Path,
    name: str,
    part_key: str = "",
) -> ResultSet:
    """The report of a series that is no volume."""
    options = RunOptions(CREATED_AT, "1.2.3", part_key=part_key)
    objects: dict[str, tuple[Path, ...]] = {}
    for result in report_not_run(files, spec, str(refusal.code), str(refusal), options):
        _write(objects, SR_OF_FAILURE, result, folder)
    return ResultSet(name, tuple(files), None, objects)


def _object(result: ResultFile, profile: str) -> str:
    if result.kind == "seg":  # structures that overlap are no label map
        return profile if result.sop_class_uid == _LABEL_MAP_STORAGE or "LABELMAP" not in profile else BINARY
    label_map = profile == LABEL_MAP and result.kind == "sr"
    return {"sr": SR_OF_LABEL_MAP if label_map else SR, "overview": OVERVIEW, "rtstruct": RTSTRUCT}[
        result.kind
    ]


def _write(objects: dict[str, tuple[Path, ...]], name: str, result: ResultFile, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{len(list(folder.iterdir())):02d}-{result.kind}.dcm"
    path.write_bytes(result.content)
    objects[name] = (*objects.get(name, ()), path)


# -- models that find what they are told -----------------------------------------------------------


@dataclass(frozen=True)
class Told:
    """A model that answers with a label map, or with one drawn in each volume."""

    spec: ModelSpec
    labels: LabelArray | None = None
    device: str = field(default="cpu", init=False)

    def predict(self, channels: Sequence[Volume], progress: Progress) -> Prediction:
        """The same for every image of one size; ``layers`` of it where nothing was told."""
        progress("done", 1.0)
        return Prediction(layers(channels[0].voxels) if self.labels is None else self.labels)


def card(*, projections: bool = False, **sections: object) -> ModelSpec:
    """The card of a model of five structures that takes any volume, or any radiograph."""
    accepts = {
        "modalities": ["CR", "DX"] if projections else ["CT", "MR", "PT", "OT"],
        "minimum_slices": 1,
        "maximum_slice_spacing_mm": 500.0,
        "projections": projections,
        "scale": "screen" if projections else "modality",
        "resampled": ["GANTRY_TILT", "IRREGULAR_SPACING"],
    }
    fields = {**COMMON, "id": "layers", "loader": "classical", "title": "Layers", "accepts": accepts}
    return ModelSpec.model_validate({**fields, "structures": list(STRUCTURES), **sections})


def layers(voxels: npt.NDArray[np.int16] | npt.NDArray[np.float32]) -> LabelArray:
    """Numbers 1 to 3 by the brightness of an image that is blurred to few edges; 4 in a corner; uint8."""
    steps = [max(1, n // 32) for n in voxels.shape[1:]]
    seen = voxels[:, :: steps[0], :: steps[1]].astype(np.float32)
    blurred = ndimage.gaussian_filter(seen, (0, 2, 2))
    coarse = np.digitize(blurred, np.quantile(blurred, (0.5, 0.75, 0.95))).astype(np.uint8)
    labels = coarse.repeat(steps[0], axis=1).repeat(steps[1], axis=2)[:, : voxels.shape[1], : voxels.shape[2]]
    rows, columns = labels.shape[1:]
    labels[-1, rows - 1 - rows // 4 : rows - 1, columns - 1 - columns // 8 :] = 4
    return labels
