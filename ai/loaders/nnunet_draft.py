"""A card for an nnU-Net v2 results folder, drafted from what the folder itself says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ai.errors import ModelError
from ai.loaders.drafts import Draft
from ai.loaders.nnunet_plans import (
    Configuration,
    Labels,
    Results,
    read_configuration,
    read_labels,
    read_results,
)
from ai.terminology.naming import structure_entries, with_parts

NNUNET_REFERENCE = (
    "Isensee F, Jaeger PF, Kohl SAA, Petersen J, Maier-Hein KH. nnU-Net: a self-configuring method for deep "
    "learning-based biomedical image segmentation. Nat Methods 2021;18:203-211"
)
_CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth")
_MR = re.compile(r"\b(mri?|t1\w*|t2\w*|flair|adc|dwi|pd|swi|tof|mra)\b", re.IGNORECASE)
_PET = re.compile(r"\b(pet|pt|suv\w*|fdg)\b", re.IGNORECASE)
_HIGHEST = 255


@dataclass(frozen=True)
class Folder:
    """A results folder on disk, ``TRAINER__PLANS__CONFIGURATION``, and the folds found in it."""

    path: Path
    folds: tuple[int | str, ...]
    checkpoint: str
    results: Results
    configuration: Configuration
    labels: Labels

    def files(self) -> dict[str, Path]:
        """What of it the gateway needs, by name below the model's folder."""
        names = ["plans.json", "dataset.json", *(f"fold_{fold}/{self.checkpoint}" for fold in self.folds)]
        return {f"{self.path.name}/{name}": self.path / name for name in names}

    def part(self) -> dict[str, object]:
        """Its entry under ``nnunet.parts``."""
        return {"folder": self.path.name, "folds": list(self.folds), "checkpoint": self.checkpoint}


def draft(source: Path) -> Draft:
    """Draft the card of a results folder, or of the only one within a folder.

    The first stage of a cascade is looked for beside it.

    Raises ModelError NNUNET_RESULTS_INVALID where the folder is not complete, or holds several.
    """
    folder = open_folder(find_folder(source))
    section: dict[str, object] = {"axes": "SAR"}
    part, files, warnings = folder.part(), folder.files(), _warnings(folder)
    stage = folder.configuration.previous_stage
    if stage is not None:
        trainer, plans, _ = folder.path.name.split("__")
        first = open_folder(find_folder(folder.path.parent / f"{trainer}__{plans}__{stage}"))
        section["previous_stage"] = first.part()
        files.update(first.files())
    names = folder.labels.names
    numbers = {label: number for number, label in enumerate(names, start=1)}
    if any(label != number for label, number in numbers.items()):
        part["labels"] = numbers
    if len(numbers) > _HIGHEST:
        raise folder.results.error(f"it has {len(numbers)} labels, and a DICOM label map holds {_HIGHEST}")
    found = structure_entries({numbers[label]: name for label, name in names.items()})
    parts = {
        numbers[label]: [numbers[each] for each in inner] for label, inner in folder.labels.parts.items()
    }
    structures = with_parts(found.entries, parts)
    modality, guess = _modality(folder)
    fields = _fields(folder, modality) | {"nnunet": {**section, "parts": [part]}, "structures": structures}
    return Draft(fields, files, (*warnings, *guess), str(fields["title"]), found.names, found.uncoded)


def _fields(folder: Folder, modality: str) -> dict[str, object]:
    """What a card says besides its networks and structures."""
    dataset, configuration = folder.results.dataset, folder.configuration
    title = dataset.get("name") or folder.results.plans.get("dataset_name") or "nnU-Net"
    network = configuration.architecture.class_name.rpartition(".")[2]
    return {
        "version": "1.0.0",
        "title": f"{title} {configuration.name}"[:64],
        "loader": "nnunet",
        "algorithm": f"nnU-Net v2, {network}, configuration {configuration.name}, "
        f"{len(folder.folds)} fold(s)",
        "manufacturer": "unknown",
        "intended_use": "Research. Not for diagnosis.",
        "limits": ["Nothing is known here of the data that it was trained and tested on."],
        "references": [_reference(dataset), NNUNET_REFERENCE],
        "licence": _licence(dataset),
        "accepts": {
            "modalities": [modality],
            "channels": list(folder.results.channel_names),
            "resampled": ["GANTRY_TILT", "IRREGULAR_SPACING"],
        },
    }


def find_folder(source: Path) -> Path:
    """The results folder itself, or the only one below a folder; raises as :func:`draft`."""
    if (source / "plans.json").is_file() and any(source.glob("fold_*")):
        return source
    found = sorted(path.parent for path in source.glob("*/plans.json") if any(path.parent.glob("fold_*")))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise ModelError(
            "NNUNET_RESULTS_INVALID",
            f"{source} is no results folder of nnU-Net v2 (plans.json, dataset.json, fold_0 …); those in it: "
            f"{names}. Name one of them.",
        )
    return found[0]


def open_folder(path: Path) -> Folder:
    """Read the two JSON files of a results folder and see which folds are there; raises as :func:`draft`."""
    content = {}
    for name in ("plans.json", "dataset.json"):
        try:
            content[name] = (path / name).read_bytes()
        except OSError as error:
            raise ModelError(
                "NNUNET_RESULTS_INVALID", f"{path / name} cannot be read: {error.strerror}."
            ) from error
    results = read_results(content["plans.json"], content["dataset.json"], path.name)
    checkpoint, folds = _folds(path, results)
    configuration = read_configuration(results, _configuration_name(path, results))
    return Folder(path, folds, checkpoint, results, configuration, read_labels(results))


def _folds(path: Path, results: Results) -> tuple[str, tuple[int | str, ...]]:
    """The checkpoint's name and the folds that have it; ``all`` only where there is no other."""
    for checkpoint in _CHECKPOINTS:
        names = sorted(found.parent.name.removeprefix("fold_") for found in path.glob(f"fold_*/{checkpoint}"))
        numbers = tuple(int(name) for name in names if name.isdigit())
        if numbers or "all" in names:
            return checkpoint, numbers or ("all",)
    raise results.error(f"no fold has {' or '.join(_CHECKPOINTS)}")


def _configuration_name(path: Path, results: Results) -> str:
    parts = path.name.split("__")
    if len(parts) == 3 and parts[2] in results.configuration_names:
        return parts[2]
    if len(results.configuration_names) == 1:
        return results.configuration_names[0]
    raise results.error(
        "its name does not say which configuration it is; nnU-Net names it TRAINER__PLANS__CONFIGURATION, "
        f"and there are {', '.join(results.configuration_names)}"
    )


def _warnings(folder: Folder) -> list[str]:
    """What a person must look at."""
    found = []
    reader = str(folder.results.plans.get("image_reader_writer", ""))
    if reader != "NibabelIOWithReorient":
        found.append(
            f"nnU-Net read the training images with {reader or 'an unknown reader'}, which keeps the order "
            "of their axes; nnunet.axes says SAR, which is right for NIfTI files in RAS+ order: check it"
        )
    if len(folder.folds) > 1:
        found.append(f"{len(folder.folds)} folds are averaged, which takes so many times as long")
    return [*found, *folder.labels.doubts]


def _modality(folder: Folder) -> tuple[str, list[str]]:
    """DICOM modality of the images, and a warning where it is a guess."""
    names = " ".join(folder.results.channel_names).replace("_", " ")
    if folder.configuration.normalisations[0].scheme == "CTNormalization":
        return "CT", []
    if _MR.search(names):
        return "MR", []
    if _PET.search(names):
        return "PT", ["the values are taken as they are in the files; set accepts.scale to suv for SUVbw"]
    return "MR", [f"the channels are named {names!r}; accepts.modalities says MR, which is a guess"]


def _reference(dataset: Mapping[str, object]) -> str:
    return str(dataset.get("reference") or dataset.get("description") or "No reference is given.")


def _licence(dataset: Mapping[str, object]) -> dict[str, str]:
    """Terms of a model that says nothing of them must be looked at by a person."""
    terms = str(dataset.get("licence") or dataset.get("license") or "")
    return {
        "spdx": "LicenseRef-unknown",
        "commercial": "contract",
        "attribution": f"Licence of the data set: {terms}" if terms else "",
    }
