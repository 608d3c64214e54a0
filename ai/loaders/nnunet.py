"""nnU-Net v2 results folders, and TotalSegmentator's tasks that are made of them, without nnunetv2.

- :mod:`ai.loaders.nnunet_plans` reads ``plans.json`` and ``dataset.json``,
- :mod:`ai.loaders.nnunet_network` builds the network from an allow-list,
- :mod:`ai.loaders.nnunet_recipe` says how nnU-Net feeds and reads it, in the terms of our engine,
- :mod:`ai.loaders.nnunet_part` puts these together for one results folder, its folds averaged,
- :mod:`ai.loaders.nnunet_run` runs several of them as the card asks: localiser, spacing, cascade, parts.
"""

from __future__ import annotations

import hashlib
from contextlib import ExitStack

from ai.errors import ModelError
from ai.loaders.nnunet_part import TrainedPart, load_part
from ai.loaders.nnunet_run import NnUnetModel, Previous
from ai.model import Model, ModelSpec, PinnedFiles
from ai.model.nnunet import NnUnet


def load(spec: ModelSpec, device: str, _find: object = None) -> Model:
    """Load every network of a card; see :func:`ai.loaders.load_model`.

    Raises
    ------
    ModelError
        ``MODEL_CARD_INVALID``, ``NNUNET_RESULTS_INVALID``, ``NETWORK_NOT_KNOWN``,
        ``NETWORK_WEIGHTS_MISFIT``, and what reading the files raises.
    """
    if spec.nnunet is None:
        raise ModelError("MODEL_CARD_INVALID", f"The card {spec.id} has no section nnunet.")
    with ExitStack() as undo:
        model = _load_section(spec, spec.nnunet, PinnedFiles(spec), device, undo)
        undo.pop_all()
    is_plain = spec.nnunet == NnUnet(
        parts=spec.nnunet.parts,
        axes=spec.nnunet.axes,
        mirror=spec.nnunet.mirror,
        step=spec.nnunet.step,
        precision=spec.nnunet.precision,
    )
    return model.parts[0] if is_plain and len(model.parts) == 1 else model


def _load_section(
    spec: ModelSpec, section: NnUnet, files: PinnedFiles, device: str, undo: ExitStack
) -> NnUnetModel:
    parts = []
    for part in section.parts:
        trained = load_part(spec, section, part, files, device)
        undo.callback(trained.model.close)
        _check_cascade(spec, section, trained)
        parts.append(trained.model)
    previous, crop, bodies = None, section.crop, section.vertebral_bodies
    if section.previous_stage is not None:
        first = load_part(spec, section, section.previous_stage, files, device)
        undo.callback(first.model.close)
        previous = Previous(first.model, first.labels.foreground)
    return NnUnetModel(
        spec,
        device,
        section,
        _identity(spec, section, files),
        tuple(parts),
        previous,
        _load_section(spec, crop.localiser, files, device, undo) if crop else None,
        _load_section(spec, bodies.clip, files, device, undo) if bodies and bodies.clip else None,
    )


def _check_cascade(spec: ModelSpec, section: NnUnet, trained: TrainedPart) -> None:
    stage = trained.configuration.previous_stage
    if (stage is None) == (section.previous_stage is None):
        return
    wrong = (
        f"names a previous_stage, and the configuration {trained.configuration.name} has none"
        if stage is None
        else f"needs nnunet.previous_stage: the results folder of the configuration {stage}"
    )
    raise ModelError("MODEL_CARD_INVALID", f"The card {spec.id} {wrong}.")


def _identity(spec: ModelSpec, section: NnUnet, files: PinnedFiles) -> str:
    """The same for the same networks run in the same way, whichever card they belong to."""
    folders = _folders(section)
    digest = hashlib.sha256(section.model_dump_json().encode())
    for name in files.names:
        if any(folder == "." or name.startswith(f"{folder}/") for folder in folders):
            digest.update(f"{name} {spec.files[name]}\n".encode())
    return digest.hexdigest()


def _folders(section: NnUnet) -> set[str]:
    """The results folders that a section uses."""
    used = [part.folder for part in section.parts]
    if section.previous_stage is not None:
        used.append(section.previous_stage.folder)
    nested = [section.crop.localiser] if section.crop else []
    if section.vertebral_bodies and section.vertebral_bodies.clip:
        nested.append(section.vertebral_bodies.clip)
    return {*used, *(folder for inner in nested for folder in _folders(inner))}
