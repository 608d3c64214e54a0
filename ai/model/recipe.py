"""How a network is fed and read: grid, intensity, tiles, output. Data only; :mod:`ai.inference` acts on it.

A recipe is what the loaders make of a MONAI bundle or an nnU-Net folder, and what a card spells out for a
bare graph. Array axes below are those of the network's input after ``grid.axes``.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Three = tuple[float, float, float]
Whole = Annotated[int, Field(ge=1, le=1 << 16)]
FINEST_MM = 0.01
"""Finer grids than this are a mistake in a card, or meant to fill the memory."""
_MOST_TILE_VOXELS = 1 << 30
_MOST_GRID_VOXELS = 1 << 32


class Part(BaseModel):
    """A frozen section of a card; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Grid(Part):
    """The grid that the network sees.

    Attributes
    ----------
    axes
        Where the network's array axes point, three letters of L R, P A, S I: ``RAS`` is what MONAI's
        ``Orientation("RAS")`` gives, ``SPL`` an axial stack with rows and columns as on a screen. None: the
        order of the source, ``(slices, rows, columns)``.
    spacing_mm
        Voxel size along those axes; None, or None for one axis: as the source has it.
    resize
        Voxels along those axes, whatever their size in millimetres: the image is stretched to so many, as
        most networks of radiographs want it. None, or None for one axis: as ``spacing_mm`` says.
    alignment
        Which points of both grids coincide: ``first_voxel`` centres (MONAI ``Spacing``), the outer ``edges``
        of the volume (nnU-Net, scikit-image ``resize``), or first and last ``centres`` (scipy ``zoom``,
        TotalSegmentator).
    interpolation
        Of the image. ``cubic`` is nnU-Net's order 3. ``area`` is the mean of what a voxel covers (OpenCV
        ``INTER_AREA``, torch ``area``) where the image shrinks, and linear where it grows.
    separate_z_above
        With this anisotropy or more, the coarsest axis is resampled on its own by nearest neighbour
        (nnU-Net: 3); None: never.
    size
        Pad or crop to exactly this after resampling, centred; None, or None for one axis: leave.
    crop
        What is cut away first, and given back as background: ``nonzero`` (nnU-Net), ``body`` (the box of what
        is not air, grown by ``crop_margin_mm``), ``foreground`` (values above 0: MONAI ``CropForeground``).
    intensity
        Whether values change ``before`` resampling (nnU-Net) or ``after`` it (most MONAI bundles).
    truncate
        TotalSegmentator resamples to int32: fractions are cut off towards zero.
    masks
        So many of the last channels are exclusive masks of 0 and 1, as a cascade of nnU-Nets has them: their
        values are left alone, and resampled they stay masks: see :mod:`ai.inference.masks`.
    """

    axes: Annotated[str, Field(pattern=r"^[LRPASI]{3}$")] | None = None
    spacing_mm: tuple[float | None, float | None, float | None] | None = None
    resize: tuple[Whole | None, Whole | None, Whole | None] | None = None
    alignment: Literal["first_voxel", "edges", "centres"] = "edges"
    interpolation: Literal["nearest", "linear", "cubic", "area"] = "linear"
    separate_z_above: float | None = None
    size: tuple[Whole | None, Whole | None, Whole | None] | None = None
    crop: Literal["none", "nonzero", "foreground", "body"] = "none"
    crop_margin_mm: float = Field(default=0.0, ge=0)
    intensity: Literal["before", "after"] = "after"
    truncate: bool = False
    masks: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _is_a_grid(self) -> Self:
        if self.axes is not None and any(len(set(self.axes) & set(pair)) != 1 for pair in ("LR", "PA", "SI")):
            raise ValueError(f"axes: {self.axes} names an axis twice; one of L R, one of P A, one of S I")
        if self.spacing_mm and any(step is not None and step < FINEST_MM for step in self.spacing_mm):
            raise ValueError(f"spacing_mm must be at least {FINEST_MM} mm")
        for name in ("size", "resize"):
            if math.prod(side or 1 for side in getattr(self, name) or ()) > _MOST_GRID_VOXELS:
                raise ValueError(f"{name} makes more than {_MOST_GRID_VOXELS} voxels")
        return self


class Clip(Part):
    """Values below and above are set to the bounds."""

    op: Literal["clip"] = "clip"
    low: float
    high: float


class Rescale(Part):
    """``source`` to ``target``, linear; outside it goes on unless ``clip``. MONAI ``ScaleIntensityRange``."""

    op: Literal["rescale"] = "rescale"
    source: tuple[float, float]
    target: tuple[float, float] = (0.0, 1.0)
    clip: bool = False


class Standardise(Part):
    """Subtract the mean, divide by the standard deviation: those given, or those of the image.

    ``nonzero``: statistics of, and change to, the voxels that are not 0 (MONAI ``NormalizeIntensity``).
    ``foreground``: the same for those that are not 0 in any channel and for the holes between them, which
    needs ``grid.crop: nonzero`` and ``grid.intensity: before`` (nnU-Net with ``use_mask_for_norm``).
    """

    op: Literal["standardise"] = "standardise"
    mean: float | None = None
    sd: float | None = None
    nonzero: bool = False
    foreground: bool = False


class Percentiles(Part):
    """Percentiles of the image to ``target``; MONAI ``ScaleIntensityRangePercentiles``."""

    op: Literal["percentiles"] = "percentiles"
    low: float = Field(ge=0, le=100)
    high: float = Field(ge=0, le=100)
    target: tuple[float, float] = (0.0, 1.0)
    clip: bool = True


class MinimumMaximum(Part):
    """The range of the image to ``target``; MONAI ``ScaleIntensity``."""

    op: Literal["minimum_maximum"] = "minimum_maximum"
    target: tuple[float, float] = (0.0, 1.0)


Operation = Annotated[Clip | Rescale | Standardise | Percentiles | MinimumMaximum, Field(discriminator="op")]


class Tiles(Part):
    """How the grid is cut, and what the network's answers are weighted with.

    Attributes
    ----------
    size
        Voxels of a tile; None: the whole grid at once, padded to ``multiple_of``. For a 2D network the first
        number is 1: the first axis of the grid runs through the slices.
    step
        Distance of neighbours as a fraction of the tile (nnU-Net 0.5; MONAI ``1 - overlap``).
    rule
        Start positions: ``nnunet`` spreads them evenly and rounds, ``monai`` goes in fixed intervals and
        moves the last one back. Both are bit-compatible with their models.
    weighting
        ``gaussian`` with sigma ``gaussian_sigma`` × tile, or ``constant``.
    mirror_axes
        Axes to mirror at test time; the answers of all combinations are averaged. Empty: none.
    batch
        Tiles at a time; on a CPU 1 is best.
    pad
        Value where the grid is smaller than a tile: a number, or ``minimum`` of the image, or ``edge``.
    """

    size: tuple[Whole, Whole, Whole] | None
    step: float = Field(default=0.5, ge=0.01, le=1)
    rule: Literal["nnunet", "monai"] = "nnunet"
    weighting: Literal["gaussian", "constant"] = "gaussian"
    gaussian_sigma: float = Field(default=0.125, gt=0)
    mirror_axes: tuple[Literal[0, 1, 2], ...] = ()
    batch: int = Field(default=1, ge=1)
    pad: float | Literal["minimum", "edge"] = 0.0
    multiple_of: int = Field(default=1, ge=1, le=4096)

    @model_validator(mode="after")
    def _fits_into_memory(self) -> Self:
        if self.batch * math.prod(self.size or ()) > _MOST_TILE_VOXELS:
            raise ValueError(f"size and batch make more than {_MOST_TILE_VOXELS} voxels at a time")
        return self


class Output(Part):
    """What the network's channels mean.

    Attributes
    ----------
    kind
        ``softmax``: one channel for each number of ``channels``, the highest wins; ``regions``: sigmoid
        channels painted one over the other in their order; ``labels``: the network answers with label
        numbers; ``scalar``: numbers about the whole image, named by ``scalars``.
    channels
        Structure number of each channel, 0 for background. None: channel ``n`` is structure ``n``.
    threshold
        Probability from which a region counts.
    upsample
        How answers reach the source grid: ``scores`` are interpolated, then decided; ``labels`` are decided
        on the network's grid and brought back by nearest neighbour.
    activation
        ``none`` when the network answers with probabilities already.
    interpolated
        What is interpolated to the source grid: the network's ``logits`` (nnU-Net), or the ``probabilities``
        made of them before (MONAI bundles that invert after their activation).
    """

    kind: Literal["softmax", "regions", "labels", "scalar"] = "softmax"
    channels: tuple[Annotated[int, Field(ge=0, le=255)], ...] | None = None
    threshold: float = Field(default=0.5, gt=0, lt=1)
    upsample: Literal["scores", "labels"] = "scores"
    activation: Literal["usual", "none"] = "usual"
    interpolated: Literal["logits", "probabilities"] = "logits"
    scalars: tuple[str, ...] = ()


class Keep(Part):
    """On the source grid at the end: keep the largest connected piece, drop small ones, fill holes."""

    op: Literal["largest", "drop_below_ml", "fill_holes"]
    structures: tuple[int, ...] = ()
    """Numbers; empty: each of them."""
    volume_ml: float = Field(default=0.0, ge=0)


class Recipe(Part):
    """Everything between the voxels of a source and its label map but the network itself.

    Attributes
    ----------
    dimensions
        3, or 2 for a network of images: tiles ``(1, rows, columns)`` reach it as ``(batch, channels, rows,
        columns)``.
    intensity
        Operations in order, on every channel; or with ``channel_intensity`` one list for each channel.
    precision
        Of the network's sums: ``auto`` is bfloat16 where the processor has it and float16 on a GPU.
    """

    dimensions: Literal[2, 3] = 3
    grid: Grid = Grid()
    intensity: tuple[Operation, ...] = ()
    channel_intensity: tuple[tuple[Operation, ...], ...] = ()
    tiles: Tiles
    output: Output = Output()
    precision: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    after: tuple[Keep, ...] = ()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.dimensions == 2 and self.tiles.size is not None and self.tiles.size[0] != 1:
            raise ValueError("tiles.size of a network of 2 dimensions starts with 1: (1, rows, columns)")
        if self.grid.resize is not None and self.grid.alignment == "first_voxel":
            raise ValueError("grid.resize stretches the whole image: alignment: edges or centres")
        return self
