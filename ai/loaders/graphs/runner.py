"""What every opened graph is for us, and what is wrong with one that does not fit its recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ai.errors import ModelError
from ai.model import ModelSpec, Recipe

Size = int | None
"""One side of an array; None where the graph takes any."""
Dtype = Literal["float32", "float16", "bfloat16", "any"]


_PROBE = 64  # longest side of an image that a network is tried with


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Runner:
    """An opened graph on one device.

    Attributes
    ----------
    forward
        Input to scores, as :data:`ai.inference.engine.Forward`.
    given
        Shape of the input that the graph declares; None where it declares none (TorchScript).
    answered
        Shape of its answer, likewise.
    close
        Gives back its memory.
    """

    forward: Callable[[Tensor], Tensor]
    given: tuple[Size, ...] | None
    answered: tuple[Size, ...] | None
    weight_bytes: int
    dtype: Dtype
    close: Callable[[], None] = _nothing


def first_tensor(answer: object) -> Tensor:
    """The answer of a network: itself, or the first of several (deep supervision, logits beside features)."""
    while not isinstance(answer, Tensor):
        if isinstance(answer, Mapping) and answer:
            answer = next(iter(answer.values()))
        elif isinstance(answer, Sequence) and answer:
            answer = answer[0]
        else:
            raise ModelError(
                "MODEL_OUTPUT_INVALID", f"The graph answers with {type(answer).__name__}, not with an array."
            )
    return answer


def check_shapes(spec: ModelSpec, recipe: Recipe, runner: Runner) -> None:
    """Hold the shapes that a graph declares against its card.

    Raises
    ------
    ModelError
        ``MODEL_INPUT_INVALID``: dimensions, channels, or a fixed size that is not the recipe's tile;
        ``MODEL_OUTPUT_INVALID``: not as many channels as the card has structures for.
    """
    if runner.given is not None:
        _check_input(spec, recipe, runner.given)
    if runner.answered is not None:
        check_answer(spec, recipe, runner.answered)


def _check_input(spec: ModelSpec, recipe: Recipe, given: tuple[Size, ...]) -> None:
    if len(given) != recipe.dimensions + 2:
        raise _misfit(
            spec,
            "INPUT",
            f"takes arrays of the shape {shown(given)}, the recipe has dimensions: {recipe.dimensions}, that "
            f"is (batch, channels and {recipe.dimensions} more)",
        )
    batch, channels, *size = given
    wanted = len(spec.accepts.channels)
    if channels not in (None, wanted):
        raise _misfit(spec, "INPUT", f"takes {channels} channels, the card names {wanted} (accepts.channels)")
    if batch not in (None, 1, recipe.tiles.batch):
        raise _misfit(
            spec, "INPUT", f"takes batches of exactly {batch}: export it with a dynamic batch or one of 1"
        )
    if all(side is None for side in size):
        return
    tile = recipe.tiles.size
    fixed = ", ".join("any" if side is None else str(side) for side in size)
    if tile is None:
        tile = _whole_grid(recipe)
    sides = () if tile is None else tile[-len(size) :]
    if not sides or any(have not in (None, want) for have, want in zip(size, sides, strict=True)):
        is_now = "null" if recipe.tiles.size is None else list(recipe.tiles.size)
        first = "1, " if recipe.dimensions == 2 else ""
        raise _misfit(
            spec,
            "INPUT",
            f"takes images of the fixed size ({fixed}), recipe.tiles.size is {is_now}: write size: "
            f"[{first}{fixed}], or export the graph with dynamic sizes",
        )


def _whole_grid(recipe: Recipe) -> tuple[int, int, int] | None:
    """The tile of a recipe that runs the whole grid, where that has an exact size."""
    size = recipe.grid.size
    if size is None or None in size:
        return None
    first, second, third = (-(-(side or 0) // recipe.tiles.multiple_of) for side in size)
    multiple = recipe.tiles.multiple_of
    return (1 if recipe.dimensions == 2 else first * multiple, second * multiple, third * multiple)


def check_answer(spec: ModelSpec, recipe: Recipe, answered: tuple[Size, ...]) -> None:
    """Hold the shape of an answer ``(batch, channels, …)`` against the structures of the card."""
    output, structures = recipe.output, len(spec.structures)
    if output.kind == "scalar":
        return  # checked by the engine on the answer itself, which may have any shape
    if len(answered) != recipe.dimensions + 2:
        raise _misfit(
            spec,
            "OUTPUT",
            f"answers with the shape {shown(answered)}; (batch, classes and {recipe.dimensions} more) is due",
        )
    found = answered[1]
    usual = {"softmax": structures + 1, "regions": structures, "labels": 1}[output.kind]
    named = output.channels
    wanted = len(named) if named is not None and output.kind != "labels" else usual
    if found not in (None, wanted):
        why = f"{structures} structures as {output.kind} make {wanted} (recipe.output.channels names others)"
        if named is not None:
            why = f"recipe.output.channels names {wanted}"
        raise _misfit(spec, "OUTPUT", f"answers with {found} channels, but {why}")


def probe(spec: ModelSpec, recipe: Recipe, runner: Runner, device: str) -> None:
    """Ask a network that declares no shapes about a small image, to know its classes before a patient comes.

    One that takes only images of its own size says so by an error; then its first answer is checked.

    Raises
    ------
    ModelError
        As :func:`check_answer`.
    """
    multiple = recipe.tiles.multiple_of
    side = max(_PROBE // multiple, 1) * multiple
    tile = recipe.tiles.size or (side, side, side)
    sides = [min(length, side) for length in tile][-recipe.dimensions :]
    kinds = {"float16": torch.float16, "bfloat16": torch.bfloat16}
    image = torch.zeros((1, len(spec.accepts.channels), *sides), dtype=kinds.get(runner.dtype), device=device)
    try:
        with torch.no_grad():
            answer = runner.forward(image)
    except (RuntimeError, ValueError):
        return
    check_answer(spec, recipe, tuple(answer.shape))


def checked(spec: ModelSpec, recipe: Recipe, runner: Runner) -> Callable[[Tensor], Tensor]:
    """Its forward; what it could not declare is checked on each answer, and a batch of 1 is kept to."""
    single = runner.given is not None and runner.given[0] == 1

    def forward(batch: Tensor) -> Tensor:
        if single and batch.shape[0] > 1:
            return torch.cat([runner.forward(part) for part in torch.split(batch, 1)])
        answer = runner.forward(batch)
        check_answer(spec, recipe, tuple(answer.shape))
        return answer

    return forward


def shown(shape: Sequence[Size]) -> str:
    """A shape for a person."""
    return f"({', '.join('any' if side is None else str(side) for side in shape)})"


def _misfit(spec: ModelSpec, which: str, what: str) -> ModelError:
    name = f"graph {spec.graph.file}" if spec.graph else "network"
    return ModelError(f"MODEL_{which}_INVALID", f"Model {spec.id} {spec.version}: the {name} {what}.")
