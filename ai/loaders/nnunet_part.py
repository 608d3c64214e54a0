"""One trained nnU-Net from its results folder: plans, data set, and the networks of its folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath

import torch
from torch import Tensor, nn

from ai.errors import ModelError
from ai.inference.engine import NetworkModel, Networks
from ai.loaders.nnunet_network import build_network, load_weights
from ai.loaders.nnunet_plans import (
    Configuration,
    Labels,
    Results,
    read_configuration,
    read_labels,
    read_results,
)
from ai.loaders.nnunet_recipe import make_recipe
from ai.loaders.weights import USUAL_PREFIXES, read_checkpoint
from ai.model import ModelSpec, PinnedFiles
from ai.model.nnunet import NnUnet, NnUnetPart


@dataclass(frozen=True)
class Fold:
    """What the checkpoint of one fold holds; ``mirror_axes`` are those that its training mirrored."""

    weights: Mapping[str, Tensor]
    configuration: str | None
    mirror_axes: tuple[int, ...]


@dataclass(frozen=True)
class TrainedPart:
    """A trained network, one module for each fold, on its device."""

    model: NetworkModel
    labels: Labels
    configuration: Configuration


def load_part(
    spec: ModelSpec, section: NnUnet, part: NnUnetPart, files: PinnedFiles, device: str
) -> TrainedPart:
    """Read a results folder and make a model of it.

    Raises ModelError: what :class:`ai.model.PinnedFiles`, :func:`ai.loaders.weights.read_checkpoint` and the
    modules for plans and networks raise.
    """
    results = read_results(
        files.read(inside(part.folder, "plans.json")),
        files.read(inside(part.folder, "dataset.json")),
        f"Model {spec.id} {spec.version}, {part.folder}",
    )
    names = [inside(part.folder, f"fold_{fold}/{part.checkpoint}") for fold in part.folds]
    first = read_fold(files.read(names[0]), names[0])
    configuration = read_configuration(results, _configuration_name(results, first, part))
    labels = read_labels(results)
    _check_card(spec, part, configuration, labels)
    inputs = len(configuration.normalisations)
    if configuration.previous_stage:
        inputs += len(labels.foreground)
    networks = []
    for index, name in enumerate(names):
        fold = first if index == 0 else read_fold(files.read(name), name)
        network = build_network(configuration.architecture, inputs, len(labels.channels))
        networks.append(load_weights(network, fold.weights, f"{results.where}: {name}").to(device))
    recipe = make_recipe(configuration, labels, section, part.labels, first.mirror_axes, results.where)
    return TrainedPart(NetworkModel(spec, recipe, _networks(networks), device), labels, configuration)


def _check_card(spec: ModelSpec, part: NnUnetPart, configuration: Configuration, labels: Labels) -> None:
    """Hold what the card says of images and labels against the results folder."""
    taken, named = len(configuration.normalisations), len(spec.accepts.channels)
    unknown = sorted(set(part.labels) - set(labels.channels))
    if taken != named:
        wrong = f"names {named} images (accepts.channels), and the network of {part.folder} takes {taken}"
    elif unknown:
        listed = ", ".join(str(label) for label in unknown)
        wrong = f"maps the label {listed} of {part.folder}, whose dataset.json has {sorted(labels.channels)}"
    else:
        return
    raise ModelError("MODEL_CARD_INVALID", f"The card {spec.id} {wrong}.")


def read_fold(content: bytes, name: str) -> Fold:
    """The checkpoint of one fold; raises ModelError NNUNET_RESULTS_INVALID when it is none of nnU-Net's."""
    checkpoint = read_checkpoint(content, name)
    weights = checkpoint.get("network_weights")
    if not isinstance(weights, Mapping) or not all(isinstance(w, Tensor) for w in weights.values()):
        raise ModelError(
            "NNUNET_RESULTS_INVALID", f"{name} is no checkpoint of nnU-Net v2: it has no network_weights."
        )
    arguments = checkpoint.get("init_args")
    configuration = arguments.get("configuration") if isinstance(arguments, Mapping) else None
    axes = checkpoint.get("inference_allowed_mirroring_axes") or ()
    return Fold(
        {_plain(str(key)): weight for key, weight in weights.items()},
        None if configuration is None else str(configuration),
        tuple(int(axis) for axis in axes),
    )


def inside(folder: str, name: str) -> str:
    """Path of a file below the model's folder; ``.`` is that folder itself."""
    return str(PurePosixPath(folder) / name)


def configuration_of_folder(folder: str) -> str | None:
    """The configuration in the name of a results folder, ``TRAINER__PLANS__CONFIGURATION``."""
    parts = PurePosixPath(folder).name.split("__")
    return parts[2] if len(parts) == 3 else None


def _configuration_name(results: Results, fold: Fold, part: NnUnetPart) -> str:
    known = results.configuration_names
    name = fold.configuration or configuration_of_folder(part.folder)
    if name is None and len(known) == 1:
        return known[0]
    if name is None:
        raise results.error(f"neither checkpoint nor folder say which of {', '.join(known)} it is")
    return name


def _plain(key: str) -> str:
    """Name of a weight without what DataParallel and torch.compile put before it."""
    while (prefix := next((p for p in USUAL_PREFIXES if key.startswith(p)), None)) is not None:
        key = key.removeprefix(prefix)
    return key


def _networks(modules: Sequence[nn.Module]) -> Networks:
    held = list(modules)
    parameters = {id(p): p for module in modules for p in (*module.parameters(), *module.buffers())}

    def close() -> None:
        for module in held:
            module.to("meta")
        held.clear()

    def move(device: str) -> None:
        for module in held:
            module.to(device)

    return Networks(
        forwards=tuple(partial(_forward, module) for module in modules),
        weight_bytes=sum(p.numel() * p.element_size() for p in parameters.values()),
        dtype="any",
        close=close,
        move=move,
    )


def _forward(module: nn.Module, tiles: Tensor) -> Tensor:
    with torch.no_grad():
        answer: Tensor = module(tiles)
        return answer
