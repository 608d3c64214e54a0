"""Tilted and uneven stacks put upright for a model, and labels brought back to the source slices."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from ai.errors import NotAVolumeError
from ai.geometry import VerdictCode, VolumeGeometry
from ai.measure import dice
from ai.resample import upright, upright_geometry
from ai.volume import LabelArray, Volume, read_series
from tests import builders

TORSO_SHAPE, TORSO_SPACING_MM = (30, 90, 110), (8.0, 4.0, 3.4)
UNEVEN_MM = np.cumsum([0.0, *np.tile([2.0, 3.0, 5.0, 2.5], 5)])


@dataclass(frozen=True)
class Scan:
    """A volume with the truth drawn on its own slices."""

    volume: Volume
    labels: LabelArray


def stack(
    origins_mm: npt.NDArray[np.float64],
    shape: tuple[int, int],
    spacing_mm: tuple[float, float],
    *needs: VerdictCode,
) -> VolumeGeometry:
    """Axial slices at given places."""
    count = len(origins_mm)
    matrix = np.diag([1.0, spacing_mm[0], spacing_mm[1], 1.0])
    matrix[:3, 0] = (origins_mm[-1] - origins_mm[0]) / (count - 1)
    matrix[:3, 1], matrix[:3, 2] = (0.0, spacing_mm[0], 0.0), (spacing_mm[1], 0.0, 0.0)
    matrix[:3, 3] = origins_mm[0]
    return VolumeGeometry(matrix, (count, *shape), (), origins_mm, None, needs=needs)


def torso_on(geometry: VolumeGeometry) -> Scan:
    """The torso drawn in patient space on each slice where it lies."""
    hu, labels = np.empty(geometry.shape, np.int16), np.empty(geometry.shape, np.uint8)
    for k, origin in enumerate(geometry.origins_mm):
        matrix = geometry.index_to_lps.copy()
        matrix[:3, 3] = origin
        drawn, truth = builders.torso_voxels((1, *geometry.shape[1:]), matrix)
        hu[k], labels[k] = drawn[0], truth[0]
    return Scan(Volume(hu, geometry), labels)


def heights_mm(count: int, step_mm: float) -> npt.NDArray[np.float64]:
    return (np.arange(count) - (count - 1) / 2.0) * step_mm


def tilted(degrees: float, sideways: tuple[float, float] = (0.0, 1.0)) -> Scan:
    """A torso whose slices creep sideways, along (x, y), as they rise."""
    slices, rows, columns = TORSO_SHAPE
    z = heights_mm(slices, TORSO_SPACING_MM[0])
    creep = np.tan(np.radians(degrees)) * z
    x = -(columns - 1) / 2.0 * TORSO_SPACING_MM[2] + creep * sideways[0]
    y = -(rows - 1) / 2.0 * TORSO_SPACING_MM[1] + creep * sideways[1]
    origins = np.stack([x, y, z], axis=1)
    return torso_on(stack(origins, (rows, columns), TORSO_SPACING_MM[1:], VerdictCode.GANTRY_TILT))


def uneven(degrees: float = 0.0) -> Scan:
    """A torso whose slices are 4 to 10 mm apart, tilted besides or not."""
    rows, columns = TORSO_SHAPE[1:]
    z = UNEVEN_MM * 3.6 - UNEVEN_MM[-1] * 1.8
    y = -(rows - 1) / 2.0 * TORSO_SPACING_MM[1] + np.tan(np.radians(degrees)) * z
    origins = np.stack([np.full(len(z), -(columns - 1) / 2.0 * TORSO_SPACING_MM[2]), y, z], axis=1)
    needs = (VerdictCode.GANTRY_TILT, VerdictCode.IRREGULAR_SPACING)[0 if degrees else 1 :]
    return torso_on(stack(origins, (rows, columns), TORSO_SPACING_MM[1:], *needs))


SCANS = {
    "tilted by 15°": lambda: tilted(15.0),
    "tilted by -24°": lambda: tilted(-24.0),
    "tilted along a diagonal": lambda: tilted(18.5, (0.6, -0.8)),
    "uneven": uneven,
    "uneven and tilted": lambda: uneven(12.0),
}


@pytest.fixture(scope="module", params=SCANS)
def scan(request: pytest.FixtureRequest) -> Scan:
    return SCANS[request.param]()


def test_the_upright_grid_is_regular_and_holds_every_slice(scan: Scan) -> None:
    source, regular = scan.volume.geometry, upright_geometry(scan.volume.geometry)
    assert regular.needs == ()
    steps = regular.index_to_lps[:3, :3]
    cosines = steps / np.linalg.norm(steps, axis=0)
    np.testing.assert_allclose(cosines.T @ cosines, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(regular.normal, source.normal, atol=1e-12)
    lps_to_index = np.linalg.inv(regular.index_to_lps)
    _, rows, columns = source.shape
    for origin in source.origins_mm:
        far = origin + source.index_to_lps[:3, 1:3] @ [rows - 1, columns - 1]
        first, last = ((lps_to_index @ [*corner, 1.0])[:3] for corner in (origin, far))
        assert (first > -1e-6).all()
        assert (last < np.array(regular.shape) - 1 + 2e-3).all()


def test_the_image_lies_upright_where_it_was_in_the_patient(scan: Scan) -> None:
    seen = upright(scan.volume).volume
    truth, _ = builders.torso_voxels(seen.geometry.shape, seen.geometry.index_to_lps)
    inside = ndimage.binary_erosion(truth > -300, iterations=3)
    near = seen.voxels[inside].astype(float) - truth[inside]
    assert abs(np.median(near)) < 1.0
    assert np.percentile(np.abs(near), 75) < 40.0  # smoothed edges only


def test_labels_drawn_in_patient_space_come_back_to_the_source_slices(scan: Scan) -> None:
    seen = upright(scan.volume)
    _, drawn = builders.torso_voxels(seen.volume.geometry.shape, seen.volume.geometry.index_to_lps)
    back = seen.to_source(drawn)
    assert back.dtype == np.uint8
    assert back.shape == scan.labels.shape
    for number in (1, 2, 3):
        assert dice(back == number, scan.labels == number) > 0.97
        found, expected = (np.argwhere(labels == number).mean(axis=0) for labels in (back, scan.labels))
        assert np.abs(found - expected).max() < 0.3


def test_an_even_upright_volume_is_not_copied() -> None:
    voxels = builders.counting_voxels((4, 5, 6))
    volume = Volume(voxels, stack(np.outer(np.arange(4), [0.0, 0.0, 2.0]), (5, 6), (1.0, 1.0)))
    labels = np.ones((4, 5, 6), np.uint8)
    seen = upright(volume)
    assert seen.volume is volume
    assert seen.to_source(labels) is labels
    assert upright_geometry(volume.geometry) is volume.geometry


def test_a_tilt_of_whole_pixels_moves_the_voxels_and_changes_none() -> None:
    voxels = builders.counting_voxels((3, 5, 6))
    origins = np.outer(np.arange(3), [0.0, 2.0, 4.0])
    seen = upright(Volume(voxels, stack(origins, (5, 6), (1.0, 1.0), VerdictCode.GANTRY_TILT)))
    assert seen.volume.voxels.dtype == np.int16
    assert seen.volume.voxels.shape == (3, 9, 6)
    for k in range(3):
        np.testing.assert_array_equal(seen.volume.voxels[k, 2 * k : 2 * k + 5], voxels[k])
    assert (seen.volume.voxels[0, 5:] == -1024).all(), "beside the slice there is air"


def test_a_tilt_of_half_pixels_is_interpolated_between_neighbours() -> None:
    voxels = np.array([[[0, 100, 300]], [[0, 100, 300]]], np.int16)
    origins = np.array([[0.0, 0.0, 0.0], [0.5, 0.0, 1.0]])
    seen = upright(Volume(voxels, stack(origins, (1, 3), (1.0, 1.0), VerdictCode.GANTRY_TILT)))
    assert seen.volume.voxels.tolist() == [[[0, 100, 300, -1024]], [[-512, 50, 200, -362]]]


def test_uneven_slices_are_interpolated_along_the_normal_at_the_smallest_gap() -> None:
    voxels = (np.array([0.0, 10.0, 40.0], np.float32)[:, None, None] * np.ones((1, 2, 2), np.float32)).copy()
    origins = np.outer([0.0, 1.0, 4.0], [0.0, 0.0, 1.0])
    volume = Volume(voxels, stack(origins, (2, 2), (1.0, 1.0), VerdictCode.IRREGULAR_SPACING), unit="")
    seen = upright(volume)
    np.testing.assert_allclose(seen.volume.voxels[:, 0, 0], [0.0, 10.0, 20.0, 30.0, 40.0])
    assert seen.volume.voxels.dtype == np.float32
    numbers = np.arange(1, 6, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), np.uint8)
    assert seen.to_source(numbers)[:, 0, 0].tolist() == [1, 2, 5]


def test_what_lies_beside_an_image_without_hounsfield_units_is_its_lowest_value() -> None:
    voxels = np.full((2, 3, 3), 7, np.int16)
    voxels[0, 0, 0] = 5
    origins = np.array([[0.0, 0.0, 0.0], [0.0, 2.0, 1.0]])
    seen = upright(Volume(voxels, stack(origins, (3, 3), (1.0, 1.0), VerdictCode.GANTRY_TILT), unit=""))
    assert (seen.volume.voxels[1, :2] == 5).all()


def test_slices_that_almost_coincide_are_refused_instead_of_filling_the_memory() -> None:
    z = np.r_[np.arange(20) * 5.0, 95.01]
    geometry = stack(np.outer(z, [0.0, 0.0, 1.0]), (4, 4), (1.0, 1.0), VerdictCode.IRREGULAR_SPACING)
    with pytest.raises(NotAVolumeError, match=r"IRREGULAR_SPACING: .*down to 0.010 mm over 95.0 mm"):
        upright_geometry(geometry)


def test_a_shear_that_leaves_the_slices_far_beside_each_other_is_refused() -> None:
    origins = np.outer(np.arange(9), [0.0, 900.0, 1.0])
    geometry = stack(origins, (4, 4), (1.0, 1.0), VerdictCode.GANTRY_TILT)
    with pytest.raises(NotAVolumeError, match=r"GANTRY_TILT: .*9 × 4 × 4 voxels would have 9 × 7204 × 4"):
        upright_geometry(geometry)


def test_labels_of_another_shape_are_refused() -> None:
    volume = Volume(np.zeros((2, 3, 3), np.int16), stack(np.eye(3)[[0, 2]], (3, 3), (1.0, 1.0)))
    with pytest.raises(ValueError, match="the label map is"):
        upright(volume).to_source(np.zeros((2, 3, 4), np.uint8))


@pytest.mark.parametrize("tilt", [builders.with_sheared_tilt, builders.with_true_tilt])
def test_a_tilted_series_on_disk_is_put_upright(tilt: object, tmp_path: Path) -> None:
    series = tilt(builders.ct_series((6, 24, 20), (4.0, 1.0, 1.0)), 20.0)  # type: ignore[operator]
    volume = read_series(builders.write_series(series, tmp_path)).volume
    assert volume.geometry.needs == (VerdictCode.GANTRY_TILT,)
    seen = upright(volume)
    assert seen.volume.geometry.shape[1] > 24
    _, rows, columns = volume.voxels.shape
    assert seen.to_source(np.ones(seen.volume.voxels.shape, np.uint8)).shape == (6, rows, columns)
