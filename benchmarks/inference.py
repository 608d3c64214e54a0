"""How fast and how lean do networks run here: against MONAI's pipeline on a CPU, and on a GPU.

``make bench-inference``. Every measurement is a process of its own; all run on the same machine one after
the other. Part 1: 14 classes on 256 × 256 × 160, the same network and the same tiles as MONAI's
SlidingWindowInferer pipeline. Part a: what the processor's bfloat16 costs networks with real weights.
Part 2: 118 classes to 512 × 512 × 400 labels. Part 3: five networks of nnU-Net's size on a GPU
(benchmarks/inference_gpu.py).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks import inference_cases as cases
from benchmarks.inference_child import LARGE, SMALL

FASTER = 4.0
MEMORY = 0.5
LARGE_MB = 2000.0
KINDS = ("monai", "ours-float32", "ours")


def measure(kind: str, weights: Path, folder: Path) -> tuple[dict[str, Any], npt.NDArray[np.uint8]]:
    """One measurement in its own process: its numbers, and its labels."""
    out = folder / f"{kind}.npz"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.inference_child", kind, str(weights), str(out)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    with np.load(out) as file:
        return json.loads(done.stdout.splitlines()[-1]), file["labels"]


def mean_dice(found: npt.NDArray[np.uint8], truth: npt.NDArray[np.uint8], classes: int) -> float:
    """Over the structures that are there."""
    both = np.bincount((truth.astype(np.int64) * classes + found).reshape(-1), minlength=classes * classes)
    table = both.reshape(classes, classes)
    sizes = table.sum(0) + table.sum(1)
    dice = 2 * np.diag(table) / np.maximum(sizes, 1)
    return float(dice[1:][table.sum(1)[1:] > 0].mean())


def compare(kinds: tuple[str, ...], folder: Path) -> dict[str, Any]:
    """Part 1."""
    weights = folder / "weights.pt"
    torch.manual_seed(0)
    torch.save(cases.UNet().state_dict(), weights)
    _, truth = cases.phantom(SMALL, (1.5, 1.5, 1.5), cases.CLASSES - 1)
    rows, labels = {}, {}
    for kind in kinds:
        rows[kind], labels[kind] = measure(kind, weights, folder)
        rows[kind]["dice_to_truth"] = mean_dice(labels[kind], truth, cases.CLASSES)
        rows[kind]["agreement"] = float((labels[kind] == labels[kinds[0]]).mean())
        rows[kind]["dice_to_monai"] = mean_dice(labels[kind], labels[kinds[0]], cases.CLASSES)
        print(_line(rows[kind]), flush=True)
    theirs, ours = rows["monai"], rows["ours"]
    return {
        "rows": rows,
        "times_faster": theirs["wall_s"] / ours["wall_s"],
        "times_faster_cpu_seconds": theirs["cpu_s"] / ours["cpu_s"],
        "memory_ratio": ours["peak_mb"] / theirs["peak_mb"],
        "dice_lost": theirs["dice_to_truth"] - ours["dice_to_truth"],
    }


def _line(row: dict[str, Any]) -> str:
    return (
        f"  {row['kind']:18} {row['wall_s']:7.1f} s  {row['cpu_s']:7.1f} CPU s  {row['peak_mb']:7.0f} MB  "
        f"labels equal to MONAI's {row['agreement']:.5f}  Dice to them {row['dice_to_monai']:.4f}  "
        f"to the truth {row['dice_to_truth']:.4f}"
    )


def large(folder: Path) -> dict[str, Any]:
    """Part 2."""
    row, labels = measure("classes118", folder / "none", folder)
    _, truth = cases.phantom(LARGE, (1.0, 0.75, 0.75), 117)
    inside = inner(truth)
    return {
        **row,
        "shape": list(labels.shape),
        "classes_there": len(np.unique(truth)) - 1,
        "classes_found": len(np.intersect1d(labels, truth)) - 1,
        "right": float((labels[inside] == truth[inside]).mean()),
    }


def inner(truth: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Voxels of structures whose neighbours, four voxels away along each axis, are of the same one."""
    inside = truth > 0
    for axis in range(3):
        for step in (-4, 4):
            inside &= truth == np.roll(truth, step, axis)
    return inside


def main() -> int:
    """Run all parts; 1 where a target was missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    parser.add_argument(
        "--parts", default="1a23", help="1 speed, a accuracy on real weights, 2 many classes, 3 GPU"
    )
    chosen = parser.parse_args()
    result: dict[str, Any] = {"threads": torch.get_num_threads(), "torch": torch.__version__}
    missed = []
    with tempfile.TemporaryDirectory() as name:
        if "1" in chosen.parts:
            print("Part 1: 14 classes, 256 × 256 × 160, tiles of 96³, overlap 0.25, CPU", flush=True)
            first = result["compare"] = compare(KINDS, Path(name))
            print(
                f"  {first['times_faster']:.2f} × faster (at least {FASTER}; "
                f"{first['times_faster_cpu_seconds']:.2f} × in CPU seconds), "
                f"{first['memory_ratio']:.2f} × the memory (at most {MEMORY}), "
                f"mean Dice lost {first['dice_lost']:+.4f}"
            )
            missed += ["time"] * (first["times_faster"] < FASTER)
            missed += ["memory"] * (first["memory_ratio"] > MEMORY)
        if "a" in chosen.parts:
            from benchmarks.inference_accuracy import measure_accuracy

            result["accuracy"] = measure_accuracy(Path(name))
        if "2" in chosen.parts:
            print("Part 2: 118 classes to 512 × 512 × 400 labels, CPU", flush=True)
            second = result["large"] = large(Path(name))
            print(
                f"  {second['wall_s']:.1f} s ({second['cpu_s']:.1f} CPU s), {second['peak_mb']:.0f} MB above "
                f"the input (at most {LARGE_MB:.0f}), {second['classes_found']} of "
                f"{second['classes_there']} structures found, "
                f"labels right in {second['right']:.4f} of the insides"
            )
            missed += ["large"] * (second["peak_mb"] > LARGE_MB)
    if "3" in chosen.parts:
        from benchmarks.inference_gpu import measure_gpu

        result["gpu"] = measure_gpu()
    if chosen.json:
        chosen.json.write_text(json.dumps(result, indent=2), encoding="utf-8")
    print(f"Missed: {', '.join(missed)}" if missed else "All measured targets are met.")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
