"""Cards whose sections contradict themselves or each other: refused when they are read, by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from ai.errors import ModelError
from ai.model import ModelSpec, load_card
from tests.model_files import COMMON

TILES = {"size": None}
PART = {"folder": "a", "labels": {1: 1, 2: 2}}


def read(folder: Path, **sections: object) -> ModelSpec:
    """A card with two structures, written and read."""
    path = folder / "card.yaml"
    path.write_text(yaml.safe_dump({**COMMON, "id": "card", **sections}), encoding="utf-8")
    return load_card(path)


def refusal(folder: Path, **sections: object) -> str:
    with pytest.raises(ModelError) as refused:
        read(folder, **sections)
    assert refused.value.code == "MODEL_CARD_INVALID"
    return refused.value.reason


def graph(**recipe: Any) -> dict[str, object]:
    return {"loader": "graph", "graph": {"file": "net.onnx"}, "recipe": {"tiles": TILES, **recipe}}


def bundle(**changes: object) -> dict[str, object]:
    return {"loader": "monai_bundle", "bundle": changes}


def nnunet(**changes: object) -> dict[str, object]:
    return {"loader": "nnunet", "nnunet": {"parts": [PART], **changes}}


FOREGROUND = {"op": "standardise", "foreground": True}
AS_NNUNET = {"crop": "nonzero", "intensity": "before"}


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        ({"intensity": [{"op": "clip", "low": 5, "high": -5}]}, "low is 5, above high, -5"),
        ({"intensity": [{"op": "percentiles", "low": 99, "high": 1}]}, "must be a lower percentile"),
        ({"intensity": [{"op": "standardise", "mean": 0, "sd": -1}]}, "greater than or equal to 0"),
        ({"intensity": [FOREGROUND]}, "needs grid.crop: nonzero and grid.intensity: before"),
        ({"intensity": [FOREGROUND], "grid": {"crop": "nonzero"}}, "they are nonzero and after"),
        ({"channel_intensity": [[FOREGROUND]], "grid": {"intensity": "before"}}, "they are none and before"),
        ({"channel_intensity": [[], []]}, "has 2 lists, and there are 1 images"),
        ({"grid": {"masks": 1}}, "grid.masks is 1, and accepts.channels names 1"),
        ({"output": {"channels": [0, 1, 3]}}, "names the structure 3; the card has 1 to 2"),
        ({"output": {"channels": [0, 1]}}, "makes no structure 2 (bone)"),
        ({"output": {"channels": [0, 0]}}, "names no structure"),
        ({"output": {"kind": "scalar"}}, "names its numbers in scalars"),
        ({"after": [{"op": "largest", "structures": [3]}]}, "recipe.after names the structure 3"),
        ({"after": [{"op": "largest", "structures": [0]}]}, "recipe.after.0.structures.0"),
        ({"after": [{"op": "drop_below_ml", "structures": [1]}]}, "needs volume_ml"),
        ({"tiles": {"size": None, "mirror_axes": [1, 1]}}, "names an axis twice"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused(tmp_path: Path, recipe: dict[str, Any], says: str) -> None:
    assert says in refusal(tmp_path, **graph(**recipe))


def test_recipes_that_fit_are_read(tmp_path: Path) -> None:
    two = {"accepts": {"modalities": ["MR"], "channels": ["T1", "T2"]}}
    for recipe in (
        {"intensity": [FOREGROUND], "grid": AS_NNUNET},
        {"intensity": [{"op": "clip", "low": 5, "high": 5}]},
        {"output": {"channels": [2, 0, 1, 1]}},
        {"after": [{"op": "drop_below_ml", "structures": [1, 2], "volume_ml": 1}, {"op": "fill_holes"}]},
    ):
        assert read(tmp_path, **graph(**recipe)).recipe is not None
    assert read(tmp_path, **two, **graph(channel_intensity=[[], []])).recipe is not None
    assert read(tmp_path, **two, **graph(channel_intensity=[[]], grid={"masks": 1})).recipe is not None
    assert "has 1 lists, and there are 2" in refusal(tmp_path, **two, **graph(channel_intensity=[[]]))


def test_a_structure_that_includes_others_needs_no_channel(tmp_path: Path) -> None:
    whole, part = (dict(structure) for structure in COMMON["structures"])  # type: ignore[union-attr]
    structures = [{**whole, "includes": [2]}, part]
    spec = read(tmp_path, **graph(output={"channels": [0, 2]}), structures=structures)
    assert spec.structures[0].numbers == (1, 2)


def test_labels_of_several_networks_cannot_be_averaged(tmp_path: Path) -> None:
    network = {"name": "meshnet", "weights": ["a", "b"]}
    recipe = {"tiles": TILES, "output": {"kind": "labels"}}
    assert "averaged" in refusal(tmp_path, loader="network", network=network, recipe=recipe)
    one = {**network, "weights": ["a"]}
    assert read(tmp_path, loader="network", network=one, recipe=recipe).network is not None


@pytest.mark.parametrize(
    ("channels", "says"),
    [
        ({1: 1, 2: -2}, "bundle.channels"),
        ({-1: 1}, "bundle.channels"),
        ({1: 1, 2: 3}, "names the structure 3; the card has 1 to 2"),
        ({1: 1}, "makes no structure 2 (bone)"),
    ],
)
def test_channels_of_a_bundle_are_structures_of_the_card(
    tmp_path: Path, channels: Mapping[int, int], says: str
) -> None:
    assert says in refusal(tmp_path, **bundle(channels=dict(channels)))


def test_channels_are_named_once(tmp_path: Path) -> None:
    recipe = {"tiles": TILES, "output": {"channels": [0, 2, 1]}}
    both = bundle(channels={1: 2, 2: 1}) | {"recipe": recipe}
    assert "say the same thing twice" in refusal(tmp_path, **both)
    both["bundle"] = {"channels": {1: 2, 2: 1}, "mode": "compatible"}
    assert read(tmp_path, **both).bundle is not None


LOCALISER = {"parts": [{"labels": {1: 4, 2: 5}}]}


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"axes": "LLL"}, "nnunet.axes: axes: LLL names an axis twice"),
        ({"parts": [{"labels": {1: 300}}]}, "nnunet.parts.0.labels.1"),
        ({"parts": [{"labels": {1: -1}}]}, "nnunet.parts.0.labels.1"),
        ({"parts": [{"labels": {1: 1, 2: 3}}]}, "names the structure 3; the card has 1 to 2"),
        ({"parts": [{"labels": {1: 3}}, {}]}, "names the structure 3; the card has 1 to 2"),
        ({"parts": [{"labels": {1: 1}}]}, "makes no structure 2 (bone)"),
        ({"parts": [{"folds": []}]}, "nnunet.parts.0.folds"),
        ({"previous_stage": {"labels": {1: 2}}}, "previous_stage.labels must be empty"),
        ({"after": [{"op": "largest", "structures": [3]}]}, "after names the structures [3]"),
        (
            {"parts": [{}], "after": [{"op": "largest", "structures": [3]}]},
            "nnunet.after names the structure 3",
        ),
        ({"crop": {"localiser": LOCALISER, "labels": [1]}}, "name [1], which the localiser does not find"),
        ({"crop": {"localiser": LOCALISER, "labels": [4], "within": [6]}}, "name [6]"),
        ({"crop": {"localiser": {"parts": [{}]}, "labels": [0]}}, "nnunet.crop.labels.0"),
        ({"crop": {"localiser": LOCALISER, "labels": [4], "within_mm": 5}}, "and that is empty"),
        ({"vertebral_bodies": {"first": 2, "lowest_lumbar": 1}}, "lies below lowest_lumbar"),
        ({"vertebral_bodies": {"lowest_lumbar": 3}}, "names the structure 3"),
        ({"vertebral_bodies": {"lowest_lumbar": 2, "clip": LOCALISER}}, "clip_label is 1"),
    ],
)
def test_an_nnunet_section_that_does_not_fit_is_refused(
    tmp_path: Path, section: dict[str, Any], says: str
) -> None:
    assert says in refusal(tmp_path, **nnunet(**section))


def test_nnunet_sections_that_fit_are_read(tmp_path: Path) -> None:
    for section in (
        {"parts": [{}], "crop": {"localiser": {"parts": [{}]}, "labels": [200]}},
        {"parts": [{"labels": {1: 2}}, {"labels": {3: 1, 4: 0}}], "previous_stage": {}},
        {"crop": {"localiser": LOCALISER, "labels": [4, 5], "within": [5], "within_mm": 3}},
        {"parts": [{"labels": {1: 1}}], "vertebral_bodies": {"lowest_lumbar": 2}},
    ):
        assert read(tmp_path, **nnunet(**section)).nnunet is not None
