"""Longest axial diameter and extents, against every pair of points and every corner of every voxel."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ai.geometry import VerdictCode, VolumeGeometry
from ai.measure import measure
from ai.measure.extents import Reach
from ai.model import Structure
from ai.volume import Volume
from tests import builders
from tests.runs import even_geometry

ONE = [Structure(number=1, key="bone", label="one")]
SPACING_MM = (2.5, 0.8, 0.5)
AXIAL = builders.affine((4, 5, 6), SPACING_MM, "HFS")


def reach(labels: np.ndarray, geometry: VolumeGeometry, structures: list[Structure] = ONE) -> Reach | None:
    return measure(Volume(np.zeros(labels.shape, np.int16), geometry), labels, structures)[0].reach


def axial_axis(geometry: VolumeGeometry) -> int:
    steps = geometry.index_to_lps[:3, :3]
    return int(np.argmax(np.abs(steps[2] / np.linalg.norm(steps, axis=0))))


def brute(labels: np.ndarray, geometry: VolumeGeometry) -> Reach:
    """Every pair of outline points of every plane, and every corner of every voxel; even stacks."""
    voxels = np.argwhere(labels == 1)
    steps = geometry.index_to_lps[:3, :3]
    centres = voxels @ steps.T + geometry.index_to_lps[:3, 3]
    across = axial_axis(geometry)
    longest = 0.0
    for plane in np.unique(voxels[:, across]):
        here = centres[voxels[:, across] == plane]
        middles = [
            here + sign * steps[:, axis] / 2 for axis in range(3) if axis != across for sign in (-1, 1)
        ]
        points = np.concatenate(middles)
        apart = np.linalg.norm(points[:, None] - points[None], axis=2)
        longest = max(longest, float(apart.max()))
    corners = np.concatenate(
        [centres + steps @ (np.array(s) / 2.0) for s in itertools.product((-1, 1), repeat=3)]
    )
    extents = np.ptp(corners, axis=0)
    return Reach(longest, (float(extents[0]), float(extents[1]), float(extents[2])))


def turned(degrees: float) -> npt.NDArray[np.float64]:
    """The axial grid turned about the patient's axis from right to left."""
    angle = np.radians(degrees)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return np.asarray(turn @ AXIAL, np.float64)


GRIDS = {
    "axial": AXIAL,
    "feet first": builders.affine((4, 5, 6), SPACING_MM, "FFS"),
    "coronal": AXIAL @ np.eye(4)[[1, 0, 2, 3]],
    "rows from head to feet": AXIAL @ np.eye(4)[[2, 1, 0, 3]],
    "oblique": turned(20.0),
}


@pytest.mark.parametrize("grid", GRIDS)
@settings(max_examples=40)
@given(labels=arrays(np.uint8, (4, 5, 6), elements=st.sampled_from([0, 0, 1, 2])))
def test_diameter_and_extents_equal_those_of_every_pair_of_points(grid: str, labels: np.ndarray) -> None:
    geometry = even_geometry(GRIDS[grid], (4, 5, 6))
    found = reach(labels, geometry)
    if not (labels == 1).any():
        assert found is None
        return
    expected = brute(labels, geometry)
    assert found is not None
    assert found.longest_axial_diameter_mm == pytest.approx(expected.longest_axial_diameter_mm, abs=1e-9)
    assert found.extents_mm == pytest.approx(expected.extents_mm, abs=1e-9)


def test_a_box_has_its_sides_and_its_diagonal_between_the_middles_of_sides() -> None:
    labels = np.zeros((4, 5, 6), np.uint8)
    labels[1:3, 1:4, 2:6] = 1  # 2 slices of 2.5 mm, 3 rows of 0.8 mm, 4 columns of 0.5 mm
    found = reach(labels, even_geometry(AXIAL, (4, 5, 6)))
    assert found is not None
    assert found.extents_mm == pytest.approx((4 * 0.5, 3 * 0.8, 2 * 2.5))
    assert found.longest_axial_diameter_mm == pytest.approx(np.hypot(3 * 0.5, 3 * 0.8))


def test_one_voxel_is_as_long_as_its_longer_side() -> None:
    labels = np.zeros((4, 5, 6), np.uint8)
    labels[0, 0, 0] = 1
    found = reach(labels, even_geometry(AXIAL, (4, 5, 6)))
    assert found is not None
    assert found.longest_axial_diameter_mm == pytest.approx(0.8)
    assert found.extents_mm == pytest.approx((0.5, 0.8, 2.5))


def test_a_disc_is_as_wide_as_it_was_drawn() -> None:
    y, x = np.mgrid[:101, :101] - 50.0
    labels = (np.hypot(x, y) <= 40.0)[None].astype(np.uint8)
    geometry = even_geometry(np.diag([1.0, 1.0, 1.0, 1.0])[[2, 1, 0, 3]], (1, 101, 101))
    found = reach(labels, geometry)
    assert found is not None
    assert found.longest_axial_diameter_mm == pytest.approx(80.0, abs=1.5)


def test_a_structure_reaches_as_far_as_those_that_it_includes() -> None:
    labels = np.zeros((4, 5, 6), np.uint8)
    labels[0, 0, 0] = 1
    labels[0, 0, 5] = 2
    whole = [Structure(number=1, key="bone", label="whole", includes=(2,))]
    found = reach(labels, even_geometry(AXIAL, (4, 5, 6)), whole)
    assert found is not None
    assert found.longest_axial_diameter_mm == pytest.approx(6 * 0.5)
    assert found.extents_mm == pytest.approx((6 * 0.5, 0.8, 2.5))


def test_unevenly_spaced_slices_reach_half_way_to_their_neighbours() -> None:
    origins_mm = np.outer([0.0, 1.0, 4.0], [0.0, 0.0, 1.0])
    matrix = np.array([[0.0, 0, 1, 0], [0, 1, 0, 0], [2, 0, 0, 0], [0, 0, 0, 1]])
    geometry = VolumeGeometry(matrix, (3, 2, 2), (), origins_mm, None, needs=(VerdictCode.IRREGULAR_SPACING,))
    labels = np.zeros((3, 2, 2), np.uint8)
    labels[1, 0, 0] = 1
    found = reach(labels, geometry)
    assert found is not None
    assert found.extents_mm == pytest.approx((1.0, 1.0, 2.0))


def test_uneven_slices_of_a_coronal_series_count_in_the_axial_plane() -> None:
    origins_mm = np.outer([0.0, 1.0, 4.0], [0.0, 1.0, 0.0])
    matrix = np.array([[0.0, 0, 1, 0], [2, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
    geometry = VolumeGeometry(matrix, (3, 2, 2), (), origins_mm, None, needs=(VerdictCode.IRREGULAR_SPACING,))
    labels = np.zeros((3, 2, 2), np.uint8)
    labels[:2, 0, 0] = 1
    found = reach(labels, geometry)
    assert found is not None
    assert found.longest_axial_diameter_mm == pytest.approx(0.5 + 1.0 + 1.0)


def test_a_radiograph_has_neither() -> None:
    geometry = even_geometry(np.eye(4), (1, 2, 2))
    flat = VolumeGeometry(geometry.index_to_lps, (1, 2, 2), (), geometry.origins_mm, None, is_projection=True)
    assert reach(np.ones((1, 2, 2), np.uint8), flat) is None
