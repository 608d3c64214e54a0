"""Known architectures: the same sums as written down plainly, and no other code than theirs."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from ai.errors import ModelError
from ai.inference.engine import NetworkModel, Networks
from ai.loaders import InProcess, load_model
from ai.model.recipe import Recipe
from ai.networks import build, meshnet
from ai.networks.deepmedic import DeepMedic
from tests.model_files import COMMON, volume, write_model

DILATIONS = (1, 2, 4, 2, 1)


def definition(**changes: Any) -> dict[str, Any]:
    """A MeshNet of 6 channels as brainchop writes it down; the last layer classifies."""
    layers = [
        {"in_channels": -1, "out_channels": 5, "kernel_size": 3, "padding": d, "stride": 1, "dilation": d}
        for d in DILATIONS
    ]
    last = {"in_channels": 5, "out_channels": -1, "kernel_size": 1, "padding": 0, "stride": 1, "dilation": 1}
    return {"header": "test", "bnorm": False, "dropout_p": 0, "layers": [*layers, last], **changes}


def weights(nested: bool = False, seed: int = 1) -> dict[str, Tensor]:
    """Its weights under either of the names that brainchop uses, in no order."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    channels = [1, *[6] * len(DILATIONS), 3]
    for index, (inputs, outputs) in enumerate(pairwise(channels)):
        last = index == len(DILATIONS)
        name = f"model.{index}.0" if nested and not last else f"model.{index if nested else 2 * index}"
        kernel = 1 if last else 3
        state[f"{name}.weight"] = torch.randn(outputs, inputs, *[kernel] * 3, generator=generator) * 0.3
        state[f"{name}.bias"] = torch.randn(outputs, generator=generator)
    return dict(sorted(state.items(), reverse=True))


def plainly(image: Tensor, state: Mapping[str, Tensor], activation: Any, normalised: bool) -> Tensor:
    """The layers one after the other, each in one piece."""
    for index, dilation in enumerate(DILATIONS):
        weight, bias = state[f"model.{2 * index}.weight"], state[f"model.{2 * index}.bias"]
        image = F.conv3d(image, weight, bias, padding=dilation, dilation=dilation)
        image = activation(F.instance_norm(image) if normalised else image)
    last = 2 * len(DILATIONS)
    return F.conv3d(image, state[f"model.{last}.weight"], state[f"model.{last}.bias"])


@pytest.mark.parametrize(
    ("says", "activation", "normalised"),
    [
        ({}, F.relu, False),
        ({"elu": True}, F.elu, False),
        ({"gelu": True, "bnorm": True}, F.gelu, True),
        ({"bnorm": True}, F.relu, True),
    ],
)
@pytest.mark.parametrize("slab", [1, 700, 1 << 21])
def test_meshnet_in_slabs_gives_the_sums_of_one_piece(
    says: dict[str, Any], activation: Any, normalised: bool, slab: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meshnet, "_SLAB_VOXELS", slab)
    network = build("meshnet", {}, json.dumps(definition(**says)).encode(), weights(), "w")
    image = torch.rand(2, 1, 13, 17, 11, generator=torch.Generator().manual_seed(2))
    expected = plainly(image, weights(), activation, normalised)
    torch.testing.assert_close(network(image), expected, rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        quick = network(image)
    assert quick.dtype == torch.bfloat16
    assert (quick.argmax(1) == expected.argmax(1)).float().mean() > 0.97


def test_meshnet_knows_how_far_it_sees_and_both_ways_of_naming() -> None:
    described = json.dumps(definition()).encode()
    network = build("meshnet", {}, described, weights(), "w")
    assert isinstance(network, meshnet.MeshNet)
    assert network.reach == sum(DILATIONS)
    image = torch.rand(1, 1, 9, 9, 9)
    assert torch.equal(network(image), build("meshnet", {}, described, weights(nested=True), "w")(image))
    far = torch.zeros(1, 1, 25, 25, 25)
    near = far.clone()
    near[0, 0, 12, 12, 12] = 1.0
    touched = (network(near) != network(far)).any(1)[0].nonzero()
    assert touched.min() == 12 - network.reach
    assert touched.max() == 12 + network.reach


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"layers": definition()["layers"][1:]}, "MODEL_WEIGHTS_DIFFER"),
        ({"layers": []}, "MODEL_FILE_UNREADABLE"),
        ({"layers": [{"in_channels": 1}]}, "MODEL_FILE_UNREADABLE"),
        ({"layers": [{**definition()["layers"][0], "stride": 2}]}, "MODEL_FILE_UNREADABLE"),
        ({"affine": True}, "MODEL_FILE_UNREADABLE"),
    ],
)
def test_a_definition_that_does_not_fit_is_refused(change: dict[str, Any], code: str) -> None:
    with pytest.raises(ModelError) as refused:
        build("meshnet", {}, json.dumps(definition(**change)).encode(), weights(), "w")
    assert refused.value.code == code


def test_weights_of_another_meshnet_are_refused() -> None:
    described = json.dumps(definition()).encode()
    for state in ({**weights(), "model.1.weight": torch.ones(6)}, {"a": torch.ones(1)}):
        with pytest.raises(ModelError, match="MODEL_WEIGHTS_DIFFER"):
            build("meshnet", {}, described, state, "w")
    for arguments, described_by in (({"channels": 3}, described), ({}, None), ({}, b"no json")):
        with pytest.raises(ModelError, match=r"NETWORK_ARGUMENTS_INVALID|MODEL_FILE_UNREADABLE"):
            build("meshnet", arguments, described_by, weights(), "w")


def small_deepmedic() -> DeepMedic:
    torch.manual_seed(7)
    network = DeepMedic(1, 3, feature_maps=(4, 4, 5), fully_connected=(6,)).eval()
    for block in network.modules():
        if isinstance(block, nn.BatchNorm3d):
            block.running_mean.uniform_(-0.5, 0.5)  # type: ignore[union-attr]
            block.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
    return network


def published(network: DeepMedic, image: Tensor, side: int = 15) -> Tensor:
    """BLAST-CT's way: blocks of one size, each path on the centre of the block's window, cut to fit."""
    around = 5 * network.depth
    size = image.shape[2:]
    grown = [-(-length // side) * side for length in size]
    padded = F.pad(
        image,
        [
            n
            for have, new in zip(reversed(size), reversed(grown), strict=True)
            for n in (around, around + new - have)
        ],
        mode="replicate",
    )
    result = torch.zeros(1, 3, *grown)
    for x in range(0, grown[0], side):
        for y in range(0, grown[1], side):
            for z in range(0, grown[2], side):
                wide = side + 2 * around
                window = padded[:, :, x : x + wide, y : y + wide, z : z + wide]
                features = []
                for path, (scale, _, _) in zip(network.paths, network.scales, strict=True):
                    needed = (-(-side // scale) + 2 * network.depth) * scale
                    first = wide // 2 - needed // 2
                    part = window[(..., *[slice(first + scale // 2, first + needed, scale)] * 3)]
                    features.append(F.interpolate(path(part), scale_factor=scale, mode="nearest"))
                found = network.classifier(torch.cat(features, 1))
                result[:, :, x : x + side, y : y + side, z : z + side] = found
    return result[:, :, : size[0], : size[1], : size[2]]


@pytest.mark.parametrize("shape", [(15, 15, 15), (31, 16, 47), (4, 70, 9)])
def test_deepmedic_in_large_blocks_answers_as_published(shape: tuple[int, int, int]) -> None:
    network = small_deepmedic()
    image = torch.randn(1, 1, *shape, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        torch.testing.assert_close(network(image), published(network, image), rtol=1e-4, atol=1e-5)


def published_names(network: DeepMedic) -> dict[str, Tensor]:
    """The weights as BLAST-CT's program would have saved them."""
    names = {}
    for key, value in network.state_dict().items():
        if key.startswith("paths."):
            _, path, block, rest = key.split(".", 3)
            scale = network.scales[int(path)]
            names[f"path{scale}{path}.path.{int(block) + 1}.{rest}"] = value
        else:
            names[key.replace("classifier.", "fully_connected.")] = value
    return names


def test_deepmedic_is_described_by_the_configuration_of_blast_ct() -> None:
    network = small_deepmedic()
    config = {
        "model": {"DeepMedic": {"feature_maps": [4, 4, 5], "fully_connected": [6]}},
        "data": {"input_channels": 1, "num_classes": 3},
    }
    built = build("deepmedic", {}, json.dumps(config).encode(), published_names(network), "w")
    image = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        assert torch.equal(built(image), network(image))
    wrong = {**config, "data": {"input_channels": 1, "num_classes": 4}}
    with pytest.raises(ModelError, match=r"MODEL_WEIGHTS_DIFFER.*of another shape: classifier"):
        build("deepmedic", {}, json.dumps(wrong).encode(), published_names(network), "w")
    with pytest.raises(ModelError, match="MODEL_FILE_UNREADABLE"):
        build("deepmedic", {}, b"{}", published_names(network), "w")


def test_networks_of_monai_are_found_by_name_and_nothing_else_is() -> None:
    arguments = {"spatial_dims": 3, "in_channels": 1, "out_channels": 3, "channels": [4, 8], "strides": [2]}
    from monai.networks.nets import UNet

    state = UNet(**arguments).state_dict()
    network = build("monai:UNet", arguments, None, state, "w")
    assert not network.training
    assert not any(weight.requires_grad for weight in network.parameters())
    for name in (
        "monai:torch",
        "monai:os",
        "monai:UNet.__init__",
        "monai:NoSuchNet",
        "os.system",
        "UNet",
        "monai:",
    ):
        with pytest.raises(ModelError, match="NETWORK_UNKNOWN"):
            build(name, {}, None, state, "w")
    with pytest.raises(ModelError, match=r"NETWORK_ARGUMENTS_INVALID.*colour"):
        build("monai:UNet", {**arguments, "colour": 1}, None, state, "w")
    with pytest.raises(ModelError, match="would fetch weights"):
        build("monai:ResNet", {"pretrained": True}, None, state, "w")
    with pytest.raises(ModelError, match=r"MODEL_WEIGHTS_DIFFER.*missing"):
        build("monai:UNet", arguments, None, dict(list(state.items())[1:]), "w")


def test_folds_of_a_network_run_from_a_card(tmp_path: Path) -> None:
    arguments = {"spatial_dims": 3, "in_channels": 1, "out_channels": 3, "channels": [4, 8], "strides": [2]}
    from monai.networks.nets import UNet

    torch.manual_seed(0)
    networks = [UNet(**arguments).eval() for _ in range(2)]
    stream = io.BytesIO()
    wrapped = {"state_dict": {f"module.{key}": value for key, value in networks[0].state_dict().items()}}
    torch.save(wrapped, stream)
    recipe = {"tiles": {"size": [16, 16, 16]}, "precision": "float32"}
    files = {"a.pt": stream.getvalue(), "b.safetensors": save(networks[1].state_dict())}
    section = {"name": "monai:UNet", "arguments": arguments, "weights": list(files)}
    spec = write_model(tmp_path, "net", files, loader="network", network=section, recipe=recipe)
    image = volume(np.random.default_rng(1).normal(size=(20, 18, 24)).astype(np.float32))
    model = load_model(spec)
    found = InProcess(model).predict([image], lambda *_: None)
    direct = NetworkModel(spec, Recipe.model_validate(recipe), Networks(tuple(networks), 0, "float32"), "cpu")
    assert (found.labels == InProcess(direct).predict([image], lambda *_: None).labels).all()
    assert found.facts["networks"] == 2
    assert model.weight_bytes >= 2 * 4 * sum(weight.numel() for weight in networks[0].parameters())
    model.close()
    with pytest.raises(ModelError, match="MODEL_CLOSED"):
        InProcess(model).predict([image], lambda *_: None)
    few = {**section, "arguments": {**arguments, "out_channels": 2}}
    spec = write_model(tmp_path, "net", files, loader="network", network=few, recipe=recipe)
    with pytest.raises(ModelError, match=r"MODEL_WEIGHTS_DIFFER.*a\.pt"):
        load_model(spec)
    structures = [*COMMON["structures"], {"number": 3, "key": "liver", "label": "Liver"}]  # type: ignore[misc]
    sections = {"loader": "network", "network": section, "recipe": recipe, "structures": structures}
    with pytest.raises(ModelError, match=r"MODEL_OUTPUT_INVALID.*answers with 3 channels"):
        load_model(write_model(tmp_path, "net", files, **sections))


def test_classes_are_held_against_the_structures(tmp_path: Path) -> None:
    described = json.dumps(definition()).encode()
    files = {"model.json": described, "w.safetensors": save(weights())}
    section = {"name": "meshnet", "weights": ["w.safetensors"], "definition": "model.json"}
    recipe = {"tiles": {"size": None}, "precision": "float32"}
    sections = {"loader": "network", "network": section, "recipe": recipe}
    image = volume(np.random.default_rng(1).random((12, 13, 14)).astype(np.float32))
    spec = write_model(tmp_path, "mesh", files, **sections)
    found = InProcess(load_model(spec)).predict([image], lambda *_: None).labels
    scores = plainly(torch.from_numpy(image.voxels)[None, None].float(), weights(), F.relu, False)
    assert (found == scores.argmax(1)[0].numpy()).mean() > 0.999
    spec = write_model(tmp_path, "mesh", files, **sections, structures=COMMON["structures"][:1])  # type: ignore[index]
    with pytest.raises(ModelError, match=r"MODEL_OUTPUT_INVALID.*3 channels"):
        load_model(spec)
