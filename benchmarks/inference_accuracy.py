"""What speed costs: networks with the weights of their authors, quick numerics against exact ones.

Needs the real images and weights of ../shared/data; says so where they are missing.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from ai.loaders import load_model
from ai.model import Prediction, RunContext, load_card, run_to_end
from ai.nifti_image import read_nifti_image
from ai.volume import Volume

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"
T1 = SHARED / "fixture" / "mr_t1_brainchop_sample" / "t1_crop.nii.gz"
NETWORKS = {
    "brain-tissue": SHARED / "weights" / "brainchop_meshnet" / "model5_gw_ae",
    "brain-structures": SHARED / "weights" / "brainchop_meshnet" / "model18cls",
}


def measure_accuracy(folder: Path) -> dict[str, Any]:
    """Dice of each structure between the quick answer and that of deterministic float32, on a real T1."""
    if not T1.is_file():
        print("Accuracy on real weights: NOT RUN: ../shared/data is not on this machine.", flush=True)
        return {"run": False}
    print("Accuracy on real weights, T1 of a head: quick numerics against deterministic float32", flush=True)
    volume = read_nifti_image([T1]).channels[0]
    return {name: _compare(name, weights, volume, folder) for name, weights in NETWORKS.items()}


def _compare(name: str, weights: Path, volume: Volume, folder: Path) -> dict[str, Any]:
    shutil.copy(ROOT / "tests" / "models" / f"{name}.yaml", folder)
    spec = load_card(folder / f"{name}.yaml")
    (folder / name).mkdir(exist_ok=True)
    for file in spec.files:
        shutil.copyfile(weights / file, folder / name / file)
    model = load_model(spec)
    times, found = [], list[Prediction]()
    for deterministic in (True, False):
        start_s = time.process_time()
        found.append(run_to_end(model, [volume], lambda *_: None, RunContext(deterministic)))
        times.append(time.process_time() - start_s)
    model.close()
    exact, quick = (each.labels for each in found)
    dice = {
        structure.key: float(
            2.0 * ((exact == n) & (quick == n)).sum() / ((exact == n).sum() + (quick == n).sum())
        )
        for structure in spec.structures
        if ((n := structure.number) == exact).any()
    }
    worst = min(dice, key=lambda key: dice[key])
    print(
        f"  {name}: {found[1].facts['precision']}, mean Dice {np.mean(list(dice.values())):.4f}, worst "
        f"{dice[worst]:.4f} ({worst}), CPU s {times[0]:.1f} to {times[1]:.1f}",
        flush=True,
    )
    return {"precision": found[1].facts["precision"], "dice": dice, "cpu_s": times}
