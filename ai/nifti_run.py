"""One case from NIfTI files to labels: the pipeline without DICOM, for trying a model.

A file does not say its modality, nor whether a contrast agent was given: that is taken as the card asks,
with a note. What the card asks of geometry holds as for a series. There is no SEG and no SR, for there is no
patient and no source to cite.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ai.errors import SeriesRefused
from ai.geometry import VolumeGeometry
from ai.model import ModelSpec, Predictor, Progress, check_input, check_output
from ai.nifti_image import NiftiImage, read_nifti_image, write_labels
from ai.pipeline import RunOptions, Stages, judge
from ai.quality import segment_verdicts
from ai.record import model_row, segment_row
from ai.volume import LabelArray


@dataclass(frozen=True)
class NiftiOutcome:
    """A finished run.

    Attributes
    ----------
    labels
        uint8 ``(slices, rows, columns)`` on the grid of ``image``.
    run
        What ``run.json`` says, made of JSON types only.
    """

    image: NiftiImage
    labels: LabelArray
    run: Mapping[str, object]

    @property
    def geometry(self) -> VolumeGeometry:
        """Where the labels lie."""
        return self.image.channels[0].geometry


def run_nifti(
    files: Sequence[Path], model: Predictor, options: RunOptions, progress: Progress
) -> NiftiOutcome:
    """Read, segment and measure one case.

    Parameters
    ----------
    files
        One file for each channel in the card's order, or one file with all of them.

    Raises
    ------
    AiError
        CHANNELS_DO_NOT_FIT; what :func:`ai.nifti_image.read_nifti_image`, :func:`ai.model.check_input` and
        the model raise.
    """
    clock, spec = Stages(progress), model.spec
    modalities = spec.accepts.modalities
    with clock.stage("read"):
        image = read_nifti_image(files, "HU" if modalities == ("CT",) else "")
        _check(spec, image, files[0].name)
    with clock.stage("segment"):
        prediction = model.predict(image.channels, clock.within)
        check_output(spec, image.channels[0], prediction.labels)
    with clock.stage("measure"):
        measurements, quality = judge(spec, image.channels[0], prediction.labels, prediction.confidence)
    verdicts = segment_verdicts(spec, quality)
    run: dict[str, object] = {
        "segments": [
            segment_row(m, image.channels[0].unit, *verdicts[m.structure.key]) for m in measurements
        ],
        "quality": [finding.to_dict() for finding in quality],
        "source": {"files": [path.name for path in files]},
        "geometry": _geometry_row(image),
        "model": model_row(spec, model.device, prediction),
        "scalars": dict(prediction.scalars),
        "notes": [*image.notes, *_taken_for_granted(spec)],
        "stage_times_s": dict(clock.times_s),
        "software_version": options.software_version,
        "created_at": options.created_at.isoformat(),
        "intended_use": spec.intended_use,
        "limits": list(spec.limits),
    }
    return NiftiOutcome(image, prediction.labels, run)


def write_nifti_outcome(outcome: NiftiOutcome, folder: Path) -> None:
    """Write ``mask.nii.gz``, on the very grid of the input, and ``run.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    write_labels(folder / "mask.nii.gz", outcome.labels, outcome.image.stored)
    text = json.dumps(outcome.run, indent=2, allow_nan=False)
    (folder / "run.json").write_text(text + "\n", encoding="utf-8")


def _check(spec: ModelSpec, image: NiftiImage, name: str) -> None:
    """Channels and geometry against the card; what a file does not say is as the card asks."""
    channels = spec.accepts.channels
    if len(image.channels) != len(channels):
        reason = f"Model {spec.id} {spec.version} takes {len(channels)} images ({', '.join(channels)}); "
        raise SeriesRefused("CHANNELS_DO_NOT_FIT", f"{reason}{name} brings {len(image.channels)}.")
    one = spec.accepts.model_copy(update={"channels": ("image",), "contrast": "any"})
    facts = {"Modality": (spec.accepts.modalities[0],)}
    check_input(spec.model_copy(update={"accepts": one}), facts, image.channels[0].geometry)


def _taken_for_granted(spec: ModelSpec) -> list[str]:
    accepts = spec.accepts
    told = [f"A NIfTI file does not say its modality; it was taken for {' or '.join(accepts.modalities)}."]
    if accepts.contrast != "any":
        told.append(f"Nor does it say whether there was a contrast agent: {accepts.contrast} is assumed.")
    return told


def _geometry_row(image: NiftiImage) -> dict[str, object]:
    geometry = image.channels[0].geometry
    return {
        "reason": geometry.reason,
        "shape": list(geometry.shape),
        "spacing_mm": list(geometry.spacing_mm),
        "index_to_lps": geometry.index_to_lps.tolist(),
    }
