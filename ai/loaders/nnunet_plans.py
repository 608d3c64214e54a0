"""What an nnU-Net v2 results folder says: ``plans.json`` and ``dataset.json``, in the old format and the new.

Sources: nnunetv2 2.8.1, ``utilities/plans_handling/plans_handler.py`` (inheritance, plans of 2.1 and before),
``utilities/label_handling/label_handling.py`` (labels, regions, ignore label).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Literal

from ai.errors import ModelError

_UNET = "dynamic_network_architectures.architectures.unet."
_LINEAR = ("resample_torch_simple", "resample_torch_fornnunet")
_NONE = ("no_resampling_hack", "no_resampling_data_or_seg_to_shape")
_NAMES = {0: "nearest", 1: "linear", 3: "cubic"}

Interpolation = Literal["nearest", "linear", "cubic"]


@dataclass(frozen=True)
class Architecture:
    """A network by the name of its class, with what its constructor is given.

    ``imported`` names the arguments whose values are themselves names of classes.
    """

    class_name: str
    arguments: Mapping[str, Any]
    imported: tuple[str, ...]


@dataclass(frozen=True)
class Labels:
    """What the output channels mean.

    Attributes
    ----------
    names
        Name of each label that an answer can have, without background.
    channels
        Label of each output channel; for regions in the order in which they are painted.
    parts
        Of a region that holds others: their labels, which are painted over its own.
    doubts
        Regions that a label map cannot keep, a sentence each.
    """

    names: Mapping[int, str]
    channels: tuple[int, ...]
    regions: bool
    parts: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()

    @property
    def foreground(self) -> tuple[int, ...]:
        """The labels above background, which the next stage of a cascade is given one by one."""
        return tuple(sorted(self.names))


@dataclass(frozen=True)
class Normalisation:
    """How one input channel is normalised: the scheme, whether masked, and the CT statistics."""

    scheme: str
    masked: bool
    statistics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Resampling:
    """How the image reaches the spacing: interpolation, and when the coarsest axis goes on its own."""

    interpolation: Interpolation
    separate_z_above: float | None
    off: bool = False


@dataclass(frozen=True)
class Configuration:
    """One configuration of the plans, with all it inherits. Axes are those after ``transpose``."""

    name: str
    patch_size: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    transpose: tuple[int, int, int]
    normalisations: tuple[Normalisation, ...]
    resampling: Resampling
    architecture: Architecture
    previous_stage: str | None

    @property
    def dimensions(self) -> int:
        """2 or 3."""
        return len(self.patch_size)


@dataclass(frozen=True)
class Results:
    """The two JSON files of a results folder; ``where`` names it in errors."""

    plans: Mapping[str, Any]
    dataset: Mapping[str, Any]
    where: str

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Names of the input images, in order; ``modality`` in older data sets."""
        named = self.dataset.get("channel_names") or self.dataset.get("modality") or {}
        if not isinstance(named, Mapping) or not named:
            raise self.error("dataset.json names no channel_names")
        return tuple(str(named[key]) for key in sorted(named, key=int))

    @property
    def configuration_names(self) -> tuple[str, ...]:
        """The configurations of the plans."""
        return tuple(self.plans.get("configurations", {}))

    def error(self, what: str) -> ModelError:
        """A results folder that cannot be used."""
        return ModelError("NNUNET_RESULTS_INVALID", f"{self.where}: {what}.")


def read_results(plans: bytes, dataset: bytes, where: str) -> Results:
    """Parse both files; raises ModelError NNUNET_RESULTS_INVALID."""
    parsed = []
    for name, content in (("plans.json", plans), ("dataset.json", dataset)):
        try:
            value = json.loads(content)
        except ValueError as error:
            raise ModelError("NNUNET_RESULTS_INVALID", f"{where}: {name} is not JSON ({error}).") from error
        if not isinstance(value, dict):
            raise ModelError("NNUNET_RESULTS_INVALID", f"{where}: {name} is no mapping.")
        parsed.append(value)
    return Results(parsed[0], parsed[1], where)


def read_labels(results: Results) -> Labels:
    """Labels, regions and ignore label of the data set."""
    given = results.dataset.get("labels")
    if not isinstance(given, Mapping) or given.get("background") != 0:
        raise results.error("dataset.json needs labels with background 0")
    entries = {str(name): value for name, value in given.items() if name != "ignore"}
    if any(isinstance(value, list) and len(value) > 1 for value in entries.values()):
        return _read_regions(results, entries)
    names = {_single(value): name for name, value in entries.items()}
    numbers = sorted(names)
    if numbers != list(range(len(numbers))):
        raise results.error(f"labels are {numbers}, and nnU-Net's are consecutive from 0")
    return Labels({n: names[n] for n in numbers if n}, tuple(numbers), regions=False)


def _read_regions(results: Results, entries: Mapping[str, Any]) -> Labels:
    order = results.dataset.get("regions_class_order")
    regions = [name for name, value in entries.items() if set(_several(value)) != {0}]
    if not isinstance(order, list) or len(order) != len(regions):
        raise results.error(f"regions_class_order must give one label for each of the {len(regions)} regions")
    channels = tuple(int(label) for label in order)
    names: dict[int, str] = {}
    for name, label in zip(regions, channels, strict=True):
        names.setdefault(label, name)
    held = {label: set(_several(entries[name])) for label, name in names.items()}
    parts = {
        label: tuple(other for other in sorted(names) if other != label and _holds(label, other, held))
        for label in names
    }
    return Labels(
        names=dict(sorted(names.items())),
        channels=channels,
        regions=True,
        parts={label: inner for label, inner in parts.items() if inner},
        doubts=tuple(_doubts(names, held)),
    )


def _holds(label: int, other: int, held: Mapping[int, set[int]]) -> bool:
    """Whether one region is the other and more."""
    return held[other] < held[label]


def _doubts(names: Mapping[int, str], held: Mapping[int, set[int]]) -> Iterator[str]:
    """What painting one region over another loses; ``names`` in the order of painting."""
    for (below, under), (above, over) in combinations(names.items(), 2):
        if not held[below] & held[above] or _holds(below, above, held):
            continue
        if held[below] == held[above]:
            yield f"the regions {under!r} and {over!r} are the same: only {over!r} will be found"
        elif _holds(above, below, held):
            yield f"the region {over!r} is painted over its part {under!r}, which it hides"
        else:
            yield (
                f"the regions {under!r} and {over!r} overlap, and neither holds the other: where both are, "
                f"only {over!r} is kept"
            )


def _several(value: object) -> list[int]:
    return [int(v) for v in value] if isinstance(value, list) else [int(str(value))]


def _single(value: object) -> int:
    return _several(value)[0]


def read_configuration(results: Results, name: str) -> Configuration:
    """One configuration, inherited parts and old formats resolved; raises ModelError as above."""
    fields = _inherited(results, name, ())
    try:
        return _configuration(results, name, fields)
    except (KeyError, TypeError, ValueError) as error:
        detail = f"{type(error).__name__}: {error}"
        raise results.error(f"configuration {name} in plans.json is incomplete ({detail})") from error


def _inherited(results: Results, name: str, visited: Sequence[str]) -> dict[str, Any]:
    configurations = results.plans.get("configurations", {})
    if name not in configurations:
        raise results.error(f"plans.json has no configuration {name}, only {', '.join(configurations)}")
    if name in visited:
        raise results.error(f"configuration {name} inherits from itself")
    fields = dict(configurations[name])
    parent = fields.pop("inherits_from", None)
    return {**_inherited(results, parent, (*visited, name)), **fields} if parent else fields


def _configuration(results: Results, name: str, fields: Mapping[str, Any]) -> Configuration:
    channels = len(results.channel_names)
    transpose = tuple(int(axis) for axis in results.plans.get("transpose_forward", (0, 1, 2)))
    if sorted(transpose) != [0, 1, 2]:
        raise ValueError(f"transpose_forward is {transpose}")
    schemes, masks = fields["normalization_schemes"], fields["use_mask_for_norm"]
    statistics = results.plans.get("foreground_intensity_properties_per_channel") or results.plans.get(
        "foreground_intensity_properties_by_modality", {}
    )
    return Configuration(
        name=name,
        patch_size=tuple(int(n) for n in fields["patch_size"]),
        spacing_mm=tuple(float(mm) for mm in fields["spacing"]),
        transpose=(transpose[0], transpose[1], transpose[2]),
        normalisations=tuple(
            Normalisation(str(schemes[i]), bool(masks[i]), dict(statistics.get(str(i), {})))
            for i in range(channels)
        ),
        resampling=_resampling(results, fields),
        architecture=_architecture(fields),
        previous_stage=fields.get("previous_stage"),
    )


def _resampling(results: Results, fields: Mapping[str, Any]) -> Resampling:
    """The image's resampling. That of the answers is linear in all of nnU-Net's own plans, and checked."""
    image = _one_resampling(results, fields, "resampling_fn_data", order=3)
    answers = _one_resampling(results, fields, "resampling_fn_probabilities", order=1)
    if answers.interpolation != "linear" and not answers.off:
        raise results.error(f"answers resampled with {answers.interpolation} interpolation are not supported")
    return image


def _one_resampling(results: Results, fields: Mapping[str, Any], key: str, order: int) -> Resampling:
    function = str(fields.get(key, "resample_data_or_seg_to_shape"))
    arguments = fields.get(f"{key}_kwargs", {})
    if function in _NONE:
        return Resampling("nearest", None, off=True)
    if function not in ("resample_data_or_seg_to_shape", *_LINEAR):
        raise results.error(f"resampling by {function} is not known")
    separate = {None: 3.0, False: None, True: 1.0}[arguments.get("force_separate_z")]
    if function == "resample_torch_simple" or arguments.get("mode", "linear") != "linear":
        separate = None
    wanted = 1 if function in _LINEAR else int(arguments.get("order", order))
    if wanted not in _NAMES or arguments.get("order_z", 0) != 0:
        raise results.error(f"resampling of order {wanted} is not known")
    name: Any = _NAMES[wanted]
    return Resampling(name, separate)


def _architecture(fields: Mapping[str, Any]) -> Architecture:
    if "architecture" not in fields:
        return _old_architecture(fields)
    given = fields["architecture"]
    return Architecture(
        str(given["network_class_name"]), dict(given["arch_kwargs"]), tuple(given["_kw_requires_import"])
    )


def _old_architecture(fields: Mapping[str, Any]) -> Architecture:
    """Plans of nnU-Net 2.1 and before, as ``ConfigurationManager`` translates them."""
    class_name = str(fields["UNet_class_name"])
    encoder = list(fields["n_conv_per_stage_encoder"])
    dimensions = len(fields["patch_size"])
    base, most = int(fields["UNet_base_num_features"]), int(fields["unet_max_num_features"])
    blocks = "n_conv_per_stage" if class_name == "PlainConvUNet" else "n_blocks_per_stage"
    arguments: dict[str, Any] = {
        "n_stages": len(encoder),
        "features_per_stage": [min(base * 2**stage, most) for stage in range(len(encoder))],
        "conv_op": f"torch.nn.modules.conv.Conv{dimensions}d",
        "kernel_sizes": fields["conv_kernel_sizes"],
        "strides": fields["pool_op_kernel_sizes"],
        blocks: encoder,
        "n_conv_per_stage_decoder": fields["n_conv_per_stage_decoder"],
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimensions}d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    return Architecture(_UNET + class_name, arguments, ("conv_op", "norm_op", "dropout_op", "nonlin"))
