"""Whatever the volume, its orientation and the recipe: labels come back where their voxels are."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ai.geometry import VolumeGeometry
from ai.inference.engine import NetworkModel, Networks
from ai.inference.tiling import plan
from ai.model import Recipe, RunContext, run_to_end
from ai.model.recipe import Tiles
from ai.volume import Volume
from tests.unit.test_engine import card, geometry

SLOW = settings(max_examples=25)
AXES = [
    "".join(letters)
    for order in itertools.permutations(("LR", "PA", "IS"))
    for letters in itertools.product(*order)
]
small = st.tuples(*[st.integers(3, 24)] * 3)
steps_mm = st.tuples(*[st.floats(0.5, 4.0)] * 3)


def oriented(
    shape: tuple[int, int, int], spacing_mm: tuple[float, float, float], turn: int
) -> VolumeGeometry:
    """A geometry whose axes are one of the 48 orders and directions."""
    plain = geometry(shape, spacing_mm)
    order = list(itertools.permutations(range(3)))[turn % 6]
    signs = [1 if turn // 6 >> axis & 1 else -1 for axis in range(3)]
    affine = np.zeros((4, 4))
    for axis in range(3):
        affine[order[axis], axis] = signs[axis] * spacing_mm[axis]
    affine[3, 3] = 1.0
    origins = np.arange(shape[0])[:, None] * affine[:3, 0]
    return VolumeGeometry(affine, shape, plain.frames, origins, "2.25.1")


def threshold(tile: Tensor) -> Tensor:
    """A network that says which voxels are above 0."""
    return torch.cat([-tile, tile], 1)


@SLOW
@given(
    small, steps_mm, st.integers(0, 47), st.sampled_from(AXES), st.sampled_from([(8, 8, 8), (5, 16, 9), None])
)
def test_every_voxel_gets_its_own_label_in_every_orientation(shape, spacing_mm, turn, axes, tile) -> None:
    rng = np.random.default_rng(turn)
    voxels = rng.integers(1, 100, shape).astype(np.int16) * rng.choice([-1, 1], shape).astype(np.int16)
    how = Recipe.model_validate({"grid": {"axes": axes}, "tiles": {"size": tile}, "precision": "float32"})
    model = NetworkModel(card(2), how, Networks((threshold,), 0), "cpu")
    volume = Volume(voxels, oriented(shape, spacing_mm, turn))
    found = run_to_end(model, [volume], lambda _stage, _share: None, RunContext())
    assert np.array_equal(found.labels == 1, voxels > 0)


@SLOW
@given(
    small,
    steps_mm,
    st.integers(0, 47),
    st.sampled_from(AXES),
    st.sampled_from(["edges", "first_voxel", "centres"]),
    st.floats(0.6, 3.0),
)
def test_a_smooth_border_comes_back_within_a_voxel(shape, spacing_mm, turn, axes, alignment, want_mm) -> None:
    """A plane through the volume keeps its place through resampling and back, to the larger voxel."""
    where = oriented(shape, spacing_mm, turn)
    index = np.indices(shape).reshape(3, -1)
    places = (where.index_to_lps[:3, :3] @ index + where.index_to_lps[:3, 3:]).reshape(3, *shape)
    direction = np.array([0.6, -0.48, 0.64])
    height = np.tensordot(direction, places, 1)
    height -= np.median(height)
    how = Recipe.model_validate(
        {
            "grid": {"axes": axes, "spacing_mm": (want_mm,) * 3, "alignment": alignment},
            "tiles": {"size": (8, 8, 8)},
            "precision": "float32",
        }
    )
    model = NetworkModel(card(2), how, Networks((threshold,), 0), "cpu")
    volume = Volume(height.astype(np.float32), where)
    found = run_to_end(model, [volume], lambda _stage, _share: None, RunContext())
    wrong = (found.labels == 1) != (height > 0)
    assert np.abs(height[wrong]).max(initial=0.0) <= np.linalg.norm([max(s, want_mm) for s in spacing_mm])


@settings(max_examples=100)
@given(
    st.tuples(*[st.integers(1, 90)] * 3),
    st.tuples(*[st.integers(2, 40)] * 3),
    st.floats(0.05, 1.0),
    st.sampled_from(["nnunet", "monai"]),
    st.integers(1, 5),
)
def test_tiles_cover_the_grid_and_never_fall_behind_the_ring(grid, tile, step, rule, batch) -> None:
    made = plan(grid, Tiles.model_validate({"size": tile, "step": max(step, 0.2), "rule": rule}), batch)
    covered = np.zeros(made.shape, np.bool_)
    for group in made.batches:
        for place in group:
            part = tuple(slice(start, start + length) for start, length in zip(place, tile, strict=True))
            assert covered[part].shape == tile
            covered[part] = True
        along = [place[made.ring] for place in group]
        assert min(along[-1] - along[0] + tile[made.ring] + 1, made.shape[made.ring]) <= made.depth
    assert covered.all()
