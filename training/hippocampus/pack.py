"""Weights and scores to a MONAI bundle with its card: the same input gives the same bytes.

``python -m training.hippocampus.pack --data FOLDER --trained FOLDER [--models config/models]``
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

import nibabel as nib
import numpy as np
import torch
from scipy import ndimage

from ai.loaders.weights import read_state
from ai.model import pin
from training.hippocampus.cases import FOLDS
from training.hippocampus.fit import NETWORK, make_network

EPOCHS = 30
SEED = 20261121
VERSION = "1.0.0"
MODELS = Path(__file__).parents[2] / "config" / "models"
_SOURCES = Path(__file__).with_name("bundle")
_FILES = ("LICENSE", "configs/inference.json", "configs/metadata.json", "docs/README.md", "models/model.pt")
_STRUCTURES = ("anterior_hippocampus", "posterior_hippocampus")
_MONAI, _TORCH, _NUMPY = "1.6.1", "2.13.0", "2.4.6"
_PERCENTILES = (0.5, 99.5)
_MARGIN = 0.25
_NOT_SCORED = "These weights were not cross-validated yet; make train-hippocampus does it."


def pack(data: Path, trained: Path, models: Path) -> Path:
    """Write ``models/hippocampus`` and ``models/hippocampus.yaml``.

    Parameters
    ----------
    data
        Folder of the training cases; ranges of volume and extent in the card come from its labels.
    trained
        Folder with ``model.pt`` and, after the cross-validation, ``scores.json``.

    Returns
    -------
    The card.
    """
    folder = models / "hippocampus"
    for part in ("configs", "docs", "models"):
        shutil.rmtree(folder / part, ignore_errors=True)
        (folder / part).mkdir(parents=True)
    scores_path = trained / "scores.json"
    scores = json.loads(scores_path.read_text()) if scores_path.exists() else None
    facts = _facts_of_training(data)
    words = {**_words(scores), **facts, "epochs": EPOCHS, "seed": SEED, "version": VERSION}
    shutil.copyfile(_SOURCES / "LICENSE", folder / "LICENSE")
    shutil.copyfile(_SOURCES / "inference.json", folder / "configs" / "inference.json")
    _check_network(folder / "configs" / "inference.json")
    (folder / "models" / "model.pt").write_bytes(_weights((trained / "model.pt").read_bytes()))
    _write_json(folder / "configs" / "metadata.json", _metadata(scores, facts["number_of_cases"]))
    _fill(_SOURCES / "README.md", folder / "docs" / "README.md", words)
    words["files"] = "".join(f"  {name}: {digest}\n" for name, digest in pin(folder, _FILES).items()).rstrip()
    card = models / "hippocampus.yaml"
    _fill(_SOURCES / "card.yaml", card, words)
    return card


def _weights(content: bytes) -> bytes:
    """A checked state dictionary in float32; its bytes depend on the weights only."""
    state = read_state(content, "model.pt")
    make_network().load_state_dict(state)
    buffer = io.BytesIO()
    torch.save({name: tensor.float().contiguous() for name, tensor in sorted(state.items())}, buffer)
    return buffer.getvalue()


def _check_network(path: Path) -> None:
    """The bundle's ``network_def`` must be the network that was trained."""
    written = json.loads(path.read_text())["network_def"]
    if written != {"_target_": "DynUNet", **NETWORK}:
        raise ValueError(f"network_def of {path} is not training.hippocampus.fit.NETWORK")


def _words(scores: Mapping[str, Any] | None) -> dict[str, str]:
    """What card and documents say about the score; every number is from ``scores.json``."""
    if scores is None:
        return {"score": _NOT_SCORED, "few": "How well it does on the worst case is not known yet."}
    score = (
        f"Mean Dice {scores['mean_dice']:.3f} (anterior {scores['anterior_dice']:.3f}, posterior "
        f"{scores['posterior_dice']:.3f}) by {scores['folds']}-fold cross-validation over "
        f"{scores['number_of_cases']} cases; the worst case has {scores['worst_dice']:.3f}."
    )
    below = sum(np.mean(values) < 0.85 for values in scores["cases"].values())
    few = f"{below} of the {scores['number_of_cases']} cases, when held out, had a mean Dice below 0.85."
    return {"score": score, "few": few}


def _facts_of_training(data: Path) -> dict[str, str]:
    """Number of cases, extents, and the quality rules that follow from the expert labels."""
    paths = sorted((data / "labels").glob("*.nii.gz"))
    if not paths:
        raise FileNotFoundError(f"{data / 'labels'} holds no .nii.gz files")
    measured = [_measure(path) for path in paths]
    extents_mm = np.array([extent for extent, _, _ in measured])
    volumes_ml = np.array([volumes for _, volumes, _ in measured])
    least_share = min(share for _, _, share in measured)
    spans = zip(extents_mm.min(0), extents_mm.max(0), strict=True)
    return {
        "number_of_cases": str(len(paths)),
        "extents": " × ".join(f"{low:.0f}–{high:.0f}" for low, high in spans),
        "least_share": f"{np.floor(least_share * 1000) / 1000:.3f}",
        "quality": _quality(volumes_ml),
    }


def _measure(path: Path) -> tuple[list[float], list[float], float]:
    """Extents mm along R, A, S; volumes mL of both structures; the smaller share of the largest piece."""
    image: Any = nib.as_closest_canonical(nib.load(path))  # type: ignore[no-untyped-call]
    labels = np.asarray(image.dataobj).astype(np.uint8)
    spacing_mm = np.asarray(image.header.get_zooms(), np.float64)
    volumes, shares = [], []
    for number in (1, 2):
        pieces, _ = ndimage.label(labels == number, np.ones((3, 3, 3)))
        sizes = np.bincount(pieces.reshape(-1))[1:]
        volumes.append(float(sizes.sum() * spacing_mm.prod() / 1000))
        shares.append(float(sizes.max() / sizes.sum()))
    return list(np.array(labels.shape) * spacing_mm), volumes, min(shares)


def _quality(volumes_ml: np.ndarray) -> str:
    """The quality section of the card, YAML."""
    lines = []
    for key, column in zip(_STRUCTURES, volumes_ml.T, strict=True):
        low, high = np.percentile(column, _PERCENTILES)
        least, most = low * (1 - _MARGIN), high * (1 + _MARGIN)
        lines.append(
            f"  - {{kind: volume_ml, structures: [{key}], minimum: {least:.2f}, maximum: {most:.2f}}}"
        )
        lines.append(f"  - {{kind: volume_ml, structures: [{key}], minimum: 0.10, verdict: FAIL}}")
    both = ", ".join(_STRUCTURES)
    lines.append(f"  - {{kind: largest_share, structures: [{both}], minimum: 0.90}}")
    lines.append(f"  - {{kind: complete, structures: [{both}], verdict: PARTIAL}}")
    lines.append(f"  - {{kind: order, structures: [{both}], axis: anterior_posterior, verdict: FAIL}}")
    return "\n".join(lines)


def _metadata(scores: Mapping[str, Any] | None, number_of_cases: str) -> dict[str, Any]:
    """``configs/metadata.json`` as MONAI's schema has it."""
    image = {
        "type": "image",
        "format": "magnitude",
        "modality": "MR",
        "num_channels": 1,
        "spatial_shape": [40, 56, 40],
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": True,
        "channel_def": {"0": "image"},
    }
    pred = {
        **image,
        "format": "segmentation",
        "num_channels": 3,
        "value_range": [0, 2],
        "channel_def": {"0": "background", "1": "anterior hippocampus", "2": "posterior hippocampus"},
    }
    del pred["modality"]
    scored = {} if scores is None else {"cross_validation": {k: v for k, v in scores.items() if k != "cases"}}
    return {
        "schema": "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
        "meta_schema_20240725.json",
        "version": VERSION,
        "changelog": {VERSION: "first version"},
        "monai_version": _MONAI,
        "pytorch_version": _TORCH,
        "numpy_version": _NUMPY,
        "required_packages_version": {"nibabel": "5.4.2"},
        "name": "Hippocampus (anterior, posterior)",
        "task": "Segmentation of the anterior and posterior hippocampus on T1-weighted MR",
        "description": "Residual 3D U-Net for MR crops around one hippocampus, 1 mm",
        "authors": "DICOM AI Gateway",
        "copyright": "CC BY-SA 4.0",
        "data_source": "Medical Segmentation Decathlon, task 4; CC BY-SA 4.0",
        "data_type": "nibabel",
        "image_classes": "one channel, T1-weighted MR",
        "label_classes": "1 anterior hippocampus, 2 posterior hippocampus",
        "pred_classes": "0 background, 1 anterior hippocampus, 2 posterior hippocampus",
        "eval_metrics": scored,
        "training": {"epochs": EPOCHS, "seed": SEED, "number_of_cases": int(number_of_cases), "folds": FOLDS},
        "intended_use": "Research and demonstration. Not for diagnosis.",
        "references": ["Simpson AL et al. arXiv:1902.09063, 2019"],
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": pred}},
    }


def _fill(source: Path, target: Path, words: Mapping[str, object]) -> None:
    target.write_text(Template(source.read_text(encoding="utf-8")).substitute(words), encoding="utf-8")


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Pack what ``python -m training.hippocampus`` has trained."""
    parser = argparse.ArgumentParser(prog="training.hippocampus.pack", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with images/ and labels/")
    parser.add_argument("--trained", type=Path, required=True, help="folder with model.pt and scores.json")
    parser.add_argument("--models", type=Path, default=MODELS, help="folder of cards")
    options = parser.parse_args()
    print(pack(options.data, options.trained, options.models))


if __name__ == "__main__":
    main()
