"""Changes of values, as MONAI's transforms and nnU-Net's normalisations make them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch

import torch
from torch import Tensor

from ai.model.recipe import Clip, MinimumMaximum, Operation, Percentiles, Rescale, Standardise

_LEAST_SD = 1e-8


def change(image: Tensor, operations: Sequence[Operation], foreground: Tensor | None = None) -> Tensor:
    """Apply operations in order to one channel.

    Parameters
    ----------
    image
        float32 ``(x, y, z)``; it is changed in place.
    foreground
        bool, same shape: what operations on the foreground are confined to.
    """
    for operation in operations:
        if isinstance(operation, Standardise) and operation.foreground and foreground is not None:
            image[foreground] = _apply(operation, image[foreground])
        else:
            image = _apply(operation, image)
    return image


@singledispatch
def _apply(operation: object, _image: Tensor) -> Tensor:
    raise TypeError(f"no such operation: {operation!r}")


@_apply.register
def _clip(operation: Clip, image: Tensor) -> Tensor:
    return image.clamp_(operation.low, operation.high)


@_apply.register
def _rescale(operation: Rescale, image: Tensor) -> Tensor:
    return _linear(image, operation.source, operation.target, operation.clip)


@_apply.register
def _standardise(operation: Standardise, image: Tensor) -> Tensor:
    """MONAI ``NormalizeIntensity``, nnU-Net ``ZScoreNormalization``: population standard deviation."""
    chosen = image != 0 if operation.nonzero else None
    voxels = image if chosen is None else image[chosen]
    if not voxels.numel():
        return image
    mean, sd = operation.mean, operation.sd
    if mean is None or sd is None:
        found_sd, found_mean = torch.std_mean(voxels.double(), correction=0)
        mean = float(found_mean) if mean is None else mean
        sd = float(found_sd) if sd is None else sd
    divisor = sd if sd > _LEAST_SD else 1.0  # a flat image becomes 0
    if chosen is None:
        return image.sub_(mean).div_(divisor)
    image[chosen] = (voxels - mean) / divisor
    return image


@_apply.register
def _percentiles(operation: Percentiles, image: Tensor) -> Tensor:
    low, high = (percentile(image, share) for share in (operation.low, operation.high))
    return _linear(image, (low, high), operation.target, operation.clip)


@_apply.register
def _minimum_maximum(operation: MinimumMaximum, image: Tensor) -> Tensor:
    low, high = (float(value) for value in torch.aminmax(image))
    return _linear(image, (low, high), operation.target, clip=False)


def percentile(image: Tensor, share: float) -> float:
    """The value below which that share, 0 to 100, of the voxels lie, linear between them as numpy has it."""
    values = image.flatten()
    place = share / 100.0 * (values.numel() - 1)
    below = int(place)
    low = float(values.kthvalue(below + 1).values)
    if place == below:
        return low
    high = float(values.kthvalue(below + 2).values)
    return low + (place - below) * (high - low)


def _linear(image: Tensor, source: tuple[float, float], target: tuple[float, float], clip: bool) -> Tensor:
    (low, high), (to_low, to_high) = source, target
    if high == low:  # as MONAI: nothing to stretch
        image.sub_(low).add_(to_low)
    else:
        image.sub_(low).div_(high - low).mul_(to_high - to_low).add_(to_low)
    return image.clamp_(min(to_low, to_high), max(to_low, to_high)) if clip else image
