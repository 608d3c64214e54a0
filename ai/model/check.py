"""A volume held against what a card accepts, and an answer against what it promises."""

from __future__ import annotations

import numpy as np

from ai.errors import ModelError, NotAVolumeError, SeriesRefused
from ai.geometry import VolumeGeometry, unfit
from ai.model.card import ModelSpec
from ai.source import Facts
from ai.volume import Volume


def check_input(spec: ModelSpec, facts: Facts, geometry: VolumeGeometry) -> None:
    """Compare a volume with what the card accepts.

    Raises
    ------
    SeriesRefused
        ``INPUT_NOT_ACCEPTED``: other modality.
    NotAVolumeError
        What :func:`ai.geometry.unfit` names: too few slices, too far apart, tilted, uneven, a projection.
    """
    modality = next(iter(facts.get("Modality", ())), "")
    modalities = spec.accepts.modalities
    if modality not in modalities:
        wrong = f"takes {' or '.join(modalities)}, and the series is {modality or 'without a Modality'}"
        raise SeriesRefused("INPUT_NOT_ACCEPTED", f"Model {spec.id} {spec.version} {wrong}.")
    refusal = unfit(geometry, spec.accepts.needs)
    if refusal is not None:
        raise NotAVolumeError(refusal)


def check_licence(spec: ModelSpec) -> None:
    """Terms that restrict the use must have been accepted by a person; raises LICENCE_NOT_ACCEPTED."""
    licence = spec.licence
    if licence.commercial == "yes" or licence.accepted_by:
        return
    raise ModelError(
        "LICENCE_NOT_ACCEPTED",
        f"Model {spec.id} {spec.version} is under {licence.spdx}, commercial use: {licence.commercial}. "
        "Read the terms; `aigw model add --accept-licence NAME` records who accepted them.",
    )


def check_output(spec: ModelSpec, volume: Volume, labels: object) -> None:
    """Make sure that what a model answered is a label map of the volume and of the card.

    Raises
    ------
    ModelError
        ``MODEL_OUTPUT_INVALID``: other type or shape, or a number that the card does not have.
    """
    expected = volume.voxels.shape
    highest = len(spec.structures)
    if not isinstance(labels, np.ndarray) or labels.dtype != np.uint8:
        wrong = f"is {getattr(labels, 'dtype', type(labels).__name__)}; an array of uint8 is needed"
    elif labels.shape != expected:
        wrong = f"has the shape {labels.shape}; the volume has {expected}"
    elif labels.max(initial=0) > highest:
        wrong = f"has the number {labels.max()}; the card has structures 1 to {highest}"
    else:
        return
    raise ModelError("MODEL_OUTPUT_INVALID", f"The label map of model {spec.id} {spec.version} {wrong}.")
