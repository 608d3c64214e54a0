"""Cards and files of models for tests, written as `aigw model add` would have."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import yaml

from ai.model import ModelSpec, load_card, pin
from ai.volume import Volume
from tests.runs import even_geometry

COMMON = {
    "version": "1.0.0",
    "title": "Test",
    "algorithm": "A network of a test",
    "manufacturer": "DICOM AI Gateway",
    "intended_use": "Tests.",
    "limits": [],
    "references": [],
    "licence": {"spdx": "Apache-2.0", "commercial": "yes"},
    "accepts": {"modalities": ["CT"]},
    "structures": [
        {"number": 1, "key": "body", "label": "Body"},
        {"number": 2, "key": "bone", "label": "Bone"},
    ],
}


def write_model(folder: Path, name: str, files: Mapping[str, bytes], **sections: object) -> ModelSpec:
    """A card ``name.yaml`` and its pinned files in ``folder``, read back."""
    for each, content in files.items():
        path = folder / name / each
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    fields = {**COMMON, "id": name, **sections, "files": pin(folder / name, tuple(files))}
    card = folder / f"{name}.yaml"
    card.write_text(yaml.safe_dump(fields, sort_keys=False), encoding="utf-8")
    return load_card(card)


def volume(voxels: npt.NDArray[np.float32], spacing_mm: float = 1.0, unit: str = "HU") -> Volume:
    """Voxels ``(slices, rows, columns)`` on an even axial grid."""
    matrix = np.diag([1.0, 1.0, 1.0, 1.0])
    matrix[:3, :3] = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]]) * spacing_mm
    return Volume(voxels, even_geometry(matrix, voxels.shape), unit)
