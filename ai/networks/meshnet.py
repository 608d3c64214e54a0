"""MeshNet: a stack of dilated convolutions at full resolution (Fedorov et al., arXiv 1612.00940).

It sees the whole brain at once, which in the usual way costs several copies of 256³ voxels × channels. Here
each layer is computed slab by slab, every slab with the rows of its neighbours that its kernel reaches: the
same sums as in one piece, two layers in memory, and the layout that convolutions are quickest in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ai.errors import ModelError
from ai.networks.pieces import run

_SLAB_VOXELS = 1 << 21  # computed at a time
_EPSILON = 1e-5  # of the normalisation


@dataclass(frozen=True)
class Layer:
    """A convolution of as many output rows as input rows."""

    inputs: int
    outputs: int
    kernel: int
    dilation: int

    @property
    def reach(self) -> int:
        """Rows beyond its own that it sees."""
        return self.dilation * (self.kernel // 2)


@dataclass(frozen=True)
class Definition:
    """What ``model.json`` of brainchop says.

    Attributes
    ----------
    normalised
        Each channel is brought to mean 0 and variance 1 over the whole image before its activation.
    """

    layers: tuple[Layer, ...]
    activation: Literal["relu", "elu", "gelu"]
    normalised: bool
    dropout: float


def read_definition(content: bytes, name: str) -> Definition:
    """Read the file that describes the layers.

    Raises
    ------
    ModelError
        ``MODEL_FILE_UNREADABLE`` when it is no JSON of that kind, or has what this network has not.
    """
    try:
        fields = json.loads(content)
        layers = tuple(
            Layer(each["in_channels"], each["out_channels"], each["kernel_size"], each["dilation"])
            for each in fields["layers"]
        )
        shaped = all(
            each.get("stride", 1) == 1 and each["padding"] == layer.reach and layer.kernel % 2 == 1
            for each, layer in zip(fields["layers"], layers, strict=True)
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError("MODEL_FILE_UNREADABLE", f"{name} describes no MeshNet: {error!r}.") from error
    if not layers or not shaped or fields.get("affine"):
        raise ModelError(
            "MODEL_FILE_UNREADABLE",
            f"{name} describes layers that change the size of the image, or normalisation with weights; "
            "this MeshNet has neither.",
        )
    activation: Literal["relu", "elu", "gelu"] = (
        "elu" if fields.get("elu") else "gelu" if fields.get("gelu") else "relu"
    )
    return Definition(layers, activation, bool(fields.get("bnorm")), float(fields.get("dropout_p", 0.0)))


class MeshNet(nn.Module):
    """The network of a definition with its weights.

    Channels that the file leaves open (brainchop fills them in from elsewhere) are those of the weights.
    """

    def __init__(
        self, definition: Definition, state: Mapping[str, Tensor], name: str = "the weights"
    ) -> None:
        super().__init__()
        self.layers = definition.layers
        self.activation = definition.activation
        self.normalised = definition.normalised
        found = _in_order(state)
        kernels = [(layer.kernel,) * 3 for layer in self.layers]
        if [tuple(weight.shape[2:]) for weight, _ in found] != kernels:
            raise ModelError(
                "MODEL_WEIGHTS_DIFFER",
                f"{name} hold {len(found)} convolutions, the definition has {len(kernels)} layers with the "
                f"kernels {', '.join(str(kernel[0]) for kernel in kernels)}.",
            )
        inner = [weight.shape[0] for weight, _ in found[:-1]]
        if inner != [weight.shape[1] for weight, _ in found[1:]]:
            raise ModelError("MODEL_WEIGHTS_DIFFER", f"{name}: the channels of its layers do not chain.")
        self.weights = nn.ParameterList(nn.Parameter(weight, requires_grad=False) for weight, _ in found)
        self.biases = nn.ParameterList(
            nn.Parameter(torch.zeros(weight.shape[0]) if bias is None else bias, requires_grad=False)
            for weight, bias in found
        )

    @property
    def classes(self) -> int:
        """Channels of its answer."""
        return int(self.weights[-1].shape[0])

    @property
    def reach(self) -> int:
        """Voxels around a voxel that its answer depends on, in each direction."""
        return sum(layer.reach for layer in self.layers)

    def forward(self, image: Tensor) -> Tensor:
        """``(batch, channels, x, y, z)`` to scores ``(batch, classes, x, y, z)``."""
        return run(self.pieces(image))

    def pieces(self, image: Tensor) -> Generator[None, None, Tensor]:
        """The same, with a rest after each slab of each layer."""
        answers = []
        for each in torch.split(image, 1):
            answers.append((yield from self._one(each)))
        return torch.cat(answers)

    def _one(self, image: Tensor) -> Generator[None, None, Tensor]:
        kind = _working_type(image)
        values = image.to(kind, memory_format=torch.channels_last_3d)
        last = len(self.layers) - 1
        for index, layer in enumerate(self.layers):
            weight = self.weights[index].to(kind, memory_format=torch.channels_last_3d)
            values = yield from self._layer(values, layer, weight, self.biases[index], index == last)
        return values

    def _layer(
        self, values: Tensor, layer: Layer, weight: Tensor, bias: Tensor, last: bool
    ) -> Generator[None, None, Tensor]:
        """One convolution with what follows it, slab by slab."""
        shape = (1, weight.shape[0], *values.shape[2:])
        result = torch.empty(
            shape, dtype=values.dtype, device=values.device, memory_format=torch.channels_last_3d
        )
        normalised = self.normalised and not last
        moments: list[tuple[int, Tensor, Tensor]] = []
        for rows in _slabs(values.shape[2:]):
            with torch.autocast(values.device.type, enabled=False):
                part = _convolved(values, layer, weight, bias.to(values.dtype), rows)
                if normalised:
                    mean, variance = torch.batch_norm_update_stats(part, None, None, 0.0)
                    moments.append((rows.stop - rows.start, mean.double(), variance.double()))
                result[:, :, rows] = part if last or normalised else self._activated(part)
            yield
        if normalised:
            with torch.autocast(values.device.type, enabled=False):
                self._normalise(result, *_pooled(moments))
            yield
        return result

    def _normalise(self, values: Tensor, mean: Tensor, variance: Tensor) -> None:
        """Mean 0 and variance 1 of each channel, then the activation, in place."""
        for rows in _slabs(values.shape[2:]):
            part = F.batch_norm(values[:, :, rows], mean, variance, eps=_EPSILON)
            values[:, :, rows] = self._activated(part)

    def _activated(self, values: Tensor) -> Tensor:
        if self.activation == "elu":
            return F.elu_(values)
        return F.gelu(values) if self.activation == "gelu" else F.relu_(values)


def _pooled(parts: Sequence[tuple[int, Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Mean and variance of the whole, float32, from sizes, means and variances of its parts."""
    total = sum(size for size, _, _ in parts)
    mean = torch.stack([first * (size / total) for size, first, _ in parts]).sum(0)
    spread = [(second + (first - mean).square()) * (size / total) for size, first, second in parts]
    return mean.float(), torch.stack(spread).sum(0).float()


def _working_type(image: Tensor) -> torch.dtype:
    """The type that autocast would choose, or that of the image."""
    kind = image.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else image.dtype


def _slabs(shape: Sequence[int]) -> Iterator[slice]:
    """Rows of the first axis, some at a time."""
    rows = max(1, _SLAB_VOXELS // (shape[1] * shape[2]))
    return (slice(start, min(start + rows, shape[0])) for start in range(0, shape[0], rows))


def _convolved(values: Tensor, layer: Layer, weight: Tensor, bias: Tensor, rows: slice) -> Tensor:
    """Some rows of a convolution that pads with zeros; its input is read as far as it reaches."""
    length, reach = values.shape[2], layer.reach
    first, stop = rows.start - reach, rows.stop + reach
    part = values[:, :, max(first, 0) : min(stop, length)]
    missing = (max(-first, 0), max(stop - length, 0))
    if any(missing):
        part = F.pad(part, (0, 0, 0, 0, *missing))
    part = part.contiguous(memory_format=torch.channels_last_3d)
    return F.conv3d(part, weight, bias, padding=(0, reach, reach), dilation=layer.dilation)


def _in_order(state: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor | None]]:
    """Kernels and biases by the numbers in their names: ``model.4.weight``, or ``model.2.0.weight``."""
    kernels = {name for name, value in state.items() if value.ndim == 5}
    ordered = sorted(kernels, key=lambda name: [int(number) for number in re.findall(r"\d+", name)])
    found = [(state[name], state.get(f"{name.removesuffix('weight')}bias")) for name in ordered]
    used = {*ordered, *(f"{name.removesuffix('weight')}bias" for name in ordered)}
    others = sorted(set(state) - used)
    if others:
        raise ModelError(
            "MODEL_WEIGHTS_DIFFER",
            f"The weights hold {', '.join(others[:4])}, which this MeshNet has no place for.",
        )
    return found
