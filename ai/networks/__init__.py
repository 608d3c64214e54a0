"""Architectures that are known by name. A card can name these and no other code.

``monai:`` names are classes of ``monai.networks.nets``; they are looked up in that module only, and only
where they are networks that come from it.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping

from torch import Tensor, nn

from ai.errors import ModelError
from ai.networks import deepmedic
from ai.networks.meshnet import MeshNet, read_definition

State = Mapping[str, Tensor]
_MONAI = re.compile(r"monai:([A-Z]\w{1,60})")
_FETCHES = re.compile(r"pretrained|weights_path|url")
"""Arguments that would make a MONAI network fetch or read files of its own."""


def build(
    name: str, arguments: Mapping[str, object], definition: bytes | None, state: State, weights: str
) -> nn.Module:
    """The network of a card with its weights, for inference on the CPU.

    Parameters
    ----------
    name, arguments, definition
        See :class:`ai.model.card.Network`.
    state
        The weights by name; ``weights`` is the name of their file, for errors.

    Raises
    ------
    ModelError
        ``NETWORK_UNKNOWN``, ``NETWORK_ARGUMENTS_INVALID``, ``MODEL_WEIGHTS_DIFFER``,
        ``MODEL_FILE_UNREADABLE``.
    """
    if name == "meshnet":
        network: nn.Module = _meshnet(arguments, definition, state, weights)
    elif name == "deepmedic":
        network = _loaded(_deepmedic(arguments, definition), deepmedic.renamed(state), weights)
    else:
        network = _loaded(_monai(name, arguments), state, weights)
    return network.eval().requires_grad_(False)


def _meshnet(
    arguments: Mapping[str, object], definition: bytes | None, state: State, weights: str
) -> MeshNet:
    if definition is None or arguments:
        raise ModelError(
            "NETWORK_ARGUMENTS_INVALID",
            "A meshnet is described by its definition (model.json), and by nothing else.",
        )
    return MeshNet(read_definition(definition, "the definition"), state, weights)


def _deepmedic(arguments: Mapping[str, object], definition: bytes | None) -> nn.Module:
    given = dict(arguments)
    if definition is not None:
        try:
            config = json.loads(definition)
        except ValueError as error:
            raise ModelError("MODEL_FILE_UNREADABLE", f"The definition is no JSON: {error}.") from error
        given = {**deepmedic.arguments_of(config, "the definition"), **given}
    return _made(deepmedic.DeepMedic, given, "deepmedic")


def _monai(name: str, arguments: Mapping[str, object]) -> nn.Module:
    match = _MONAI.fullmatch(name)
    if match is None:
        raise _unknown(name)
    from monai.networks import nets

    found = getattr(nets, match.group(1), None)
    if not (inspect.isclass(found) and issubclass(found, nn.Module)) or not found.__module__.startswith(
        "monai.networks.nets."
    ):
        raise _unknown(name)
    fetching = [key for key, value in arguments.items() if _FETCHES.search(key) and value]
    if fetching:
        raise ModelError(
            "NETWORK_ARGUMENTS_INVALID",
            f"{name}: {', '.join(fetching)} would fetch weights from elsewhere; a card pins its own.",
        )
    return _made(found, arguments, name)


def _made(make: Callable[..., nn.Module], arguments: Mapping[str, object], name: str) -> nn.Module:
    try:
        return make(**arguments)
    except (
        TypeError,
        ValueError,
        RuntimeError,
        AssertionError,
        AttributeError,
        LookupError,
        ImportError,
    ) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ModelError(
            "NETWORK_ARGUMENTS_INVALID", f"The network {name} cannot be made with these arguments: {reason}."
        ) from error


def _loaded(network: nn.Module, state: State, weights: str) -> nn.Module:
    """The network with all of the weights, and no other ones."""
    own = network.state_dict()
    missing, extra = sorted(set(own) - set(state)), sorted(set(state) - set(own))
    other = sorted(key for key in set(own) & set(state) if own[key].shape != state[key].shape)
    if missing or extra or other:
        parts = [("missing", missing), ("unknown", extra), ("of another shape", other)]
        what = "; ".join(f"{word}: {', '.join(keys[:3])} ({len(keys)})" for word, keys in parts if keys)
        raise ModelError(
            "MODEL_WEIGHTS_DIFFER", f"The weights {weights} do not fit the network of the card; {what}."
        )
    network.load_state_dict(dict(state))
    return network


def _unknown(name: str) -> ModelError:
    return ModelError(
        "NETWORK_UNKNOWN",
        f"There is no network {name!r}; known are meshnet, deepmedic, and monai:CLASS for a class of "
        "monai.networks.nets, such as monai:DynUNet.",
    )
