"""What the text of a bundle's configuration says, without MONAI and without running any of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from ai.errors import ModelError

METADATA = "configs/metadata.json"


def read_mapping(content: bytes, name: str) -> dict[str, Any]:
    """JSON or YAML, by its ending; raises ModelError MODEL_CONFIG_INVALID."""
    try:
        found = json.loads(content) if name.endswith(".json") else yaml.safe_load(content)
    except (ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError("MODEL_CONFIG_INVALID", f"{name} cannot be read: {reason}.") from error
    if not isinstance(found, dict):
        raise ModelError("MODEL_CONFIG_INVALID", f"{name} holds a {type(found).__name__}, no mapping.")
    return found


def short_name(raw: Mapping[str, Any]) -> str:
    """Name of the class of a ``_target_``, without its module."""
    return str(raw.get("_target_", "")).rpartition(".")[2]


def targets(raw: Any) -> Iterator[Mapping[str, Any]]:
    """Every object with a ``_target_`` in a part of the configuration, outer ones first."""
    if isinstance(raw, Mapping):
        if "_target_" in raw:
            yield raw
        for value in raw.values():
            yield from targets(value)
    elif isinstance(raw, list):
        for value in raw:
            yield from targets(value)


def has_regions(inference: Mapping[str, Any]) -> bool:
    """Whether the bundle decides channel by channel: a threshold, or a sigmoid, and no argmax."""
    found = [raw for raw in targets(inference.get("postprocessing")) if short_name(raw) in _DECIDING]
    if any(raw.get("argmax") for raw in found):
        return False
    return any(raw.get("threshold") is not None or raw.get("sigmoid") for raw in found)


_DECIDING = frozenset({"Activationsd", "AsDiscreted", "Activations", "AsDiscrete"})
