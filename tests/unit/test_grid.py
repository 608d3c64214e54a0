"""The network's grid: MONAI's, nnU-Net's and scipy's rules, and the way back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Orientation as MonaiOrientation
from monai.transforms import Spacing
from nnunetv2.preprocessing.resampling.default_resampling import (
    compute_new_shape,
    resample_data_or_seg_to_shape,
)
from scipy import ndimage

from ai.inference.grid import Line, lines, orientation, resample
from ai.model.recipe import Grid

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def image(shape: tuple[int, int, int]) -> np.ndarray:
    """Smooth structures and noise, int16 as CT has it."""
    rng = np.random.default_rng(7)
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), 2.0) * 4000
    return (smooth + rng.normal(size=shape) * 20).astype(np.int16)


def resampled(source: np.ndarray, grid: Grid, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    axes = lines(grid, source.shape, spacing_mm)
    return resample(torch.from_numpy(source), grid, axes).numpy()


AFFINES = {
    "axial": np.array([[0, 0, 0.8, -100.0], [0, 0.8, 0, -90], [2.5, 0, 0, 40], [0, 0, 0, 1]]),
    "axial from the feet up, turned": np.array(
        [[0, 0, -0.8, 10.0], [0, -0.8, 0, 9], [2.5, 0, 0, 4], [0, 0, 0, 1]]
    ),
    "sagittal": np.array([[1.2, 0, 0, 1.0], [0, 0, 0.9, 2], [0, -0.9, 0, 3], [0, 0, 0, 1]]),
    "coronal": np.array([[0, 0, 1.1, 1.0], [-2.0, 0, 0, 2], [0, -1.1, 0, 3], [0, 0, 0, 1]]),
}


@pytest.mark.parametrize("name", AFFINES)
@pytest.mark.parametrize("axes", ["RAS", "LPS", "SPL", "ASR"])
@pytest.mark.parametrize("tilt", [0.0, 0.3])
def test_axes_are_those_of_monai(name: str, axes: str, tilt: float) -> None:
    turn = np.eye(4)
    turn[:3, :3] = [[np.cos(tilt), -np.sin(tilt), 0], [np.sin(tilt), np.cos(tilt), 0], [0, 0, 1]]
    affine = turn @ AFFINES[name]
    source = image((5, 6, 7))
    turned = orientation(affine, axes)
    theirs = MonaiOrientation(axes, labels=None)(
        MetaTensor(torch.from_numpy(source.astype(np.float32))[None], affine=LPS_TO_RAS @ affine)
    )
    assert np.array_equal(turned.apply(source), theirs[0].numpy())
    assert np.array_equal(turned.back(turned.apply(source)), source)


def test_a_source_whose_axes_are_kept_is_not_touched() -> None:
    assert orientation(AFFINES["sagittal"], None).axes == (0, 1, 2)


@pytest.mark.parametrize("spacing_mm", [(2.5, 0.8, 0.8), (0.9, 1.1, 3.0), (1.5, 1.5, 1.5)])
def test_first_voxel_is_monai_spacing(spacing_mm: tuple[float, float, float]) -> None:
    source = image((20, 33, 27))
    ours = resampled(source, Grid(spacing_mm=(1.5, 1.5, 1.5), alignment="first_voxel"), spacing_mm)
    affine = np.diag([*spacing_mm, 1.0])
    tensor = MetaTensor(torch.from_numpy(source.astype(np.float32))[None], affine=affine)
    theirs = Spacing((1.5, 1.5, 1.5), mode="bilinear")(tensor)[0].numpy()
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, atol=0.05)  # theirs goes through normalised coordinates


@pytest.mark.parametrize(
    ("spacing_mm", "target_mm"),
    [
        ((2.5, 0.8, 0.8), (1.5, 1.5, 1.5)),  # anisotropic: slices on their own, nearest
        ((1.0, 0.8, 0.8), (1.5, 1.5, 1.5)),
        ((1.0, 1.0, 1.0), (0.8, 0.8, 5.0)),  # anisotropic afterwards
        ((5.0, 0.7, 0.7), (5.0, 1.0, 1.0)),
        ((1.0, 1.0, 1.0), (1.0, 1.0, 1.0)),
    ],
)
def test_edges_and_cubic_are_nnunet(spacing_mm, target_mm) -> None:
    source = image((18, 40, 36))
    grid = Grid(spacing_mm=target_mm, alignment="edges", interpolation="cubic", separate_z_above=3)
    ours = resampled(source, grid, spacing_mm)
    shape = compute_new_shape(source.shape, spacing_mm, target_mm)
    given = source.astype(np.float32)[None]
    theirs = resample_data_or_seg_to_shape(
        given, shape, spacing_mm, target_mm, is_seg=False, order=3, order_z=0, force_separate_z=None
    )[0]
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, atol=2e-3 * np.abs(theirs).max() / 100)


def test_scores_go_back_as_nnunet_exports_them() -> None:
    """Linear in the plane, nearest between slices, where the recipe keeps slices apart."""
    spacing_mm, target_mm, shape = (5.0, 0.7, 0.7), (3.0, 1.0, 1.0), (12, 30, 28)
    grid = Grid(spacing_mm=target_mm, alignment="edges", interpolation="cubic", separate_z_above=3)
    axes = lines(grid, shape, spacing_mm)
    assert [line.scores for line in axes] == ["nearest", "linear", "linear"]
    scores = image(tuple(line.length for line in axes)).astype(np.float32)
    theirs = resample_data_or_seg_to_shape(
        scores[None], shape, target_mm, spacing_mm, order=1, order_z=0, force_separate_z=None
    )[0]
    places = [np.clip(line.back(), 0, line.length - 1) for line in axes]
    places[0] = np.floor(places[0] + 0.5)
    ours = ndimage.map_coordinates(scores, np.meshgrid(*places, indexing="ij"), order=1)
    np.testing.assert_allclose(ours, theirs, atol=0.02)


@pytest.mark.parametrize("order", [1, 3])
def test_centres_are_scipy_zoom(order: int) -> None:
    source, spacing_mm = image((20, 31, 26)), (2.0, 0.8, 0.8)
    grid = Grid(
        spacing_mm=(1.5, 1.5, 1.5), alignment="centres", interpolation="linear" if order == 1 else "cubic"
    )
    ours = resampled(source, grid, spacing_mm)
    zoom = [have / 1.5 for have in spacing_mm]
    theirs = ndimage.zoom(source.astype(np.float64), zoom, order=order, mode="nearest")
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, atol=0.05)


def test_fractions_are_cut_off_towards_zero_where_totalsegmentator_does() -> None:
    source, spacing_mm = image((20, 31, 26)), (2.0, 0.8, 0.8)
    grid = Grid(spacing_mm=(1.5, 1.5, 1.5), alignment="centres")
    exact = resampled(source, grid, spacing_mm)
    cut = resampled(source, grid.model_copy(update={"truncate": True}), spacing_mm)
    assert np.array_equal(cut, np.trunc(exact))


@pytest.mark.parametrize("alignment", ["edges", "first_voxel", "centres"])
@pytest.mark.parametrize("length", [1, 2, 7, 64])
@pytest.mark.parametrize(("have_mm", "want_mm"), [(0.7, 1.5), (3.0, 1.0), (1.0, 1.0)])
def test_back_is_the_inverse(alignment, length: int, have_mm: float, want_mm: float) -> None:
    grid = Grid(spacing_mm=(want_mm, None, None), alignment=alignment)
    line: Line = lines(grid, (length, 4, 4), (have_mm, 1.0, 1.0))[0]
    forward = np.arange(line.length) * line.scale + line.offset
    back = np.interp(forward, np.arange(line.source), line.back()) if line.source > 1 else None
    if back is not None:
        inside = (forward >= 0) & (forward <= line.source - 1)
        np.testing.assert_allclose(back[inside], np.arange(line.length)[inside], atol=1e-9)
    assert line.places().min() >= 0
    assert line.places().max() <= line.source - 1
