"""Part 3 of the inference benchmark: five networks of nnU-Net's size on a GPU, host memory to host memory.

A CT of 512 × 512 × 400 at 0.75 × 0.75 × 1 mm is brought to 1.5 mm, goes through five PlainConvUNet of 32 to
320 features with 25 classes each in tiles of 128³ (step 0.8, no mirroring, as TotalSegmentator runs them),
and comes back as one label map. nnU-Net's own predictor and MONAI's pipeline run on the same weights in the
same process, one network of the five, times five. Run as a program it does the same on a CPU with small ones
in seconds, to test this file.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from ai.loaders import load_model
from ai.model import RunContext, run_to_end
from ai.volume import Volume
from benchmarks import inference_cases as cases
from tests import nnunet_folders as folders

PARTS = 5
CLASSES_EACH = 24
TARGET_S = 2.0
STEP = 0.8


@dataclass(frozen=True)
class Size:
    """How large the measurement is."""

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    patch: int
    features: tuple[int, ...]
    rounds: int


FULL = Size((400, 512, 512), (1.0, 0.75, 0.75), 128, (32, 64, 128, 256, 320, 320), 5)
SMALL = Size((40, 64, 64), (1.0, 0.75, 0.75), 16, (8, 16), 1)


def measure_gpu(device: str = "cuda:0", size: Size = FULL) -> dict[str, Any]:
    """Seconds of ours, nnU-Net's and MONAI's, and the share of the device's measured bfloat16 peak."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        print("Part 3: NOT RUN: no CUDA device on this machine.", flush=True)
        return {"run": False, "reason": "no CUDA device"}
    print(f"Part 3: five networks, {size.shape}, on {_name(device)}", flush=True)
    volume, _ = cases.phantom(size.shape, size.spacing_mm, 13)
    with TemporaryDirectory() as name:
        root = _write(Path(name), size)
        ours_s, tiles = _ours(root, volume, device, size)
        nnunet_s = _nnunet(root / "part_0", volume, device, size) * PARTS
        monai_s = _monai(root / "part_0", volume, device, size) * PARTS
        flops = _flops(root / "part_0", device, size) * tiles
    peak = _peak(device, size)
    result = {
        "run": True,
        "device": _name(device),
        "ours_s": ours_s,
        "nnunet_s": nnunet_s,
        "monai_s": monai_s,
        "times_nnunet": nnunet_s / ours_s,
        "times_monai": monai_s / ours_s,
        "tflop": flops / 1e12,
        "share_of_bf16_peak": flops / ours_s / peak,
        "bf16_peak_tflops": peak / 1e12,
        "met": ours_s < TARGET_S,
    }
    print(
        f"  ours {ours_s:.2f} s (target {TARGET_S} s on an H200), nnU-Net {nnunet_s:.2f} s "
        f"({result['times_nnunet']:.1f} ×), MONAI {monai_s:.2f} s ({result['times_monai']:.1f} ×); "
        f"{result['share_of_bf16_peak']:.1%} of {result['bf16_peak_tflops']:.0f} TFLOP/s measured",
        flush=True,
    )
    return result


def _name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def _write(root: Path, size: Size) -> Path:
    """Five results folders as nnU-Net leaves them, random weights of the exact architecture."""
    patch = [size.patch] * 3
    architecture = folders.new_architecture(patch, features=size.features)
    architecture["arch_kwargs"].update(
        n_conv_per_stage=[2] * len(size.features), n_conv_per_stage_decoder=[2] * (len(size.features) - 1)
    )
    configuration = folders.configuration(patch, (1.5, 1.5, 1.5), architecture=architecture)
    data = folders.dataset(folders.classes(CLASSES_EACH))
    with mock.patch.object(folders, "fit_last_layer"):
        for part in range(PARTS):
            plans = folders.plans({"3d_fullres": configuration})
            folders.write_results(root / f"part_{part}", plans, data, "3d_fullres", seed=part)
    return root


def _timed(run: Callable[[], object], device: str, rounds: int) -> float:
    """Median seconds of warm runs."""
    times = []
    for _ in range(rounds + 1):
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        start_s = time.perf_counter()
        run()
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start_s)
    return statistics.median(times[1:])


def _ours(root: Path, volume: Volume, device: str, size: Size) -> tuple[float, int]:
    """Seconds, and how many tiles all networks worked on."""
    parts = [
        {
            "folder": f"part_{part}",
            "labels": {n: part * CLASSES_EACH + n for n in range(1, CLASSES_EACH + 1)},
        }
        for part in range(PARTS)
    ]
    card = folders.card(root, {"parts": parts, "step": STEP}, PARTS * CLASSES_EACH)
    model = load_model(card, device)
    facts: dict[str, Any] = {}

    def run() -> None:
        prediction = run_to_end(model, [volume], lambda _stage, _share: None, RunContext())
        facts.update(prediction.facts)

    seconds = _timed(run, device, size.rounds)
    model.close()
    return seconds, sum(int(part["tiles"]) for part in facts["parts"])


def _predictor(folder: Path, device: str) -> Any:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(
        STEP, True, False, perform_everything_on_device=True, device=torch.device(device), allow_tqdm=False
    )
    predictor.initialize_from_trained_model_folder(str(folder), (0,))
    predictor.network.load_state_dict(predictor.list_of_parameters[0])
    return predictor


def _nnunet(folder: Path, volume: Volume, device: str, size: Size) -> float:
    predictor = _predictor(folder, device)
    image = folders.as_nnunet_reads(volume.voxels)[None].astype(np.float32)

    def run() -> object:
        return predictor.predict_single_npy_array(image, {"spacing": list(size.spacing_mm)}, None)

    return _timed(run, device, 1)


def _monai(folder: Path, volume: Volume, device: str, size: Size) -> float:
    """MONAI's transforms and sliding window on the device, with autocast, labels back on the host."""
    from monai.data import MetaTensor
    from monai.inferers import SlidingWindowInferer
    from monai.transforms import Compose, Invertd, NormalizeIntensityd, Orientationd, Spacingd

    network = _predictor(folder, device).network.to(device).eval()
    before = Compose(
        [
            Orientationd(keys="image", axcodes="RAS", labels=None),
            Spacingd(keys="image", pixdim=(1.5, 1.5, 1.5), mode="bilinear"),
            NormalizeIntensityd(keys="image", subtrahend=40.0, divisor=180.0),
        ]
    )
    inferer = SlidingWindowInferer((size.patch,) * 3, 1, 1 - STEP, mode="gaussian")
    back = Invertd(keys="pred", transform=before, orig_keys="image", nearest_interp=False)
    affine = torch.from_numpy(np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.geometry.index_to_lps)

    @torch.inference_mode()
    def run() -> object:
        image = torch.from_numpy(volume.voxels.astype(np.float32))[None].to(device)
        data = before({"image": MetaTensor(image, affine=affine)})
        with torch.autocast(torch.device(device).type, enabled=device.startswith("cuda")):
            scores = inferer(data["image"][None], network)[0]
        data["pred"] = MetaTensor(scores, meta=data["image"].meta)
        data["pred"].applied_operations = data["image"].applied_operations
        return back(data)["pred"].argmax(0).to(torch.uint8).cpu().numpy()

    return _timed(run, device, 1)


def _flops(folder: Path, device: str, size: Size) -> float:
    network = _predictor(folder, device).network.to(device).eval()
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network(torch.zeros((1, 1, *_cube(size.patch)), device=device))
    return float(counter.get_total_flops())


def _peak(device: str, size: Size) -> float:
    """Measured bfloat16 FLOP/s of the device: a large product of matrices."""
    length = 8192 if size is FULL else 256
    left, right = (torch.randn(length, length, device=device, dtype=torch.bfloat16) for _ in range(2))
    count = 20

    def run() -> None:
        for _ in range(count):
            torch.mm(left, right)

    return 2.0 * length**3 * count / _timed(run, device, 3)


def _cube(length: int) -> Sequence[int]:
    return (length, length, length)


if __name__ == "__main__":
    measure_gpu("cpu", SMALL)
