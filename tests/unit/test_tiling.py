"""Tiles start where those of nnU-Net and MONAI start, and weigh what theirs weigh."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data.utils import compute_importance_map, dense_patch_slices
from monai.inferers.utils import _get_scan_interval
from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window

from ai.inference.tiling import importance, plan, starts
from ai.model.recipe import Tiles

SIZES = [((110, 64, 33), (64, 64, 32)), ((267, 256, 173), (128, 128, 128)), ((96, 97, 191), (96, 96, 96))]


def tiles(**changes: object) -> Tiles:
    return Tiles.model_validate({"size": (16, 16, 16), **changes})


@pytest.mark.parametrize("step", [0.5, 0.8, 0.3, 1.0])
@pytest.mark.parametrize(("grid", "tile"), SIZES)
def test_starts_are_those_of_nnunet(grid, tile, step: float) -> None:
    ours = [starts(n, size, tiles(step=step)) for n, size in zip(grid, tile, strict=True)]
    assert ours == compute_steps_for_sliding_window(grid, tile, step)


@pytest.mark.parametrize("overlap", [0.25, 0.5, 0.625, 0.7, 0.8, 0.0])
@pytest.mark.parametrize(("grid", "tile"), SIZES)
def test_starts_are_those_of_monai(grid, tile, overlap: float) -> None:
    interval = _get_scan_interval(grid, tile, 3, (overlap,) * 3)
    theirs = [tuple(part.start for part in window) for window in dense_patch_slices(grid, tile, interval)]
    made = plan(grid, tiles(size=tile, step=1 - overlap, rule="monai"), batch=1)
    assert sorted(place for batch in made.batches for place in batch) == sorted(theirs)


@pytest.mark.parametrize("size", [(16, 24, 32), (96, 96, 96), (5, 7, 9), (128, 128, 128)])
def test_weights_are_those_of_nnunet(size) -> None:
    theirs = compute_gaussian(size, 1 / 8, 10, torch.float16, torch.device("cpu")).float()
    assert torch.equal(importance(size, tiles(size=size)), theirs)


@pytest.mark.parametrize("size", [(16, 24, 32), (96, 96, 96), (5, 7, 9)])
def test_weights_are_those_of_monai(size) -> None:
    theirs = compute_importance_map(size, "gaussian", 0.125)
    assert torch.equal(importance(size, tiles(size=size, rule="monai")), theirs)


def test_flat_tiles_are_weighted_in_their_plane() -> None:
    flat = tiles(size=(1, 24, 32))
    assert torch.equal(
        importance((1, 24, 32), flat)[0],
        compute_gaussian((24, 32), 1 / 8, 10, torch.float16, torch.device("cpu")).float(),
    )
    assert bool((importance((1, 24, 32), tiles(size=(1, 24, 32), weighting="constant")) == 1).all())


def test_a_grid_smaller_than_a_tile_is_padded_around_its_centre() -> None:
    made = plan((10, 40, 33), tiles(size=(16, 32, 33)), batch=2)
    assert made.shape == (16, 40, 33)
    assert made.before == (3, 0, 0)
    assert [len(batch) for batch in made.batches] == [2]


def test_the_ring_is_the_longest_axis_and_as_deep_as_a_row_of_tiles() -> None:
    made = plan((40, 200, 50), tiles(size=(32, 32, 32)), batch=1)
    assert made.ring == 1
    assert made.depth == 33
    along = [batch[0][1] for batch in made.batches]
    assert along == sorted(along)


def test_slices_of_a_2d_network_are_batched() -> None:
    made = plan((30, 64, 64), tiles(size=(1, 64, 64)), batch=8, flat=True)
    assert made.ring == 0
    assert made.depth == 9
    assert [len(batch) for batch in made.batches] == [8, 8, 8, 6]


def test_the_whole_grid_at_once_is_rounded_up() -> None:
    made = plan((30, 41, 64), tiles(size=None, multiple_of=16), batch=1)
    assert made.tile == made.shape == (32, 48, 64)
    assert plan((30, 41, 64), tiles(size=None, multiple_of=16), batch=1, flat=True).tile == (1, 48, 64)
    assert np.array_equal(made.batches, [[(0, 0, 0)]])
