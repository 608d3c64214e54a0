"""A card for a MONAI bundle from elsewhere, from what its files say. Nothing of the bundle is run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ai.errors import ModelError
from ai.loaders.bundle.files import METADATA, has_regions, read_mapping, targets
from ai.loaders.bundle.terms import licence_of
from ai.loaders.drafts import Draft
from ai.terminology.naming import Named, nested_parts, structure_entries, with_parts

_CONFIGURATIONS = ("inference.json", "inference.yaml", "inference.yml")
_WEIGHTS = ("model.pt", "model.safetensors", "model.pth", "model.ckpt", "model.ts")
_MODALITIES = {"MRI": "MR", "MR": "MR", "CT": "CT", "PT": "PT", "PET": "PT", "US": "US"}
_MOST_STRUCTURES = 255
_MOST_BYTES = 4 << 20


def draft(source: Path) -> Draft:
    """Card and files of a bundle folder.

    Raises
    ------
    ModelError
        ``MODEL_FILE_MISSING``: no configuration or no weights; ``MODEL_CONFIG_INVALID``: not readable;
        ``MODEL_KIND_UNKNOWN``: the bundle does not segment.
    """
    metadata = read_mapping(_small(source / METADATA), METADATA)
    configuration = _configuration(source)
    inference = read_mapping(_small(source / configuration), configuration)
    weights = _weights(source, inference)
    files = _files(source, configuration, weights)
    warnings = _code_in(inference, files)
    found, channels = _structures(metadata, inference, warnings)
    licence, said = licence_of(source, metadata)
    warnings += said
    name = _sentence(metadata, "name").replace("\\", " ") or source.name
    fields: dict[str, object] = {
        "version": str(metadata.get("version") or "0")[:64],
        "title": name[:64],
        "loader": "monai_bundle",
        "algorithm": _sentence(metadata, "description", "task") or f"MONAI bundle {name}",
        "manufacturer": (_sentence(metadata, "authors").replace("\\", " ") or "unknown")[:64],
        "intended_use": _sentence(metadata, "intended_use") or "Research; its maker states no intended use.",
        "limits": [text for text in (_sentence(metadata, "eval_metrics"),) if text],
        "references": _references(metadata),
        "licence": licence,
        "accepts": _accepts(metadata, warnings),
        "bundle": {"configuration": configuration, "weights": weights, **channels},
        "structures": found.entries,
    }
    return Draft(fields, files, tuple(warnings), source.name, found.names, found.uncoded)


def _small(path: Path) -> bytes:
    """A file of the configuration; raises ModelError MODEL_CONFIG_INVALID for what is far too large."""
    size = path.stat().st_size
    if size > _MOST_BYTES:
        raise ModelError("MODEL_CONFIG_INVALID", f"{path} has {size} bytes; at most {_MOST_BYTES} are read.")
    return path.read_bytes()


def _code_in(inference: Mapping[str, Any], files: Mapping[str, Path]) -> list[str]:
    """A sentence about what of a bundle is code, for a person to look at before it runs."""
    scripts = [name for name in files if name.endswith(".py")]
    expressions = sum(text.startswith("$") for text in _texts(inference))
    found = [f"{expressions} expression{'' if expressions == 1 else 's'}"] if expressions else []
    found += [", ".join(scripts)] if scripts else []
    if not found:
        return []
    return [
        f"the bundle brings code ({' and '.join(found)}), which runs whenever it is loaded, also by "
        "`verify` and `try`: in the gateway's closed model process; look at it before"
    ]


def _texts(raw: Any) -> Iterator[str]:
    if isinstance(raw, str):
        yield raw
    elif isinstance(raw, Mapping | list):
        for each in raw.values() if isinstance(raw, Mapping) else raw:
            yield from _texts(each)


def _configuration(source: Path) -> str:
    for name in _CONFIGURATIONS:
        if (source / "configs" / name).is_file():
            return f"configs/{name}"
    raise ModelError(
        "MODEL_FILE_MISSING",
        f"{source / 'configs'} has none of {', '.join(_CONFIGURATIONS)} to run the bundle by.",
    )


def _weights(source: Path, inference: Mapping[str, Any]) -> str:
    """The file that the bundle's own checkpoint loader reads, else one with a usual name."""
    named = [
        match.group(1)
        for raw in targets(inference)
        if "load_path" in raw and (match := re.search(r"(models/[\w./-]+)", str(raw["load_path"])))
    ]
    for name in (*named, *(f"models/{usual}" for usual in _WEIGHTS)):
        if (source / name).is_file():
            return str(name)
    raise ModelError(
        "MODEL_FILE_MISSING",
        f"{source / 'models'} has none of {', '.join(_WEIGHTS)}; bundles from a zoo may fetch their weights "
        "apart (large_files.yml): download them first.",
    )


def _files(source: Path, configuration: str, weights: str) -> dict[str, Path]:
    """What the model needs and what a reader of its terms wants."""
    names = [METADATA, configuration, weights]
    for pattern in ("scripts/**/*.py", "LICENSE*", "docs/*.md", "docs/*.txt"):
        names += [path.relative_to(source).as_posix() for path in source.glob(pattern) if path.is_file()]
    return {name: source / name for name in dict.fromkeys(sorted(names))}


def _structures(
    metadata: Mapping[str, Any], inference: Mapping[str, Any], warnings: list[str]
) -> tuple[Named, dict[str, object]]:
    """Structures of the card, and which channel each is, where that is not the usual."""
    outputs = _mapping(metadata, "network_data_format", "outputs")
    if outputs and "pred" not in outputs:
        raise ModelError(
            "MODEL_KIND_UNKNOWN",
            f"The bundle answers with {', '.join(outputs)} and not with pred, an image: it does not segment.",
        )
    regions = has_regions(inference)
    names = _names(outputs, inference, regions, warnings)
    ordered = sorted(names, key=lambda channel: _painting_order(names[channel], channel, regions))
    if not 1 <= len(ordered) <= _MOST_STRUCTURES:
        raise ModelError(
            "MODEL_KIND_UNKNOWN", f"The bundle names {len(ordered)} structures; 1 to 255 are possible."
        )
    found = structure_entries({n: names[channel] for n, channel in enumerate(ordered, start=1)})
    if regions and len(ordered) > 1:
        parts = nested_parts(found.names)
        found = replace(found, entries=with_parts(found.entries, parts))
        warnings.append(_overlap(found.names, parts))
    usual = [n if regions else n + 1 for n in range(len(ordered))]
    if ordered == usual:
        return found, {}
    return found, {"channels": {channel: n for n, channel in enumerate(ordered, start=1)}}


def _overlap(names: Mapping[int, str], parts: Mapping[int, list[int]]) -> str:
    """What a person must know of regions that share voxels."""
    order = f"regions are painted in this order, the last on top: {', '.join(names.values())}; "
    nested = {number for number, inner in parts.items() for number in (number, *inner)}
    loose = [name for number, name in names.items() if number not in nested]
    if not loose:
        return f"{order}each includes those after it; check it"
    return (
        f"{order}{', '.join(loose)} may overlap the others, and nothing says which holds which: where two "
        "are found, only the later one is kept; write includes if one holds the other"
    )


def _names(
    outputs: Mapping[str, Any], inference: Mapping[str, Any], regions: bool, warnings: list[str]
) -> dict[int, str]:
    """Name by channel, background left out."""
    defined = _mapping(outputs, "pred", "channel_def")
    count = _channel_count(outputs, inference)
    names = {int(channel): str(name) for channel, name in defined.items() if str(channel).isdigit()}
    if count and names and max(names) >= count:
        raise ModelError(
            "MODEL_KIND_UNKNOWN",
            f"metadata.json names channels up to {max(names)}, and the network answers with {count}: a model "
            "that is prompted with the class it shall look for cannot be run.",
        )
    if not names:
        start = 0 if regions else 1
        names = {channel: f"structure {channel + 1 - start}" for channel in range(start, count)}
        warnings.append("metadata.json has no channel_def: name the structures in the card")
    return {
        channel: name
        for channel, name in sorted(names.items())
        if name.strip().lower() not in ("background", "other") and (regions or channel > 0)
    }


def _channel_count(outputs: Mapping[str, Any], inference: Mapping[str, Any]) -> int:
    network = inference.get("network_def")
    out = network.get("out_channels") if isinstance(network, Mapping) else None
    if not isinstance(out, int):
        out = _mapping(outputs, "pred").get("num_channels")
    return out if isinstance(out, int) else 0


def _painting_order(name: str, channel: int, regions: bool) -> tuple[int, int]:
    """A whole is painted before its parts, and what enhances last; else the order of the channels."""
    words = name.lower()
    rank = 0 if "whole" in words else 2 if "enhanc" in words else 1
    return (rank if regions else 0, channel)


def _accepts(metadata: Mapping[str, Any], warnings: list[str]) -> dict[str, object]:
    """Modality and channels. What metadata claim is often wrong, so doubts are told."""
    inputs = _mapping(metadata, "network_data_format", "inputs")
    image = _mapping(inputs, "image") or next((v for v in inputs.values() if isinstance(v, Mapping)), {})
    claimed = str(image.get("modality", "")).upper()
    words = " ".join(str(metadata.get(key, "")) for key in ("name", "task", "description", "data_source"))
    modality = _MODALITIES.get(claimed) or _modality_in(words)
    if modality is None:
        warnings.append(
            f"the modality {claimed or '(none)'} is unknown: CT is written into the card; check it"
        )
        modality = "CT"
    elif claimed not in _MODALITIES:
        warnings.append(f"the modality {modality} was guessed from the description; check it")
    if modality != "CT" and "hounsfield" in str(image.get("format", "")).lower():
        warnings.append(f"metadata.json claims Hounsfield units for {modality}; the card says {modality}")
    accepts: dict[str, object] = {"modalities": [modality]}
    count = image.get("num_channels")
    if isinstance(count, int) and count > 1:
        defined = _mapping(image, "channel_def")
        names = [str(defined.get(str(n), f"image {n + 1}")) for n in range(count)]
        accepts["channels"] = names if len(set(names)) == count else [f"image {n + 1}" for n in range(count)]
        warnings.append(f"the model takes {count} images together, on one grid: {', '.join(names)}")
    return accepts


def _modality_in(words: str) -> str | None:
    found = [m for m in re.findall(r"\b(CT|MRI|MR|PET)\b", words) if m in _MODALITIES]
    return _MODALITIES[found[0]] if found else None


def _references(metadata: Mapping[str, Any]) -> list[str]:
    listed = metadata.get("references") or []
    return [" ".join(str(each).split()) for each in (listed if isinstance(listed, list) else [listed])]


def _sentence(metadata: Mapping[str, Any], *keys: str) -> str:
    """The first of those that is there, on one line."""
    for key in keys:
        text = " ".join(_flat(metadata.get(key)))
        if text:
            return text
    return ""


def _flat(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield f"{key}: {' '.join(_flat(each))}"
    elif value is not None:
        yield " ".join(str(value).split())


def _mapping(start: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    """A nested mapping; empty where a step is missing."""
    found: Any = start
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}
