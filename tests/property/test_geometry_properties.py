"""Where a voxel lies does not depend on the order of files or on how the patient lay."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ai.geometry import NotAVolume, SliceHeader, VolumeGeometry, assess

Matrix = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

angles = st.tuples(*[st.floats(-180, 180) for _ in range(3)])
spacings = st.tuples(st.floats(0.5, 10), st.floats(0.1, 5), st.floats(0.1, 5))
origins = st.tuples(*[st.floats(-2000, 2000) for _ in range(3)])
counts = st.integers(2, 40)


def rotation(degrees: tuple[float, ...]) -> Matrix:
    turned = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        i, j = [(1, 2), (2, 0), (0, 1)][axis]
        about = np.eye(3)
        about[i, i] = about[j, j] = np.cos(angle)
        about[i, j], about[j, i] = -np.sin(angle), np.sin(angle)
        turned = about @ turned
    return turned


def stack(
    count: int, spacing_mm: tuple[float, ...], degrees: tuple[float, ...], origin_mm: tuple[float, ...]
) -> list[SliceHeader]:
    turned = rotation(degrees)
    row, column, normal = turned[:, 0], turned[:, 1], turned[:, 2]
    cosines = tuple(float(v) for v in (*row, *column))
    positions = np.asarray(origin_mm) + np.arange(count)[:, None] * spacing_mm[0] * normal
    return [
        SliceHeader(
            sop_instance_uid=f"1.2.{i}",
            rows=20,
            columns=30,
            position_mm=(float(p[0]), float(p[1]), float(p[2])),
            orientation=cosines,  # type: ignore[arg-type]
            pixel_spacing_mm=(spacing_mm[1], spacing_mm[2]),
            frame_of_reference_uid="1.2.3",
        )
        for i, p in enumerate(positions)
    ]


def volume(headers: list[SliceHeader]) -> VolumeGeometry:
    found = assess(headers)
    assert isinstance(found, VolumeGeometry), found
    return found


@settings(max_examples=60, deadline=None)
@given(counts, spacings, angles, origins, st.randoms(use_true_random=False))
def test_a_voxel_lies_where_the_header_of_its_slice_says(
    count: int,
    spacing_mm: tuple[float, ...],
    degrees: tuple[float, ...],
    origin_mm: tuple[float, ...],
    chance: random.Random,
) -> None:
    headers = stack(count, spacing_mm, degrees, origin_mm)
    shuffled = headers.copy()
    chance.shuffle(shuffled)
    geometry = volume(shuffled)
    assert geometry.sop_instance_uids == tuple(h.sop_instance_uid for h in headers)
    for k, row, column in ((0, 0, 0), (count - 1, 19, 29), (count // 2, 7, 23)):
        source = headers[k]
        assert source.orientation is not None
        assert source.pixel_spacing_mm is not None
        along_row, along_column = np.asarray(source.orientation).reshape(2, 3)
        between_rows, between_columns = source.pixel_spacing_mm
        wanted = np.asarray(source.position_mm)
        # PS3.3 C.7.6.2.1.1: columns go along the row cosines, rows along the column cosines.
        wanted = wanted + along_row * between_columns * column + along_column * between_rows * row
        found = geometry.index_to_lps @ (k, row, column, 1)
        np.testing.assert_allclose(found[:3], wanted, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(counts, spacings, angles, origins, angles, origins)
def test_moving_the_patient_moves_the_volume_and_nothing_else(
    count: int,
    spacing_mm: tuple[float, ...],
    degrees: tuple[float, ...],
    origin_mm: tuple[float, ...],
    turn: tuple[float, ...],
    shift_mm: tuple[float, ...],
) -> None:
    headers = stack(count, spacing_mm, degrees, origin_mm)
    turned, shift = rotation(turn), np.asarray(shift_mm)
    moved = []
    for h in headers:
        p = turned @ np.asarray(h.position_mm) + shift
        cosines = (turned @ np.asarray(h.orientation).reshape(2, 3).T).T.ravel()
        moved.append(replace(h, position_mm=tuple(map(float, p)), orientation=tuple(map(float, cosines))))
    before, after = volume(headers), volume(moved)
    rigid = np.eye(4)
    rigid[:3, :3], rigid[:3, 3] = turned, shift
    np.testing.assert_allclose(after.index_to_lps, rigid @ before.index_to_lps, atol=1e-6)
    assert after.sop_instance_uids == before.sop_instance_uids
    np.testing.assert_allclose(after.spacing_mm, before.spacing_mm, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(4, 40), spacings, angles, origins, st.data())
def test_any_inner_slice_that_is_missing_is_named(
    count: int,
    spacing_mm: tuple[float, ...],
    degrees: tuple[float, ...],
    origin_mm: tuple[float, ...],
    data: st.DataObject,
) -> None:
    headers = stack(count, spacing_mm, degrees, origin_mm)
    del headers[data.draw(st.integers(1, count - 2))]
    found = assess(headers)
    assert isinstance(found, NotAVolume)
    assert (found.code, found.numbers["missing"]) == ("MISSING_SLICE", 1)
