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
from ai.inference.engine import NetworkModel
from ai.loaders.nnunet_part import TrainedPart, load_part
from ai.loaders.nnunet_run import NnUnetModel, Previous
from ai.model import Model, ModelSpec, PinnedFiles
from ai.model.fits import numbers_misfit
from ai.model.nnunet import NnUnet, unknown_numbers


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
        wrong = next(numbers_misfit(spec, "nnunet", _numbers(model)), None)
        if wrong is not None:
            raise ModelError("MODEL_CARD_INVALID", f"The card {spec.id}: {wrong}.")
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
    parts, previous = [], None
    if section.previous_stage is not None:
        first = load_part(spec, section, section.previous_stage, files, device)
        undo.callback(first.model.close)
        previous = Previous(first.model, first.labels.foreground)
    for part in section.parts:
        trained = load_part(spec, section, part, files, device)
        undo.callback(trained.model.close)
        _check_cascade(spec, trained, previous)
        parts.append(trained.model)
    crop, bodies = section.crop, section.vertebral_bodies
    model = NnUnetModel(
        spec,
        device,
        section,
        _identity(spec, section, files),
        tuple(parts),
        previous,
        _load_section(spec, crop.localiser, files, device, undo) if crop else None,
        _load_section(spec, bodies.clip, files, device, undo) if bodies and bodies.clip else None,
    )
    _check_numbers(spec, model)
    return model


def _numbers(model: NnUnetModel) -> frozenset[int]:
    """What a section can answer with, now that the labels of its networks are known."""
    known = model.section.numbers
    if known is not None:
        return known
    made = (part.recipe.output.channels or () for part in model.parts if isinstance(part, NetworkModel))
    found = {number for each in made for number in each if number}
    rule = model.section.vertebral_bodies
    return frozenset(found | set(range(rule.first, rule.lowest_lumbar + 1)) if rule else found)


def _check_numbers(spec: ModelSpec, model: NnUnetModel) -> None:
    """Numbers that nothing makes are never found, and a region of theirs would always be empty."""
    section = model.section
    after = unknown_numbers(_numbers(model), *(keep.structures for keep in section.after))
    wrong = [f"after names {after}, which no part makes"] if after else []
    if section.crop is not None and model.localiser is not None:
        crop = unknown_numbers(_numbers(model.localiser), section.crop.labels, section.crop.within)
        wrong += [f"crop names {crop}, which its localiser does not find"] if crop else []
    if section.vertebral_bodies is not None and model.clip is not None:
        clip = unknown_numbers(_numbers(model.clip), (section.vertebral_bodies.clip_label,))
        wrong += [f"clip_label is {clip[0]}, which the network of clip does not find"] if clip else []
    if wrong:
        raise ModelError("MODEL_CARD_INVALID", f"The card {spec.id}: nnunet: {'; '.join(wrong)}.")


def _check_cascade(spec: ModelSpec, trained: TrainedPart, previous: Previous | None) -> None:
    stage = trained.configuration.previous_stage
    if (stage is None) == (previous is None):
        if previous is None or previous.foreground == trained.labels.foreground:
            return
        raise ModelError(
            "MODEL_CARD_INVALID",
            f"The card {spec.id}: the first stage of the cascade finds the labels {previous.foreground}, and "
            f"the second was trained with {trained.labels.foreground}.",
        )
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
