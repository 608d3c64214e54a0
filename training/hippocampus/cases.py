"""The training cases: 200 MR crops of the Medical Segmentation Decathlon, task 4."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
import torch.nn.functional as F

FOLDS = 5
PATCH = (40, 56, 40)
"""Voxels of 1 mm, (x, y, z) towards right, anterior, superior: most of a crop."""
CLASSES = 3
_CLIP_PERCENTILES = (1, 99)


@dataclass(frozen=True)
class Case:
    """One image and its labels, both ``(x, y, z)`` towards R, A, S in voxels of 1 mm."""

    name: str
    image: torch.Tensor
    labels: torch.Tensor


def load_cases(folder: Path) -> list[Case]:
    """Every case of ``folder/images`` with its ``folder/labels``, in the order of their names.

    Raises
    ------
    FileNotFoundError
        No images there, or labels missing.
    """
    paths = sorted((folder / "images").glob("*.nii.gz"))
    if not paths:
        raise FileNotFoundError(f"{folder / 'images'} holds no .nii.gz files")
    return [_load(path, folder / "labels" / path.name) for path in paths]


def _load(image_path: Path, label_path: Path) -> Case:
    image, labels = _canonical(image_path), _canonical(label_path)
    return Case(
        image_path.name.removesuffix(".nii.gz"),
        torch.from_numpy(normalise(np.asarray(image.dataobj, np.float32))),
        torch.from_numpy(np.asarray(labels.dataobj).astype(np.int64)),
    )


def _canonical(path: Path) -> Any:
    return nib.as_closest_canonical(nib.load(path))  # type: ignore[no-untyped-call]


def normalise(image: np.ndarray) -> np.ndarray:
    """Clip to the 1st and 99th percentile, then zero mean and unit variance; as the bundle does."""
    low, high = np.percentile(image, _CLIP_PERCENTILES)
    clipped = (np.clip(image, low, high) - low) / (high - low)
    return np.asarray((clipped - clipped.mean()) / clipped.std(), np.float32)


def split(cases: list[Case], fold: int) -> tuple[list[Case], list[Case]]:
    """Training and validation cases of fold 0 to 4, one patient in one fold only."""
    order = np.random.RandomState(0).permutation(len(cases))
    held_out = set(order[fold::FOLDS].tolist())
    train = [case for index, case in enumerate(cases) if index not in held_out]
    return train, [cases[index] for index in sorted(held_out)]


def padded(case: Case) -> Case:
    """At least as large as a patch, the border filled with zeros on both sides alike."""
    pad: list[int] = []
    for have, want in zip(reversed(case.image.shape), reversed(PATCH), strict=True):
        missing = max(0, want - have)
        pad += [missing // 2, missing - missing // 2]
    return Case(case.name, F.pad(case.image, pad), F.pad(case.labels, pad))
