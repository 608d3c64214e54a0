"""An nnU-Net results folder and TotalSegmentator's weights come in by ``aigw model add``, and run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ai.loaders import load_model
from ai.model import RunContext, find_card, run_to_end
from ai.volume import LabelArray
from gateway.cli.app import run
from tests.nnunet_folders import (
    axial_volume,
    classes,
    configuration,
    dataset,
    plans,
    smooth_image,
    write_results,
)

pytest.importorskip("nnunetv2", reason="nnunetv2, which builds the networks of the test, is not installed")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

Ended = tuple[int, str, str]
Call = Callable[..., Ended]
BLEED = "Dataset150_icb_v0/nnUNetTrainer__nnUNetPlans__3d_fullres"
ROUGH = (
    "Dataset298_TotalSegmentator_total_6mm_1559subj/"
    "nnUNetTrainer_4000epochs_NoMirroring__nnUNetPlans__3d_fullres"
)


@pytest.fixture
def aigw(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run ``aigw model``: exit code, stdout, stderr."""
    monkeypatch.delenv("AIGW_CONFIG", raising=False)

    def call(*words: str | Path) -> Ended:
        with pytest.raises(SystemExit) as ended:
            run(["model", *(str(word) for word in words)])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, " ".join(said.err.split())

    return call


def test_a_results_folder_is_added_verified_and_run(aigw: Call, tmp_path: Path) -> None:
    source = tmp_path / "results" / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    plan = plans({"3d_fullres": configuration((16, 16, 16), (1.5, 1.5, 1.5))})
    write_results(source, plan, dataset({"background": 0, "liver": 1, "spleen": 2}), "3d_fullres")
    models = tmp_path / "models"
    code, _, err = aigw("add", source, "--to", models)
    assert code != 0
    assert "LICENCE_UNKNOWN" in err
    code, out, err = aigw(
        "add", source, "--to", models, "--licence", "Apache-2.0", "--commercial", "yes", "--json"
    )
    assert code == 0, err
    name = json.loads(out)["id"]
    assert name == "dataset999-random-3d-fullres"
    code, _, err = aigw("verify", name, "--model-dir", models)
    assert code == 0, err
    assert set(np.unique(labels_of(name, models))) <= {0, 1, 2}


def test_a_task_of_totalsegmentator_is_added_with_its_localiser(aigw: Call, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    small = plans({"3d_fullres": configuration((16, 16, 16), (1.5, 1.5, 1.5))})
    rough = plans({"3d_fullres": configuration((16, 16, 16), (6.0, 6.0, 6.0))})
    write_results(weights / BLEED, small, dataset(classes(1)), "3d_fullres")
    models = tmp_path / "models"
    words = ("add", "--totalsegmentator", "cerebral_bleed", weights, "--to", models)
    code, _, err = aigw(*words)
    assert code == 5
    assert "WEIGHTS_MISSING" in err
    assert ROUGH.partition("/")[0] in err
    write_results(weights / ROUGH, rough, dataset(classes(117)), "3d_fullres")
    code, _, err = aigw(*words)
    assert code == 0, err
    spec = find_card("totalsegmentator-cerebral-bleed", [models])
    assert len(spec.files) == 6
    assert spec.nnunet is not None
    assert spec.nnunet.crop is not None
    assert spec.nnunet.crop.labels == (90,)  # the brain, of the classes of total
    assert labels_of(spec.id, models).shape == (16, 40, 40)
    code, _, err = aigw("add", "--totalsegmentator", "no_such_task", weights, "--to", models)
    assert code == 5
    assert "TASK_UNKNOWN" in err


def labels_of(name: str, models: Path) -> LabelArray:
    model = load_model(find_card(name, [models]))
    image = axial_volume(smooth_image((16, 40, 40)), (2.0, 1.0, 1.0))
    return run_to_end(model, [image], lambda *_: None, RunContext()).labels
