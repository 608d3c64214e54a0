"""Model cards and the protocol that every loaded model follows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from ai.volume import LabelArray, Volume

Progress = Callable[[str, float], None]
"""Called with (stage, fraction done 0..1); may raise to cancel the run."""


class _Card(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Structure(_Card):
    """One structure that the model looks for. ``key`` names its row in terminology/codes.csv."""

    number: int = Field(ge=1, le=255)
    key: str
    label: str
    description: str = ""


class Licence(_Card):
    spdx: str
    commercial: Literal["yes", "no", "contract"]
    citation: str = ""


class Accepts(_Card):
    """What input the model is made for; anything else is refused by name before it runs."""

    modalities: tuple[str, ...]
    minimum_slices: int = Field(default=2, ge=1)
    maximum_slice_spacing_mm: float = Field(default=10.0, gt=0)


class ModelSpec(_Card):
    """The card of a model: identity, licence, intended use, input contract, labels."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    version: str
    title: str
    loader: Literal["classical"]
    algorithm: str
    manufacturer: str
    intended_use: str
    limits: tuple[str, ...]
    references: tuple[str, ...]
    licence: Licence
    accepts: Accepts
    parameters: Mapping[str, float] = {}
    structures: tuple[Structure, ...] = Field(min_length=1)
    digest: str = ""
    """SHA-256 of the card file's bytes, filled in by :func:`load_card`."""


class Model(Protocol):
    """A model ready to run on one device."""

    @property
    def spec(self) -> ModelSpec: ...

    @property
    def device(self) -> str: ...

    def segment(self, volume: Volume, progress: Progress) -> LabelArray:
        """Label every voxel of the volume: uint8 ``(slices, rows, columns)``, 0 = background."""
        ...


def load_card(path: Path) -> ModelSpec:
    """Read and check one card."""
    raise NotImplementedError


def find_card(name: str, folders: Sequence[Path] = ()) -> ModelSpec:
    """Find ``name.yaml`` in the folders given, then among the cards that ship with the gateway."""
    raise NotImplementedError
