"""Where a voxel lies does not depend on the order of files or on how the patient lay."""

from __future__ import annotations

import random
from collections import Counter
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
    (part,) = assess(headers)
    assert isinstance(part.geometry, VolumeGeometry), part.geometry
    return part.geometry


def scanned(headers: list[SliceHeader], scan: int, **attributes: str) -> list[SliceHeader]:
    """The same slices, of another scan."""
    return [
        replace(h, sop_instance_uid=f"{h.sop_instance_uid}.{scan}", attributes=attributes) for h in headers
    ]


def moved(headers: list[SliceHeader], turned: Matrix, shift_mm: Matrix) -> list[SliceHeader]:
    """The headers after the patient was turned and shifted."""
    result = []
    for h in headers:
        position = turned @ np.asarray(h.position_mm) + shift_mm
        cosines = (turned @ np.asarray(h.orientation).reshape(2, 3).T).T.ravel()
        result.append(
            replace(h, position_mm=tuple(map(float, position)), orientation=tuple(map(float, cosines)))
        )
    return result


def verdicts(headers: list[SliceHeader]) -> list[tuple[object, ...]]:
    """What is decided about each part, without its place."""
    return [(p.key, p.label, p.frames, p.geometry.verdict, str(p.geometry.code)) for p in assess(headers)]


@settings(max_examples=60)
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


@settings(max_examples=40)
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
    before, after = volume(headers), volume(moved(headers, turned, shift))
    rigid = np.eye(4)
    rigid[:3, :3], rigid[:3, 3] = turned, shift
    np.testing.assert_allclose(after.index_to_lps, rigid @ before.index_to_lps, atol=1e-6)
    assert after.sop_instance_uids == before.sop_instance_uids
    np.testing.assert_allclose(after.spacing_mm, before.spacing_mm, atol=1e-6)


@settings(max_examples=40)
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
    (part,) = assess(headers)
    found = part.geometry
    assert isinstance(found, NotAVolume)
    assert (found.code, found.numbers["missing"]) == ("MISSING_SLICE", 1)


@st.composite
def awkward_series(draw: st.DrawFn) -> list[SliceHeader]:
    """A series of one or more scans of a stack that may be tilted or uneven and may lack slices."""
    count = draw(st.integers(3, 16))
    spacing_mm = draw(spacings)
    headers = stack(count, spacing_mm, draw(angles), draw(origins))
    along = np.asarray(headers[1].position_mm) - np.asarray(headers[0].position_mm)
    sideways = np.asarray(headers[0].orientation)[3:] * spacing_mm[0]
    tilt = draw(st.sampled_from([0.0, 0.0, 0.1, 0.4, 1.5]))
    stretch = draw(st.sampled_from([0.0, 0.0, 0.3, 0.37]))
    shifted = []
    for k, h in enumerate(headers):
        late = max(0, k - count // 2)
        position = np.asarray(h.position_mm) + k * tilt * sideways + stretch * late * along
        shifted.append(replace(h, position_mm=tuple(map(float, position))))
    scans = draw(st.integers(1, 3))
    keyword = draw(st.sampled_from(["EchoTime", "AcquisitionTime", "KVP", "ContentTime", "StackID", ""]))
    series = []
    for scan in range(scans):
        lost = draw(st.sets(st.integers(0, count - 1), max_size=2))
        kept = [h for k, h in enumerate(shifted) if k not in lost]
        series += scanned(kept, scan, **({keyword: str(100 + 10 * scan)} if keyword else {}))
    return series


@settings(max_examples=150)
@given(awkward_series(), st.randoms(use_true_random=False))
def test_the_order_of_files_changes_no_part_and_no_verdict(
    headers: list[SliceHeader], chance: random.Random
) -> None:
    shuffled = headers.copy()
    chance.shuffle(shuffled)
    assert verdicts(shuffled) == verdicts(headers)


@settings(max_examples=150)
@given(awkward_series(), angles, origins)
def test_turning_and_shifting_the_patient_changes_no_part_and_no_verdict(
    headers: list[SliceHeader], turn: tuple[float, ...], shift_mm: tuple[float, ...]
) -> None:
    assert verdicts(moved(headers, rotation(turn), np.asarray(shift_mm))) == verdicts(headers)


@settings(max_examples=150)
@given(awkward_series())
def test_every_image_is_in_exactly_one_part_and_no_volume_has_two_at_one_position(
    headers: list[SliceHeader],
) -> None:
    parts = assess(headers)
    assert sorted(f for part in parts for f in part.frames) == sorted(h.ref for h in headers)
    assert len({part.key for part in parts}) == len(parts)
    scan_of = {h.ref: h.sop_instance_uid.rpartition(".")[2] for h in headers}
    left = Counter(scan_of.values())
    for part in parts:
        if isinstance(part.geometry, VolumeGeometry):
            heights = np.sort(part.geometry.origins_mm @ part.geometry.normal)
            assert (np.diff(heights) > 1e-3).all()
            # The only slice left of a scan may fill a hole: it looks like one whose attribute varies.
            assert len({scan_of[f] for f in part.frames if left[scan_of[f]] > 1}) <= 1


@settings(max_examples=60)
@given(counts.filter(lambda n: n > 3), spacings, angles, origins, st.data())
def test_what_varies_from_slice_to_slice_splits_no_even_volume(
    count: int,
    spacing_mm: tuple[float, ...],
    degrees: tuple[float, ...],
    origin_mm: tuple[float, ...],
    data: st.DataObject,
) -> None:
    keyword = data.draw(
        st.sampled_from(["AcquisitionTime", "ContentTime", "KVP", "TriggerTime", "SliceThickness"])
    )
    values = data.draw(st.lists(st.sampled_from("1234"), min_size=count, max_size=count))
    headers = [
        replace(h, modality="MR", attributes={keyword: value})
        for h, value in zip(stack(count, spacing_mm, degrees, origin_mm), values, strict=True)
    ]
    assert volume(headers).shape[0] == count
