"""The stages of a pipeline's card held against the cards that they name, before anything is loaded. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping

from ai.errors import ModelError
from ai.model import ModelSpec, Stage


def running_order(spec: ModelSpec) -> tuple[Stage, ...]:
    """Stages in the order of the card, but each after the one that it lies inside.

    Raises ModelError ``MODEL_CARD_INVALID`` when stages lie inside each other.
    """
    waiting, ready = list(spec.stages), list[Stage]()
    while waiting:
        done = {stage.name for stage in ready}
        following = next((s for s in waiting if s.inside is None or s.inside in done), None)
        if following is None:
            raise _invalid(spec, f"the stages {_names([s.name for s in waiting])} lie inside each other")
        waiting.remove(following)
        ready.append(following)
    return tuple(ready)


def check_pipeline(spec: ModelSpec, cards: Mapping[str, ModelSpec]) -> None:
    """Make sure that the stages exist once, refer to each other, and fit the cards of their models.

    Parameters
    ----------
    cards
        The card of each stage's model, by the name of the stage.

    Raises
    ------
    ModelError
        ``MODEL_CARD_INVALID``, ``MODEL_STAGE_NOT_PINNED``, ``MODEL_STAGE_CHANGED``.
    """
    names = [stage.name for stage in spec.stages]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise _invalid(spec, f"two stages have the name {twice[0]!r}")
    for stage in spec.stages:
        _check_stage(spec, stage, cards)
    running_order(spec)
    kept = {target for stage in spec.stages for target in stage.keep.values()}
    for key in spec.numbers():
        if key not in kept:
            raise _invalid(spec, f"no stage keeps anything as the structure {key!r}")


def with_pinned_stages(fields: Mapping[str, object], find: Callable[[str], ModelSpec]) -> dict[str, object]:
    """The fields of a pipeline's card with the digest of each stage's card, as they are now.

    Raises what ``find`` raises for a model that is not there; what is malformed is left to the card's check.
    """
    stages = fields.get("stages")
    if not isinstance(stages, list):
        return dict(fields)
    pinned = [
        {**stage, "digest": find(str(stage["model"])).digest}
        if isinstance(stage, dict) and "model" in stage
        else stage
        for stage in stages
    ]
    return {**fields, "stages": pinned}


def channel_indices(spec: ModelSpec, card: ModelSpec) -> list[int]:
    """Which channels of the pipeline a stage's model takes: those of the same names, or the only one.

    Raises ModelError ``MODEL_CARD_INVALID`` when a name is not among the pipeline's.
    """
    given, wanted = spec.accepts.channels, card.accepts.channels
    if len(given) == len(wanted) == 1:
        return [0]
    for name in wanted:
        if name not in given:
            raise _invalid(
                spec,
                f"its model {card.id} takes the channel {name!r}{_hint(name, given)}; "
                f"the pipeline has {_names(given)}",
            )
    return [given.index(name) for name in wanted]


def _check_stage(spec: ModelSpec, stage: Stage, cards: Mapping[str, ModelSpec]) -> None:
    card = cards[stage.name]
    if card.id == spec.id:
        raise _invalid(spec, f"the stage {stage.name!r} is the pipeline itself")
    _check_pin(spec, stage, card)
    _check_place(spec, stage, cards)
    for key, target in stage.keep.items():
        if key not in card.numbers():
            raise _unknown(spec, stage, f"keeps {key!r}, which model {card.id} does not find", key, card)
        if target not in spec.numbers():
            raise _unknown(
                spec,
                stage,
                f"keeps {key!r} as {target!r}, which is no structure of the pipeline",
                target,
                spec,
            )
    _check_parts(spec, stage, card)
    _check_input(spec, stage, card)


def _check_parts(spec: ModelSpec, stage: Stage, card: ModelSpec) -> None:
    """What includes a part in the stage does so in the pipeline, where both are kept."""
    numbers, targets = spec.numbers(), {s.key: s for s in spec.structures}
    keys = {s.number: s.key for s in card.structures}
    for structure in card.structures:
        for part in (keys[number] for number in structure.includes):
            if structure.key not in stage.keep or part not in stage.keep:
                continue
            whole, inner = stage.keep[structure.key], stage.keep[part]
            if whole != inner and numbers[inner] not in targets[whole].includes:
                told = f"the stage {stage.name!r} keeps {structure.key!r}, which includes {part!r}; add "
                raise _invalid(spec, f"{told}{numbers[inner]} ({inner!r}) to what {whole!r} includes")


def _check_pin(spec: ModelSpec, stage: Stage, card: ModelSpec) -> None:
    """A changed stage is another pipeline, whose results must not pass for those of the old one."""
    if not card.digest:  # made in memory, by a program that knows what it runs
        return
    where = f"Model {spec.id} {spec.version}: the stage {stage.name!r}"
    if stage.digest is None:
        raise ModelError(
            "MODEL_STAGE_NOT_PINNED",
            f"{where} does not pin the card of its model {card.id}: add `digest: {card.digest}`, "
            "or add the pipeline by `aigw model add`, which does it.",
        )
    if stage.digest != card.digest:
        raise ModelError(
            "MODEL_STAGE_CHANGED",
            f"{where} pins the card {stage.digest[:12]}… of model {card.id}, and {card.digest[:12]}… is "
            "there: put the card back that was pinned, or add the pipeline again.",
        )


def _check_place(spec: ModelSpec, stage: Stage, cards: Mapping[str, ModelSpec]) -> None:
    if stage.inside is None:
        if stage.region or stage.margin_mm or stage.within_mm is not None:
            raise _invalid(
                spec, f"the stage {stage.name!r} has a region, a margin or a distance, and lies inside none"
            )
        return
    if stage.inside not in cards:
        told = f"the stage {stage.name!r} lies inside {stage.inside!r}, which is no stage"
        raise _invalid(spec, f"{told}{_hint(stage.inside, cards)}; there are {_names(cards)}")
    host = cards[stage.inside]
    for key in stage.region:
        if key not in host.numbers():
            told = f"has {key!r} in its region, which model {host.id} does not find"
            raise _unknown(spec, stage, told, key, host)


def _check_input(spec: ModelSpec, stage: Stage, card: ModelSpec) -> None:
    """A stage is given what the pipeline accepts, so its model must accept that too."""
    for modality in spec.accepts.modalities:
        if modality not in card.accepts.modalities:
            told = f"the pipeline takes {modality}, and its stage {stage.name!r} does not: model {card.id} "
            raise _invalid(spec, f"{told}takes {_names(card.accepts.modalities)}")
    if spec.accepts.scale != card.accepts.scale:
        raise _invalid(
            spec,
            f"the pipeline takes values of the scale {spec.accepts.scale}, and its stage {stage.name!r} "
            f"(model {card.id}) of {card.accepts.scale}",
        )
    channel_indices(spec, card)


def _unknown(spec: ModelSpec, stage: Stage, told: str, key: str, card: ModelSpec) -> ModelError:
    known = card.numbers()
    return _invalid(spec, f"the stage {stage.name!r} {told}{_hint(key, known)}; it has {_names(known)}")


def _hint(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _names(names: Collection[str]) -> str:
    return ", ".join(names)


def _invalid(spec: ModelSpec, told: str) -> ModelError:
    return ModelError("MODEL_CARD_INVALID", f"Model {spec.id} {spec.version}: {told}.")
