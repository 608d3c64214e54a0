"""Real MONAI bundles for tests: drawn anatomy, networks trained on it in seconds, and MONAI's own answer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
import yaml
from monai.bundle import ConfigParser
from monai.data import MetaTensor, list_data_collate
from monai.networks.nets import UNet
from torch.nn import functional as F

from ai.model import ModelSpec, RunContext, load_card, pin, run_to_end
from ai.model.protocol import Model
from ai.volume import LabelArray, Volume
from tests.builders import affine
from tests.runs import even_geometry

CHANNELS = ("T1", "T1c", "T2", "FLAIR")
SIDE_MM = 64.0


def draw(index_to_lps: np.ndarray, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A head of sorts in patient space: values 0 to 1000 and labels; 1 the large ball, 2 the small one in it.

    Nothing about it is symmetric, so that any flip or exchange of axes shows.
    """
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1)
    place = index @ index_to_lps[:3, :3].T + index_to_lps[:3, 3]
    large = np.linalg.norm((place - (6, -4, 3)) / (1.0, 1.3, 0.9), axis=-1)
    small = np.linalg.norm((place - (10, -9, 6)) / (1.4, 1.0, 0.8), axis=-1)
    head = np.linalg.norm(place / (1.0, 1.1, 1.0), axis=-1) < 30
    ripple = 40 * np.sin(place[..., 0] / 3) * np.cos(place[..., 1] / 4) * np.sin(place[..., 2] / 5)
    labels = np.where(large < 17, 1, 0)
    labels[small < 8] = 2
    values = np.select([labels == 2, labels == 1, head], [850.0, 550.0, 250.0], 20.0) + ripple
    return values.astype(np.float32), labels.astype(np.uint8)


def scan(
    orientation: str = "HFS", spacing_mm: tuple[float, float, float] = (2.13, 1.61, 1.37), channels: int = 1
) -> list[Volume]:
    """The head on a grid of any orientation; further channels are its values in another contrast."""
    lengths = [round(SIDE_MM * (0.9 + 0.1 * axis) / step) for axis, step in enumerate(spacing_mm)]
    shape = (lengths[0], lengths[1], lengths[2])
    index_to_lps = affine(shape, spacing_mm, orientation)
    values, _ = draw(index_to_lps, shape)
    geometry = even_geometry(index_to_lps, shape)
    noise = np.random.default_rng(5)
    contrasts = (values, 1000 - values, values**2 / 1000, 500 + values / 2)
    return [
        Volume(np.rint(contrast + noise.normal(0, 12, shape)).astype(np.int16), geometry, "")
        for contrast in contrasts[:channels]
    ]


def truth(volume: Volume) -> LabelArray:
    """Labels of :func:`draw` on the grid of a volume."""
    return draw(volume.geometry.index_to_lps, volume.geometry.shape)[1]


def write_images(folder: Path, volumes: Sequence[Volume]) -> list[str]:
    """The channels as NIfTI, written by nibabel: ``(column, row, slice)`` and a RAS affine."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, volume in enumerate(volumes):
        matrix = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.geometry.index_to_lps[:, [2, 1, 0, 3]]
        path = folder / f"{number}.nii.gz"
        nib.save(nib.Nifti1Image(volume.voxels.transpose(2, 1, 0), matrix), path)
        paths.append(str(path))
    return paths


def trained(
    arguments: Mapping[str, Any], *, regions: bool = False, steps: int = 100
) -> dict[str, torch.Tensor]:
    """Weights of a :class:`UNet` that knows the head at 2 mm RAS and values of about 0 to 1; seconds.

    It learns from windows of many sizes: one that has seen a single size only may miss the small ball
    in a smaller window. The seed comes before the network's first weights and the sums are those of
    one thread, so that every run has the same network.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        torch.manual_seed(1)
        network = UNet(**arguments)
        _train(network, regions, arguments["in_channels"], steps)
    finally:
        torch.set_num_threads(threads)
    return network.state_dict()


def _train(network: torch.nn.Module, regions: bool, channels: int, steps: int) -> None:
    volumes = scan("HFS", (2.0, 2.0, 2.0), channels)
    image = torch.stack([_ras(each.voxels) for each in volumes])[None].float() / 1000
    label = _ras(truth(volumes[0])).long()
    masks = torch.stack([label == 2, label >= 1]).float()  # inner before outer, as BraTS has it
    weight = torch.tensor([1.0, 1.0, 4.0])
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-2)
    for _ in range(steps):
        window = _window(label.shape)
        answer = network(image[..., *window] * float(torch.empty(1).uniform_(0.9, 1.25)))
        if regions:
            loss = F.binary_cross_entropy_with_logits(answer, masks[..., *window][None])
        else:
            loss = F.cross_entropy(answer, label[window][None], weight=weight)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _window(shape: Sequence[int]) -> tuple[slice, ...]:
    """A cube of 20 to 28 voxels, near enough to the first corner to hold both balls."""
    side = 2 * int(torch.randint(10, 15, (1,)))
    starts = [int(torch.randint(0, min(length - side + 1, 8), (1,))) for length in shape]
    return tuple(slice(start, start + side) for start in starts)


def _ras(array: np.ndarray) -> torch.Tensor:
    """``(z, y, x)`` of an HFS scan as ``(x, y, z)`` towards R, A, S."""
    return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 1, 0)[::-1, ::-1]))


@dataclass(frozen=True)
class Written:
    """A bundle on disk and its card."""

    folder: Path
    configuration: str
    spec: ModelSpec

    @property
    def config(self) -> dict[str, Any]:
        text = (self.folder / self.configuration).read_text()
        found: dict[str, Any] = yaml.safe_load(text)
        return found


def structures(count: int) -> list[dict[str, object]]:
    """Structures of a test card, with codes of its own."""
    category = {"value": "91723000", "scheme": "SCT", "meaning": "Anatomical Structure"}
    return [
        {
            "number": number,
            "key": f"part_{number}",
            "label": f"Part {number}",
            "coding": {
                "category": category,
                "type": {"value": f"TEST{number}", "scheme": "99TEST", "meaning": f"Part {number}"},
                "rgb": [40 * number, 200, 90],
            },
        }
        for number in range(1, count + 1)
    ]


def write_bundle(
    folder: Path,
    config: Mapping[str, Any],
    state: Mapping[str, Any] | bytes,
    *,
    configuration: str = "configs/inference.json",
    metadata: Mapping[str, Any] | None = None,
    channels: Sequence[str] = ("image",),
    bundle: Mapping[str, Any] | None = None,
    extra: Mapping[str, str] | None = None,
    number_of_structures: int = 2,
) -> Written:
    """Write a bundle below ``folder/trial`` and its card ``folder/trial.yaml``, and read the card."""
    root = folder / "trial"
    for name in ("configs", "models"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "configs/metadata.json").write_text(json.dumps(metadata or {"version": "0.1.0"}))
    dump = json.dumps if configuration.endswith("json") else yaml.safe_dump
    (root / configuration).write_text(dump(dict(config)))
    weights = "models/model.ts" if isinstance(state, bytes) else "models/model.pt"
    if isinstance(state, bytes):
        (root / weights).write_bytes(state)
    else:
        torch.save(state, root / weights)
    for name, text in (extra or {}).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    names = tuple(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
    card = {
        "id": "trial",
        "version": "0.1.0",
        "title": "Trial",
        "loader": "monai_bundle",
        "algorithm": "U-Net",
        "manufacturer": "Test",
        "intended_use": "Tests",
        "limits": [],
        "references": [],
        "licence": {"spdx": "Apache-2.0", "commercial": "yes"},
        "accepts": {"modalities": ["MR"], "channels": list(channels)},
        "files": pin(root, names),
        "bundle": {"configuration": configuration, "weights": weights, **(bundle or {})},
        "structures": structures(number_of_structures),
    }
    (folder / "trial.yaml").write_text(yaml.safe_dump(card))
    return Written(root, configuration, load_card(folder / "trial.yaml"))


def answer(model: Model, volumes: Sequence[Volume], *, deterministic: bool = True) -> LabelArray:
    """What our loader finds, ``(slices, rows, columns)``; in float32 unless not deterministic."""
    return run_to_end(model, volumes, lambda _stage, _done: None, RunContext(deterministic)).labels


@torch.no_grad()
def monai_answer(written: Written, images: Mapping[str, Any], out: Path) -> np.ndarray:
    """What MONAI itself finds: ConfigParser, LoadImaged from NIfTI, network, inferer, postprocessing.

    Returns ``(channels, slices, rows, columns)``, on the grid of the first image.
    """
    config = deepcopy(written.config)
    parser = ConfigParser(config)
    parser["bundle_root"] = str(written.folder)
    parser["output_dir"] = str(out)
    parser["device"] = torch.device("cpu")
    network = parser.get_parsed_content("network_def")
    state = torch.load(written.folder / written.spec.bundle.weights, weights_only=True)
    network.load_state_dict(state.get("model", state))
    network.eval()
    data = parser.get_parsed_content("preprocessing")(dict(images))
    batch = list_data_collate([data])
    data["pred"] = parser.get_parsed_content("inferer")(batch["image"], network)[0]
    assert isinstance(data["pred"], MetaTensor)
    data = parser.get_parsed_content("postprocessing")(data)
    return np.asarray(data["pred"]).transpose(0, 3, 2, 1)
