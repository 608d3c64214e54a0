"""The networks of nnU-Net, from an allow-list: no class is imported because a file names it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dynamic_network_architectures.architectures import unet  # type: ignore[import-untyped]
from dynamic_network_architectures.building_blocks import residual  # type: ignore[import-untyped]
from torch import Tensor, nn

from ai.errors import ModelError
from ai.loaders.nnunet_plans import Architecture

_ARCHITECTURES: Mapping[str, type[nn.Module]] = {
    name: getattr(unet, name) for name in ("PlainConvUNet", "ResidualEncoderUNet", "ResidualUNet")
}
_ARCHITECTURE_MODULES = (
    "dynamic_network_architectures.architectures.unet",
    "dynamic_network_architectures.architectures.residual_unet",  # where it was until 0.2
)
_LAYERS: Mapping[str, type[nn.Module]] = {
    name: getattr(nn, name)
    for name in (
        *(f"{kind}{n}d" for kind in ("Conv", "InstanceNorm", "BatchNorm", "Dropout") for n in (2, 3)),
        *("LeakyReLU", "ReLU", "PReLU", "ELU", "GELU", "SiLU", "GroupNorm"),
    )
}
_BLOCKS: Mapping[str, type[nn.Module]] = {
    name: getattr(residual, name) for name in ("BasicBlockD", "BottleneckD")
}


def build_network(architecture: Architecture, input_channels: int, output_channels: int) -> nn.Module:
    """The network, with random weights, answering at full resolution only.

    Raises ModelError: NETWORK_NOT_KNOWN for a class outside the allow-list; NNUNET_RESULTS_INVALID when the
    constructor does not take what the plans give.
    """
    module, _, name = architecture.class_name.rpartition(".")
    if module not in _ARCHITECTURE_MODULES or name not in _ARCHITECTURES:
        raise _unknown(architecture.class_name, tuple(_ARCHITECTURES))
    arguments = dict(architecture.arguments)
    for key in architecture.imported:
        arguments[key] = _layer(arguments.get(key))
    arguments.pop("deep_supervision", None)
    try:
        return _ARCHITECTURES[name](
            input_channels=input_channels, num_classes=output_channels, deep_supervision=False, **arguments
        )
    except (TypeError, ValueError, AssertionError, IndexError, RuntimeError) as error:
        raise ModelError(
            "NNUNET_RESULTS_INVALID", f"The plans do not describe a {name} that can be built: {error}."
        ) from error


def load_weights(network: nn.Module, state: Mapping[str, Tensor], where: str) -> nn.Module:
    """Put weights into a network; raises ModelError NETWORK_WEIGHTS_MISFIT with the first differences."""
    try:
        network.load_state_dict(dict(state), strict=True)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:3]]
        raise ModelError(
            "NETWORK_WEIGHTS_MISFIT",
            f"{where} does not fit the network that the plans describe: {' '.join(lines)[:300]} "
            "It may be of a trainer that builds another network.",
        ) from error
    return network.eval().requires_grad_(False)


def _layer(path: Any) -> type[nn.Module] | None:
    if path is None:
        return None
    module, _, name = str(path).rpartition(".")
    if module == "torch.nn" or module.startswith("torch.nn.modules."):
        found = _LAYERS.get(name)
    elif module == "dynamic_network_architectures.building_blocks.residual":
        found = _BLOCKS.get(name)
    else:
        found = None
    if found is None:
        raise _unknown(str(path), (*_LAYERS, *_BLOCKS))
    return found


def _unknown(path: str, known: tuple[str, ...]) -> ModelError:
    return ModelError(
        "NETWORK_NOT_KNOWN",
        f"The plans ask for {path}, which is not among what is built here: {', '.join(known)}. "
        "Export the network as .pt2 or ONNX and bring it with a card.",
    )
