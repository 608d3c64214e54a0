"""The card of a model: one YAML file that says everything about it, and pins its files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, model_validator

from ai.geometry import Needs, VerdictCode
from ai.model.fits import misfits
from ai.model.nnunet import NnUnet
from ai.model.paths import FileName, Line
from ai.model.recipe import NumberOrNone, Part, Recipe
from ai.model.rule import Axis, Rule
from ai.model.structure import Structure, check_inclusions
from ai.pixels import Scale

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def _yes_or_no(value: object) -> object:
    """YAML reads a bare yes or no as true or false."""
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value


def _modality(text: str) -> str:
    """A value of Modality (0008,0060): upper case, and DICOM's own word for it."""
    wanted = _OTHER_WORDS.get(text.upper(), text.upper())
    if text != wanted or not re.fullmatch(r"[A-Z0-9_ ]{1,16}", text):
        raise ValueError(f"DICOM has no Modality {text!r}; write {wanted}")
    return text


_OTHER_WORDS = {"MRI": "MR", "PET": "PT", "XR": "DX", "X-RAY": "DX", "XRAY": "DX"}
Modality = Annotated[str, AfterValidator(_modality)]


class Licence(Part):
    """Terms of the model.

    Attributes
    ----------
    spdx
        SPDX expression, or ``LicenseRef-…``.
    commercial
        ``yes``; ``no`` (research only); ``contract`` (allowed to who has one). Unless ``yes``, the model
        runs only when a person has accepted the terms: ``aigw model add --accept-licence NAME``.
    citation
        What to cite when its results are published. Shown nowhere but in the card.
    attribution
        Whom the terms ask to name, in their words. In every report.
    accepted_by
        Who accepted them here, and when.
    """

    spdx: Line = Field(min_length=1)
    commercial: Annotated[Literal["yes", "no", "contract"], BeforeValidator(_yes_or_no)]
    citation: str = ""
    attribution: str = ""
    accepted_by: Line = ""


class FieldOfView(Part):
    """Extent of the volume along patient axes, between the outer edges of its corner voxels.

    Attributes
    ----------
    minimum
        Least extent in millimetres, by axis: ``right_left``, ``anterior_posterior``, ``superior_inferior``.
        An axis left out is not checked.
    maximum
        Largest extent in millimetres, likewise.
    """

    minimum: Mapping[Axis, float] = {}
    maximum: Mapping[Axis, float] = {}


class Accepts(Part):
    """What input the model is made for; anything else is refused by name before it runs.

    Attributes
    ----------
    modalities
        Values of Modality that it takes, such as ``CT``, in upper case.
    channels
        Names of the images that it takes together, such as ``T1, T1c, T2, FLAIR``; a series brings one.
    body_parts
        Values of Body Part Examined; a series without the attribute is taken. Empty: any.
    orientations
        Planes of acquisition; empty: any.
    contrast
        Whether Contrast/Bolus Agent must be there (``required``) or must not (``none``).
    minimum_slices
        Least number of slices of a volume; radiographs are not asked.
    maximum_slice_spacing_mm
        Largest distance of neighbouring slices, centre to centre.
    maximum_pixel_spacing_mm
        Largest distance of pixels within a slice, along rows and columns; of a radiograph that on the
        detector. None: any.
    maximum_slice_thickness_mm
        Largest Slice Thickness; a series without the attribute is taken. None: any.
    field_of_view_mm
        Smallest and largest extent of the volume; radiographs are not asked.
    projections
        Takes radiographs, which have no place in the patient.
    resampled
        Which stacks the model may see resampled on an upright, even grid: tilted ones, uneven ones.
    scale
        Which values it takes: those of the modality, SUVbw of PET, or the Philips scale of MR; of radiographs
        ``screen`` (0 to 1 as a viewer shows them) or ``attenuation`` (see :mod:`ai.pixels`): bone is bright
        in both, however the maker stored it.
    """

    modalities: tuple[Modality, ...] = Field(min_length=1)
    channels: tuple[str, ...] = ("image",)
    body_parts: tuple[str, ...] = ()
    orientations: tuple[Literal["axial", "coronal", "sagittal"], ...] = ()
    contrast: Literal["any", "required", "none"] = "any"
    minimum_slices: int = Field(default=2, ge=1)
    maximum_slice_spacing_mm: float = Field(default=10.0, gt=0)
    maximum_pixel_spacing_mm: float | None = Field(default=None, gt=0)
    maximum_slice_thickness_mm: float | None = Field(default=None, gt=0)
    field_of_view_mm: FieldOfView = FieldOfView()
    projections: bool = False
    resampled: frozenset[Literal["GANTRY_TILT", "IRREGULAR_SPACING"]] = frozenset()
    scale: Scale = "modality"

    @model_validator(mode="after")
    def _radiographs_have_a_bright_end(self) -> Self:
        if self.projections and self.scale not in ("screen", "attenuation"):
            raise ValueError(
                "a model of radiographs (projections: true) says which values it takes: scale: screen, "
                "brightness from 0 to 1 as a viewer shows it, or scale: attenuation, values as they are; "
                "bone is bright in both"
            )
        return self

    @property
    def needs(self) -> Needs:
        """The part of it that geometry decides."""
        return Needs(
            minimum_slices=self.minimum_slices,
            maximum_slice_spacing_mm=self.maximum_slice_spacing_mm,
            resampled=frozenset(VerdictCode(code) for code in self.resampled),
            projections=self.projections,
        )


class Network(Part):
    """A network of the loader ``network``: an architecture that we know, and its weights.

    Attributes
    ----------
    name
        ``meshnet``, ``deepmedic`` …, or ``monai:DynUNet`` for a class of ``monai.networks.nets``.
    arguments
        What the class is made with, by the names of its parameters. ``meshnet`` takes none; for
        ``deepmedic`` they override what the definition says.
    weights
        Pinned files, safetensors or state dictionaries; more than one: their answers are averaged.
    definition
        Pinned file that describes the layers, for architectures that are told so.
    """

    name: str
    arguments: Mapping[str, object] = {}
    weights: tuple[str, ...] = Field(min_length=1)
    definition: str | None = None


class Graph(Part):
    """A graph of the loader ``graph``: ``.pt2``, ``.onnx``, TorchScript ``.ts`` / ``.pt``, OpenVINO ``.xml``.

    Attributes
    ----------
    file
        Pinned file, as its path below the model's folder. The ``.bin`` of an ``.xml`` lies beside it, pinned
        as well.
    runtime
        Library that runs it. ``auto``: torch for ``.pt2``, ``.ts`` and ``.pt``, openvino for ``.xml``; for
        ``.onnx`` onnxruntime, or openvino on a CPU where only that is installed.
    """

    file: str
    runtime: Literal["auto", "torch", "onnxruntime", "openvino"] = "auto"


class Bundle(Part):
    """A MONAI bundle: which configuration, and whether its transforms are translated or run as they are.

    Attributes
    ----------
    configuration
        Pinned file, JSON or YAML, with the network, its transforms and its inferer.
    weights
        Pinned file: ``.ts`` is TorchScript, anything else a state dictionary or safetensors for the network
        of the configuration.
    mode
        ``fast``: the transforms are translated into a recipe, or the model is refused; ``compatible``: MONAI
        runs them; ``auto``: translated where we know every one, else run by MONAI.
    channels
        Channel of the network's answer to structure number, 0 for none. Empty: channel n of a softmax is
        structure n, channel n of overlapping regions is structure n + 1. Of a softmax the last channel must
        be named, be it with 0. Regions are painted in the order of structure numbers, so that the inner ones
        come last. Where a ``recipe`` stands in for the transforms, either this or ``output.channels`` there.
    """

    configuration: str = "configs/inference.json"
    weights: str = "models/model.pt"
    mode: Literal["auto", "fast", "compatible"] = "auto"
    channels: Mapping[Annotated[int, Field(ge=0)], NumberOrNone] = {}


class Stage(Part):
    """One model of a pipeline.

    Attributes
    ----------
    name
        Name of the stage, by which other stages (``inside``) and ``run.json`` refer to it.
    model
        Name of its card.
    inside
        Stage whose result is the region of interest: the image is cropped to its box, grown by
        ``margin_mm``, before this model sees it; its own structures lie within that box.
    region
        Keys of that stage's structures which make the region; empty: all.
    margin_mm
        By which the box of the region grows on each side, rounded up to whole voxels.
    within_mm
        What is found farther than that from the region itself is dropped; 0: all outside the region. None:
        everything in the box is kept.
    keep
        Keys of this model's structures that go into the pipeline's result, by the pipeline's keys;
        empty: none of them (a stage that only localises).
    digest
        SHA-256 of that card, which pins the stage's files as the card does.
    """

    name: str
    model: str
    digest: Sha256 | None = None
    inside: str | None = None
    region: tuple[str, ...] = ()
    margin_mm: float = Field(default=0.0, ge=0)
    within_mm: float | None = Field(default=None, ge=0)
    keep: Mapping[str, str] = {}


class ModelSpec(Part):
    """The card of a model: identity, licence, intended use, input contract, files, labels.

    Attributes
    ----------
    id
        Name of the model: lower case letters, digits and hyphens. The card is ``ID.yaml``, its files lie
        beside it in the folder ``ID``.
    version
        Version of the model, in any form. SEG and SR name it.
    title
        Name for people: in reports, in the overview, in the descriptions of the result series.
    loader
        Kind of model. ``network`` needs the sections ``network`` and ``recipe``, ``graph`` needs ``graph``
        and ``recipe``, ``monai_bundle`` needs ``bundle``, ``nnunet`` needs ``nnunet``, ``pipeline`` needs
        ``stages``, ``classical`` needs ``parameters``.
    algorithm
        How it works, in a sentence for who reads the card.
    manufacturer
        Who made the model. SEG and SR name it as the source of the algorithm.
    intended_use
        What it may be used for. It goes into ``run.json``, and into SEG, SR and overview as the description
        of the contributing equipment.
    limits
        What a reader of its results must know, one sentence each. In every report and in ``run.json``.
    references
        Publications that describe it, one citation each, for who reads the card.
    licence
        Terms under which it is used.
    accepts
        Which series it takes.
    files
        SHA-256 of each file of the model, by its path below the model's folder. The card's own digest thus
        pins the whole model.
    parameters
        Numbers that an algorithm of the loader ``classical`` decides by, such as thresholds, by name.
    recipe
        How a network or graph is fed and read. For a MONAI bundle it stands in for the translated transforms,
        unless ``bundle.mode`` is ``compatible``; other loaders do not read it.
    network
        Architecture and weights, for the loader ``network``.
    graph
        The graph, for the loader ``graph``.
    bundle
        The bundle, for the loader ``monai_bundle``.
    nnunet
        The trained networks, for the loader ``nnunet``.
    stages
        Models of a ``pipeline``. They run in this order, but each after the one that it lies inside; a later
        one is painted over an earlier one.
    structures
        What it looks for: the numbers of its label map, and the segments of the SEG.
    quality
        Plausibility rules that every result is held against, besides those that always hold (see
        :mod:`ai.quality`). Empty: only these.
    memory_bytes
        Device memory of a run above the weights, where it was measured; None: estimated.
    digest
        SHA-256 of the card file's bytes, filled in by :func:`ai.model.load_card`.
    """

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=64)
    version: Line = Field(min_length=1, max_length=64)
    title: Line = Field(min_length=1, max_length=64)
    loader: Literal["classical", "network", "graph", "monai_bundle", "nnunet", "pipeline"]
    algorithm: str
    manufacturer: Line = Field(min_length=1, max_length=64)
    intended_use: str
    limits: tuple[str, ...]
    references: tuple[str, ...]
    licence: Licence
    accepts: Accepts
    files: Mapping[FileName, Sha256] = {}
    parameters: Mapping[str, float] = {}
    recipe: Recipe | None = None
    network: Network | None = None
    graph: Graph | None = None
    bundle: Bundle | None = None
    nnunet: NnUnet | None = None
    stages: tuple[Stage, ...] = ()
    structures: tuple[Structure, ...] = Field(min_length=1)
    quality: tuple[Rule, ...] = ()
    memory_bytes: int | None = Field(default=None, gt=0, le=10**13)
    digest: str = ""
    _folder: Path | None = PrivateAttr(default=None)

    @property
    def folder(self) -> Path | None:
        """Where its files lie: beside the card, under its id. None for a card that was never a file."""
        return self._folder

    def numbers(self) -> dict[str, int]:
        """Structure number by key."""
        return {structure.key: structure.number for structure in self.structures}

    @model_validator(mode="after")
    def _numbers_are_consecutive(self) -> Self:
        numbers = [structure.number for structure in self.structures]
        if numbers != list(range(1, len(numbers) + 1)):
            raise ValueError(
                f"structures are numbered {numbers}; number them 1 to {len(numbers)} in order, "
                "because segments of a DICOM SEG are (PS3.3 C.8.20.2)"
            )
        keys = [structure.key for structure in self.structures]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise ValueError(f"structures share the key {', '.join(sorted(twice))}")
        check_inclusions(self.structures)
        return self

    @model_validator(mode="after")
    def _has_the_section_of_its_loader(self) -> Self:
        sections = {
            "network": ("network", "recipe"),
            "graph": ("graph", "recipe"),
            "monai_bundle": ("bundle",),
            "nnunet": ("nnunet",),
            "pipeline": ("stages",),
        }.get(self.loader, ())
        missing = [name for name in sections if not getattr(self, name)]
        if missing:
            raise ValueError(f"the loader {self.loader} needs the section {' and '.join(missing)}")
        return self

    @model_validator(mode="after")
    def _sections_fit_the_structures(self) -> Self:
        wrong = next(misfits(self), None)
        if wrong is not None:
            raise ValueError(wrong)
        return self

    @model_validator(mode="after")
    def _rules_name_structures(self) -> Self:
        known = self.numbers()
        for rule in self.quality:
            for key in (*rule.structures, *rule.given):
                if key not in known:
                    raise ValueError(f"the quality rule {rule.kind} names {key!r}, which is no structure")
        return self
