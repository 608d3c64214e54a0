"""The section ``nnunet`` of a card: which trained networks, and what is done around them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from ai.model.recipe import FINEST_MM, Keep, Part

Millimetres = Annotated[float, Field(ge=FINEST_MM)]


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
    folds: tuple[int | Literal["all"], ...] = (0,)
    checkpoint: str = "checkpoint_final.pth"
    labels: Mapping[int, int] = {}


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
    axes: str = Field(default="SAR", pattern=r"^[LRPASI]{3}$")
    mirror: bool = False
    step: float = Field(default=0.5, ge=0.01, le=1)
    precision: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    resample_mm: Millimetres | tuple[Millimetres, Millimetres, Millimetres] | None = None
    whole_numbers: bool = False
    previous_stage: NnUnetPart | None = None
    crop: NnUnetCrop | None = None
    after: tuple[Keep, ...] = ()
    vertebral_bodies: VertebralBodies | None = None


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
    labels: tuple[int, ...] = Field(min_length=1)
    margin_mm: float = Field(default=0.0, ge=0)
    within: tuple[int, ...] = ()
    within_mm: float = Field(default=0.0, ge=0)


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

    first: int = Field(default=1, ge=1)
    lowest_lumbar: int = Field(ge=1)
    grow_mm: float = Field(default=3.0, ge=0)
    smallest_mm3: float = Field(default=100.0, ge=0)
    clip: NnUnet | None = None
    clip_label: int = 1
    clip_grow_mm: float = Field(default=2.0, ge=0)


NnUnet.model_rebuild()  # it and its sections name one another
