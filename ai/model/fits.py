"""What the sections of a card say of channels and structures, held against the card itself. Pure.

A number that does not fit is no error of a run: it is another structure under a wrong name, or one that can
never be found and would be reported as absent.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ai.model.card import Bundle, ModelSpec
    from ai.model.nnunet import NnUnet
    from ai.model.recipe import Keep, Recipe

_WITH_RECIPE = frozenset({"network", "graph", "monai_bundle"})


def misfits(spec: ModelSpec) -> Iterator[str]:
    """What does not fit, a sentence each; only of the sections that the card's loader reads."""
    if spec.recipe is not None and spec.loader in _WITH_RECIPE:
        yield from _of_recipe(spec, spec.recipe)
    if spec.bundle is not None and spec.loader == "monai_bundle":
        yield from _of_bundle(spec, spec.bundle)
    if spec.nnunet is not None and spec.loader == "nnunet":
        yield from _of_nnunet(spec, spec.nnunet)


def numbers_misfit(spec: ModelSpec, where: str, numbers: Collection[int]) -> Iterator[str]:
    """What is wrong with the numbers that a part of a model answers with, 0 for background.

    A structure that includes others needs no voxels of its own.
    """
    yield from _unknown(spec, where, numbers)
    for structure in spec.structures:
        if structure.number not in numbers and not structure.includes:
            yield f"{where} makes no structure {structure.number} ({structure.key}): it could never be found"


def _of_recipe(spec: ModelSpec, recipe: Recipe) -> Iterator[str]:
    output, images = recipe.output, len(spec.accepts.channels) - recipe.grid.masks
    if output.channels is not None and output.kind != "scalar":
        yield from numbers_misfit(spec, "recipe.output.channels", output.channels)
    if images < 1:
        yield f"grid.masks is {recipe.grid.masks}, and accepts.channels names {len(spec.accepts.channels)}"
    if len(recipe.channel_intensity) not in (0, images):
        yield (
            f"recipe.channel_intensity has {len(recipe.channel_intensity)} lists, and there are {images} "
            "images (accepts.channels): one list for each, or intensity for all"
        )
    averaged = spec.loader == "network" and spec.network is not None and len(spec.network.weights) > 1
    if averaged and output.kind == "labels":
        yield "answers of several network.weights are averaged, which labels cannot be"
    yield from _of_after(spec, "recipe.after", recipe.after)


def _of_bundle(spec: ModelSpec, bundle: Bundle) -> Iterator[str]:
    if not bundle.channels:
        return
    yield from numbers_misfit(spec, "bundle.channels", set(bundle.channels.values()))
    runs_recipe = spec.recipe is not None and bundle.mode != "compatible"
    if runs_recipe and spec.recipe is not None and spec.recipe.output.channels is not None:
        yield "bundle.channels and recipe.output.channels say the same thing twice: leave one out"


def _of_nnunet(spec: ModelSpec, section: NnUnet) -> Iterator[str]:
    made = section.numbers
    if made is not None:
        yield from numbers_misfit(spec, "nnunet.parts", made)
    for part in section.parts:
        yield from _unknown(spec, f"nnunet.parts ({part.folder})", part.labels.values())
    if section.vertebral_bodies is not None:
        lowest = section.vertebral_bodies.lowest_lumbar
        yield from _unknown(spec, "nnunet.vertebral_bodies.lowest_lumbar", (lowest,))
    yield from _of_after(spec, "nnunet.after", section.after)


def _of_after(spec: ModelSpec, where: str, after: Iterable[Keep]) -> Iterator[str]:
    for keep in after:
        yield from _unknown(spec, where, keep.structures)


def _unknown(spec: ModelSpec, where: str, numbers: Iterable[int]) -> Iterator[str]:
    most = len(spec.structures)
    unknown = sorted({number for number in numbers if not 0 <= number <= most})
    if unknown:
        named = ", ".join(str(number) for number in unknown)
        yield f"{where} names the structure {named}; the card has 1 to {most}"
