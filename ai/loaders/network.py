"""Networks whose architecture we know, with weights and a recipe from the card."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from ai.errors import ModelError
from ai.inference.engine import NetworkModel, Networks
from ai.loaders.graphs.runner import Runner, check_answer, checked, first_tensor, probe
from ai.loaders.weights import USUAL_PREFIXES, USUAL_WRAPPINGS, read_state
from ai.model import ModelSpec, PinnedFiles, Recipe
from ai.networks import build


def load(spec: ModelSpec, device: str, _find: object = None) -> NetworkModel:
    """The network of a card; see :func:`ai.loaders.load_model`.

    Raises
    ------
    ModelError
        What :class:`ai.model.PinnedFiles`, :func:`ai.loaders.weights.read_state` and
        :func:`ai.networks.build` raise; ``MODEL_CARD_INVALID`` without its sections.
    """
    if spec.network is None or spec.recipe is None:
        raise ModelError("MODEL_CARD_INVALID", f"The card {spec.id} needs the sections network and recipe.")
    section, files = spec.network, PinnedFiles(spec)
    definition = files.read(section.definition) if section.definition is not None else None
    networks = []
    for name in section.weights:
        state = read_state(files.read(name), name, unwrap=USUAL_WRAPPINGS, strip=USUAL_PREFIXES)
        networks.append(build(section.name, section.arguments, definition, state, name).to(device))
    tensors = [tensor for network in networks for tensor in (*network.parameters(), *network.buffers())]

    def move(target: str) -> None:
        for network in networks:
            network.to(target)

    def close() -> None:
        networks.clear()
        tensors.clear()

    held = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    forwards = tuple(_forward(network, spec, spec.recipe, device) for network in networks)
    return NetworkModel(spec, spec.recipe, Networks(forwards, held, "any", close, move), device)


def _forward(network: nn.Module, spec: ModelSpec, recipe: Recipe, device: str) -> Callable[[Tensor], Tensor]:
    """A network that answers with the first of its outputs, held against the structures of the card.

    One that answers in pieces is given as it is: its classes are known before it runs.
    """

    def forward(batch: Tensor) -> Tensor:
        return first_tensor(network(batch))

    runner = Runner(forward, None, None, 0, "any")
    classes = getattr(network, "classes", None)
    if isinstance(classes, int):
        check_answer(spec, recipe, (None, classes, *[None] * recipe.dimensions))
        if hasattr(network, "pieces"):
            return network
    else:
        probe(spec, recipe, runner, device)
    return checked(spec, recipe, runner)
