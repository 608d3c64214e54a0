"""Models without weights, made of classical image processing.

The one that ships is ``ct-tissue``: body, lungs, bone and metal of a CT. Its steps and their sources:

1. Body (:mod:`ai.inference.ct_body`): tissue against air, table and blankets opened away, holes filled.
2. Airway (:mod:`ai.inference.ct_airway`): Hu, Hoffman and Reinhardt, IEEE TMI 2001;20:490 for the trachea;
   Mori et al., ICPR 1996 for region growing with leak control.
3. Lungs (:mod:`ai.inference.ct_lung`): optimal threshold by Ridler and Calvard 1978 as in Hu et al. 2001;
   gas of stomach and bowel told apart by its flat −1000 HU; touching lungs separated by erosion and regrown,
   as in van Rikxoort et al., Med Phys 2009;36:2934.
4. Metal: values at or above the card's threshold, where no tissue reaches (Kalender, Hebel and Ebersberger,
   Radiology 1987;164:576).
5. Bone (:mod:`ai.inference.ct_bone`): Kang, Engelke and Kalender, IEEE TMI 2003;22:586.
6. Boundaries on the original grid (:mod:`ai.inference.refine`).

What belongs together is decided on a coarse grid of about 2.5 mm, boundaries on the original one. Sides come
from patient coordinates, never from array order, so every orientation and patient position works alike.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ai.errors import ModelError
from ai.inference.canonical import reorientation
from ai.inference.coarse import Grid, Mask, make_grid, pool
from ai.inference.ct_body import find_body
from ai.inference.ct_bone import BoneRule, find_bone
from ai.inference.ct_lung import Lungs, find_lungs
from ai.inference.refine import Criterion, Region, draw, fill_small_holes, shell
from ai.model import ModelSpec, Prediction, RunContext, Step, Steps
from ai.volume import LabelArray, Volume

_COARSE_MM = 2.5
_COARSE_COPIES = 8  # as many float32 arrays of the coarse grid live at once
_CAVITY_MM2 = 60.0  # marrow of a rib or of an arch; half a narrow spinal canal
_ANY_HU = float("inf")
_STRUCTURES = ("body", "left_lung", "right_lung", "bone", "metal_implant")
_BONE_PARAMETERS = ("bone_seed_hu", "bone_threshold_hu", "marrow_threshold_hu", "bone_widest_mm")
_PARAMETERS = (
    "body_threshold_hu",
    "lung_threshold_hu",
    "airway_threshold_hu",
    *_BONE_PARAMETERS,
    "metal_threshold_hu",
    "metal_minimum_ml",
)


def load(spec: ModelSpec, device: str, _find: object = None) -> CtTissue:
    """The algorithm that the card's id names; see :func:`ai.loaders.load_model`."""
    return CtTissue(spec, device)


@dataclass(frozen=True)
class CtTissue:
    """The model ``ct-tissue`` on one device (see :class:`ai.model.Model`)."""

    spec: ModelSpec
    device: str

    def __post_init__(self) -> None:
        missing = [name for name in _PARAMETERS if name not in self.spec.parameters]
        keys = tuple(structure.key for structure in self.spec.structures)
        if missing or keys != _STRUCTURES:
            raise ModelError(
                "MODEL_CARD_INVALID",
                f"The card {self.spec.id} must name the structures {', '.join(_STRUCTURES)} in this order "
                f"and give all parameters; missing parameters: {', '.join(missing) or 'none'}.",
            )

    @property
    def weight_bytes(self) -> int:
        """None: it has no weights."""
        return 0

    def needed_bytes(self, shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> int:
        """The coarse grid in float32, a few times over."""
        coarse = [n * min(step / _COARSE_MM, 1.0) for n, step in zip(shape, spacing_mm, strict=True)]
        return int(math.prod(coarse)) * 4 * _COARSE_COPIES

    def close(self) -> None:
        """Nothing to give back."""

    def steps(self, channels: Sequence[Volume], run: RunContext) -> Steps:  # noqa: ARG002
        """Label every voxel, numbers of the card, 0 outside the body; see :class:`ai.model.Model`."""
        (volume,) = channels
        geometry = volume.geometry
        view = reorientation(geometry.index_to_lps)
        voxels = view.apply(volume.voxels)
        affine = view.affine(geometry.index_to_lps, volume.voxels.shape)
        labels = np.zeros(volume.voxels.shape, np.uint8)
        canonical = view.apply(labels)
        norms = np.round(np.linalg.norm(affine[:3, :3], axis=0), 6)  # the noise of a cosine decides nothing
        grid = make_grid((float(norms[0]), float(norms[1]), float(norms[2])), _COARSE_MM, self.device)
        criteria, metal = yield from self._decide(voxels, affine, grid)
        for where, numbers in draw(voxels, grid, criteria):
            yield Step("boundaries", 0.7 + 0.3 * where.start / voxels.shape[0])
            fill_small_holes(numbers, 4, 1, _CAVITY_MM2, float(norms[1] * norms[2]))
            canonical[where] = _with_metal(numbers, where, metal)
        yield Step("done", 1.0)
        return Prediction(labels)

    def _decide(
        self, voxels: npt.NDArray[Any], affine: npt.NDArray[np.float64], grid: Grid
    ) -> Generator[Step, None, tuple[list[Criterion], tuple[npt.NDArray[np.intp], ...]]]:
        """What belongs together, on the coarse grid of the canonical volume; and where metal is."""
        value = self.spec.parameters
        yield Step("coarse grid", 0.0)
        mean_hu = pool(voxels, grid)
        yield Step("body", 0.1)
        body = find_body(mean_hu, grid, value["body_threshold_hu"])
        yield Step("lungs", 0.2)
        start_hu, airway_hu = value["lung_threshold_hu"], value["airway_threshold_hu"]
        lungs = find_lungs(mean_hu, body, _left_mm(affine, body.shape, grid), grid, start_hu, airway_hu)
        yield Step("metal", 0.4)
        metal = find_metal(voxels, body, grid, value)
        yield Step("bone", 0.5)
        near_metal = _coarse_metal(metal, body.shape, grid)
        rule = BoneRule(*(value[name] for name in _BONE_PARAMETERS))
        bone = find_bone(voxels, mean_hu, body, near_metal, grid, rule)
        criteria = [
            Criterion(1, shell(body, grid), value["body_threshold_hu"], _ANY_HU),
            *_lung_criteria(lungs, grid),
            Criterion(4, Region(bone.near, bone.inner), bone.threshold_hu, _ANY_HU),
        ]
        return criteria, metal


def _with_metal(labels: LabelArray, where: slice, metal: tuple[npt.NDArray[np.intp], ...]) -> LabelArray:
    """A slab with its metal voxels labelled, over everything else."""
    inside = (metal[0] >= where.start) & (metal[0] < where.stop)
    labels[metal[0][inside] - where.start, metal[1][inside], metal[2][inside]] = 5
    return labels


def find_metal(
    voxels: npt.NDArray[Any], body: Mask, grid: Grid, value: Mapping[str, float]
) -> tuple[npt.NDArray[np.intp], ...]:
    """Indices (z, y, x) of metal inside the body; specks below the card's minimum are left out."""
    index = np.nonzero(voxels >= value["metal_threshold_hu"])
    z, y, x = (axis // factor for axis, factor in zip(index, grid.factors, strict=True))
    index = tuple(axis[body[z, y, x]] for axis in index)
    if not index[0].size:
        return index
    low = [int(axis.min()) for axis in index]
    local = tuple(axis - start for axis, start in zip(index, low, strict=True))
    box = np.zeros([int(axis.max()) + 1 for axis in local], np.bool_)
    box[local] = True
    labels, _ = ndimage.label(box, structure=np.ones((3, 3, 3)))
    voxel_ml = grid.voxel_ml / float(np.prod(grid.factors))
    large = np.bincount(labels.reshape(-1)) * voxel_ml >= value["metal_minimum_ml"]
    kept = large[labels[local]]
    return tuple(axis[kept] for axis in index)


def _coarse_metal(index: tuple[npt.NDArray[np.intp], ...], shape: tuple[int, ...], grid: Grid) -> Mask:
    mask = np.zeros(shape, np.bool_)
    mask[tuple(axis // factor for axis, factor in zip(index, grid.factors, strict=True))] = True
    return mask


def _left_mm(affine: npt.NDArray[np.float64], shape: tuple[int, ...], grid: Grid) -> npt.NDArray[np.float32]:
    """LPS x of the centre of every coarse voxel, millimetres."""
    result = np.full(shape, affine[0, 3], np.float32)
    for axis, (length, factor) in enumerate(zip(shape, grid.factors, strict=True)):
        centres = (np.arange(length) + 0.5) * factor - 0.5
        result += (
            (affine[0, axis] * centres)
            .astype(np.float32)
            .reshape([-1 if other == axis else 1 for other in range(3)])
        )
    return result


def _lung_criteria(lungs: Lungs, grid: Grid) -> list[Criterion]:
    """Left and right: near its boundary a lung takes what is darker than the threshold, but no other air."""
    left, right = shell(lungs.left, grid), shell(lungs.right, grid)
    near_left = left.near & ~lungs.right & ~lungs.other_air
    near_right = right.near & ~near_left & ~lungs.other_air
    return [
        Criterion(2, Region(near_left, left.inner & lungs.left), -_ANY_HU, lungs.threshold_hu),
        Criterion(3, Region(near_right, right.inner & lungs.right), -_ANY_HU, lungs.threshold_hu),
    ]
