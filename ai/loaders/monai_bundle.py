"""MONAI bundles: ``configs/metadata.json``, ``configs/inference.json`` or ``.yaml``, ``models/model.pt``.

Nothing is written or read but the pinned files, and no NIfTI is made. Where we know every transform of the
bundle, they become a recipe for our engine (fast); otherwise MONAI runs them in memory (compatible).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from monai.bundle.config_parser import ConfigParser
from torch import Tensor, nn

from ai.errors import ModelError
from ai.inference.engine import NetworkModel, Networks
from ai.loaders.bundle.arguments import NotTranslatable
from ai.loaders.bundle.compatible import CompatibleModel, Parts
from ai.loaders.bundle.files import has_regions
from ai.loaders.bundle.parse import BundleConfig, content_of, read_bundle
from ai.loaders.bundle.scripts import Scripts
from ai.loaders.bundle.translate import renumbered, translate
from ai.loaders.graphs.runner import Runner, checked, probe
from ai.loaders.graphs.torchscript import load_script
from ai.loaders.weights import USUAL_PREFIXES, USUAL_WRAPPINGS, read_state
from ai.model import Model, ModelSpec, PinnedFiles, Recipe
from ai.model.card import Bundle

_TORCHSCRIPT = ".ts"


def load(spec: ModelSpec, device: str, find: object = None) -> Model:  # noqa: ARG001
    """The bundle of a card, on a device; see :func:`ai.loaders.load_model`.

    Raises
    ------
    ModelError
        ``MODEL_CARD_INVALID``, ``MODEL_CONFIG_INVALID``, ``MODEL_CONFIG_OUTSIDE``,
        ``MODEL_WEIGHTS_MISMATCH``, ``MODEL_OUTPUT_INVALID``, and what :class:`ai.model.PinnedFiles` and
        :func:`ai.loaders.weights.read_state` raise.
    """
    bundle = spec.bundle
    if bundle is None:
        raise ModelError("MODEL_CARD_INVALID", f"The card {spec.id} has no section bundle.")
    files = PinnedFiles(spec)
    config = read_bundle(files, bundle.configuration)
    scripts = Scripts(files)
    with scripts.importable():
        network = _network(config, bundle, files, device)
        recipe, reason = _recipe(spec, bundle, config)
        if recipe is None:
            return _compatible(spec, bundle, config, network, device, reason, scripts)
    channels, order = _painted(recipe, bundle)
    recipe = recipe.model_copy(update={"output": recipe.output.model_copy(update={"channels": channels})})
    runner = Runner(_forward(network, order), None, None, 0, "any")
    probe(spec, recipe, runner, device)
    networks = Networks(
        forwards=(checked(spec, recipe, runner),),
        weight_bytes=_weight_bytes(network),
        dtype="any",
        close=lambda: _move(network, "cpu"),
        move=lambda where: _move(network, where),
    )
    return NetworkModel(spec, recipe, networks, device)


def _recipe(spec: ModelSpec, bundle: Bundle, config: BundleConfig) -> tuple[Recipe | None, str]:
    """The card's own recipe, or that of the bundle; None and why when MONAI has to run it."""
    if bundle.mode == "compatible":
        return None, "the card asks for it"
    if spec.recipe is not None:
        return spec.recipe, ""
    try:
        return renumbered(translate(config, len(spec.accepts.channels)), bundle.channels), ""
    except NotTranslatable as error:
        if bundle.mode == "fast":
            raise ModelError(
                "MODEL_CARD_INVALID",
                f"The card {spec.id} asks for mode fast, and the bundle cannot be translated: {error}. "
                "Set bundle.mode to auto.",
            ) from error
        return None, str(error)


def _painted(recipe: Recipe, bundle: Bundle) -> tuple[tuple[int, ...] | None, tuple[int, ...] | None]:
    """Structure number of each channel, and in which order to take the channels; None: as they are.

    Regions overlap: those of ``bundle.channels`` are put in the order of their numbers, so that a later one
    lies on top; a recipe says its order itself.
    """
    numbers = _numbers(bundle)
    if numbers is None:
        return recipe.output.channels, None
    if recipe.output.kind != "regions":
        return numbers, None
    order = sorted((channel for channel, number in enumerate(numbers) if number), key=lambda c: numbers[c])
    return tuple(numbers[channel] for channel in order), tuple(order)


def _numbers(bundle: Bundle) -> tuple[int, ...] | None:
    """Structure number of each channel up to the last that the card names; None where it names none."""
    if not bundle.channels:
        return None
    return tuple(bundle.channels.get(channel, 0) for channel in range(max(bundle.channels) + 1))


def _network(config: BundleConfig, bundle: Bundle, files: PinnedFiles, device: str) -> nn.Module:
    """The network with its weights, ready to answer."""
    content = files.read(bundle.weights)
    if bundle.weights.endswith(_TORCHSCRIPT):
        return load_script(content, bundle.weights, device)
    parser = config.parser(device)
    name = "network_def" if "network_def" in config.inference else "network"
    network = content_of(parser, name, f"network ({name})")
    if not isinstance(network, nn.Module):
        raise ModelError("MODEL_CONFIG_INVALID", f"{name} makes a {type(network).__name__}, no network.")
    state = read_state(content, bundle.weights, unwrap=_wrappings(config), strip=USUAL_PREFIXES)
    try:
        network.load_state_dict(
            {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
        )
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            "MODEL_WEIGHTS_MISMATCH", f"{bundle.weights} is not for the network of {config.name}: {reason}."
        ) from error
    return network.to(device).eval().requires_grad_(requires_grad=False)


def _wrappings(config: BundleConfig) -> tuple[str, ...]:
    """Keys under which the bundle's own ``checkpointloader`` looks for the weights, then usual ones."""
    loader = config.inference.get("checkpointloader")
    named = loader.get("load_dict") if isinstance(loader, Mapping) else None
    return (*(named if isinstance(named, Mapping) else ()), *USUAL_WRAPPINGS)


def _forward(network: nn.Module, order: Sequence[int] | None) -> Callable[[Tensor], Tensor]:
    """The network's first answer, its channels in another order where one is given."""
    identity = order is None or list(order) == list(range(len(order)))
    index = None if order is None else torch.tensor(order)

    def forward(batch: Tensor) -> Tensor:
        answer = network(batch)
        while isinstance(answer, (list, tuple)):  # deep supervision: the first is the full resolution
            answer = answer[0]
        if not isinstance(answer, Tensor):
            raise ModelError(
                "MODEL_OUTPUT_INVALID", f"The network answers with {type(answer).__name__}, no tensor."
            )
        if index is None or (identity and answer.shape[1] == len(index)):
            return answer
        if answer.shape[1] <= int(index.max()):
            raise ModelError(
                "MODEL_OUTPUT_INVALID",
                f"The network answers with {answer.shape[1]} channels, and bundle.channels names the channel "
                f"{int(index.max())} (they count from 0).",
            )
        return answer.index_select(1, index.to(answer.device))

    return forward


def _compatible(
    spec: ModelSpec,
    bundle: Bundle,
    config: BundleConfig,
    network: nn.Module,
    device: str,
    reason: str,
    scripts: Scripts,
) -> CompatibleModel:
    parser = config.parser(device)
    regions = has_regions(config.inference)
    parts = Parts(
        preprocessing=_optional(parser, "preprocessing"),
        inferer=_optional(parser, "inferer"),
        postprocessing=_optional(parser, "postprocessing"),
        load_keys=config.load_keys,
        image_key=config.image_key,
        regions=regions,
        channels=_numbers(bundle),
        reason=reason,
        scripts=scripts,
    )
    return CompatibleModel(
        spec, device, parts, _forward(network, None), _weight_bytes(network), lambda: _move(network, "cpu")
    )


def _optional(parser: ConfigParser, section: str) -> Any:
    return content_of(parser, section, section) if parser.get(section) is not None else None


def _move(network: nn.Module, device: str) -> None:
    network.to(device)


def _weight_bytes(network: nn.Module) -> int:
    tensors = (*network.parameters(), *network.buffers())
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
