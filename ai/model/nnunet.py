"""The section ``nnunet`` of a card: which trained networks, and what is done around them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ai.model.recipe import FINEST_MM, Axes, Keep, Number, NumberOrNone, Part

Millimetres = Annotated[float, Field(ge=FINEST_MM)]
_Label = Annotated[int, Field(ge=0)]


class NnUnetPart(Part):
    """One trained nnU-Net: a results folder below the model's folder, and what its labels are for us.

    Attributes
    ----------
    folder
        Path of the results folder, which holds ``plans.json``, ``dataset.json`` and ``fold_0`` …; ``.`` is
        the model's folder itself.
    folds
        Which folds are loaded, ``all`` for ``fold_all``; the answers of several are averaged.
    checkpoint
        Name of the file of weights in the folder of each fold.
    labels
        Label of the part to structure number; a label left out becomes background. Empty: as they are.
    """

    folder: str = "."
    folds: tuple[int | Literal["all"], ...] = Field(default=(0,), min_length=1)
    checkpoint: str = "checkpoint_final.pth"
    labels: Mapping[_Label, NumberOrNone] = {}


class NnUnet(Part):
    """nnU-Net v2: one results folder, or several whose structures are merged, later ones on top.

    Attributes
    ----------
    parts
        In the order in which they are painted.
    axes
        Where the array axes of the training images pointed, as nnU-Net read them (slices first):
        ``SAR`` for NIfTI files in RAS+ order.
    mirror
        Test-time mirroring (8 × the time), along the axes that the training allowed.
    step
        Tile step; nnU-Net's own is 0.5.
    precision
        Of the network's sums, see :class:`ai.model.Recipe`.
    resample_mm
        Spacing to which the image is brought before nnU-Net sees it, its labels coming back by nearest
        neighbour (TotalSegmentator): one number, or those along right-left, anterior-posterior and
        superior-inferior.
    whole_numbers
        Values lose their fractions before nnU-Net sees them (TotalSegmentator), if resampled or cropped.
    previous_stage
        Of a cascade: the low resolution network whose labels are further channels; its own ``labels`` stay
        empty. None: no cascade.
    crop
        The region outside which it does not look.
    after
        What is done to the labels at the end.
    vertebral_bodies
        Labels are vertebral bodies that were trained eroded: see :mod:`ai.loaders.nnunet_bodies`.
    """

    parts: tuple[NnUnetPart, ...] = Field(min_length=1)
    axes: Axes = "SAR"
    mirror: bool = False
    step: float = Field(default=0.5, ge=0.01, le=1)
    precision: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    resample_mm: Millimetres | tuple[Millimetres, Millimetres, Millimetres] | None = None
    whole_numbers: bool = False
    previous_stage: NnUnetPart | None = None
    crop: NnUnetCrop | None = None
    after: tuple[Keep, ...] = ()
    vertebral_bodies: VertebralBodies | None = None

    @property
    def numbers(self) -> frozenset[int] | None:
        """Numbers that it can answer with; None where a part's own labels, as they are, decide that."""
        if not all(part.labels for part in self.parts):
            return None
        found = {number for part in self.parts for number in part.labels.values() if number}
        rule = self.vertebral_bodies
        return frozenset(found | set(range(rule.first, rule.lowest_lumbar + 1)) if rule else found)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.previous_stage is not None and self.previous_stage.labels:
            raise ValueError(
                "previous_stage.labels must be empty: the second stage was trained with the labels of the "
                "first as they are"
            )
        unknown = unknown_numbers(self.numbers, *(keep.structures for keep in self.after))
        if unknown:
            raise ValueError(f"after names the structures {unknown}, which no part makes")
        return self


def unknown_numbers(known: frozenset[int] | None, *named: tuple[int, ...]) -> list[int]:
    """Those named that are not known; none where it is not known yet what there will be."""
    return [] if known is None else sorted({number for each in named for number in each} - known)


class NnUnetCrop(Part):
    """The region of interest: another nnU-Net finds it in the whole image.

    Attributes
    ----------
    localiser
        The nnU-Net that finds it; its labels are those that its ``parts`` make.
    labels
        Those of the localiser's labels that make the region; where there is none the answer is empty.
    margin_mm
        By which the box of the region grows on each side, rounded down to whole voxels.
    within
        What is found farther than ``within_mm`` from these labels of the localiser is dropped. Empty: nothing
        is.
    within_mm
        That distance; 0: all outside these labels is dropped.
    """

    localiser: NnUnet
    labels: tuple[Number, ...] = Field(min_length=1)
    margin_mm: float = Field(default=0.0, ge=0)
    within: tuple[Number, ...] = ()
    within_mm: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _names_what_is_found(self) -> Self:
        unknown = unknown_numbers(self.localiser.numbers, self.labels, self.within)
        if unknown:
            raise ValueError(f"labels and within name {unknown}, which the localiser does not find")
        if self.within_mm and not self.within:
            raise ValueError("within_mm is the distance from the labels of within, and that is empty")
        return self


class VertebralBodies(Part):
    """Structures of a spine, numbered from the top; bodies that touch are counted anew.

    Attributes
    ----------
    first
        Number of the highest vertebra, that of C1 in a whole spine. The next ones follow downwards.
    lowest_lumbar
        Number of the lowest lumbar vertebra. Bodies are counted upwards from the highest number found;
        where ``first`` was found and this was not, downwards from ``first``.
    grow_mm
        By which each body grows into background, to undo the erosion of its training labels.
    smallest_mm3
        Pieces smaller than this, in cubic millimetres, are dropped when bodies are counted anew.
    clip
        Network whose label finally bounds them, after they grew by ``clip_grow_mm``. None: nothing does.
    clip_label
        Number of that label.
    clip_grow_mm
        By which the bodies grow once more before ``clip`` bounds them; without ``clip`` they do not.
    """

    first: Number = 1
    lowest_lumbar: Number
    grow_mm: float = Field(default=3.0, ge=0)
    smallest_mm3: float = Field(default=100.0, ge=0)
    clip: NnUnet | None = None
    clip_label: Number = 1
    clip_grow_mm: float = Field(default=2.0, ge=0)

    @model_validator(mode="after")
    def _counts_downwards(self) -> Self:
        if self.first > self.lowest_lumbar:
            raise ValueError(f"first, {self.first}, lies below lowest_lumbar, {self.lowest_lumbar}")
        if self.clip is not None and unknown_numbers(self.clip.numbers, (self.clip_label,)):
            raise ValueError(f"clip_label is {self.clip_label}, which the network of clip does not find")
        return self


NnUnet.model_rebuild()  # it and its sections name one another
