"""Structures that share voxels: a whole holds its parts, from the source of a model to its numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from ai.compare import compare_files
from ai.errors import ModelError
from ai.loaders import load_model
from ai.loaders.graph_draft import draft as draft_graph
from ai.loaders.nnunet_draft import draft as draft_nnunet
from ai.loaders.nnunet_plans import Labels, Results, read_labels
from ai.loaders.stages import check_pipeline
from ai.model import ModelSpec, load_card
from ai.pipeline import judge
from ai.volume import Volume
from gateway.cli.model_add import Wishes, add_model
from tests import small_models
from tests.model_files import COMMON, write_model
from tests.nnunet_folders import configuration, dataset, plans, write_results
from tests.pipelines import write_pipeline

FULL = "3d_fullres"
GLIOMA = {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": [3]}
KEYS = ("brain_whole_tumor", "brain_tumor_core", "brain_enhancing_tumor")
SHAPE = (20, 24, 28)
INCLUDES = {1: (2, 3), 2: (3,), 3: ()}


class Nested(nn.Module):
    """Three regions, each within the one before, for an image that is brightest in its middle."""

    def forward(self, image: Tensor) -> Tensor:
        return torch.cat([image - 100.0, image - 200.0, image - 300.0], 1)


@pytest.fixture(scope="module")
def image() -> Volume:
    place = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"), -1)
    distance = np.linalg.norm((place - (9, 13, 12)) / (1.0, 1.2, 1.3), axis=-1)
    return small_models.volume_of(np.maximum(400 - 45 * distance, 0).astype(np.float32), (2.0, 1.5, 1.0))


@pytest.fixture(scope="module")
def glioma(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    entries = small_models.structures(*KEYS)
    for entry in entries:
        entry["includes"] = list(INCLUDES[int(str(entry["number"]))])
    return write_model(
        tmp_path_factory.mktemp("glioma"),
        "glioma",
        {"network.pt2": small_models.exported(Nested(), torch.zeros(1, 1, 16, 18, 20))},
        loader="graph",
        structures=entries,
        graph={"file": "network.pt2"},
        recipe={
            "grid": {"axes": "SPL"},
            "tiles": {"size": None},
            "precision": "float32",
            "output": {"kind": "regions"},
        },
    )


@pytest.fixture(scope="module")
def labels(glioma: ModelSpec, image: Volume) -> npt.NDArray[np.uint8]:
    return small_models.predict(load_model(glioma), image).labels


def test_each_region_comes_back_whole_though_the_label_map_has_one_number_a_voxel(
    glioma: ModelSpec, image: Volume, labels: npt.NDArray[np.uint8]
) -> None:
    for structure, threshold in zip(glioma.structures, (100.0, 200.0, 300.0), strict=True):
        np.testing.assert_array_equal(np.isin(labels, structure.numbers), image.voxels > threshold)
        assert (labels == structure.number).sum() < (image.voxels > threshold).sum() or not structure.includes


def test_measures_and_rules_count_the_whole(
    glioma: ModelSpec, image: Volume, labels: npt.NDArray[np.uint8]
) -> None:
    measurements, findings = judge(glioma, image, labels, {})
    for measurement, threshold in zip(measurements, (100.0, 200.0, 300.0), strict=True):
        inside = image.voxels > threshold
        assert measurement.voxel_count == inside.sum()
        assert measurement.volume_ml == pytest.approx(inside.sum() * 0.003)
        assert measurement.intensity is not None
        assert measurement.intensity.mean == pytest.approx(float(image.voxels[inside].mean()), rel=1e-5)
    assert {finding.rule for finding in findings} == {"complete"}


def test_a_comparison_takes_the_whole(
    glioma: ModelSpec, image: Volume, labels: npt.NDArray[np.uint8], tmp_path: Path
) -> None:
    ours, truth = tmp_path / "ours", tmp_path / "truth.nii.gz"
    ours.mkdir()
    for path, values in (
        (ours / "mask.nii.gz", labels),
        (truth, np.isin(labels, (1, 2, 3)).astype(np.uint8)),
    ):
        nib.save(nib.Nifti1Image(values.T, np.diag([1.0, 1.5, 2.0, 1.0])), path)
    rows = [
        {"number": s.number, "label": s.label, "key": s.key, "includes": list(s.includes)}
        for s in glioma.structures
    ]
    (ours / "run.json").write_text(json.dumps({"segments": rows}))
    found = compare_files(ours / "mask.nii.gz", truth, {glioma.structures[0].label: [1]})
    assert found.rows[0].dice == 1.0
    assert found.rows[0].volume_ml == pytest.approx(float((image.voxels > 100).sum()) * 0.003)


# -- what a source says ----------------------------------------------------------------------------


def test_regions_of_nnunet_say_what_they_hold_and_come_back(tmp_path: Path) -> None:
    """Held against nnU-Net's own meaning of the labels: a region is the labels that dataset.json lists."""
    pytest.importorskip("nnunetv2", reason="nnunetv2, which builds the network of the test, is not installed")
    data = dataset(GLIOMA, ("T1",), regions_class_order=[1, 2, 3])
    folder = tmp_path / "Dataset999_Random" / f"nnUNetTrainer__nnUNetPlans__{FULL}"
    plan = plans({FULL: configuration((16, 16, 16), (1.5, 1.5, 1.5))})
    write_results(folder, plan, data, FULL)
    found = draft_nnunet(folder)
    assert not any("overlap" in warning for warning in found.warnings)
    spec = add_model(
        folder, tmp_path / "models", Wishes("glioma", licence="Apache-2.0", commercial="yes")
    ).spec
    assert [(s.key, s.includes) for s in spec.structures] == list(zip(KEYS, INCLUDES.values(), strict=True))
    image = small_models.volume_of(np.random.default_rng(3).normal(0, 1, (18, 20, 22)).astype(np.float32))
    answer = small_models.predict(load_model(spec), image).labels
    assert len(np.unique(answer)) > 2
    for structure, (_, values) in zip(spec.structures, list(GLIOMA.items())[1:], strict=True):
        np.testing.assert_array_equal(np.isin(answer, structure.numbers), np.isin(answer, values))


def read(regions: dict[str, Any], order: list[int]) -> Labels:
    labels = {"background": 0, **regions}
    return read_labels(Results({}, {"labels": labels, "regions_class_order": order}, "test"))


@pytest.mark.parametrize(
    ("regions", "order", "parts", "says"),
    [
        ({"organ": [1, 2], "tumour": 2}, [1, 2], {1: (2,)}, ""),
        ({"organ": [1, 2], "tumour": [3]}, [1, 3], {}, ""),
        ({"a": [1, 2], "b": [2, 3]}, [1, 3], {}, "neither holds the other: where both are, only 'b' is kept"),
        ({"tumour": 2, "organ": [1, 2]}, [2, 1], {1: (2,)}, "painted over its part 'tumour'"),
        ({"a": [1, 2], "b": [1, 2]}, [1, 2], {}, "are the same: only 'b' will be found"),
    ],
)
def test_what_painting_loses_is_told(
    regions: dict[str, Any], order: list[int], parts: dict[int, tuple[int, ...]], says: str
) -> None:
    found = read(regions, order)
    assert dict(found.parts) == parts
    assert (says in found.doubts[0]) if says else not found.doubts


@pytest.mark.parametrize("names", [["Whole tumor", "Tumor core", "Enhancing tumor"], ["liver", "left lobe"]])
def test_a_graph_of_regions_says_what_it_holds_or_is_told_of(names: list[str], tmp_path: Path) -> None:
    (tmp_path / "network.onnx").write_bytes(b"not looked at")
    recipe = {"tiles": {"size": None}, "output": {"kind": "regions"}}
    card = {**{k: COMMON[k] for k in ("licence", "accepts")}, "recipe": recipe, "structures": names}
    (tmp_path / "card.yaml").write_text(json.dumps(card))
    found = draft_graph(tmp_path)
    entries: Any = found.fields["structures"]
    if names[0] == "liver":
        assert not any("includes" in entry for entry in entries)
        assert any("regions may overlap" in warning for warning in found.warnings)
    else:
        assert [tuple(entry.get("includes", ())) for entry in entries] == list(INCLUDES.values())
        assert not any("overlap" in warning for warning in found.warnings)


# -- cards -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("includes", "says"),
    [
        ({1: [1]}, "includes its own number 1"),
        ({1: [4]}, "includes 4; there are structures 1 to 3"),
        ({1: [2, 2]}, "includes a number twice"),
        ({1: [2], 2: [1]}, "include each other"),
        ({1: [2], 2: [3]}, "includes 2 ('brain_tumor_core'), which includes 3: add that to its own"),
        ({1: [2], 2: [3], 3: [1]}, "add that to its own"),
    ],
)
def test_a_card_whose_structures_hold_nonsense_is_refused(includes: dict[int, list[int]], says: str) -> None:
    entries = small_models.structures(*KEYS)
    for entry in entries:
        entry["includes"] = includes.get(int(str(entry["number"])), [])
    with pytest.raises(ValueError, match=r"includes?") as refused:
        ModelSpec.model_validate({**COMMON, "id": "x", "loader": "classical", "structures": entries})
    assert says in str(refused.value)


def test_a_pipeline_keeps_the_whole_and_says_so_where_it_keeps_its_parts_too(
    glioma: ModelSpec, image: Volume
) -> None:
    assert glioma.folder is not None
    folder = glioma.folder.parent
    stage = {"name": "all", "model": "glioma"}
    alone = write_pipeline(folder, "alone", KEYS[:1], [{**stage, "keep": {KEYS[0]: KEYS[0]}}])
    model = load_model(alone, "cpu", small_models.finder(folder))
    found = small_models.predict(model, image).labels
    np.testing.assert_array_equal(found == 1, image.voxels > 100.0)
    both = {**stage, "keep": {KEYS[2]: KEYS[2], KEYS[0]: KEYS[0]}}  # the part is named first
    wrong = write_pipeline(folder, "both", (KEYS[0], KEYS[2]), [both])
    with pytest.raises(ModelError, match="add 2 \\('brain_enhancing_tumor'\\) to what 'brain_whole_tumor'"):
        check_pipeline(wrong, {"all": glioma})
    path = folder / "both.yaml"
    path.write_text(path.read_text().replace(f"key: {KEYS[0]}\n", f"key: {KEYS[0]}\n  includes: [2]\n", 1))
    model = load_model(load_card(path), "cpu", small_models.finder(folder))
    found = small_models.predict(model, image).labels
    np.testing.assert_array_equal(found == 2, image.voxels > 300.0)
    np.testing.assert_array_equal(found > 0, image.voxels > 100.0)
