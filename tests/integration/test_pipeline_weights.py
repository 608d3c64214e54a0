"""A pipeline of two networks with the weights of their authors: find the brain, then its parts in its box."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from ai.loaders import load_model
from ai.model import load_card
from ai.nifti_image import read_nifti_image
from tests import small_models
from tests.pipelines import write_pipeline

SHARED = Path(__file__).parents[3] / "shared" / "data"
CARDS = Path(__file__).parents[1] / "models"
T1 = SHARED / "fixture" / "mr_t1_brainchop_sample" / "t1_crop.nii.gz"
WEIGHTS = SHARED / "weights" / "brainchop_meshnet"
MODELS = {"brain-tissue": "model5_gw_ae", "brain-structures": "model18cls"}
VOLUMES_ML = {  # of adults, both sides
    "thalamus": (10, 22),
    "hippocampus": (5, 11),
    "brain_stem": (15, 30),
    "cerebellar_cortex": (75, 150),
    "lateral_ventricle": (5, 100),
    "putamen": (6, 15),
}

pytestmark = pytest.mark.skipif(
    not (T1.is_file() and WEIGHTS.is_dir()),
    reason="the real images and weights of ../shared/data are not on this machine",
)


def test_the_parts_of_a_real_brain_are_found_in_the_box_of_its_tissue(tmp_path: Path) -> None:
    for name, folder in MODELS.items():
        card = load_card(Path(shutil.copy(CARDS / f"{name}.yaml", tmp_path)))
        (tmp_path / name).mkdir()
        for file in card.files:
            shutil.copyfile(WEIGHTS / folder / file, tmp_path / name / file)
    stages = [
        {"name": "brain", "model": "brain-tissue"},
        {
            "name": "parts",
            "model": "brain-structures",
            "inside": "brain",
            "margin_mm": 10.0,
            "within_mm": 5.0,
            "keep": {key: key for key in VOLUMES_ML},
        },
    ]
    accepts = {"modalities": ["MR"], "minimum_slices": 60}
    spec = write_pipeline(tmp_path, "brain-parts", tuple(VOLUMES_ML), stages, accepts=accepts)
    volume = read_nifti_image([T1]).channels[0]
    found = small_models.predict(load_model(spec, "cpu", small_models.finder(tmp_path)), volume)
    voxel_ml = float(np.prod(volume.geometry.spacing_mm)) / 1000.0
    for key, (low, high) in VOLUMES_ML.items():
        assert low < np.count_nonzero(found.labels == spec.numbers()[key]) * voxel_ml < high, key
    _, parts = found.facts["stages"]  # type: ignore[misc]
    sizes = [stop - start for start, stop in parts["box"]]
    assert np.prod(sizes) < 0.5 * volume.voxels.size  # without what surrounds the brain
    outside = np.ones(found.labels.shape, np.bool_)
    outside[tuple(slice(*ends) for ends in parts["box"])] = False
    assert not found.labels[outside].any()
