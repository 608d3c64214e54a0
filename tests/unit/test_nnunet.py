"""The nnU-Net loader against nnUNetPredictor itself, on networks of the exact architectures."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dynamic_network_architectures import architectures
from dynamic_network_architectures.architectures import unet

from ai.errors import ModelError
from ai.loaders import load_model
from ai.loaders.nnunet_draft import draft
from ai.loaders.nnunet_plans import Architecture, read_configuration, read_labels, read_results
from ai.model import ModelSpec, RunContext, pin, run_to_end
from tests.nnunet_folders import (
    CT,
    axial_volume,
    card,
    classes,
    configuration,
    dataset,
    dice,
    new_architecture,
    old_architecture,
    oracle,
    plans,
    smooth_image,
    write_results,
)

pytest.importorskip("nnunetv2", reason="the oracle nnunetv2 is not installed")
FULL = "3d_fullres"
SHAPE, SPACING = (22, 44, 42), (2.03, 0.91, 0.89)
REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}


@dataclass(frozen=True)
class Case:
    """A results folder, and an image for it."""

    plan: dict[str, Any]
    data: dict[str, Any] = field(default_factory=lambda: dataset(classes(3)))
    name: str = FULL
    shape: tuple[int, int, int] = SHAPE
    spacing: tuple[float, float, float] = SPACING
    folds: tuple[int, ...] = (0,)
    mirror: tuple[int, ...] | None = None
    channels: tuple[str, ...] = ("CT",)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny networks gain nothing from threads, and lose where other work runs beside."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _where_residual_networks_were(monkeypatch: pytest.MonkeyPatch) -> None:
    """nnunetv2 looks for them where they were until 0.2, then imports every architecture there is."""
    monkeypatch.setitem(sys.modules, f"{architectures.__name__}.residual_unet", unet)
    monkeypatch.setattr(architectures, "residual_unet", unet, raising=False)


def one(**arguments: Any) -> dict[str, Any]:
    return plans({FULL: configuration((24, 24, 24), (1.5, 1.5, 1.5), **arguments)})


def structures(case: Case) -> int:
    """How many labels a case has, without background and ignore label."""
    return len(set(case.data["labels"]) - {"background", "ignore"})


RESIDUAL = new_architecture((12, 24, 24), "ResidualEncoderUNet")
CASES = {
    "plain": Case(one()),
    "old_plans": Case(one(**old_architecture((24, 24, 24)))),
    "old_plans_residual": Case(one(**old_architecture((24, 24, 24), "ResidualEncoderUNet"))),
    "separate_z_residual": Case(
        plans({FULL: configuration((12, 24, 24), (5.0, 1.2, 1.2), architecture=RESIDUAL)}),
        shape=(16, 44, 42),
        spacing=(4.0, 0.9, 0.9),
    ),
    "two_dimensions_mirrored": Case(
        plans({"2d": configuration((32, 32), (1.2, 1.2))}),
        name="2d",
        shape=(7, 44, 42),
        spacing=(4.0, 0.9, 0.9),
        mirror=(0, 1),
    ),
    "regions_two_channels_masked": Case(
        one(schemes=("ZScoreNormalization", "ZScoreNormalization"), masked=True),
        dataset(REGIONS, ("T1", "T2"), regions_class_order=[1, 2, 3]),
        channels=("T1", "T2"),
    ),
    "ignore_two_folds_mirrored_transposed": Case(
        plans({FULL: configuration((20, 24, 24), (1.3, 1.5, 1.6))}, (2, 0, 1)),
        dataset({**classes(3), "ignore": 4}),
        folds=(0, 1),
        mirror=(0, 2),
    ),
    "smaller_than_a_patch": Case(one(), shape=(9, 20, 40), spacing=(1.5, 1.5, 1.5)),
    "other_normalisations": Case(
        one(schemes=("RescaleTo01Normalization", "NoNormalization")),
        dataset(classes(2), ("a", "b")),
        channels=("a", "b"),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_labels_are_those_of_the_predictor(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    folder = write_results(
        tmp_path / f"nnUNetTrainer__nnUNetPlans__{case.name}",
        case.plan,
        case.data,
        case.name,
        case.folds,
        case.mirror,
    )
    images = [smooth_image(case.shape, seed) for seed in range(len(case.channels))]
    mirror = case.mirror is not None
    section = {
        "parts": [{"folder": folder.name, "folds": list(case.folds)}],
        "mirror": mirror,
        "precision": "float32",
    }
    found = run(
        card(tmp_path, section, structures(case), case.channels),
        [axial_volume(i, case.spacing) for i in images],
    )
    exact = oracle(folder, images, case.spacing, case.folds, mirror, exact=True)
    agreement = dice(found, exact)
    assert len(agreement) >= 2
    assert np.mean(list(agreement.values())) >= 0.9995, agreement
    assert min(agreement.values()) >= 0.999, agreement
    assert (found != exact).mean() < 2e-4
    published = oracle(folder, images, case.spacing, case.folds, mirror)
    agreement, its_own = dice(found, published), dice(exact, published)
    assert min(agreement.values()) >= 0.99, agreement
    rounding = 1.0 - np.mean(list(its_own.values()))
    assert np.mean(list(agreement.values())) >= min(0.999, 0.9998 - rounding), (agreement, its_own)


def test_cascade_gives_the_second_stage_the_labels_of_the_first(tmp_path: Path) -> None:
    plan = plans(
        {
            "3d_lowres": configuration((16, 16, 16), (2.6, 2.6, 2.6), next_stage="3d_cascade_fullres"),
            "3d_cascade_fullres": configuration((24, 24, 24), (1.5, 1.5, 1.5), previous_stage="3d_lowres"),
        }
    )
    data = dataset(classes(2))
    low = write_results(tmp_path / "T__P__3d_lowres", plan, data, "3d_lowres")
    high = write_results(tmp_path / "T__P__3d_cascade_fullres", plan, data, "3d_cascade_fullres", seed=7)
    image = smooth_image(SHAPE)
    first = oracle(low, [image], SPACING, exact=True)
    expected = oracle(high, [image], SPACING, previous=first, exact=True)
    assert (expected != oracle(high, [image], SPACING, previous=np.zeros_like(first))).mean() > 0.001
    drafted = draft(high)
    assert drafted.fields["nnunet"]["previous_stage"]["folder"] == low.name  # type: ignore[index]
    section = {
        "parts": [{"folder": high.name}],
        "previous_stage": {"folder": low.name},
        "precision": "float32",
    }
    found = run(card(tmp_path, section, 2), [axial_volume(image, SPACING)])
    agreement = dice(found, expected)
    assert np.mean(list(agreement.values())) >= 0.999, agreement
    with pytest.raises(ModelError, match="previous_stage"):
        load_model(card(tmp_path, {"parts": [{"folder": high.name}]}, 2))


def test_draft_makes_a_card_that_runs(tmp_path: Path) -> None:
    source = tmp_path / "Dataset999_Random" / f"nnUNetTrainer__nnUNetPlans__{FULL}"
    labels = {"background": 0, "liver": 1, "something_odd": 2}
    write_results(source, one(), dataset(labels), FULL, folds=(0, 3))
    found = draft(source.parent)
    assert sorted(found.files) == sorted(
        f"{source.name}/{name}"
        for name in (
            *("plans.json", "dataset.json"),
            *("fold_0/checkpoint_final.pth", "fold_3/checkpoint_final.pth"),
        )
    )
    assert found.names == {1: "liver", 2: "something_odd"}
    assert found.uncoded == {2: "has no code"}
    assert any("2 folds" in warning for warning in found.warnings)
    spec = ModelSpec.model_validate(
        {**found.fields, "id": "drafted", "files": pin(source.parent, tuple(found.files))}
    )
    assert spec.accepts.modalities == ("CT",)
    assert [structure.key for structure in spec.structures] == ["liver", "something_odd"]
    with pytest.raises(ModelError, match="LICENCE_NOT_ACCEPTED"):
        load_model(spec)
    licence = spec.licence.model_copy(update={"accepted_by": "a person"})
    spec = spec.model_copy(update={"licence": licence})
    spec._folder = source.parent
    labels_found = run(spec, [axial_volume(smooth_image((16, 30, 30)), SPACING)])
    assert set(np.unique(labels_found)) <= {0, 1, 2}
    assert labels_found.any()


def test_draft_names_the_folders_to_choose_from(tmp_path: Path) -> None:
    for name in ("a__P__2d", f"b__P__{FULL}"):
        (tmp_path / name / "fold_0").mkdir(parents=True)
        (tmp_path / name / "plans.json").write_text("{}")
    with pytest.raises(ModelError, match=f"a__P__2d, b__P__{FULL}"):
        draft(tmp_path)


def test_weights_that_run_code_are_refused(tmp_path: Path) -> None:
    folder = write_results(tmp_path / f"T__P__{FULL}", one(), dataset(classes(2)), FULL)

    class Code:
        def __reduce__(self) -> tuple[Any, ...]:
            return print, ("ran",)

    checkpoint = folder / "fold_0" / "checkpoint_final.pth"
    torch.save({"network_weights": {}, "trainer_name": Code()}, checkpoint)
    with pytest.raises(ModelError, match="MODEL_FILE_UNSAFE"):
        load_model(card(tmp_path, {"parts": [{"folder": folder.name}]}, 2))


def test_only_known_classes_are_built(tmp_path: Path) -> None:
    from ai.loaders.nnunet_network import build_network

    for path in ("os.system", "dynamic_network_architectures.architectures.unet.np", "builtins.print"):
        with pytest.raises(ModelError, match="NETWORK_NOT_KNOWN"):
            build_network(Architecture(path, {}, ()), 1, 2)
    given = new_architecture((8, 8, 8))
    evil = {**given["arch_kwargs"], "norm_op": "torch.nn.modules.module.sys"}
    with pytest.raises(ModelError, match="NETWORK_NOT_KNOWN"):
        build_network(
            Architecture(given["network_class_name"], evil, tuple(given["_kw_requires_import"])), 1, 2
        )


def test_weights_of_another_network_are_named(tmp_path: Path) -> None:
    folder = write_results(tmp_path / f"T__P__{FULL}", one(), dataset(classes(2)), FULL)
    wider = one(architecture=new_architecture((24, 24, 24), features=(6, 8, 12)))
    (folder / "plans.json").write_text(json.dumps(wider))
    with pytest.raises(ModelError, match="NETWORK_WEIGHTS_MISFIT"):
        load_model(card(tmp_path, {"parts": [{"folder": folder.name}]}, 2))


def test_plans_inherit_and_translate() -> None:
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    plan = plans(
        {
            FULL: configuration((24, 24, 24), (1.5, 1.5, 1.5), **old_architecture((24, 24, 24))),
            "small": {"inherits_from": FULL, "patch_size": [16, 16, 16]},
            "round": {"inherits_from": "round"},
        }
    )
    results = read_results(json.dumps(plan).encode(), json.dumps(dataset(classes(3))).encode(), "here")
    small = read_configuration(results, "small")
    theirs = PlansManager(json.loads(json.dumps(plan))).get_configuration("small")
    assert small.patch_size == (16, 16, 16) == tuple(theirs.patch_size)
    assert dict(small.architecture.arguments) == theirs.network_arch_init_kwargs
    assert small.architecture.imported == tuple(theirs.network_arch_init_kwargs_req_import)
    with pytest.raises(ModelError, match="inherits from itself"):
        read_configuration(results, "round")
    with pytest.raises(ModelError, match="NNUNET_RESULTS_INVALID"):
        read_configuration(results, "3d_lowres")


def test_labels_of_regions_and_gaps() -> None:
    def labels(given: dict[str, Any], **other: Any) -> Any:
        content = json.dumps(dataset(given, **other)).encode()
        return read_labels(read_results(b"{}", content, "here"))

    regions = labels(REGIONS, regions_class_order=[1, 2, 3])
    assert regions.regions
    assert regions.channels == (1, 2, 3)
    assert regions.names == {1: "whole", 2: "core", 3: "enhancing"}
    assert labels({**classes(2), "ignore": 3}).channels == (0, 1, 2)
    with pytest.raises(ModelError, match="consecutive"):
        labels({"background": 0, "a": 1, "b": 3})
    with pytest.raises(ModelError, match="regions_class_order"):
        labels(REGIONS)


def test_a_card_that_does_not_fit_its_results_folder_is_refused(tmp_path: Path) -> None:
    folder = write_results(tmp_path / f"T__P__{FULL}", one(), dataset(classes(2)), FULL).name

    def refusal(structures: int, channels: tuple[str, ...] = ("CT",), **section: Any) -> str:
        with pytest.raises(ModelError) as refused:
            load_model(card(tmp_path, {"parts": [{"folder": folder}], **section}, structures, channels))
        assert refused.value.code == "MODEL_CARD_INVALID"
        return refused.value.reason

    assert "names the structure 2; the card has 1 to 1" in refusal(1)
    assert "makes no structure 3 (s3)" in refusal(3)
    assert "names 2 images" in refusal(2, ("CT", "PET"))
    assert "maps the label 7" in refusal(2, parts=[{"folder": folder, "labels": {1: 1, 7: 2}}])
    localiser = {"parts": [{"folder": folder}]}
    assert "crop names [3]" in refusal(2, crop={"localiser": localiser, "labels": [1, 3]})
    bodies = {"lowest_lumbar": 2, "clip": localiser, "clip_label": 4}
    assert "clip_label is 4" in refusal(2, vertebral_bodies=bodies)
    load_model(card(tmp_path, {"parts": [{"folder": folder}]}, 2)).close()


def test_numbers_of_plans_that_make_no_recipe_are_named(tmp_path: Path) -> None:
    plan = one()
    folder = write_results(tmp_path / f"T__P__{FULL}", plan, dataset(classes(2)), FULL)
    turned = {**CT, "percentile_00_5": 900.0}
    plan["foreground_intensity_properties_per_channel"] = {"0": turned}
    (folder / "plans.json").write_text(json.dumps(plan))
    with pytest.raises(ModelError, match=r"NNUNET_RESULTS_INVALID.*low is 900, above high, 500"):
        load_model(card(tmp_path, {"parts": [{"folder": folder.name}]}, 2))


def run(spec: ModelSpec, channels: list[Any]) -> Any:
    """Labels of a card's model; fractions go up and every step is a pause."""
    model = load_model(spec)
    fractions: list[float] = []
    try:
        prediction = run_to_end(model, channels, lambda _, f: fractions.append(f), RunContext())
    finally:
        model.close()
    assert fractions == sorted(fractions)
    assert len(fractions) >= 3
    assert prediction.labels.shape == channels[0].voxels.shape
    return prediction.labels
