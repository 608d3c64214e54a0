"""Postprocessing of a bundle: what each of MONAI's transforms is in our words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ai.loaders.bundle.arguments import Arguments, need, one
from ai.model.recipe import Keep, Output


@dataclass
class After:
    """What the postprocessing has done so far."""

    activation: Literal["none", "softmax", "sigmoid"] = "none"
    inverted: Literal["scores", "labels"] | None = None
    decided: Literal["argmax", "threshold"] | None = None
    threshold: float = 0.5
    keep: list[Keep] = field(default_factory=list)


def _activation(state: After, given: Arguments) -> None:
    softmax, sigmoid = bool(one(given["softmax"])), bool(one(given["sigmoid"]))
    need(one(given["other"]) is None and not (softmax and sigmoid), "Activationsd has unusual arguments")
    need(state.decided is None and state.inverted is None, "Activationsd comes late")
    need(given.get("kwargs", {}).get("dim", 0) == 0, "Activationsd along another axis")
    state.activation = "softmax" if softmax else "sigmoid" if sigmoid else state.activation


def _invert(state: After, given: Arguments) -> None:
    need(given["transform"] == "@preprocessing", "Invertd inverts something else than preprocessing")
    need(state.inverted is None and one(given["post_func"]) is None, "Invertd has unusual arguments")
    nearest = bool(one(given["nearest_interp"]))
    need(
        nearest == (state.decided is not None), "Invertd interpolates labels, or scores by nearest neighbour"
    )
    state.inverted = "labels" if nearest else "scores"


def _decide(state: After, given: Arguments) -> None:
    argmax, threshold = bool(one(given["argmax"])), one(given["threshold"])
    plain = one(given["to_onehot"]) is None and one(given["rounding"]) is None
    need(plain and state.decided is None and argmax != (threshold is not None), "AsDiscreted is unusual")
    if argmax:
        need(state.activation != "sigmoid", "argmax of a sigmoid")
        state.decided = "argmax"
        return
    need(state.activation != "softmax", "threshold of a softmax")
    need(0 < float(threshold) < 1, f"threshold {threshold}")
    state.decided, state.threshold = "threshold", float(threshold)


def _largest(state: After, given: Arguments) -> None:
    numbers = given["applied_labels"]
    plain = given["independent"] and given["connectivity"] in (None, 3) and given["num_components"] == 1
    plain = plain and not given["is_onehot"]
    need(bool(plain) and state.decided == "argmax", "KeepLargestConnectedComponentd has unusual arguments")
    listed = () if numbers is None else tuple(numbers) if isinstance(numbers, (list, tuple)) else (numbers,)
    state.keep.append(Keep(op="largest", structures=listed))


def _nothing(_state: After, _given: Arguments) -> None:
    """Has no effect on the answer."""


def output_of(after: After, *, resampled: bool) -> Output:
    """The section ``output`` of the recipe; ``resampled``: the network saw another grid than the source."""
    regions = after.decided == "threshold" or (after.decided is None and after.activation == "sigmoid")
    need(after.inverted is not None or not resampled, "there is no Invertd after Spacingd")
    return Output(
        kind="regions" if regions else "softmax",
        threshold=after.threshold,
        upsample=after.inverted or "labels",
        activation="none" if regions and after.activation == "none" else "usual",
        interpolated="logits" if after.activation == "none" else "probabilities",
    )


POSTPROCESSING: Mapping[str, Callable[[Any, Arguments], None]] = {
    "EnsureTyped": _nothing,
    "ToTensord": _nothing,
    "ToDeviced": _nothing,
    "Activationsd": _activation,
    "Invertd": _invert,
    "AsDiscreted": _decide,
    "KeepLargestConnectedComponentd": _largest,
}
