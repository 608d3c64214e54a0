"""From an nnU-Net configuration to a recipe of our engine. Pure; see :mod:`ai.model.recipe`.

nnU-Net's order is transpose, crop to what is not 0, normalise, resample, tiles, resample the answers, decide,
paste, transpose back (``default_preprocessor.py``, ``predict_from_raw_data.py``, ``export_prediction.py``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from ai.errors import ModelError
from ai.loaders.nnunet_plans import Configuration, Labels, Normalisation
from ai.model import Recipe
from ai.model.nnunet import NnUnet
from ai.model.recipe import Clip, Grid, MinimumMaximum, Operation, Output, Rescale, Standardise, Tiles

_LEAST_SD = 1e-8


def make_recipe(
    configuration: Configuration,
    labels: Labels,
    section: NnUnet,
    numbers: Mapping[int, int],
    mirror_axes: Sequence[int],
    where: str,
) -> Recipe:
    """The recipe of one trained network.

    Parameters
    ----------
    numbers
        Structure number of each label; empty: they are the same. A label left out becomes background.
    mirror_axes
        Axes of a patch that the training mirrored.

    Raises ModelError NNUNET_RESULTS_INVALID for a normalisation that is not known, or numbers that make no
    recipe.
    """
    try:
        return _recipe(configuration, labels, section, numbers, mirror_axes, where)
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        place = ".".join(str(step) for step in wrong["loc"]) or error.title
        raise ModelError(
            "NNUNET_RESULTS_INVALID", f"{where}: the plans make no recipe ({place}: {wrong['msg']})."
        ) from error


def _recipe(
    configuration: Configuration,
    labels: Labels,
    section: NnUnet,
    numbers: Mapping[int, int],
    mirror_axes: Sequence[int],
    where: str,
) -> Recipe:
    flat = configuration.dimensions == 2
    resampling = configuration.resampling
    spacing = ((None,) if flat else ()) + configuration.spacing_mm
    patch = ((1,) if flat else ()) + configuration.patch_size
    mirrored = tuple(sorted(axis + flat for axis in mirror_axes)) if section.mirror else ()
    channels = tuple(operations(channel, where) for channel in configuration.normalisations)
    fields: dict[str, Any] = {
        "dimensions": configuration.dimensions,
        "grid": Grid(
            axes="".join(section.axes[axis] for axis in configuration.transpose),
            spacing_mm=None if resampling.off else spacing,
            alignment="edges",
            interpolation=resampling.interpolation,
            separate_z_above=resampling.separate_z_above,
            crop="nonzero",
            intensity="before",
            masks=len(labels.foreground) if configuration.previous_stage else 0,
        ),
        "channel_intensity": channels,
        "tiles": Tiles(size=patch, step=section.step, rule="nnunet", mirror_axes=mirrored),
        "output": Output(
            kind="regions" if labels.regions else "softmax",
            channels=tuple(numbers.get(label, 0) if numbers else label for label in labels.channels),
        ),
        "precision": section.precision,
    }
    return Recipe(**fields)


def operations(normalisation: Normalisation, where: str) -> tuple[Operation, ...]:
    """The normalisation of one channel (``default_normalization_schemes.py``)."""
    if normalisation.scheme == "CTNormalization":
        value = normalisation.statistics
        try:
            return (
                Clip(low=value["percentile_00_5"], high=value["percentile_99_5"]),
                Standardise(mean=value["mean"], sd=max(value["std"], _LEAST_SD)),
            )
        except KeyError as error:
            raise ModelError(
                "NNUNET_RESULTS_INVALID", f"{where}: the plans lack the intensity property {error}."
            ) from error
    if normalisation.scheme == "ZScoreNormalization":
        return (Standardise(foreground=normalisation.masked),)
    if normalisation.scheme == "NoNormalization":
        return ()
    if normalisation.scheme == "RescaleTo01Normalization":
        return (MinimumMaximum(),)
    if normalisation.scheme == "RGBTo01Normalization":
        return (Rescale(source=(0.0, 255.0)),)
    raise ModelError(
        "NNUNET_RESULTS_INVALID", f"{where}: the normalisation {normalisation.scheme} is not known."
    )
