"""One measurement of the inference benchmark, in a process of its own so that its peak memory is its own.

``python -m benchmarks.inference_child KIND WEIGHTS OUT.npz`` prints one line of JSON.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ai.inference.engine import NetworkModel, Networks
from ai.model import Recipe, RunContext, run_to_end
from ai.volume import Volume
from benchmarks import inference_cases as cases

SMALL = (160, 256, 256)
LARGE = (400, 512, 512)


def recipe(kind: str) -> Recipe:
    """What the engine is told: MONAI's rules for the comparison, as a bundle of it would be translated."""
    large = kind == "classes118"
    return Recipe.model_validate(
        {
            "grid": {
                "axes": "RAS",
                "spacing_mm": (1.5, 1.5, 1.5),
                "alignment": "first_voxel",
                "crop": "body" if kind in ("ours", "ours-float32-crop") else "none",
            },
            "intensity": [{"op": "rescale", "source": cases.WINDOW, "target": (0.0, 1.0)}],
            "tiles": {
                "size": (64, 64, 64) if large else cases.TILE,
                "step": 1.0 - cases.OVERLAP,
                "rule": "monai",
            },
            "precision": "auto" if kind in ("ours", "ours-whole") else "float32",
        }
    )


def engine(kind: str, network: torch.nn.Module, classes: int) -> Callable[[Volume], npt.NDArray[np.uint8]]:
    """Volume to labels by the gateway."""
    how = recipe(kind)
    if kind == "classes118":
        networks = Networks((network,), 0, "float32")
    else:
        networks = Networks((network,), sum(p.numel() * 4 for p in network.parameters()))
    model = NetworkModel(cases.card(classes), how, networks, "cpu")

    def run(volume: Volume) -> npt.NDArray[np.uint8]:
        return run_to_end(model, [volume], lambda _stage, _share: None, RunContext()).labels

    return run


def monai(network: torch.nn.Module) -> Callable[[Volume], npt.NDArray[np.uint8]]:
    """Volume to labels as MONAI's bundles do it: transforms, sliding window, softmax, inversion, argmax."""
    from monai.data import MetaTensor
    from monai.inferers import SlidingWindowInferer
    from monai.transforms import (
        Activations,
        AsDiscrete,
        Compose,
        Invertd,
        Orientationd,
        ScaleIntensityRanged,
        Spacingd,
    )

    before = Compose(
        [
            Orientationd(keys="image", axcodes="RAS", labels=None),
            Spacingd(keys="image", pixdim=(1.5, 1.5, 1.5), mode="bilinear"),
            ScaleIntensityRanged(
                keys="image", a_min=cases.WINDOW[0], a_max=cases.WINDOW[1], b_min=0.0, b_max=1.0
            ),
        ]
    )
    inferer = SlidingWindowInferer(cases.TILE, 1, cases.OVERLAP, mode="gaussian")

    @torch.inference_mode()
    def run(volume: Volume) -> npt.NDArray[np.uint8]:
        affine = torch.from_numpy(np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.geometry.index_to_lps)
        image = MetaTensor(torch.from_numpy(volume.voxels.astype(np.float32))[None], affine=affine)
        data = before({"image": image})
        data["pred"] = inferer(data["image"][None], network)[0]
        data["pred"] = Activations(softmax=True)(data["pred"])
        data["pred"] = MetaTensor(data["pred"], meta=data["image"].meta)
        data["pred"].applied_operations = data["image"].applied_operations
        data = Invertd(keys="pred", transform=before, orig_keys="image", nearest_interp=False)(data)
        return AsDiscrete(argmax=True)(data["pred"])[0].numpy().astype(np.uint8)

    return run


def _memory_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def main(kind: str, weights: Path, out: Path) -> None:
    """Measure one kind: wall and CPU seconds, peak memory above the loaded input and warm network."""
    if kind == "classes118":
        structures, network = 117, cases.Quantiser(117, slope=400.0)
        volume, _ = cases.phantom(LARGE, (1.0, 0.75, 0.75), structures)
    else:
        structures, network = cases.CLASSES - 1, cases.UNet()
        network.load_state_dict(torch.load(weights, weights_only=True))
        volume, _ = cases.phantom(SMALL, (1.5, 1.5, 1.5), structures)
    network.eval()
    run = monai(network) if kind == "monai" else engine(kind, network, structures + 1)
    run(cases.phantom((96, 96, 96), (1.5, 1.5, 1.5), structures)[0])  # warm
    _reset_peak()
    before = _memory_bytes("VmRSS:")
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    labels = run(volume)
    wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    peak = _memory_bytes("VmHWM:") - before
    np.savez_compressed(out, labels=labels)
    print(json.dumps({"kind": kind, "wall_s": wall_s, "cpu_s": cpu_s, "peak_mb": peak / 1e6}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
