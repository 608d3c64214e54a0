"""The recipes of docs/models.md, followed to the letter by a shell."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml

from ai.loaders.stages import check_pipeline
from ai.model import ModelSpec, find_card
from gateway.settings import load_settings
from tests.nnunet_folders import classes, configuration, dataset, plans, write_results

REPOSITORY = Path(__file__).parent.parent.parent
TEXT = (REPOSITORY / "docs" / "models.md").read_text(encoding="utf-8")
RECIPES = dict(re.findall(r"<!-- run: (\w+) -->\n```sh\n(.*?)```", TEXT, re.DOTALL))
SHAPE = (34, 40, 36)


class Threshold(torch.nn.Module):
    """Structure 1 above 0 HU, structure 2 above 500 HU, for values scaled from -1000..1000 to 0..1."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.cat([image * 0, (image - 0.5) * 10, (image - 0.625) * 20 - 0.0], 1)


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    """Two NIfTI images of a ball in a ball, and their labels."""
    for folder in ("images", "labels"):
        (tmp_path / "cases" / folder).mkdir(parents=True)
    matrix = np.diag([2.0, 2.0, 2.0, 1.0])
    place = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"), -1)
    for number, centre in enumerate(((16, 20, 18), (18, 18, 16)), start=1):
        distance = np.linalg.norm(place - centre, axis=-1)
        labels = np.select([distance < 6, distance < 12], [2, 1], 0).astype(np.uint8)
        values = np.array([-900, 200, 800], np.int16)[labels]
        name = f"case_{number}.nii.gz"
        nib.save(nib.Nifti1Image(values, matrix), tmp_path / "cases" / "images" / name)
        nib.save(nib.Nifti1Image(labels, matrix), tmp_path / "cases" / "labels" / name)
    return tmp_path


def follow(recipe: str, folder: Path) -> str:
    """Run a recipe as it stands; what it printed."""
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),
        "EDITOR": "true",
        "COLUMNS": "140",
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", RECIPES[recipe]],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for number in (1, 2):
        written = nib.load(folder / "out" / f"case_{number}" / "mask.nii.gz")
        assert written.shape == SHAPE
    return done.stdout


def test_there_is_a_recipe_of_about_ten_lines_for_each_kind() -> None:
    assert set(RECIPES) == {"bundle", "nnunet", "onnx"}
    assert all(len(recipe.splitlines()) <= 12 for recipe in RECIPES.values())


def test_the_pipeline_is_a_card_that_fits_the_models_it_names() -> None:
    (text,) = re.findall(r"<!-- card: pipeline -->\n```yaml\n(.*?)```", TEXT, re.DOTALL)
    spec = ModelSpec.model_validate({"id": "lung-nodules", **yaml.safe_load(text)})
    assert [structure.coded.key for structure in spec.structures] == list(spec.numbers())
    nodules = spec.model_copy(update={"id": "my-nodules", "structures": spec.structures[2:], "digest": ""})
    lungs = find_card("ct-tissue").model_copy(update={"digest": ""})
    check_pipeline(spec, {"lungs": lungs, "nodules": nodules})


def test_the_settings_and_rules_that_it_shows_are_valid(tmp_path: Path) -> None:
    shown = [yaml.safe_load(text) for text in re.findall(r"(?<!-->\n)```yaml\n(.*?)```", TEXT, re.DOTALL)]
    (rules,) = (part["quality"] for part in shown if "quality" in part)
    spec = find_card("ct-tissue").model_dump(exclude={"digest"}, mode="json")
    names = [{"number": n, "key": key, "label": key} for n, key in enumerate(("liver", "spleen"), start=1)]
    assert len(ModelSpec.model_validate(spec | {"structures": names, "quality": rules}).quality) == len(rules)
    for part in (part for part in shown if "routes" in part):
        whole = {"version": 1, "data_dir": "data", "dicom": {"ae_title": "AIGW"}, **part, "model_dirs": []}
        whole["peers"] = {
            "pacs": {"ae_title": "PACS", "host": "127.0.0.1", "port": 104, "roles": ["destination"]}
        }
        path = tmp_path / "gateway.yaml"
        path.write_text(yaml.safe_dump(whole), encoding="utf-8")
        assert load_settings(path, {}).routes[0].model == "mine"


def test_an_onnx_file(cases: Path) -> None:
    (cases / "graph").mkdir()
    image = torch.zeros(1, 1, 32, 32, 32)
    torch.onnx.export(
        Threshold().eval(), (image,), str(cases / "graph" / "network.onnx"), dynamo=True, external_data=False
    )
    assert "1.000" in follow("onnx", cases)


def test_an_nnunet_folder(cases: Path) -> None:
    pytest.importorskip("nnunetv2", reason="nnunetv2, which builds the network of the test, is not installed")
    trained = "nnUNet_results/Dataset900_Boxes/nnUNetTrainer__nnUNetPlans__3d_fullres"
    plan = plans({"3d_fullres": configuration((16, 16, 16), (2.0, 2.0, 2.0))})
    write_results(cases / trained, plan, dataset(classes(2)), "3d_fullres")
    follow("nnunet", cases)
    assert "loader: nnunet" in (cases / "models" / "mine.yaml").read_text()


def test_a_bundle(cases: Path) -> None:
    follow_bundle = REPOSITORY / "config" / "models" / "hippocampus"
    target = cases / "my_bundle"
    for path in follow_bundle.rglob("*"):
        if path.is_file():
            copy = target / path.relative_to(follow_bundle)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    follow("bundle", cases)
    assert "loader: monai_bundle" in (cases / "models" / "mine.yaml").read_text()
