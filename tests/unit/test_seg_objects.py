"""One result as Segmentations of any kind: what is in which, and every voxel where it belongs."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless, RLELossless

from ai.profile import Profile
from ai.results.context import ResultContext
from ai.results.seg import SegObject, SegPlan, build_segs, plan_segs
from ai.results.seg.extent import find_extent
from ai.results.seg.rle import encode_rle
from ai.results.verify import verify_segmentations
from ai.results.write import write_results
from tests import builders
from tests.runs import SMALL_SHAPE, SMALL_SPACING_MM, run_of, series_of, small_labels, small_run

LABEL_MAP_STORAGE = "1.2.840.10008.5.1.4.1.1.66.7"


def run(
    labels: npt.NDArray[np.uint8] | None = None,
    groups: dict[int, str] | None = None,
    includes: dict[int, tuple[int, ...]] | None = None,
    **profile: Any,
) -> ResultContext:
    """The small run with groups and overlaps in its card, written in a profile."""
    made = small_run(labels=labels)
    structures = tuple(
        s.model_copy(
            update={"group": (groups or {}).get(s.number, ""), "includes": (includes or {}).get(s.number, ())}
        )
        for s in made.spec.structures
    )
    spec = made.spec.model_copy(update={"structures": structures})
    return replace(made, spec=spec, profile=Profile(**profile))


def numbers(plans: tuple[SegPlan, ...]) -> list[list[int]]:
    return [[s.number for s in plan.structures] for plan in plans]


def masks(objects: tuple[SegObject, ...], context: ResultContext) -> dict[int, npt.NDArray[np.bool_]]:
    """The voxels of each structure, placed by the functional groups of frames, with pydicom alone."""
    origins = context.series.volume.geometry.origins_mm
    found: dict[int, npt.NDArray[np.bool_]] = {}
    for made in objects:
        seg = dcmread(BytesIO(made.content))
        frames = seg.pixel_array.reshape(-1, *context.labels.shape[1:])
        for segment, structure in enumerate(made.plan.structures, start=1):
            assert structure.number not in found, "each structure is in one object"
            mask = found[structure.number] = np.zeros(context.labels.shape, np.bool_)
            for pixels, groups in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
                position = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float)
                index = int(np.argmin(np.linalg.norm(origins - position, axis=1)))
                if made.plan.kind == "label_map":
                    mask[index] |= pixels == segment
                elif segment_of(seg, groups) == segment:
                    mask[index] |= pixels > 0
    return found


def segment_of(seg: Dataset, groups: Dataset) -> int:
    holder = groups if "SegmentIdentificationSequence" in groups else seg.SharedFunctionalGroupsSequence[0]
    return int(holder.SegmentIdentificationSequence[0].ReferencedSegmentNumber)


def assert_complete(objects: tuple[SegObject, ...], context: ResultContext) -> None:
    for number, mask in masks(objects, context).items():
        (structure,) = (s for s in context.spec.structures if s.number == number)
        np.testing.assert_array_equal(mask, np.isin(context.labels, structure.numbers))


# -- kinds -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "compression", "syntax"),
    [
        ("binary", "none", ExplicitVRLittleEndian),
        ("binary", "rle", ExplicitVRLittleEndian),
        ("label_map", "none", ExplicitVRLittleEndian),
        ("label_map", "rle", RLELossless),
        ("label_map", "jpeg_ls", JPEGLSLossless),
        ("fractional", "rle", RLELossless),
        ("fractional", "jpeg_ls", JPEGLSLossless),
    ],
)
def test_every_voxel_is_where_it_belongs_in_every_kind_and_coding(
    kind: str, compression: str, syntax: str
) -> None:
    context = run(segmentation=kind, compression=compression)
    (made,) = objects = build_segs(context)
    assert made.transfer_syntax_uid == syntax == dcmread(BytesIO(made.content)).file_meta.TransferSyntaxUID
    assert len(made.content) % 2 == 0
    assert_complete(objects, context)
    assert build_segs(context)[0].content == made.content


@pytest.mark.parametrize("kind", ["label_map", "fractional"])
def test_what_jpeg_ls_makes_too_long_is_not_compressed_and_a_note_says_so(kind: Any) -> None:
    shape = (3, 3, 4)  # the coder has no room for so few pixels
    datasets = builders.ct_series(shape, SMALL_SPACING_MM)
    series = series_of(datasets, builders.affine(shape, SMALL_SPACING_MM))
    labels = np.arange(36, dtype=np.uint8).reshape(shape) % 6
    context = replace(
        run_of(series, labels), profile=Profile(segmentation=kind, compression="jpeg_ls", maximum_frames=2)
    )
    objects = build_segs(context)
    for made in objects:
        syntax = dcmread(BytesIO(made.content)).file_meta.TransferSyntaxUID
        assert made.transfer_syntax_uid == syntax == ExplicitVRLittleEndian
        assert made.header.NumberOfFrames == 3
        over, coding = made.plan.notes
        assert over.startswith("RESULT_OVER_LIMIT: ")
        assert coding.startswith("RESULT_NOT_COMPRESSED: jpeg_ls failed, so the object is not compressed (")
    assert_complete(objects, context)
    verify_segmentations([(made.plan, made.content) for made in objects], context)


def test_a_label_map_is_of_its_own_class_and_its_background_is_the_last_item() -> None:
    (made,) = build_segs(run(segmentation="label_map"))
    seg = dcmread(BytesIO(made.content))
    assert seg.SOPClassUID == made.header.SOPClassUID == LABEL_MAP_STORAGE
    assert (seg.SegmentationType, seg.BitsAllocated, seg.SegmentsOverlap) == ("LABELMAP", 8, "NO")
    assert [s.SegmentNumber for s in seg.SegmentSequence] == [1, 2, 3, 4, 5, 0]
    assert seg.SegmentSequence[-1].SegmentLabel == "Background"
    assert seg.NumberOfFrames == 4, "one for each slice that has any voxel"
    np.testing.assert_array_equal(seg.pixel_array[::-1], small_labels()[1:5])


def test_a_fractional_one_says_that_its_values_are_occupancies_of_all_or_nothing() -> None:
    (made,) = build_segs(run(segmentation="fractional"))
    seg = dcmread(BytesIO(made.content))
    said = (seg.SegmentationType, seg.SegmentationFractionalType, seg.MaximumFractionalValue)
    assert said == ("FRACTIONAL", "OCCUPANCY", 255)
    assert set(np.unique(seg.pixel_array)) == {0, 255}


@pytest.mark.parametrize("kind", ["binary", "label_map", "fractional"])
@pytest.mark.parametrize("compression", ["none", "rle", "jpeg_ls"])
def test_an_empty_label_map_has_empty_frames_on_the_first_slice(kind: str, compression: str) -> None:
    context = run(np.zeros(SMALL_SHAPE, np.uint8), segmentation=kind, compression=compression)
    (made,) = objects = build_segs(context)
    assert made.header.NumberOfFrames == (1 if kind == "label_map" else 5)
    assert len(made.header.SourceImageSequence) == 1
    assert_complete(objects, context)


@settings(max_examples=40)
@given(
    hnp.arrays(np.uint8, SMALL_SHAPE, elements=st.integers(0, 5)),
    st.sampled_from(["binary", "label_map", "fractional"]),
    st.none() | st.integers(1, 5),
    st.none() | st.integers(4, 12),
    st.sampled_from(["split", "label_map"]),
    st.sampled_from(["segment", "report"]),
)
def test_whatever_was_found_and_however_it_is_split_nothing_is_lost_or_added(
    labels: npt.NDArray[np.uint8], kind: str, segments: int | None, frames: int | None, over: str, absent: str
) -> None:
    context = run(
        labels,
        {1: "a", 3: "a"},
        {2: (1,), 4: (5, 3)},
        segmentation=kind,
        maximum_segments=segments,
        maximum_frames=frames,
        when_over=over,
        absent=absent,
    )
    objects = build_segs(context)
    assert_complete(objects, context)
    wanted = {
        s.number
        for s in context.spec.structures
        if absent == "segment" or np.isin(context.labels, s.numbers).any()
    }
    assert {n for plan in plan_segs(context) for n in numbers((plan,))[0]} == wanted
    for made in objects:
        assert len(made.plan.structures) <= (segments or 5)
        assert made.header.NumberOfFrames <= (frames or 100) or made.plan.notes


# -- overlap ---------------------------------------------------------------------------------------


def test_structures_that_include_others_overlap_them_in_a_binary_object() -> None:
    context = run(includes={1: (2, 3)})
    (made,) = objects = build_segs(context)
    assert made.header.SegmentsOverlap == "YES"
    assert_complete(objects, context)


def test_what_is_included_but_absent_does_not_overlap() -> None:
    (made,) = build_segs(run(includes={1: (4,)}))
    assert made.header.SegmentsOverlap == "NO"


def test_beside_a_label_map_overlapping_structures_have_a_binary_object_of_the_same_series() -> None:
    context = run(includes={1: (2, 3)}, segmentation="label_map", compression="rle")
    flat, overlapping = objects = build_segs(context)
    assert (flat.plan.kind, overlapping.plan.kind) == ("label_map", "binary")
    assert numbers(plan_segs(context)) == [[2, 3, 4, 5], [1]]
    assert (flat.transfer_syntax_uid, overlapping.transfer_syntax_uid) == (
        RLELossless,
        ExplicitVRLittleEndian,
    )
    assert flat.header.SeriesInstanceUID == overlapping.header.SeriesInstanceUID
    assert_complete(objects, context)


# -- absent structures -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["binary", "label_map", "fractional"])
def test_an_absent_structure_is_left_to_the_report_where_that_is_wanted(kind: str) -> None:
    context = run(segmentation=kind, absent="report")
    (made,) = objects = build_segs(context)
    assert numbers(plan_segs(context)) == [[1, 2, 3, 5]]
    assert [s.SegmentNumber for s in made.header.SegmentSequence if s.SegmentNumber] == [1, 2, 3, 4]
    assert_complete(objects, context)


def test_without_anything_found_there_is_no_segmentation_then() -> None:
    assert build_segs(run(np.zeros(SMALL_SHAPE, np.uint8), absent="report")) == ()


def test_a_structure_of_which_only_a_part_was_found_is_not_absent() -> None:
    assert numbers(plan_segs(run(absent="report", includes={4: (5,)}))) == [[1, 2, 3, 4, 5]]


# -- limits ----------------------------------------------------------------------------------------


def test_without_limits_there_is_one_object_in_the_order_of_the_card() -> None:
    assert numbers(plan_segs(run(groups={1: "b", 2: "a", 5: "b"}))) == [[1, 2, 3, 4, 5]]


@pytest.mark.parametrize(
    ("groups", "most", "expected"),
    [
        ({}, 2, [[1, 2], [3, 4], [5]]),
        ({}, 1, [[1], [2], [3], [4], [5]]),
        ({2: "lungs", 3: "lungs"}, 2, [[1], [2, 3], [4, 5]]),
        ({1: "a", 4: "a", 5: "a"}, 3, [[1, 4, 5], [2, 3]]),
        ({1: "a", 2: "a", 3: "a"}, 2, [[1, 2], [3, 4], [5]]),
    ],
)
def test_structures_are_split_by_group_then_in_the_order_of_the_card(
    groups: dict[int, str], most: int, expected: list[list[int]]
) -> None:
    assert numbers(plan_segs(run(groups=groups, maximum_segments=most))) == expected


def test_parts_of_a_split_result_are_objects_of_one_series_numbered_from_one() -> None:
    context = run(maximum_segments=2)
    objects = build_segs(context)
    headers = [made.header for made in objects]
    assert [int(header.InstanceNumber) for header in headers] == [1, 2, 3]
    assert len({header.SeriesInstanceUID for header in headers}) == 1
    assert [str(h.SOPInstanceUID) for h in headers] == [context.instance_uid("seg", n) for n in (1, 2, 3)]
    assert [[s.SegmentNumber for s in header.SegmentSequence] for header in headers] == [[1, 2], [1, 2], [1]]
    assert len({header.DimensionOrganizationSequence[0].DimensionOrganizationUID for header in headers}) == 3
    assert_complete(objects, context)


def test_frames_are_counted_as_they_are_written() -> None:
    context = run(maximum_frames=5)
    plans = plan_segs(context)
    assert numbers(plans) == [[1, 2], [3, 4, 5]]  # 3 + 2 frames, 2 + 0 + 1
    assert [made.header.NumberOfFrames for made in build_segs(context)] == [5, 3]


def test_a_structure_that_alone_is_over_the_limit_has_its_own_object_and_a_note() -> None:
    context = run(maximum_frames=2)
    plans = plan_segs(context)
    assert numbers(plans) == [[1], [2], [3, 4], [5]]
    (note,) = plans[0].notes
    assert note.startswith("RESULT_OVER_LIMIT: Body alone has 3 frames, and the destination takes 2;")
    assert not any(plan.notes for plan in plans[1:])
    assert_complete(build_segs(context), context)
    results = write_results(context, [context.profile]).results
    assert [result.notes for result in results if result.notes] == [(note,)], "run.json has them from there"


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"maximum_frames": 4}, [("label_map", [1, 2, 3, 4, 5])]),
        ({"maximum_frames": 8}, [("binary", [1, 2, 3, 4, 5])]),
        ({"maximum_segments": 3}, [("label_map", [1, 2, 3]), ("label_map", [4, 5])]),
        ({"maximum_frames": 3}, [("label_map", [1, 2, 3, 4]), ("label_map", [5])]),
    ],
)
def test_a_destination_may_rather_have_a_label_map(
    limits: dict[str, Any], expected: list[tuple[str, list[int]]]
) -> None:
    context = run(when_over="label_map", **limits)
    assert [(p.kind, [s.number for s in p.structures]) for p in plan_segs(context)] == expected
    assert_complete(build_segs(context), context)


def test_no_object_is_longer_than_dicom_can_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ai.results.seg.plan._LONGEST_VALUE", 143 * 4)  # as if 4 frames of 8 bits were most
    assert numbers(plan_segs(run(segmentation="fractional"))) == [[1], [2, 3, 4], [5]]
    assert numbers(plan_segs(run(segmentation="binary"))) == [[1, 2, 3, 4, 5]]


# -- what everything rests on ----------------------------------------------------------------------


@given(hnp.arrays(np.uint8, st.tuples(*[st.integers(1, 6)] * 3), elements=st.sampled_from([0, 1, 2, 255])))
def test_the_extent_of_each_number_is_that_of_its_voxels(labels: npt.NDArray[np.uint8]) -> None:
    extent = find_extent(labels)
    for number in (0, 1, 2, 7, 255):
        first, stop = extent.rows([number])
        for index, plane in enumerate(labels):
            rows = np.flatnonzero((plane == number).any(axis=1))
            expected = (rows[0], rows[-1] + 1) if rows.size else (labels.shape[1], 0)
            assert (first[index], stop[index]) == expected
    assert extent.numbers == tuple(int(n) for n in np.unique(labels) if n)


@given(
    hnp.arrays(
        np.uint8, st.tuples(st.integers(1, 5), st.integers(1, 400)), elements=st.sampled_from([0, 0, 1, 9])
    )
)
def test_a_plane_coded_in_runs_is_the_same_to_every_decoder(plane: npt.NDArray[np.uint8]) -> None:
    coded = encode_rle(plane)
    assert len(coded) % 2 == 0
    options = {
        "transfer_syntax_uid": RLELossless,
        "rows": plane.shape[0],
        "columns": plane.shape[1],
        "samples_per_pixel": 1,
        "bits_allocated": 8,
        "bits_stored": 8,
        "pixel_representation": 0,
        "photometric_interpretation": "MONOCHROME2",
        "number_of_frames": 1,
        "pixel_keyword": "PixelData",
    }
    decoder = get_decoder(RLELossless)
    assert {"pydicom", "pylibjpeg"} <= set(decoder.available_plugins)
    for plugin in decoder.available_plugins:
        read, _ = decoder.as_array(encapsulate([coded]), decoding_plugin=plugin, **options)
        np.testing.assert_array_equal(read, plane, err_msg=plugin)


def test_long_runs_take_two_bytes_for_each_128_and_do_not_cross_rows() -> None:
    plane = np.zeros((2, 300), np.uint8)
    plane[1, 299] = 7
    assert encode_rle(plane)[64:] == bytes([129, 0, 129, 0, 213, 0, *(129, 0, 129, 0, 214, 0, 0, 7)])


def test_a_view_of_a_label_map_gives_the_same_as_its_copy() -> None:
    labels = small_labels()
    turned = labels[:, ::-1, ::-1]
    one, two = (build_segs(run(a))[0].content for a in (turned, np.ascontiguousarray(turned)))
    assert one == two


def test_a_number_that_the_card_has_not_is_refused() -> None:
    labels = small_labels()
    labels[0, 0, 0] = 9
    with pytest.raises(ValueError, match=r"no structure of the card: \[9\]"):
        build_segs(run(labels))


def test_the_header_has_all_but_pixels_and_the_groups_of_frames() -> None:
    (made,) = build_segs(run())
    written = dcmread(BytesIO(made.content))
    assert set(written.keys()) - set(made.header.keys()) == {0x52009230, 0x7FE00010}
