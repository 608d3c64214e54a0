"""The check before sending: right SEGs pass, and every way of being wrong is caught with its numbers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from io import BytesIO
from typing import Literal, cast

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian

from ai.errors import ResultMismatch
from ai.geometry import VerdictCode
from ai.model import Structure
from ai.profile import Profile, SegmentationKind
from ai.results.context import ResultContext
from ai.results.seg import SegPlan, build_segs, plan_segs
from ai.results.verify import verify_segmentations
from ai.results.verify_file import read_seg
from tests import builders, odd_series
from tests.runs import SMALL_SHAPE, SMALL_SPACING_MM, run_of, series_of, small_labels, small_run

Absent = Literal["segment", "report"]
Mutation = Callable[[Dataset], None]

WIDE_SHAPE = (6, 13, 16)  # rows of whole bytes: bits are compared in boxes
KINDS = {
    "binary": (SMALL_SHAPE, Profile()),
    "binary, whole bytes": (WIDE_SHAPE, Profile()),
    "label map": (SMALL_SHAPE, Profile(segmentation="label_map")),
    "fractional": (SMALL_SHAPE, Profile(segmentation="fractional")),
}
COMPRESSED = {
    "label map, JPEG-LS": (SMALL_SHAPE, Profile(segmentation="label_map", compression="jpeg_ls")),
    "label map, RLE": (SMALL_SHAPE, Profile(segmentation="label_map", compression="rle")),
    "fractional, JPEG-LS": (SMALL_SHAPE, Profile(segmentation="fractional", compression="jpeg_ls")),
    "fractional, RLE": (SMALL_SHAPE, Profile(segmentation="fractional", compression="rle")),
}


def run(shape: tuple[int, int, int], profile: Profile) -> ResultContext:
    """The labels of ``small_labels`` on a grid that is as wide or wider."""
    labels = np.zeros(shape, np.uint8)
    labels[:, :, : SMALL_SHAPE[2]] = small_labels()
    series = series_of(builders.ct_series(shape, SMALL_SPACING_MM), builders.affine(shape, SMALL_SPACING_MM))
    return replace(run_of(series, labels), profile=profile)


CONTEXTS = {name: run(*kind) for name, kind in KINDS.items()}
WRITTEN = {name: build_segs(context)[0].content for name, context in CONTEXTS.items()}


def verify(objects: Sequence[bytes], context: ResultContext) -> None:
    """Check objects that were planned for the run; numbers of no structure do not change the plan."""
    verify_segmentations(list(zip(plan_segs(context), objects, strict=True)), context)


def written(seg: Dataset) -> bytes:
    """A data set as a file in its own transfer syntax."""
    stream = BytesIO()
    dcmwrite(stream, seg, enforce_file_format=True)
    return stream.getvalue()


def frames(seg: Dataset) -> npt.NDArray[np.uint8]:
    """Voxels ``(frames, rows, columns)``."""
    stored = np.frombuffer(seg.PixelData, np.uint8)
    if seg.BitsAllocated == 1:
        stored = np.unpackbits(stored, bitorder="little")
    size = seg.Rows * seg.Columns
    return stored[: int(seg.NumberOfFrames) * size].reshape(-1, seg.Rows, seg.Columns)


def set_frames(seg: Dataset, voxels: npt.NDArray[np.uint8]) -> None:
    flat = np.ascontiguousarray(voxels).reshape(-1)
    data = (np.packbits(flat, bitorder="little") if seg.BitsAllocated == 1 else flat).tobytes()
    seg.PixelData = data + b"\0" * (len(data) % 2)
    seg["PixelData"].VR = "OB"


def swap_groups(seg: Dataset, keyword: str, a: int, b: int) -> None:
    """Exchange one functional group of two frames."""
    one, two = seg.PerFrameFunctionalGroupsSequence[a], seg.PerFrameFunctionalGroupsSequence[b]
    first, second = copy.deepcopy(one[keyword]), copy.deepcopy(two[keyword])
    one[keyword], two[keyword] = second, first


def flip_rows(seg: Dataset) -> None:
    set_frames(seg, frames(seg)[:, ::-1])


def flip_columns(seg: Dataset) -> None:
    set_frames(seg, frames(seg)[:, :, ::-1])


def reverse_slices(seg: Dataset) -> None:
    set_frames(seg, frames(seg)[::-1])


def shift(amount: int, axis: int) -> Mutation:
    return lambda seg: set_frames(seg, np.roll(frames(seg), amount, axis=axis))


def shift_a_bit(seg: Dataset) -> None:
    set_frames(seg, np.roll(frames(seg).reshape(-1), 1))


def transpose_in_place(seg: Dataset) -> None:
    set_frames(seg, np.ascontiguousarray(frames(seg).transpose(0, 2, 1)))


def transpose_with_size(seg: Dataset) -> None:
    transpose_in_place(seg)
    seg.Rows, seg.Columns = seg.Columns, seg.Rows


def one_voxel(seg: Dataset) -> None:
    voxels = frames(seg).copy()
    voxels[3, 0, 0] = voxels.max()
    set_frames(seg, voxels)


def one_voxel_less(seg: Dataset) -> None:
    voxels = frames(seg).copy()
    voxels[tuple(np.argwhere(voxels)[0])] = 0
    set_frames(seg, voxels)


def swap_slices(seg: Dataset) -> None:
    swap_groups(seg, "PlanePositionSequence", 0, 1)
    swap_groups(seg, "DerivationImageSequence", 0, 1)


def swap_positions_only(seg: Dataset) -> None:
    swap_groups(seg, "PlanePositionSequence", 0, 1)


def swap_segment_numbers(seg: Dataset) -> None:
    a = next(i for i, n in enumerate(numbers(seg)) if n == 2)
    b = next(i for i, n in enumerate(numbers(seg)) if n == 3)
    swap_groups(seg, "SegmentIdentificationSequence", a, b)


def numbers(seg: Dataset) -> list[int]:
    return [
        int(f.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        for f in seg.PerFrameFunctionalGroupsSequence
    ]


def swap_segment_items(seg: Dataset) -> None:
    swap_item_order(seg)
    for number, item in enumerate(seg.SegmentSequence[:3], start=1):
        item.SegmentNumber = number


def swap_item_order(seg: Dataset) -> None:
    seg.SegmentSequence[1], seg.SegmentSequence[2] = seg.SegmentSequence[2], seg.SegmentSequence[1]


def move_by(millimetres: tuple[float, float, float]) -> Mutation:
    def move(seg: Dataset) -> None:
        for groups in seg.PerFrameFunctionalGroupsSequence:
            plane = groups.PlanePositionSequence[0]
            moved = np.asarray(plane.ImagePositionPatient, float) + millimetres
            plane.ImagePositionPatient = [f"{v:.6f}" for v in moved]

    return move


def orientation(cosines: list[float]) -> Mutation:
    def change(seg: Dataset) -> None:
        seg.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient = cosines

    return change


def shared(keyword: str, group: str, value: object) -> Mutation:
    def change(seg: Dataset) -> None:
        setattr(seg.SharedFunctionalGroupsSequence[0][group].value[0], keyword, value)

    return change


def top(keyword: str, value: object) -> Mutation:
    return lambda seg: setattr(seg, keyword, value)


def segment(keyword: str, value: object) -> Mutation:
    return lambda seg: setattr(seg.SegmentSequence[1], keyword, value)


def drop_a_frame(seg: Dataset) -> None:
    set_frames(seg, frames(seg)[:-1])
    seg.PerFrameFunctionalGroupsSequence.pop()
    seg.NumberOfFrames = len(seg.PerFrameFunctionalGroupsSequence)


def repeat_a_frame(seg: Dataset) -> None:
    voxels = frames(seg)
    set_frames(seg, np.concatenate([voxels, voxels[-1:]]))
    seg.PerFrameFunctionalGroupsSequence.append(copy.deepcopy(seg.PerFrameFunctionalGroupsSequence[-1]))
    seg.NumberOfFrames = len(seg.PerFrameFunctionalGroupsSequence)


def rename_side(seg: Dataset) -> None:
    """The code of the left side, with the word of the right one."""
    kind = seg.SegmentSequence[1].SegmentedPropertyTypeCodeSequence[0]
    kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning = "Right"


def drop_a_segment(seg: Dataset) -> None:
    del seg.SegmentSequence[3]


def mirror_side(seg: Dataset) -> None:
    kinds = [seg.SegmentSequence[i].SegmentedPropertyTypeCodeSequence[0] for i in (1, 2)]
    keyword = "SegmentedPropertyTypeModifierCodeSequence"
    kinds[0][keyword], kinds[1][keyword] = kinds[1][keyword], kinds[0][keyword]


def no_side(seg: Dataset) -> None:
    kind = seg.SegmentSequence[1].SegmentedPropertyTypeCodeSequence[0]
    del kind.SegmentedPropertyTypeModifierCodeSequence


def wrong_source(seg: Dataset) -> None:
    swap_groups(seg, "DerivationImageSequence", 0, 1)


def two_sources(seg: Dataset) -> None:
    first, second = (seg.PerFrameFunctionalGroupsSequence[i].DerivationImageSequence[0] for i in (0, 1))
    first.SourceImageSequence.append(copy.deepcopy(second.SourceImageSequence[0]))


def list_another_image(seg: Dataset) -> None:
    seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence[-1].ReferencedSOPInstanceUID = "1.2.3"


def list_one_image_less(seg: Dataset) -> None:
    del seg.SourceImageSequence[1]  # slice 2, which frames cite


def swap_colours(seg: Dataset) -> None:
    one, two = seg.SegmentSequence[1], seg.SegmentSequence[2]
    keyword = "RecommendedDisplayCIELabValue"
    one[keyword], two[keyword] = two[keyword], one[keyword]


def swap_codes(seg: Dataset) -> None:
    one, two = seg.SegmentSequence[1], seg.SegmentSequence[3]
    keyword = "SegmentedPropertyTypeCodeSequence"
    one[keyword], two[keyword] = two[keyword], one[keyword]


def swap_pixel_values(seg: Dataset) -> None:
    set_frames(seg, np.array([0, 1, 3, 2, *range(4, 256)], np.uint8)[frames(seg)])


def background_first(seg: Dataset) -> None:
    seg.SegmentSequence.insert(0, seg.SegmentSequence.pop())


def background_missing(seg: Dataset) -> None:
    seg.SegmentSequence.pop()


def almost_full(seg: Dataset) -> None:
    voxels = frames(seg).copy()
    voxels[tuple(np.argwhere(voxels == 255)[0])] = 254
    set_frames(seg, voxels)


def wrong_dimension_index(seg: Dataset) -> None:
    values = seg.PerFrameFunctionalGroupsSequence[1].FrameContentSequence[0]
    values.DimensionIndexValues = [7 if v == 2 else v + 6 for v in np.atleast_1d(values.DimensionIndexValues)]


def dimension_indices_exchanged(seg: Dataset) -> None:
    swap_groups(seg, "FrameContentSequence", 0, 1)


def file_meta(keyword: str, value: str) -> Mutation:
    return lambda seg: setattr(seg.file_meta, keyword, value)


def no_functional_groups(seg: Dataset) -> None:
    del seg.PerFrameFunctionalGroupsSequence


VOXELS = "voxels.* differ on slice|have no frame"
EVERY_KIND: list[tuple[str, Mutation, str]] = [
    ("rows flipped", flip_rows, VOXELS),
    ("columns flipped", flip_columns, VOXELS),
    ("frames reversed", reverse_slices, VOXELS),
    *((f"shifted by {n} along axis {axis}", shift(n, axis), VOXELS) for n in (1, -1) for axis in (0, 1, 2)),
    ("transposed", transpose_in_place, VOXELS),
    ("transposed with its size", transpose_with_size, "Rows"),
    ("one voxel more", one_voxel, "[1 ]voxels.* differ on slice|1 voxels"),
    ("one voxel less", one_voxel_less, "1 voxels.* differ on slice"),
    ("two slices exchanged", swap_slices, f"{VOXELS}|dimension"),
    ("two positions exchanged", swap_positions_only, "source image|dimension"),
    ("segment items exchanged", swap_segment_items, "label of segment 2"),
    ("order of items exchanged", swap_item_order, "segment numbers"),
    ("colours exchanged", swap_colours, "colour of segment 2"),
    ("codes exchanged", swap_codes, "type of segment 2"),
    ("moved 0.01 mm along x", move_by((0.01, 0, 0)), "mm away from its source slice"),
    ("moved by one slice up", move_by((0, 0, 3.0)), "off the grid|source image|voxels"),
    ("moved by one slice down", move_by((0, 0, -3.0)), "off the grid|source image|voxels"),
    ("moved by half a slice", move_by((0, 0, 1.4)), "off the grid"),
    ("moved by one column", move_by((0.7, 0, 0)), "off the grid"),
    ("moved by one row", move_by((0, -0.8, 0)), "off the grid"),
    ("moved far away", move_by((0, 0, 900.0)), "off the grid"),
    ("no finite position", move_by((float("nan"), 0, 0)), "finite|cannot be read back"),
    ("orientation mirrored", orientation([-1, 0, 0, 0, 1, 0]), "off the grid"),
    ("orientation upside down", orientation([1, 0, 0, 0, -1, 0]), "off the grid"),
    ("orientation transposed", orientation([0, 1, 0, 1, 0, 0]), "off the grid"),
    ("orientation turned 1 degree", orientation([0.99985, 0.01745, 0, -0.01745, 0.99985, 0]), "cosines|grid"),
    ("pixel spacing exchanged", shared("PixelSpacing", "PixelMeasuresSequence", [0.7, 0.8]), "grid|spacing"),
    (
        "pixel spacing by 0.001",
        shared("PixelSpacing", "PixelMeasuresSequence", [0.801, 0.7]),
        "pixel spacing",
    ),
    ("slice spacing", shared("SpacingBetweenSlices", "PixelMeasuresSequence", 5), "spacing between slices"),
    ("slice thickness", shared("SliceThickness", "PixelMeasuresSequence", 30), "30 mm, expected 3 mm thick"),
    ("a place for all frames", top("ImagePositionPatient", [0, 0, 0]), "ImagePositionPatient"),
    ("frame missing", drop_a_frame, "have no frame"),
    ("frame twice", repeat_a_frame, "twice"),
    ("segment missing", drop_a_segment, "segment numbers"),
    ("sides exchanged", mirror_side, "modifiers of segment 2"),
    ("side missing", no_side, "modifiers of segment 2"),
    ("side called by the other's name", rename_side, "modifiers of segment 2"),
    ("source exchanged", wrong_source, "source image of frame 1"),
    ("two sources", two_sources, "number of source images of frame 1 is 2"),
    ("an image of another part", list_another_image, "Referenced Series Sequence has 1 images"),
    ("a cited image that is not listed", list_one_image_less, "Source Image Sequence lacks 1"),
    ("a wrong dimension index", wrong_dimension_index, "dimension indices"),
    ("frame of reference", top("FrameOfReferenceUID", "1.2.3"), "FrameOfReferenceUID"),
    ("study", top("StudyInstanceUID", "1.2.3"), "StudyInstanceUID"),
    ("patient", top("PatientID", "OTHER"), "Patient ID"),
    ("series", top("SeriesInstanceUID", "1.2.3"), "SeriesInstanceUID"),
    ("series number", top("SeriesNumber", 7), "SeriesNumber"),
    ("instance number", top("InstanceNumber", 2), "InstanceNumber"),
    ("instance", top("SOPInstanceUID", "1.2.3"), "SOPInstanceUID"),
    ("transfer syntax", file_meta("TransferSyntaxUID", ImplicitVRLittleEndian), "transfer syntax"),
    ("manufacturer", top("Manufacturer", "Someone"), "Manufacturer"),
    ("inverted", top("PhotometricInterpretation", "MONOCHROME1"), "PhotometricInterpretation"),
    ("type of segmentation", top("SegmentationType", "OTHER"), "SegmentationType"),
    ("label", segment("SegmentLabel", "Right lung"), "label of segment 2"),
    ("description", segment("SegmentDescription", "Right lung"), "description of segment 2"),
    ("algorithm", segment("SegmentAlgorithmName", "Other"), "algorithm name of segment 2"),
    ("name of the series", top("SeriesDescription", "AI other SEG (RUO)"), "SeriesDescription"),
    ("overlap where there is none", top("SegmentsOverlap", "YES"), "SegmentsOverlap"),
    ("tracking UID", segment("TrackingUID", "1.2.3"), "tracking UID of segment 2"),
    ("tracking ID", segment("TrackingID", ""), "no tracking ID"),
    ("colour", segment("RecommendedDisplayCIELabValue", [40000, 40000, 40000]), "colour of segment 2"),
    ("pixels cut short", lambda seg: setattr(seg, "PixelData", seg.PixelData[:-2]), "pixel data hold"),
    ("no functional groups", no_functional_groups, "cannot be read back"),
]
BY_SEGMENT: list[tuple[str, Mutation, str]] = [
    ("segment numbers exchanged", swap_segment_numbers, "segment|dimension"),
    ("dimension indices exchanged", dimension_indices_exchanged, "dimension indices"),
]
ONLY: dict[str, list[tuple[str, Mutation, str]]] = {
    "binary": [*BY_SEGMENT, ("shifted by a bit", shift_a_bit, VOXELS)],
    "binary, whole bytes": [*BY_SEGMENT, ("shifted by a bit", shift_a_bit, VOXELS)],
    "fractional": [
        *BY_SEGMENT,
        ("almost full", almost_full, "fractional value 254 on slice"),
        ("full is 254", top("MaximumFractionalValue", 254), "MaximumFractionalValue"),
        ("probability", top("SegmentationFractionalType", "PROBABILITY"), "SegmentationFractionalType"),
    ],
    "label map": [
        ("pixel values exchanged", swap_pixel_values, "voxels, most of segment 3, differ"),
        ("a segment as padding", top("PixelPaddingValue", 1), "PixelPaddingValue"),
        ("background first", background_first, "segment numbers"),
        ("background missing", background_missing, "segment numbers"),
    ],
}
CASES = [(kind, *mutation) for kind in KINDS for mutation in (*EVERY_KIND, *ONLY[kind])]


@pytest.mark.parametrize(
    ("kind", "mutate", "words"),
    [(kind, mutate, words) for kind, _, mutate, words in CASES],
    ids=[f"{kind}: {name}" for kind, name, *_ in CASES],
)
def test_a_wrong_segmentation_is_caught_and_the_sentence_says_how(
    kind: str, mutate: Mutation, words: str
) -> None:
    wrong = dcmread(BytesIO(WRITTEN[kind]))
    _ = str(wrong)  # every element is decoded, and so encoded anew
    mutate(wrong)
    with pytest.raises(ResultMismatch, match=words) as caught:
        verify([written(wrong)], CONTEXTS[kind])
    assert caught.value.code == "SEG_ROUND_TRIP_MISMATCH"


@pytest.mark.parametrize("name", [*KINDS, *COMPRESSED])
@pytest.mark.parametrize("absent", ["segment", "report"])
def test_a_right_segmentation_passes_in_every_kind_compressed_or_not(name: str, absent: str) -> None:
    shape, profile = {**KINDS, **COMPRESSED}[name]
    context = run(shape, replace(profile, absent=cast(Absent, absent)))
    verify([seg.content for seg in build_segs(context)], context)


@pytest.mark.parametrize("name", COMPRESSED)
def test_a_changed_byte_of_compressed_pixels_is_caught(name: str) -> None:
    context = run(*COMPRESSED[name])
    (seg,) = build_segs(context)
    wrong = dcmread(BytesIO(seg.content))
    wrong.decompress(decoding_plugin={"RLE": "pydicom", "JPEG-LS": "pyjpegls"}[name.split(", ")[1]])
    with pytest.raises(ResultMismatch, match="transfer syntax"):
        verify([written(wrong)], context)
    with pytest.raises(ResultMismatch, match="not the end of it"):
        verify([seg.content + b"\0" * 12], context)
    wrong = dcmread(BytesIO(seg.content))
    wrong.PixelData = wrong.PixelData[: len(wrong.PixelData) // 2]
    with pytest.raises(ResultMismatch, match=r"cannot be read back|encapsulated frames|differ"):
        verify([written(wrong)], context)


@pytest.mark.parametrize("kind", builders.ORIENTATIONS)
def test_a_right_segmentation_passes_in_every_orientation(kind: str) -> None:
    context = small_run(kind)
    verify([seg.content for seg in build_segs(context)], context)


@pytest.mark.parametrize("name", KINDS)
def test_an_empty_label_map_passes(name: str) -> None:
    context = replace(CONTEXTS[name], labels=np.zeros_like(CONTEXTS[name].labels))
    verify([seg.content for seg in build_segs(context)], context)


def test_nothing_found_and_only_the_report_says_so() -> None:
    context = replace(CONTEXTS["binary"], profile=Profile(absent="report"))
    verify_segmentations([], replace(context, labels=np.zeros_like(context.labels)))
    with pytest.raises(ResultMismatch, match="which was found, have no segment"):
        verify_segmentations([], context)


def test_positions_that_jitter_within_the_tolerance_of_geometry_pass() -> None:
    series = builders.with_jitter(builders.ct_series(SMALL_SHAPE, SMALL_SPACING_MM), 0.02)
    context = small_run(datasets=series)
    verify([seg.content for seg in build_segs(context)], context)


def test_sequences_without_lengths_are_read_like_others() -> None:
    seg = dcmread(BytesIO(WRITTEN["binary"]))
    table = read_seg(WRITTEN["binary"]).frames
    for element in seg:
        if element.VR == "SQ":
            element.is_undefined_length = element.value.is_undefined_length = True
            for item in element.value:
                item.is_undefined_length_sequence_item = True
    encoded = written(seg)
    assert encoded != WRITTEN["binary"]
    verify([encoded], CONTEXTS["binary"])
    again = read_seg(encoded).frames
    assert (again.positions, again.sources, len(again)) == (table.positions, table.sources, len(table))
    np.testing.assert_array_equal(again.numbers, table.numbers)
    np.testing.assert_array_equal(again.indices, table.indices)


def overlapping(profile: Profile) -> ResultContext:
    """The bones include the metal in them, the body both lungs."""
    context = replace(CONTEXTS["binary"], profile=profile)
    includes = {1: (2, 3), 4: (5,)}
    structures = tuple(
        s.model_copy(update={"includes": includes.get(s.number, ())}) for s in context.spec.structures
    )
    return replace(context, spec=context.spec.model_copy(update={"structures": structures}))


@pytest.mark.parametrize("segmentation", ["binary", "label_map", "fractional"])
def test_structures_that_include_others_are_compared_with_all_their_numbers(segmentation: str) -> None:
    context = overlapping(Profile(segmentation=cast(SegmentationKind, segmentation)))
    objects = [seg.content for seg in build_segs(context)]
    verify(objects, context)
    without = replace(context, spec=CONTEXTS["binary"].spec)
    with pytest.raises(ResultMismatch):
        verify_segmentations(list(zip(_plans(without, context), objects, strict=True)), without)


@pytest.mark.parametrize("segmentation", ["binary", "label_map", "fractional"])
def test_overlap_is_what_the_voxels_do_and_not_what_the_card_allows(segmentation: str) -> None:
    profile = Profile(segmentation=cast(SegmentationKind, segmentation))
    both = overlapping(profile)
    apart = replace(both, labels=np.where(both.labels == 1, both.labels, 0).astype(np.uint8))
    nothing = replace(both, labels=np.zeros_like(both.labels))
    for context, overlap in ((both, "YES"), (apart, "NO"), (nothing, "NO")):
        objects = [seg.content for seg in build_segs(context)]
        verify(objects, context)
        wrong = dcmread(BytesIO(objects[-1]))
        if segmentation != "label_map":  # there structure 1 and 4 are alone in an object
            assert wrong.SegmentsOverlap == overlap
            wrong.SegmentsOverlap = "NO" if overlap == "YES" else "YES"
            with pytest.raises(ResultMismatch, match="SegmentsOverlap"):
                verify([*objects[:-1], written(wrong)], context)


def _plans(context: ResultContext, as_in: ResultContext) -> list[SegPlan]:
    """The plans of one run with the structures of another's card."""
    by_number: dict[int, Structure] = {s.number: s for s in context.spec.structures}
    return [
        replace(plan, structures=tuple(by_number[s.number] for s in plan.structures))
        for plan in plan_segs(as_in)
    ]


class TestSeveralObjects:
    """All objects of a profile are checked together."""

    context = replace(CONTEXTS["binary"], profile=Profile(maximum_segments=2))
    plans = plan_segs(context)
    objects = tuple(seg.content for seg in build_segs(context))

    def test_they_pass(self) -> None:
        assert len(self.objects) == 3
        verify(self.objects, self.context)

    def test_objects_exchanged_are_caught(self) -> None:
        with pytest.raises(ResultMismatch, match="SOPInstanceUID"):
            verify([self.objects[1], self.objects[0], self.objects[2]], self.context)

    def test_an_object_that_is_missing_is_caught(self) -> None:
        pairs = list(zip(self.plans[:2], self.objects[:2], strict=True))
        with pytest.raises(ResultMismatch, match="has no segment"):
            verify_segmentations(pairs, self.context)

    def test_a_structure_in_two_objects_is_caught(self) -> None:
        twice = replace(self.plans[1], structures=self.plans[0].structures)
        pairs = list(zip((self.plans[0], twice, self.plans[2]), self.objects, strict=True))
        with pytest.raises(ResultMismatch, match="is in 2 segments"):
            verify_segmentations(pairs, self.context)

    def test_instance_numbers_begin_at_one(self) -> None:
        pairs = list(zip(reversed(self.plans), reversed(self.objects), strict=True))
        with pytest.raises(ResultMismatch, match="instance numbers"):
            verify_segmentations(pairs, self.context)

    def test_a_frame_missing_in_the_last_of_them_is_caught(self) -> None:
        wrong = dcmread(BytesIO(self.objects[-1]))
        drop_a_frame(wrong)
        with pytest.raises(ResultMismatch, match=r"have no frame|cannot be read back"):
            verify([*self.objects[:-1], written(wrong)], self.context)


def test_uneven_slices_and_frames_of_one_instance_pass_in_every_kind() -> None:
    series = odd_series.at_heights(builders.ct_series(SMALL_SHAPE, SMALL_SPACING_MM), [0, 2, 5, 9, 14, 20])
    context = small_run(datasets=series)
    geometry = replace(
        context.series.volume.geometry,
        origins_mm=builders.positions(series),
        needs=(VerdictCode.IRREGULAR_SPACING,),
    )
    volume = replace(context.series.volume, geometry=geometry)
    uneven = replace(context.series, volume=volume)
    uneven.__dict__.update({k: context.series.__dict__[k] for k in ("datasets", "input_digest")})
    context = replace(context, series=uneven)
    for _, profile in KINDS.values():
        own = replace(context, profile=profile)
        verify([seg.content for seg in build_segs(own)], own)


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(
    labels=arrays(np.uint8, (3, 4, 8), elements=st.integers(0, 5)),
    segmentation=st.sampled_from(["binary", "label_map", "fractional"]),
    absent=st.sampled_from(["segment", "report"]),
    limit=st.sampled_from([None, 1, 2]),
    voxel=st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 7)),
)
def test_any_label_map_round_trips_and_any_other_is_caught(
    labels: npt.NDArray[np.uint8],
    segmentation: str,
    absent: str,
    limit: int | None,
    voxel: tuple[int, int, int],
) -> None:
    profile = Profile(
        segmentation=cast(SegmentationKind, segmentation),
        absent=cast(Absent, absent),
        maximum_segments=limit,
    )
    series = series_of(builders.ct_series((3, 4, 8)), builders.affine((3, 4, 8), (3.0, 0.8, 0.7)))
    context = replace(run_of(series, labels), profile=profile)
    pairs = [(seg.plan, seg.content) for seg in build_segs(context)]
    verify_segmentations(pairs, context)
    other = labels.copy()
    other[voxel] = (other[voxel] + 1) % 6
    with pytest.raises(ResultMismatch):
        verify_segmentations(pairs, replace(context, labels=other))


@pytest.mark.parametrize("kind", KINDS)
def test_a_number_that_no_structure_has_is_caught(kind: str) -> None:
    labels = CONTEXTS[kind].labels.copy()
    labels[0, 0, 0] = 9
    with pytest.raises(ResultMismatch, match="has the number 9, and the model 5 structures"):
        verify([WRITTEN[kind]], replace(CONTEXTS[kind], labels=labels))


def test_bytes_that_are_no_dicom_are_caught() -> None:
    with pytest.raises(ResultMismatch, match="cannot be read back"):
        verify([b"not DICOM at all"], CONTEXTS["binary"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_file_that_is_cut_off_is_caught(kind: str, share: float) -> None:
    encoded = WRITTEN[kind]
    with pytest.raises(ResultMismatch):
        verify([encoded[: int(share * len(encoded))]], CONTEXTS[kind])


def test_bytes_after_the_end_are_caught() -> None:
    with pytest.raises(ResultMismatch, match="cannot be read back"):
        verify([WRITTEN["binary"] + b"\0" * 12], CONTEXTS["binary"])


def test_the_sentence_has_no_patient_attribute() -> None:
    wrong = dcmread(BytesIO(WRITTEN["binary"]))
    wrong.PatientID = "SECRET"
    with pytest.raises(ResultMismatch) as caught:
        verify([written(wrong)], CONTEXTS["binary"])
    assert "SECRET" not in caught.value.reason
    assert "TEST-1" not in caught.value.reason
