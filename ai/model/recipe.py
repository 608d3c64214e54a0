"""How a network is fed and read: grid, intensity, tiles, output. Data only; :mod:`ai.inference` acts on it.

A recipe is what the loaders make of a MONAI bundle or an nnU-Net folder, and what a card spells out for a
bare graph. Array axes below are those of the network's input after ``grid.axes``.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


def _each_axis_once(axes: str) -> str:
    if any(len(set(axes) & set(pair)) != 1 for pair in ("LR", "PA", "SI")):
        raise ValueError(f"axes: {axes} names an axis twice; one of L R, one of P A, one of S I")
    return axes


Three = tuple[float, float, float]
Whole = Annotated[int, Field(ge=1, le=1 << 16)]
Axes = Annotated[str, Field(pattern=r"^[LRPASI]{3}$"), AfterValidator(_each_axis_once)]
Number = Annotated[int, Field(ge=1, le=255)]
"""Number of a structure in a label map of uint8."""
NumberOrNone = Annotated[int, Field(ge=0, le=255)]
"""The same, 0 for background."""
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
    crop_margin_mm
        By which the box of ``crop`` grows on each side, rounded up to whole voxels; ``body`` has 8 mm more.
    intensity
        Whether values change ``before`` resampling (nnU-Net) or ``after`` it (most MONAI bundles).
    truncate
        TotalSegmentator resamples to int32: fractions are cut off towards zero.
    masks
        So many of the last channels are exclusive masks of 0 and 1, as a cascade of nnU-Nets has them: their
        values are left alone, and resampled they stay masks: see :mod:`ai.inference.masks`.
    """

    axes: Axes | None = None
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
        if self.spacing_mm and any(step is not None and step < FINEST_MM for step in self.spacing_mm):
            raise ValueError(f"spacing_mm must be at least {FINEST_MM} mm")
        for name in ("size", "resize"):
            if math.prod(side or 1 for side in getattr(self, name) or ()) > _MOST_GRID_VOXELS:
                raise ValueError(f"{name} makes more than {_MOST_GRID_VOXELS} voxels")
        return self


class Clip(Part):
    """Values below and above are set to the bounds.

    Attributes
    ----------
    op
        Which operation it is; always written.
    low
        Lower bound, in the unit of the image.
    high
        Upper bound, likewise.
    """

    op: Literal["clip"] = "clip"
    low: float
    high: float

    @model_validator(mode="after")
    def _leaves_values(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low is {self.low:g}, above high, {self.high:g}: every value would become one")
        return self


class Rescale(Part):
    """``source`` to ``target``, linear; outside it goes on unless ``clip``. MONAI ``ScaleIntensityRange``.

    Attributes
    ----------
    op
        Which operation it is; always written.
    source
        Two values of the image, in its unit.
    target
        What these two become.
    clip
        Whether what lies beyond the target is set to its ends.
    """

    op: Literal["rescale"] = "rescale"
    source: tuple[float, float]
    target: tuple[float, float] = (0.0, 1.0)
    clip: bool = False


class Standardise(Part):
    """Subtract the mean, divide by the standard deviation: those given, or those of the image.

    Attributes
    ----------
    op
        Which operation it is; always written.
    mean
        What is subtracted, in the unit of the image; None: the mean of the channel.
    sd
        What is divided by, likewise; None: the standard deviation of the channel. One of 0 counts as 1.
    nonzero
        Statistics of, and change to, the voxels that are not 0 (MONAI ``NormalizeIntensity``).
    foreground
        The same for those that are not 0 in any channel and for the holes between them, which needs
        ``grid.crop: nonzero`` and ``grid.intensity: before`` (nnU-Net with ``use_mask_for_norm``).
    """

    op: Literal["standardise"] = "standardise"
    mean: float | None = None
    sd: float | None = Field(default=None, ge=0)
    nonzero: bool = False
    foreground: bool = False


class Percentiles(Part):
    """Percentiles of the image to ``target``; MONAI ``ScaleIntensityRangePercentiles``.

    Attributes
    ----------
    op
        Which operation it is; always written.
    low
        Percentile of the channel that becomes the first number of ``target``.
    high
        Percentile of the channel that becomes the second.
    target
        What the two percentiles become; linear between and beyond them.
    clip
        Whether what lies beyond the target is set to its ends.
    """

    op: Literal["percentiles"] = "percentiles"
    low: float = Field(ge=0, le=100)
    high: float = Field(ge=0, le=100)
    target: tuple[float, float] = (0.0, 1.0)
    clip: bool = True

    @model_validator(mode="after")
    def _ascend(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low, {self.low:g}, must be a lower percentile than high, {self.high:g}")
        return self


class MinimumMaximum(Part):
    """The range of the image to ``target``; MONAI ``ScaleIntensity``.

    Attributes
    ----------
    op
        Which operation it is; always written.
    target
        What the lowest and the highest value of the channel become.
    """

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
    gaussian_sigma
        Sigma as a fraction of the tile along each axis.
    mirror_axes
        Axes to mirror at test time; the answers of all combinations are averaged. Empty: none.
    batch
        Tiles at a time; on a CPU 1 is best.
    pad
        Value where the grid is smaller than a tile: a number, or ``minimum`` of the image, or ``edge``.
    multiple_of
        Without a ``size`` each side of the grid is padded up to a multiple of this many voxels; for a 2D
        network rows and columns only.
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
        if len(set(self.mirror_axes)) != len(self.mirror_axes):
            raise ValueError(f"mirror_axes {list(self.mirror_axes)} names an axis twice")
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
    scalars
        Names of the numbers of a ``scalar`` answer, in their order.
    """

    kind: Literal["softmax", "regions", "labels", "scalar"] = "softmax"
    channels: tuple[NumberOrNone, ...] | None = None
    threshold: float = Field(default=0.5, gt=0, lt=1)
    upsample: Literal["scores", "labels"] = "scores"
    activation: Literal["usual", "none"] = "usual"
    interpolated: Literal["logits", "probabilities"] = "logits"
    scalars: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _answers_something(self) -> Self:
        if self.kind == "scalar" and not self.scalars:
            raise ValueError("an output of the kind scalar names its numbers in scalars")
        if self.channels is not None and not any(self.channels):
            raise ValueError("channels names no structure: nothing could be found")
        return self


class Keep(Part):
    """A last change of the label map: keep the largest connected piece, drop small ones, fill holes.

    It is made on the source grid; by ``nnunet.after`` on the grid that the networks saw.

    Attributes
    ----------
    op
        ``largest``: all but the largest piece of a structure is dropped; ``drop_below_ml``: pieces smaller
        than ``volume_ml`` are; ``fill_holes``: background that it encloses becomes part of it. Voxels that
        share a face, edge or corner are one piece.
    structures
        Numbers; empty: each of them.
    volume_ml
        Least volume of a piece, for ``drop_below_ml``.
    """

    op: Literal["largest", "drop_below_ml", "fill_holes"]
    structures: tuple[Number, ...] = ()
    volume_ml: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _drops_something(self) -> Self:
        if self.op == "drop_below_ml" and not self.volume_ml:
            raise ValueError("drop_below_ml needs volume_ml, the least volume of a piece")
        return self


class Recipe(Part):
    """Everything between the voxels of a source and its label map but the network itself.

    Attributes
    ----------
    dimensions
        3, or 2 for a network of images: tiles ``(1, rows, columns)`` reach it as ``(batch, channels, rows,
        columns)``.
    grid
        The grid that the network sees; left out: that of the source.
    intensity
        Operations in order, on every channel; or with ``channel_intensity`` one list for each channel.
    channel_intensity
        One list of operations for each of ``accepts.channels``, in their order, but none for ``grid.masks``;
        they replace ``intensity``. Empty: ``intensity`` for all.
    tiles
        How the grid is cut into what the network sees at a time.
    output
        What the network answers; left out: a softmax whose channel ``n`` is structure ``n``.
    precision
        Of the network's sums: ``auto`` is bfloat16 where the processor has it and float16 on a GPU.
    after
        Last changes of the label map on the source grid, in order. Empty: none.
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
        confined = any(isinstance(each, Standardise) and each.foreground for each in self.operations)
        if confined and (self.grid.crop != "nonzero" or self.grid.intensity != "before"):
            raise ValueError(
                "standardise with foreground: true needs grid.crop: nonzero and grid.intensity: before; "
                f"they are {self.grid.crop} and {self.grid.intensity}"
            )
        return self

    @property
    def operations(self) -> tuple[Operation, ...]:
        """Every operation, of all channels."""
        return (*self.intensity, *(each for channel in self.channel_intensity for each in channel))
