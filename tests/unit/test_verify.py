"""The check before sending: a right SEG passes, and every way of being wrong is caught with its numbers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from io import BytesIO

import numpy as np
import numpy.typing as npt
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from ai.errors import ResultMismatch
from ai.results.encode import encode
from ai.results.seg import build_seg
from ai.results.verify import verify_segmentation
from tests import builders
from tests.runs import SMALL_SHAPE, SMALL_SPACING_MM, small_run

CONTEXT = small_run()
RIGHT = encode(build_seg(CONTEXT), "1")
ROWS, COLUMNS = SMALL_SHAPE[1:]


def frames(seg: Dataset) -> npt.NDArray[np.uint8]:
    bits = np.unpackbits(np.frombuffer(seg.PixelData, np.uint8), bitorder="little")
    return bits[: int(seg.NumberOfFrames) * ROWS * COLUMNS].reshape(-1, ROWS, COLUMNS)


def set_frames(seg: Dataset, voxels: npt.NDArray[np.uint8]) -> None:
    packed = np.packbits(voxels.reshape(-1), bitorder="little").tobytes()
    seg.PixelData = packed + b"\0" * (len(packed) % 2)


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


def shift_a_row(seg: Dataset) -> None:
    set_frames(seg, np.roll(frames(seg), 1, axis=1))


def shift_a_bit(seg: Dataset) -> None:
    set_frames(seg, np.roll(frames(seg).reshape(-1), 1))


def transpose_in_place(seg: Dataset) -> None:
    set_frames(seg, np.ascontiguousarray(frames(seg).transpose(0, 2, 1)))


def transpose_with_size(seg: Dataset) -> None:
    transpose_in_place(seg)
    seg.Rows, seg.Columns = COLUMNS, ROWS


def one_voxel(seg: Dataset) -> None:
    voxels = frames(seg).copy()
    voxels[3, 0, 0] ^= 1
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
    left, right = seg.SegmentSequence[1], seg.SegmentSequence[2]
    left.SegmentNumber, right.SegmentNumber = 3, 2
    seg.SegmentSequence[1], seg.SegmentSequence[2] = right, left


def move_by(millimetres: tuple[float, float, float]) -> Callable[[Dataset], None]:
    def move(seg: Dataset) -> None:
        for groups in seg.PerFrameFunctionalGroupsSequence:
            plane = groups.PlanePositionSequence[0]
            moved = np.asarray(plane.ImagePositionPatient, float) + millimetres
            plane.ImagePositionPatient = [f"{v:.6f}" for v in moved]

    return move


def orientation(cosines: list[float]) -> Callable[[Dataset], None]:
    def change(seg: Dataset) -> None:
        seg.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient = cosines

    return change


def shared(keyword: str, group: str, value: object) -> Callable[[Dataset], None]:
    def change(seg: Dataset) -> None:
        setattr(seg.SharedFunctionalGroupsSequence[0][group].value[0], keyword, value)

    return change


def top(keyword: str, value: object) -> Callable[[Dataset], None]:
    return lambda seg: setattr(seg, keyword, value)


def segment(keyword: str, value: object) -> Callable[[Dataset], None]:
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


def no_functional_groups(seg: Dataset) -> None:
    del seg.PerFrameFunctionalGroupsSequence


MUTATIONS: list[tuple[str, Callable[[Dataset], None], str]] = [
    ("rows flipped", flip_rows, "voxels of segment"),
    ("columns flipped", flip_columns, "voxels of segment"),
    ("frames reversed", reverse_slices, "voxels of segment"),
    ("shifted by a row", shift_a_row, "voxels of segment"),
    ("shifted by a bit", shift_a_bit, "voxels of segment"),
    ("transposed", transpose_in_place, "voxels of segment"),
    ("transposed with its size", transpose_with_size, "Rows"),
    ("one voxel", one_voxel, "1 voxels of segment"),
    ("two slices exchanged", swap_slices, "voxels of segment"),
    ("two positions exchanged", swap_positions_only, "source image"),
    ("segment numbers exchanged", swap_segment_numbers, "segment"),
    ("segment items exchanged", swap_segment_items, "label of segment 2"),
    ("moved 0.01 mm along x", move_by((0.01, 0, 0)), "mm away from its source slice"),
    ("moved by one slice", move_by((0, 0, 3.0)), "frame 1|voxels"),
    ("moved by half a slice", move_by((0, 0, 1.4)), "off the grid"),
    ("moved far away", move_by((0, 0, 900.0)), "off the grid"),
    ("orientation mirrored", orientation([-1, 0, 0, 0, 1, 0]), "off the grid"),
    ("orientation transposed", orientation([0, 1, 0, 1, 0, 0]), "off the grid"),
    ("orientation turned 1 degree", orientation([0.99985, 0.01745, 0, -0.01745, 0.99985, 0]), "cosines|grid"),
    ("pixel spacing exchanged", shared("PixelSpacing", "PixelMeasuresSequence", [0.7, 0.8]), "grid|spacing"),
    (
        "pixel spacing of 0.001",
        shared("PixelSpacing", "PixelMeasuresSequence", [0.801, 0.7]),
        "pixel spacing",
    ),
    ("slice spacing", shared("SpacingBetweenSlices", "PixelMeasuresSequence", 5), "spacing between slices"),
    ("frame missing", drop_a_frame, "have no frame"),
    ("frame twice", repeat_a_frame, "twice"),
    ("segment missing", drop_a_segment, "segment numbers"),
    ("sides exchanged", mirror_side, "modifiers of segment 2"),
    ("side missing", no_side, "modifiers of segment 2"),
    ("source exchanged", wrong_source, "source image of frame 1"),
    ("two sources", two_sources, "number of source images of frame 1 is 2"),
    ("an image of another part", list_another_image, "Referenced Series Sequence has 1 images"),
    ("a cited image that is not listed", list_one_image_less, "Source Image Sequence lacks 1"),
    ("frame of reference", top("FrameOfReferenceUID", "1.2.3"), "FrameOfReferenceUID"),
    ("study", top("StudyInstanceUID", "1.2.3"), "StudyInstanceUID"),
    ("patient", top("PatientID", "OTHER"), "Patient ID"),
    ("series", top("SeriesInstanceUID", "1.2.3"), "SeriesInstanceUID"),
    ("manufacturer", top("Manufacturer", "Someone"), "Manufacturer"),
    ("label", segment("SegmentLabel", "Right lung"), "label of segment 2"),
    ("tracking UID", segment("TrackingUID", "1.2.3"), "tracking UID of segment 2"),
    ("colour", segment("RecommendedDisplayCIELabValue", [40000, 40000, 40000]), "colour of segment 2"),
    ("pixels cut short", lambda seg: setattr(seg, "PixelData", seg.PixelData[:-2]), "pixel data hold"),
    ("no functional groups", no_functional_groups, "cannot be read back"),
]


@pytest.mark.parametrize(("mutate", "words"), [m[1:] for m in MUTATIONS], ids=[m[0] for m in MUTATIONS])
def test_a_wrong_segmentation_is_caught_and_the_sentence_says_how(
    mutate: Callable[[Dataset], None], words: str
) -> None:
    wrong = dcmread(BytesIO(RIGHT))
    mutate(wrong)
    with pytest.raises(ResultMismatch, match=words) as caught:
        verify_segmentation(encode(wrong, "1"), CONTEXT)
    assert caught.value.code == "SEG_ROUND_TRIP_MISMATCH"


@pytest.mark.parametrize("kind", builders.ORIENTATIONS)
def test_a_right_segmentation_passes_in_every_orientation(kind: str) -> None:
    context = small_run(kind)
    verify_segmentation(encode(build_seg(context), "1"), context)


def test_an_empty_label_map_passes() -> None:
    context = small_run(labels=np.zeros(SMALL_SHAPE, np.uint8))
    verify_segmentation(encode(build_seg(context), "1"), context)


def test_positions_that_jitter_within_the_tolerance_of_geometry_pass() -> None:
    series = builders.with_jitter(builders.ct_series(SMALL_SHAPE, SMALL_SPACING_MM), 0.02)
    context = small_run(datasets=series)
    verify_segmentation(encode(build_seg(context), "1"), context)


def test_bytes_that_are_no_dicom_are_caught() -> None:
    with pytest.raises(ResultMismatch, match="cannot be read back"):
        verify_segmentation(b"not DICOM at all", CONTEXT)


def test_the_sentence_has_no_patient_attribute() -> None:
    wrong = dcmread(BytesIO(RIGHT))
    wrong.PatientID = "SECRET"
    with pytest.raises(ResultMismatch) as caught:
        verify_segmentation(encode(wrong, "1"), CONTEXT)
    assert "SECRET" not in caught.value.reason
    assert "TEST-1" not in caught.value.reason
