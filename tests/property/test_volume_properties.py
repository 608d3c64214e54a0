"""The label map lies where the patient is, however the images were ordered, turned or placed."""

from __future__ import annotations

import copy
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from ai.geometry import VerdictCode
from ai.loaders import load_model
from ai.model import Model, RunContext, find_card, run_to_end
from ai.volume import Volume, read_part, read_series, survey
from tests import builders, odd_series
from tests.independent import Grid, compare

few = settings(max_examples=5, phases=(Phase.generate,))  # a run takes a second: no shrinking
SHAPE, SPACING_MM = (44, 72, 72), (6.0, 5.0, 5.0)


@cache
def model() -> Model:
    return load_model(find_card("ct-tissue"))


@cache
def torso() -> tuple[Dataset, ...]:
    return tuple(builders.torso_series("HFS", SHAPE, SPACING_MM)[0])


def volume_of(series: Sequence[Dataset]) -> Volume:
    with tempfile.TemporaryDirectory() as folder:
        return read_series(builders.write_series(series, Path(folder))).volume


def labels_of(series: Sequence[Dataset]) -> Grid:
    volume = volume_of(series)
    return Grid(
        run_to_end(model(), [volume], lambda _stage, _fraction: None, RunContext()).labels,
        volume.geometry.index_to_lps,
    )


@cache
def expected() -> Grid:
    found = labels_of(torso())
    assert {1, 2, 3, 4} <= set(np.unique(found.voxels).tolist())
    return found


def same_place(ours: Grid, other: Grid) -> bool:
    return not compare(ours, other).kinds


@few
@given(st.randoms(use_true_random=False))
def test_shuffling_the_images_changes_nothing(chance: random.Random) -> None:
    shuffled = list(torso())
    chance.shuffle(shuffled)
    for number, dataset in enumerate(shuffled, start=1):
        dataset.InstanceNumber = number
    found = labels_of(shuffled)
    np.testing.assert_array_equal(found.voxels, expected().voxels)
    np.testing.assert_array_equal(found.index_to_lps, expected().index_to_lps)


def turned_over(series: Sequence[Dataset], *, rows: bool, columns: bool) -> list[Dataset]:
    """The same images with rows or columns written in the other direction: one of both turns the normal."""
    changed = copy.deepcopy(list(series))
    for dataset in changed:
        pixels = np.frombuffer(dataset.PixelData, "<i2").reshape(dataset.Rows, dataset.Columns)
        cosines = np.asarray(dataset.ImageOrientationPatient, float).reshape(2, 3)
        origin = np.asarray(dataset.ImagePositionPatient, float)
        down, along = (float(v) for v in dataset.PixelSpacing)
        if rows:
            origin, pixels = origin + cosines[1] * down * (dataset.Rows - 1), pixels[::-1]
            cosines[1] *= -1
        if columns:
            origin, pixels = origin + cosines[0] * along * (dataset.Columns - 1), pixels[:, ::-1]
            cosines[0] *= -1
        dataset.ImagePositionPatient = [builders.ds(v) for v in origin]
        dataset.ImageOrientationPatient = [builders.ds(v) for v in cosines.ravel()]
        dataset.PixelData = pixels.tobytes()
    return changed


@pytest.mark.parametrize(("rows", "columns"), [(True, False), (False, True), (True, True)])
def test_reversing_the_normal_changes_nothing_in_the_patient(rows: bool, columns: bool) -> None:
    assert same_place(labels_of(turned_over(torso(), rows=rows, columns=columns)), expected())


def moved_by(series: Sequence[Dataset], rigid: np.ndarray) -> list[Dataset]:
    """The same scan with the patient coordinate system turned and shifted."""
    changed = copy.deepcopy(list(series))
    for dataset in changed:
        origin = rigid @ (*map(float, dataset.ImagePositionPatient), 1.0)
        cosines = np.asarray(dataset.ImageOrientationPatient, float).reshape(2, 3) @ rigid[:3, :3].T
        dataset.ImagePositionPatient = [builders.ds(v) for v in origin[:3]]
        dataset.ImageOrientationPatient = [builders.ds(v) for v in cosines.ravel()]
    return changed


@few
@given(
    st.tuples(*[st.floats(-14, 14) for _ in range(3)]), st.tuples(*[st.floats(-500, 500) for _ in range(3)])
)
def test_turning_and_moving_the_frame_turns_and_moves_the_labels(
    degrees: tuple[float, float, float], shift_mm: tuple[float, float, float]
) -> None:
    rigid = np.eye(4)
    for axis, angle in enumerate(np.radians(degrees)):
        i, j = [(1, 2), (2, 0), (0, 1)][axis]
        about = np.eye(4)
        about[i, i] = about[j, j] = np.cos(angle)
        about[i, j], about[j, i] = -np.sin(angle), np.sin(angle)
        rigid = about @ rigid
    rigid[:3, 3] = shift_mm
    found = labels_of(moved_by(torso(), rigid))
    assert same_place(found, Grid(expected().voxels, rigid @ expected().index_to_lps))


@few
@given(st.randoms(use_true_random=False), st.booleans())
def test_an_enhanced_image_is_the_volume_of_its_single_frames(chance: random.Random, shared: bool) -> None:
    series = builders.ct_series((9, 12, 14), (3.0, 0.8, 0.7), "oblique")
    frames = chance.sample(series, len(series))
    one, other = volume_of([odd_series.enhanced(frames, shared=shared)]), volume_of(series)
    np.testing.assert_array_equal(one.voxels, other.voxels)
    np.testing.assert_allclose(one.geometry.index_to_lps, other.geometry.index_to_lps, atol=1e-9)


@pytest.mark.parametrize("orientation", builders.ORIENTATIONS)
def test_every_voxel_lies_where_it_was_put(orientation: str) -> None:
    shape, spacing_mm = (7, 10, 12), (2.5, 0.9, 0.6)
    volume = volume_of(builders.ct_series(shape, spacing_mm, orientation))
    np.testing.assert_array_equal(volume.voxels, builders.counting_voxels(shape))
    np.testing.assert_allclose(
        volume.geometry.index_to_lps, builders.affine(shape, spacing_mm, orientation), atol=1e-6
    )


def two_stacks() -> list[Dataset]:
    axial = builders.ct_series((5, 9, 8))
    coronal = builders.ct_series((4, 9, 8), (2.0, 0.8, 0.7), "coronal", seed=2)
    return [odd_series.enhanced([*axial, *coronal], "MR", stacks=[1] * 5 + [2] * 4, shared=False)]


MADE: dict[str, Callable[[], list[Dataset]]] = {
    "sheared tilt": lambda: builders.with_sheared_tilt(builders.ct_series((7, 9, 8)), 17.0),
    "true tilt": lambda: builders.with_true_tilt(builders.ct_series((7, 9, 8)), -21.5),
    "uneven": lambda: odd_series.at_heights(builders.ct_series((6, 9, 8)), [0, 1.1, 2.9, 4, 7.3, 8]),
    "tilted and uneven": lambda: builders.with_sheared_tilt(
        odd_series.at_heights(builders.ct_series((6, 9, 8)), [0, 1.1, 2.9, 4, 7.3, 8]), 12.0
    ),
    "oblique and tilted": lambda: builders.with_sheared_tilt(
        builders.ct_series((7, 9, 8), orientation="oblique"), 9.0
    ),
    "two sizes": lambda: builders.with_mixed_size(builders.ct_series((9, 9, 8)), 8),
    "three phases": lambda: odd_series.phases(3, "TemporalPositionIdentifier", ["1", "2", "3"]),
    "one slice": lambda: builders.ct_series((1, 9, 8), orientation="decubitus_left"),
    "PET": lambda: odd_series.pet_series(),
    "enhanced CT": lambda: [odd_series.enhanced(builders.ct_series((6, 9, 8)))],
    "enhanced, tilted": lambda: [
        odd_series.enhanced(builders.with_true_tilt(builders.ct_series((6, 9, 8)), 11.0), shared=False)
    ],
    "two stacks": two_stacks,
}


@pytest.mark.parametrize("name", MADE)
@few
@given(chance=st.randoms(use_true_random=False))
def test_every_slice_of_every_made_series_lies_where_its_image_was_put(
    name: str, chance: random.Random
) -> None:
    """Each plane is reckoned from its own header alone (PS3.3 C.7.6.2.1.1), and each is in one part."""
    made = MADE[name]()
    chance.shuffle(made)
    planes = {(d.SOPInstanceUID, n): plane for d in made for n, plane in enumerate(planes_of(d), start=1)}
    with tempfile.TemporaryDirectory() as folder:
        found = survey(builders.write_series(made, Path(folder)))
        for part in found.parts:
            volume = read_part(found, part).volume
            for k, frame in enumerate(volume.geometry.frames):
                values, corners = planes.pop((frame.sop_instance_uid, frame.frame_number))
                np.testing.assert_allclose(volume.voxels[k], values, rtol=1e-6)
                np.testing.assert_allclose(corners_of(volume, k), corners, atol=1e-6)
    assert not planes, "every image is a slice of one part"


def planes_of(dataset: Dataset) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Values of each frame of a made image, and the LPS millimetres of its four corner pixels."""
    stored = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns).astype(np.float64)
    frames = dataset.get("PerFrameFunctionalGroupsSequence", [Dataset()])
    for pixels, frame in zip(stored, frames, strict=True):
        tags = dict(_flat(dataset))
        for groups in (*dataset.get("SharedFunctionalGroupsSequence", []), frame):
            tags.update(pair for sequence in groups for item in sequence.value for pair in _flat(item))
        row, column = np.array(tags["ImageOrientationPatient"], float).reshape(2, 3)
        down, across = (float(v) for v in tags["PixelSpacing"])
        corners = [
            np.array(tags["ImagePositionPatient"], float) + column * down * r + row * across * c
            for r in (0, dataset.Rows - 1)
            for c in (0, dataset.Columns - 1)
        ]
        yield pixels * float(tags["RescaleSlope"]) + float(tags["RescaleIntercept"]), np.array(corners)


def _flat(dataset: Dataset) -> list[tuple[str, object]]:
    return [(element.keyword, element.value) for element in dataset if element.VR != "SQ"]


def corners_of(volume: Volume, k: int) -> np.ndarray:
    """LPS millimetres of the corner pixels of a slice: the place of the slice, and the steps in its plane."""
    geometry = volume.geometry
    _, rows, columns = geometry.shape
    inside = [(r, c) for r in (0, rows - 1) for c in (0, columns - 1)]
    from_origin = np.array(inside) @ geometry.index_to_lps[:3, 1:3].T
    if VerdictCode.IRREGULAR_SPACING not in geometry.needs:
        np.testing.assert_allclose(
            geometry.index_to_lps[:3, 3] + k * geometry.index_to_lps[:3, 0], geometry.origins_mm[k], atol=1e-6
        )
    return np.asarray(geometry.origins_mm[k] + from_origin)
