"""The transforms of a MONAI bundle as a recipe of ours, where it has words for all of them.

Order matters: MONAI does one thing after the other, our engine crops, changes values, resamples and changes
values, in this order. A chain that does otherwise is not translated, but run by MONAI itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import monai.inferers
from pydantic import ValidationError

from ai.loaders.bundle.after import POSTPROCESSING, After, output_of
from ai.loaders.bundle.arguments import Arguments, NotTranslatable, need, one
from ai.loaders.bundle.before import PREPROCESSING, Before
from ai.loaders.bundle.parse import FILE_TRANSFORMS, BundleConfig, Call, calls, read_call
from ai.model.recipe import Grid, Recipe, Tiles


def translate(config: BundleConfig, channels: int) -> Recipe:
    """The recipe of a bundle for images of that many channels.

    ``output.channels`` is left to the card, and ``after`` names channels, which the bundle's labels are.

    Raises NotTranslatable with the first transform that has no counterpart, and ModelError
    MODEL_CONFIG_INVALID where MONAI cannot read an argument.
    """
    try:
        return _translated(config, channels)
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        place = ".".join(str(step) for step in wrong["loc"])
        raise NotTranslatable(f"a recipe cannot say it ({place or error.title}: {wrong['msg']})") from error


def renumbered(recipe: Recipe, channels: Mapping[int, int]) -> Recipe:
    """The recipe with structure numbers in ``after``, where it names channels.

    Parameters
    ----------
    channels
        Structure number by channel; empty: they are the same.

    Raises NotTranslatable where what is done to each of two channels is not what is done to their union.
    """
    if not channels or not recipe.after:
        return recipe
    named = [number for number in channels.values() if number]
    need(
        len(set(named)) == len(named) and not channels.get(0),
        "labels are changed one by one, and several channels, or the background, become a structure",
    )
    kept = []
    for keep in recipe.after:
        numbers = tuple(channels[label] for label in keep.structures if channels.get(label))
        if numbers or not keep.structures:
            kept.append(keep.model_copy(update={"structures": numbers}))
    return recipe.model_copy(update={"after": tuple(kept)})


def _translated(config: BundleConfig, channels: int) -> Recipe:
    parser = config.parser("cpu")
    before = Before(channels)
    for call in calls(parser, "preprocessing"):
        _act(PREPROCESSING, call, before)
    need(before.axes is not None, "there is no Orientationd, so the network sees the order of the file")
    need(not (before.before and before.after), "values change before and after Spacingd")
    after = After()
    for call in calls(parser, "postprocessing"):
        _act(POSTPROCESSING, call, after)
    return Recipe(
        grid=Grid(
            axes=before.axes,
            spacing_mm=before.spacing_mm,
            alignment="first_voxel",
            interpolation=before.interpolation,
            crop=before.crop,
            intensity="before" if before.before and before.spacing_mm is not None else "after",
        ),
        intensity=(*before.before, *before.after),
        tiles=_tiles(parser, before),
        output=output_of(after, resampled=before.spacing_mm is not None),
        after=tuple(after.keep),
    )


def _act(table: Mapping[str, Callable[[Any, Arguments], None]], call: Call, state: object) -> None:
    if call.name in FILE_TRANSFORMS:
        return
    act = table.get(call.name)
    if act is None:
        raise NotTranslatable(f"{call.name} has no counterpart")
    act(state, call.arguments)


def _tiles(parser: Any, before: Before) -> Tiles:
    """The inferer; without one MONAI asks the network about the whole image."""
    call = Call("SimpleInferer", {})
    if parser.get("inferer") is not None:
        call = read_call(parser, "inferer", monai.inferers) or call
    if call.name == "SimpleInferer":
        need(not before.padded_to, "SpatialPadd before a SimpleInferer")
        return Tiles(size=None, rule="monai", weighting="constant", multiple_of=before.multiple_of)
    need(call.name == "SlidingWindowInferer", f"{call.name} has no counterpart")
    given = call.arguments
    need(before.multiple_of == 1, "DivisiblePadd before a sliding window")
    roi = given["roi_size"]
    size = tuple(roi) if isinstance(roi, (list, tuple)) else (roi,) * 3
    need(len(size) == 3 and all(isinstance(n, int) and n > 0 for n in size), f"roi_size {roi}")
    fits = all(pad <= n for pad, n in zip(before.padded_to, size, strict=False))
    need(fits, "SpatialPadd pads to more than a tile")
    mode, sigma = str(getattr(given["mode"], "value", given["mode"])), one(given["sigma_scale"])
    need(mode in ("gaussian", "constant") and not given["with_coord"], f"SlidingWindowInferer mode {mode}")
    return Tiles(
        size=(size[0], size[1], size[2]),
        step=1.0 - float(one(given["overlap"])),
        rule="monai",
        weighting="gaussian" if mode == "gaussian" else "constant",
        gaussian_sigma=float(sigma),
        batch=int(given["sw_batch_size"]),
        pad=_padding(given, bool(before.padded_to)),
    )


def _padding(given: Arguments, zeros: bool) -> float | Literal["edge"]:
    mode = str(getattr(given["padding_mode"], "value", given["padding_mode"]))
    if zeros:  # SpatialPadd has filled up before the inferer could
        return 0.0
    if mode == "replicate":
        return "edge"
    need(mode == "constant", f"padding_mode {mode}")
    return float(given["cval"])
