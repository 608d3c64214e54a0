"""Preprocessing of a bundle: what each of MONAI's transforms is in our words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from monai.transforms.utils import is_positive

from ai.loaders.bundle.arguments import Arguments, need, one
from ai.model.recipe import MinimumMaximum, Operation, Percentiles, Rescale, Standardise

_INTERPOLATION: Mapping[object, Literal["nearest", "linear", "cubic"]] = {
    "bilinear": "linear",
    "nearest": "nearest",
}
_FLOAT32 = (None, "float32", "torch.float32", "float", float, np.float32, torch.float32)


@dataclass
class Before:
    """What the preprocessing has done so far."""

    channels: int
    axes: str | None = None
    spacing_mm: tuple[float | None, float | None, float | None] | None = None
    interpolation: Literal["nearest", "linear", "cubic"] = "linear"
    crop: Literal["none", "foreground"] = "none"
    before: list[Operation] = field(default_factory=list)
    after: list[Operation] = field(default_factory=list)
    padded_to: tuple[int, ...] = ()
    multiple_of: int = 1

    def change_values(self, operation: Operation) -> None:
        """Add an operation, before or after the grid changes."""
        need(not self.padded, f"{operation.op} after padding")
        (self.before if self.spacing_mm is None else self.after).append(operation)

    @property
    def padded(self) -> bool:
        """Whether the image was filled up already."""
        return bool(self.padded_to) or self.multiple_of > 1


def _type(_state: Before, given: Arguments) -> None:
    need(one(given["dtype"]) in _FLOAT32, f"values become {given['dtype']}")


def _nothing(_state: object, _given: Arguments) -> None:
    """Has no effect on what the network sees."""


def _orientation(state: Before, given: Arguments) -> None:
    need(
        state.axes is None and state.spacing_mm is None and not state.padded,
        "Orientationd comes late or twice",
    )
    if given["as_closest_canonical"]:
        state.axes = "RAS"
        return
    labels = given.get("labels")
    usual = labels is None or [tuple(pair) for pair in labels] == [("L", "R"), ("P", "A"), ("I", "S")]
    need(usual, "Orientationd has its own labels")
    axes = str(given["axcodes"]).upper()
    need(len(axes) == 3 and not set(axes) - set("LRPAIS"), f"axcodes {axes}")
    state.axes = axes


def _spacing(state: Before, given: Arguments) -> None:
    need(state.axes is not None, "Spacingd comes before Orientationd")
    need(state.spacing_mm is None and not state.padded, "Spacingd comes twice or after padding")
    plain = not given["diagonal"] and not given["scale_extent"] and not one(given["align_corners"])
    plain = plain and given["min_pixdim"] is None and given["max_pixdim"] is None
    need(plain and one(given["padding_mode"]) == "border", "Spacingd has unusual arguments")
    mode = one(given["mode"])
    need(mode in _INTERPOLATION, f"Spacingd interpolates by {mode}")
    state.interpolation = _INTERPOLATION[mode]
    pixdim = given["pixdim"]
    listed = [float(step) for step in (pixdim if isinstance(pixdim, (list, tuple)) else [pixdim])]
    listed = (listed + [listed[-1]] * 3)[:3]
    need(all(step > 0 for step in listed), f"pixdim {pixdim}")
    state.spacing_mm = (listed[0], listed[1], listed[2])


def _range(state: Before, given: Arguments) -> None:
    need(
        given["b_min"] is not None and given["b_max"] is not None,
        "ScaleIntensityRanged without b_min or b_max",
    )
    state.change_values(
        Rescale(
            source=(given["a_min"], given["a_max"]),
            target=(given["b_min"], given["b_max"]),
            clip=bool(given["clip"]),
        )
    )


def _percentiles(state: Before, given: Arguments) -> None:
    need(given["b_min"] is not None and given["b_max"] is not None, "percentiles without b_min or b_max")
    need(not given["relative"], "percentiles relative to themselves")
    _each_channel(state, given, "ScaleIntensityRangePercentilesd")
    state.change_values(
        Percentiles(
            low=given["lower"],
            high=given["upper"],
            target=(given["b_min"], given["b_max"]),
            clip=bool(given["clip"]),
        )
    )


def _minimum_maximum(state: Before, given: Arguments) -> None:
    need(given["minv"] is not None and given["maxv"] is not None, "ScaleIntensityd by a factor")
    _each_channel(state, given, "ScaleIntensityd")
    state.change_values(MinimumMaximum(target=(given["minv"], given["maxv"])))


def _normalise(state: Before, given: Arguments) -> None:
    mean, sd = _number(given["subtrahend"]), _number(given["divisor"])
    need(not (given["nonzero"] and (mean, sd) != (None, None)), "NormalizeIntensityd nonzero with numbers")
    need((mean is None) == (sd is None), "NormalizeIntensityd with only one of subtrahend and divisor")
    if mean is None:
        _each_channel(state, given, "NormalizeIntensityd")
    state.change_values(Standardise(mean=mean, sd=sd, nonzero=bool(given["nonzero"])))


def _number(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, Sequence) and len(value) == 1:
        value = value[0]
    need(isinstance(value, (int, float)), f"NormalizeIntensityd by {value}")
    return float(value)


def _each_channel(state: Before, given: Arguments, name: str) -> None:
    need(state.channels == 1 or bool(given["channel_wise"]), f"{name} mixes the channels")


def _crop_foreground(state: Before, given: Arguments) -> None:
    first = not state.before and not state.after and state.spacing_mm is None and not state.padded
    need(first and state.crop == "none", "CropForegroundd comes after other changes")
    plain = given["margin"] in (0, [0, 0, 0], (0, 0, 0)) and given["k_divisible"] == 1
    plain = plain and given["select_fn"] is is_positive and given["channel_indices"] is None
    need(plain, "CropForegroundd has unusual arguments")
    state.crop = "foreground"


def _spatial_pad(state: Before, given: Arguments) -> None:
    _zero_pad(given, "SpatialPadd")
    size = given["spatial_size"]
    state.padded_to = tuple(size) if isinstance(size, (list, tuple)) else (int(size),) * 3


def _divisible_pad(state: Before, given: Arguments) -> None:
    _zero_pad(given, "DivisiblePadd")
    state.multiple_of = int(one(given["k"]))


def _zero_pad(given: Arguments, name: str) -> None:
    zero = one(given["mode"]) == "constant" and not any(given.get("kwargs", {}).values())
    need(zero and str(given["method"]) in ("symmetric", "Method.SYMMETRIC"), f"{name} has unusual arguments")


PREPROCESSING: Mapping[str, Callable[[Any, Arguments], None]] = {
    "EnsureTyped": _type,
    "CastToTyped": _type,
    "ToTensord": _nothing,
    "ToDeviced": _nothing,
    "ConcatItemsd": _nothing,
    "DeleteItemsd": _nothing,
    "Orientationd": _orientation,
    "Spacingd": _spacing,
    "ScaleIntensityRanged": _range,
    "ScaleIntensityRangePercentilesd": _percentiles,
    "ScaleIntensityd": _minimum_maximum,
    "NormalizeIntensityd": _normalise,
    "CropForegroundd": _crop_foreground,
    "SpatialPadd": _spatial_pad,
    "DivisiblePadd": _divisible_pad,
}
