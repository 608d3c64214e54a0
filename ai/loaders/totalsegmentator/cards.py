"""Cards for TotalSegmentator's tasks: the parts, merged labels, localiser, codes and terms of each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ai.errors import ModelError
from ai.loaders.drafts import Draft
from ai.loaders.nnunet_draft import NNUNET_REFERENCE
from ai.loaders.totalsegmentator.tasks import Network, Task, table
from ai.terminology.naming import structure_entries

_REFERENCES = {
    "CT": "Wasserthal J, Breit HC, Meyer MT, et al. TotalSegmentator: Robust Segmentation of 104 Anatomic "
    "Structures in CT Images. Radiol Artif Intell 2023;5:e230024",
    "MR": "Akinci D'Antonoli T, Berger LK, Indrakanti AK, et al. TotalSegmentator MRI: Robust "
    "Sequence-independent Segmentation of Multiple Anatomic Structures in MRI. Radiology 2025;314:e241613",
}
_TERMS = {
    "open": ("Apache-2.0", "yes"),
    "contract": ("LicenseRef-TotalSegmentator", "contract"),
    "non-commercial": ("CC-BY-NC-4.0", "no"),
}
_CHECKPOINT = "checkpoint_final.pth"
_NAMES = {
    "annulus": "aortic_annulus",
    "annulus_proper": "aortic_annulus",
    "bridge": "dental_bridge",
    "crown": "dental_crown",
    "implant": "dental_implant",
    "sinotubular_junction": "aortic_sinotubular_junction",
    "ventricle": "brain_ventricle",
}
"""Classes whose names say too little outside of their task."""


def draft_task(task: str, source: Path) -> Draft:
    """What registering a task from a folder of downloaded weights yields; see :func:`card_fields`."""
    return card_fields(task, source)


def card_fields(task: str, weights_folder: Path) -> Draft:
    """The card of a task, without id and digests, and the files that it needs.

    Parameters
    ----------
    task
        As ``TotalSegmentator --task`` has it; with ``_fast`` or ``_fastest`` for these modes, and
        ``total_v3_small`` for ``--model_size small``.
    weights_folder
        Where ``totalseg_download_weights`` put the folders ``DatasetNNN_…``, usually
        ``~/.totalsegmentator/nnunet/results``.

    Raises
    ------
    ModelError
        ``TASK_UNKNOWN``; ``WEIGHTS_MISSING`` with the folders that are not there.
    """
    entry = table().task(task)
    parts = dict(_all_parts(task))
    missing = [name for name in parts if not (weights_folder / name / "plans.json").is_file()]
    if missing:
        raise ModelError(
            "WEIGHTS_MISSING",
            f"The task {task} needs {', '.join(missing)} in {weights_folder}. "
            "`totalseg_download_weights` puts them there.",
        )
    folds = {name: _folds(weights_folder / name, wanted) for name, wanted in parts.items()}
    found = structure_entries({n: _NAMES.get(name, name) for n, name in enumerate(entry.classes, start=1)})
    fields, files = _fields(task, entry, folds, found.entries), _files(weights_folder, folds)
    names = dict(enumerate(entry.classes, start=1))
    return Draft(fields, files, (), f"totalsegmentator-{task}", names, found.uncoded)


def results_folder(entry: Task, network: Network) -> str:
    """Where a network's results lie below the folder of weights."""
    dataset = table().folders[network.id]
    return f"{dataset}/{entry.trainer}__{entry.plans}__{entry.configuration}"


def _fields(
    task: str, entry: Task, folds: dict[str, list[int]], structures: list[dict[str, object]]
) -> dict[str, object]:
    spdx, commercial = _TERMS[entry.licence]
    return {
        "version": table().source.rpartition(" ")[2],
        "title": f"TotalSegmentator {task}"[:64],
        "loader": "nnunet",
        "algorithm": f"{table().source}, task {task}: {len(entry.networks)} nnU-Net v2 network(s)",
        "manufacturer": "University Hospital Basel",
        "intended_use": "Research. Not a medical device and not for diagnosis.",
        "limits": _limits(entry),
        "references": [_REFERENCES[entry.modality], NNUNET_REFERENCE],
        "licence": {
            "spdx": spdx,
            "commercial": commercial,
            "citation": _REFERENCES[entry.modality],
            "attribution": table().attribution,
        },
        "accepts": {
            "modalities": [entry.modality],
            "resampled": ["GANTRY_TILT", "IRREGULAR_SPACING"],
        },
        "nnunet": _section(entry, folds),
        "structures": structures,
    }


def _limits(entry: Task) -> list[str]:
    limits = ["Made for adults; small structures and diseased anatomy are found less well."]
    if entry.resample_mm is not None:
        spacing = entry.resample_mm
        told = f"{spacing:g}" if isinstance(spacing, float) else " × ".join(f"{mm:.3g}" for mm in spacing)
        limits.append(f"Boundaries are found on a grid of {told} mm.")
    if entry.crop is not None:
        limits.append(f"Looks only around {', '.join(entry.crop.classes)}; without these nothing is found.")
    return limits


def _section(entry: Task, folds: dict[str, list[int]]) -> dict[str, object]:
    """The section ``nnunet`` of a task, with those of the tasks that it needs inside."""
    section: dict[str, object] = {
        "axes": "SAR",
        "step": entry.step,
        "whole_numbers": True,
        "parts": [_part(entry, network, folds) for network in entry.networks],
    }
    if entry.resample_mm is not None:
        spacing = entry.resample_mm
        section["resample_mm"] = spacing if isinstance(spacing, float) else list(spacing)
    if entry.crop is not None:
        localiser = table().task(entry.crop.task)
        section["crop"] = {
            "localiser": _section(localiser, folds),
            "labels": [localiser.numbers[name] for name in entry.crop.classes],
            "margin_mm": entry.crop.margin_mm,
            "within": [localiser.numbers[name] for name in entry.crop.within],
            "within_mm": entry.crop.within_mm,
        }
    if entry.after:
        section["after"] = [
            {
                "op": after.op,
                "structures": [entry.numbers[name] for name in after.classes],
                "volume_ml": after.volume_ml,
            }
            for after in entry.after
        ]
    if entry.vertebral_bodies is not None:
        clip = entry.vertebral_bodies.clip
        section["vertebral_bodies"] = {
            "first": entry.numbers["vertebrae_C1"],
            "lowest_lumbar": entry.numbers["vertebrae_L5"],
            "clip": _section(table().task(clip), folds) if clip else None,
        }
    return section


def _part(entry: Task, network: Network, folds: dict[str, list[int]]) -> dict[str, object]:
    folder = results_folder(entry, network)
    names = network.labels or entry.classes
    labels = {label: entry.numbers[name] for label, name in enumerate(names, start=1)}
    return {"folder": folder, "folds": folds[folder], "checkpoint": _CHECKPOINT, "labels": labels}


def _all_parts(task: str) -> Iterator[tuple[str, tuple[int, ...] | None]]:
    """Results folder and folds of each network of a task, and of those that it needs."""
    entry = table().task(task)
    for network in entry.networks:
        yield results_folder(entry, network), entry.folds
    if entry.crop is not None:
        yield from _all_parts(entry.crop.task)
    if entry.vertebral_bodies is not None and entry.vertebral_bodies.clip:
        yield from _all_parts(entry.vertebral_bodies.clip)


def _folds(folder: Path, wanted: tuple[int, ...] | None) -> list[int]:
    there = sorted(
        int(name)
        for path in folder.glob(f"fold_*/{_CHECKPOINT}")
        if (name := path.parent.name.removeprefix("fold_")).isdigit()
    )
    missing = sorted(set(wanted or ()) - set(there))
    if missing or not there:
        which = ", ".join(f"fold_{fold}" for fold in missing) or "any fold"
        raise ModelError("WEIGHTS_MISSING", f"{folder} lacks {which}/{_CHECKPOINT}.")
    return list(wanted) if wanted is not None else there


def _files(weights_folder: Path, folds: dict[str, list[int]]) -> dict[str, Path]:
    names = [
        f"{folder}/{name}"
        for folder, numbers in folds.items()
        for name in ("plans.json", "dataset.json", *(f"fold_{fold}/{_CHECKPOINT}" for fold in numbers))
    ]
    return {name: weights_folder / name for name in names}
