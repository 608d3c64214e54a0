"""The picture of three planes: its sides, its proportions, its letters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from ai.geometry import VolumeGeometry
from ai.picture import WIDTH, Page, Plane, draw_volume, grey_range, middle_planes
from ai.sides import Edges, axis_code, detector_edges, nearest_axes, plane_name
from ai.volume import ImageSeries, Volume, read_series
from tests.builders import ORIENTATIONS, affine, ct_series, torso_series, write_series

PAGE = Page("CT", "3 x 3 x 3", "ACCEPTED", (129, 199, 132))
UPRIGHT = [name for name in ORIENTATIONS if name != "oblique"]


def read(series: list, folder: Path) -> ImageSeries:
    return read_series(write_series(series, folder))


def planes_by_name(volume: Volume) -> dict[str, Plane]:
    return {plane.name: plane for plane in middle_planes(volume)}


def bright_box(picture: npt.NDArray[np.uint8], columns: slice) -> tuple[int, int]:
    """Height and width of what is white in a part of the picture, letters and lines left out."""
    white = (picture[160:-60, columns] > 128).all(axis=2)
    large = (
        white & np.roll(white, 3, 0) & np.roll(white, -3, 0) & np.roll(white, 3, 1) & np.roll(white, -3, 1)
    )
    rows, cols = np.nonzero(large)
    return int(np.ptp(rows)), int(np.ptp(cols))


def test_planes_of_a_supine_volume_are_shown_as_a_radiologist_expects(tmp_path: Path) -> None:
    volume = read(ct_series((5, 7, 9)), tmp_path).volume
    planes = planes_by_name(volume)
    assert np.array_equal(planes["axial"].values, volume.voxels[2])  # right on the left, front on top
    assert np.array_equal(planes["coronal"].values, volume.voxels[::-1, 3])  # head on top
    assert np.array_equal(planes["sagittal"].values, volume.voxels[::-1, :, 4])  # front on the left
    assert planes["axial"].edges == Edges(left="R", right="L", top="A", bottom="P")
    assert planes["coronal"].edges == Edges(left="R", right="L", top="H", bottom="F")
    assert planes["sagittal"].edges == Edges(left="A", right="P", top="H", bottom="F")


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_the_same_patient_looks_the_same_however_the_slices_were_taken(
    orientation: str, tmp_path: Path
) -> None:
    shape, spacing_mm = (41, 41, 41), (8.0, 8.0, 8.0)
    supine = read(torso_series("HFS", shape, spacing_mm)[0], tmp_path / "supine")
    other = read(torso_series(orientation, shape, spacing_mm)[0], tmp_path / "other")
    expected, planes = planes_by_name(supine.volume), planes_by_name(other.volume)
    assert planes.keys() == expected.keys() == {"axial", "coronal", "sagittal"}
    for name, plane in planes.items():
        assert np.array_equal(plane.values, expected[name].values)
        assert plane.edges == expected[name].edges


def test_a_plane_says_which_index_of_the_array_it_is(tmp_path: Path) -> None:
    planes = planes_by_name(read(ct_series((5, 7, 9), orientation="sagittal"), tmp_path).volume)
    places = {name: plane.place for name, plane in planes.items()}
    assert places == {"axial": "row 4 of 7", "coronal": "column 5 of 9", "sagittal": "slice 3 of 5"}


def test_planes_of_an_oblique_volume_say_so_and_have_letters_of_every_side_they_lean_to(
    tmp_path: Path,
) -> None:
    planes = middle_planes(read(ct_series(orientation="oblique"), tmp_path).volume)
    names = [plane.name for plane in planes]
    assert names == ["axial, 20° oblique", "coronal, 25° oblique", "sagittal, 15° oblique"]
    assert planes[0].edges == Edges(left="RA", right="LP", top="AFL", bottom="PHR")


def test_lengths_have_one_scale_in_both_directions_and_in_every_plane(tmp_path: Path) -> None:
    shape, spacing_mm = (31, 151, 301), (5.0, 1.0, 0.5)
    voxels = np.full(shape, -1000, np.int16)
    voxels[11:21, 51:101, 101:201] = 1000  # a cube of 50 mm
    volume = read(ct_series(shape, spacing_mm, voxels=voxels), tmp_path).volume
    picture = draw_volume(volume, PAGE)
    assert picture.shape[1] == WIDTH
    third = WIDTH // 3
    sides = [side for i in range(3) for side in bright_box(picture, slice(i * third, (i + 1) * third))]
    assert max(sides) - min(sides) <= 0.04 * max(sides)
    assert min(sides) > 100


def test_a_single_slice_is_shown_as_one_plane(tmp_path: Path) -> None:
    volume = read(ct_series((1, 12, 16)), tmp_path).volume
    assert [plane.name for plane in middle_planes(volume)] == ["axial"]
    assert draw_volume(volume, PAGE).shape[1:] == (WIDTH, 3)


def projection() -> Volume:
    pixels = np.tile(np.arange(40, dtype=np.int16), (1, 30, 1))
    geometry = VolumeGeometry(
        index_to_lps=np.array([[0, 0, 0.2, 0], [0, 0.2, 0, 0], [1.0, 0, 0, 0], [0, 0, 0, 1]]),
        shape=(1, 30, 40),
        frames=(),
        origins_mm=np.zeros((1, 3)),
        frame_of_reference_uid=None,
        is_projection=True,
    )
    return Volume(pixels, geometry, "")


def test_a_projection_image_has_no_letters_of_its_own() -> None:
    (plane,) = middle_planes(projection())
    assert (plane.name, plane.edges) == ("detector plane", Edges("", "", "", ""))
    told = Page("DX", "", "ACCEPTED", (129, 199, 132), detector_edges=detector_edges(("L", "F")))
    assert not np.array_equal(draw_volume(projection(), told), draw_volume(projection(), PAGE))


def test_high_values_are_dark_where_the_image_says_so() -> None:
    inverted = Page("CR", "", "ACCEPTED", (129, 199, 132), inverted=True)
    row = draw_volume(projection(), inverted)[600, :, 0].astype(int)
    usual = draw_volume(projection(), PAGE)[600, :, 0].astype(int)
    inside = slice(WIDTH // 2 - 200, WIDTH // 2 + 200)
    assert (np.diff(usual[inside]) >= 0).all()
    assert np.abs(usual[inside] + row[inside] - 255).max() <= 1


def test_patient_orientation_gives_the_letters_of_all_four_edges() -> None:
    assert detector_edges(("L", "F")) == Edges(left="R", right="L", top="H", bottom="F")
    assert detector_edges(("P", "FL")) == Edges(left="A", right="P", top="HR", bottom="FL")


@pytest.mark.parametrize("said", [(), ("L",), ("LE", "F"), ("L", "F", "F"), ("X", "Y")])
def test_a_patient_orientation_that_says_nothing_gives_no_letters(said: tuple[str, ...]) -> None:
    assert detector_edges(said) is None


def test_ct_is_windowed_for_lungs_where_there_are_lungs_and_for_soft_tissue_elsewhere(tmp_path: Path) -> None:
    chest = read(torso_series()[0], tmp_path / "chest").volume
    assert grey_range(chest) == (-1250.0, 450.0)
    head = np.full((3, 8, 8), 40, np.int16)
    assert grey_range(read(ct_series((3, 8, 8), voxels=head), tmp_path / "head").volume) == (-160.0, 240.0)


def test_an_image_of_one_value_has_a_grey_range() -> None:
    flat = projection()
    low, high = grey_range(Volume(np.full_like(flat.voxels, 7), flat.geometry, ""))
    assert low == 7.0 < high


def test_axis_codes_say_where_indices_increase_to() -> None:
    codes = {name: axis_code(affine((3, 3, 3), (1.0, 1.0, 1.0), name)) for name in ORIENTATIONS}
    assert codes == {
        "HFS": "SPL",
        "FFS": "IPR",
        "FFS_REFORMATTED": "SPL",
        "prone": "SAR",
        "decubitus_left": "SLA",
        "decubitus_right": "SRP",
        "coronal": "PIL",
        "sagittal": "RIP",
        "oblique": "SPL",
    }


def test_planes_are_named_after_the_axis_that_their_slices_follow() -> None:
    names = [
        plane_name(affine((3, 3, 3), (1.0, 1.0, 1.0), o)) for o in ("HFS", "coronal", "sagittal", "oblique")
    ]
    assert names == ["axial", "coronal", "sagittal", "axial, 25° oblique"]


def test_two_axes_at_45_degrees_are_given_two_sides() -> None:
    half = np.sqrt(0.5)
    matrix = np.array([[0, -half, half, 0], [0, half, half, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    assert {lps for lps, _ in nearest_axes(matrix)} == {0, 1, 2}
