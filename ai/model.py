"""Model cards and the protocol that every loaded model follows."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol, Self

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ai import terminology
from ai.errors import ModelError, NotAVolumeError, SeriesRefused, UnknownModel
from ai.geometry import Needs, VerdictCode, VolumeGeometry, unfit
from ai.pixels import Scale
from ai.volume import LabelArray, Volume

Progress = Callable[[str, float], None]
"""Called with (stage, fraction done 0..1); may raise to cancel the run."""

_REPOSITORY_CARDS = Path(__file__).parent.parent / "config" / "models"
_WHEEL_CARDS = Path(__file__).parent / "cards"


class _Card(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Structure(_Card):
    """One structure that the model looks for. ``key`` names its row in terminology/codes.csv."""

    number: int = Field(ge=1, le=255)
    key: str
    label: str = Field(min_length=1, max_length=64)  # Segment Label is LO
    description: str = Field(default="", max_length=1024)  # Segment Description is ST


class Licence(_Card):
    """Terms of the model: SPDX expression, whether commercial use is allowed, what to cite."""

    spdx: str
    commercial: Literal["yes", "no", "contract"]
    citation: str = ""


class Accepts(_Card):
    """What input the model is made for; anything else is refused by name before it runs.

    Attributes
    ----------
    resampled
        Which stacks the model may see resampled on an upright, even grid: tilted ones, uneven ones.
    scale
        Which values it takes: those of the modality, SUVbw of PET, or the Philips scale of MR.
    """

    modalities: tuple[str, ...] = Field(min_length=1)
    minimum_slices: int = Field(default=2, ge=1)
    maximum_slice_spacing_mm: float = Field(default=10.0, gt=0)
    resampled: frozenset[Literal["GANTRY_TILT", "IRREGULAR_SPACING"]] = frozenset()
    scale: Scale = "modality"

    @property
    def needs(self) -> Needs:
        """The part of it that geometry decides."""
        return Needs(
            minimum_slices=self.minimum_slices,
            maximum_slice_spacing_mm=self.maximum_slice_spacing_mm,
            resampled=frozenset(VerdictCode(code) for code in self.resampled),
        )


class ModelSpec(_Card):
    """The card of a model: identity, licence, intended use, input contract, labels."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=64)
    version: str = Field(min_length=1, max_length=64)
    title: str = Field(min_length=1, max_length=64)
    loader: Literal["classical"]
    algorithm: str
    manufacturer: str = Field(min_length=1, max_length=64)
    intended_use: str
    limits: tuple[str, ...]
    references: tuple[str, ...]
    licence: Licence
    accepts: Accepts
    parameters: Mapping[str, float] = {}
    structures: tuple[Structure, ...] = Field(min_length=1)
    digest: str = ""
    """SHA-256 of the card file's bytes, filled in by :func:`load_card`."""

    @model_validator(mode="after")
    def _numbers_are_consecutive(self) -> Self:
        numbers = [structure.number for structure in self.structures]
        if numbers != list(range(1, len(numbers) + 1)):
            raise ValueError(
                f"structures are numbered {numbers}; number them 1 to {len(numbers)} in order, "
                "because segments of a DICOM SEG are (PS3.3 C.8.20.2)"
            )
        return self


class Model(Protocol):
    """A model ready to run on one device."""

    @property
    def spec(self) -> ModelSpec:
        """The card."""
        ...

    @property
    def device(self) -> str:
        """Where it runs: ``cpu``, ``cuda:0`` …"""
        ...

    def segment(self, volume: Volume, progress: Progress) -> LabelArray:
        """Label every voxel of the volume: uint8 ``(slices, rows, columns)``, 0 = background."""
        ...


def load_card(path: Path) -> ModelSpec:
    """Read and check one card.

    Raises
    ------
    ModelError
        ``MODEL_CARD_INVALID`` with file, line, field and what is wrong with each; or
        ``STRUCTURE_NOT_CODED`` when a structure has no row in ``terminology/codes.csv``.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError("MODEL_CARD_INVALID", f"{path}: cannot be read: {error.strerror}") from error
    fields = _parse(path, content)
    if "digest" in fields:
        raise ModelError("MODEL_CARD_INVALID", f"{path}: digest: is computed; remove it from the card")
    try:
        spec = ModelSpec.model_validate(fields)
    except ValidationError as error:
        raise ModelError("MODEL_CARD_INVALID", _describe(path, content, error)) from error
    for structure in spec.structures:
        terminology.coded(structure.key)
    return spec.model_copy(update={"digest": hashlib.sha256(content).hexdigest()})


def find_card(name: str, folders: Sequence[Path] = ()) -> ModelSpec:
    """Find ``name.yaml`` in the folders given, then among the cards that ship with the gateway.

    Raises
    ------
    UnknownModel
        No such card; the sentence lists what exists and the closest name.
    ModelError
        The card is wrong (see :func:`load_card`), or its ``id`` is not its file name.
    """
    cards = _cards((*folders, shipped_card_folder()))
    path = cards.get(name)
    if path is None:
        raise UnknownModel("UNKNOWN_MODEL", _unknown(name, sorted(cards)))
    spec = load_card(path)
    if spec.id != name:
        raise ModelError("MODEL_CARD_INVALID", f"{path}: id: is {spec.id!r}, but the file is named {name!r}")
    return spec


def shipped_card_folder() -> Path:
    """Where the cards of the gateway's own models are: in a wheel ``ai/cards``, else ``config/models``."""
    return _WHEEL_CARDS if _WHEEL_CARDS.is_dir() else _REPOSITORY_CARDS


def check_input(spec: ModelSpec, modality: str, geometry: VolumeGeometry) -> None:
    """Compare a volume with what the card accepts.

    Raises
    ------
    SeriesRefused
        ``INPUT_NOT_ACCEPTED``: other modality.
    NotAVolumeError
        What :func:`ai.geometry.unfit` names: too few slices, too far apart, tilted, uneven, a projection.
    """
    modalities = spec.accepts.modalities
    if modality not in modalities:
        wrong = f"takes {' or '.join(modalities)}, and the series is {modality or 'without a Modality'}"
        raise SeriesRefused("INPUT_NOT_ACCEPTED", f"Model {spec.id} {spec.version} {wrong}.")
    refusal = unfit(geometry, spec.accepts.needs)
    if refusal is not None:
        raise NotAVolumeError(refusal)


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


def _cards(folders: Sequence[Path]) -> dict[str, Path]:
    """Card files by model name; an earlier folder wins."""
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.glob("*.yaml")):
            found.setdefault(path.stem, path)
    return found


def _unknown(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    return f"There is no model {name!r}.{hint} Known models: {', '.join(known) or 'none'}."


def _parse(path: Path, content: bytes) -> dict[str, object]:
    try:
        fields = yaml.safe_load(content)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "cannot be parsed"
        raise ModelError("MODEL_CARD_INVALID", f"{path}{line}: not YAML: {problem}") from error
    if not isinstance(fields, dict):
        raise ModelError("MODEL_CARD_INVALID", f"{path}: a model card is a mapping of fields")
    return fields


def _describe(path: Path, content: bytes, error: ValidationError) -> str:
    """One part per wrong field: ``file:line: field: what is wrong``."""
    root = yaml.compose(content, Loader=yaml.SafeLoader)
    parts = []
    for item in error.errors(include_url=False):
        place = ".".join(str(step) for step in item["loc"]) or "card"
        message = item["msg"].removeprefix("Value error, ")
        parts.append(f"{path}:{_line(root, item['loc'])}: {place}: {message}")
    return "; ".join(parts)


def _line(node: yaml.Node | None, location: tuple[int | str, ...]) -> int:
    """Line of the deepest node that the location reaches."""
    line = node.start_mark.line + 1 if node else 1
    for step in location:
        if isinstance(node, yaml.MappingNode):
            child = next((pair for pair in node.value if pair[0].value == step), None)
            if child is None:
                break
            line, node = child[0].start_mark.line + 1, child[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            line = node.start_mark.line + 1
        else:
            break
    return line
