"""RT structure sets: contours that give the mask back whichever way they are filled, and whose they are."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageDraw
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import RTStructureSetStorage
from skimage.draw import polygon2mask

from ai.compare.contours import fill, rasterise
from ai.compare.segmentation import Segmentation, pack, place
from ai.profile import Profile
from ai.results.context import ResultContext
from ai.results.encode import encode
from ai.results.equipment import MANUFACTURER
from ai.results.rtstruct import build_rtstruct
from ai.results.rtstruct_contours import Polygon, outlines
from ai.results.write import write_results
from ai.volume import read_series
from tests import builders, odd_series
from tests.radiographs import dx
from tests.runs import SMALL_SHAPE, run_of, series_of, small_labels, small_run, torso_run

Mask = npt.NDArray[np.bool_]

RING = np.zeros((9, 11), np.bool_)
RING[1:8, 1:10] = True
RING[3:6, 3:8] = False
NESTED = RING.copy()
NESTED[4, 5] = True  # an island in the hole
TWO_HOLES = np.ones((5, 9), np.bool_)
TWO_HOLES[2, 2:4] = TWO_HOLES[2, 5:7] = False
STAIR_OF_HOLES = np.ones((7, 7), np.bool_)
STAIR_OF_HOLES[2, 2] = STAIR_OF_HOLES[3, 3] = STAIR_OF_HOLES[4, 4] = False
LINE = np.zeros((3, 9), np.bool_)
LINE[1, 1:8] = True
MASKS = {
    "ring": RING,
    "island in a hole": NESTED,
    "two holes in a row": TWO_HOLES,
    "holes that touch at corners": STAIR_OF_HOLES,
    "one pixel wide": LINE,
    "one pixel": np.eye(3, dtype=np.bool_) & (np.arange(3) == 1),
    "pixels that touch at corners": np.eye(5, dtype=np.bool_),
    "all": np.ones((4, 6), np.bool_),
    "checkerboard": np.indices((6, 6)).sum(axis=0) % 2 == 1,
}


def pil_fill(polygon: Polygon, shape: tuple[int, int]) -> Mask:
    """As readers fill that round points to pixels and take the edge in."""
    image = Image.new("L", (shape[1], shape[0]))
    points = [(int(x), int(y)) for y, x in np.rint(polygon).tolist()]
    if len(set(points)) == 1:
        image.putpixel(points[0], 1)
    else:
        ImageDraw.Draw(image).polygon(points, fill=1, outline=1)
    return np.asarray(image) > 0


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("reader", ["centres", "scikit-image", "rounded"])
@pytest.mark.parametrize("join", [np.logical_or, np.logical_xor])
def test_outlines_give_the_mask_back_whichever_way_they_are_filled(
    name: str, reader: str, join: np.ufunc
) -> None:
    mask = MASKS[name]
    found = np.zeros_like(mask)
    for polygon in outlines(mask):
        if reader == "centres":
            filled = fill([polygon], mask.shape)
        elif reader == "scikit-image":
            filled = polygon2mask(mask.shape, polygon)  # type: ignore[no-untyped-call]
        else:
            filled = pil_fill(polygon, mask.shape)
        found = join(found, filled)
    np.testing.assert_array_equal(found, mask)


@settings(max_examples=150)
@given(mask=arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_outlines_of_any_mask_give_it_back(mask: Mask) -> None:
    polygons = outlines(mask)
    one_by_one = [fill([polygon], mask.shape) for polygon in polygons]
    np.testing.assert_array_equal(np.logical_or.reduce([np.zeros_like(mask), *one_by_one]), mask)
    np.testing.assert_array_equal(fill(polygons, mask.shape), mask)
    for polygon in polygons:  # rectilinear, turning at every point: none can be left out
        steps = np.roll(polygon, -1, axis=0) - polygon
        assert ((np.abs(steps) > 1e-9).sum(axis=1) == 1).all()


def test_a_rectangle_has_four_points_and_lies_along_the_edges_of_its_pixels() -> None:
    (polygon,) = outlines(np.ones((3, 40), np.bool_))
    assert len(polygon) == 4
    np.testing.assert_allclose(np.ptp(polygon, axis=0), (3.0, 40.0), atol=0.021)


def test_a_row_of_holes_is_joined_however_long_it_is() -> None:
    mask = np.ones((3, 3000), np.bool_)
    mask[1, 1::2] = False  # 1,500 holes, each joined to the one on its left
    mask[1, -1] = True
    (polygon,) = outlines(mask)
    assert len(polygon) == 4 + 1499 * (4 + 4)  # each hole has four corners and four ends of its channel
    np.testing.assert_array_equal(fill([polygon], mask.shape), mask)


def test_outlines_turn_clockwise_and_holes_the_other_way() -> None:
    (polygon,) = outlines(RING)
    rows, columns = polygon.T
    area = np.sum(columns * np.roll(rows, -1) - np.roll(columns, -1) * rows) / 2.0
    assert area == pytest.approx(RING.sum(), rel=0.02)  # of both together, by the sign of their turn


def built(context: ResultContext) -> Dataset:
    """The structure set of a run as it is read from its file."""
    dataset = build_rtstruct(context)
    assert dataset is not None
    return dcmread(BytesIO(encode(dataset, "1.2.3")))


def dice(context: ResultContext, structures: Dataset) -> dict[int, float]:
    """Overlap of what our own reader makes of the contours with the label map, by structure."""
    geometry, mask = context.series.volume.geometry, context.labels > 0
    grid = Segmentation(
        pack(iter([(1, mask)]), mask.shape),
        geometry.index_to_lps,
        {1: "all"},
        True,
        geometry.frame_of_reference_uid,
    )
    found = rasterise(structures, grid)
    placed = place(found, geometry.index_to_lps)
    overlaps = {}
    for number in found.names:
        drawn = placed.cut([number], ((0, 0, 0), geometry.shape))
        expected = np.isin(context.labels, context.spec.structures[number - 1].numbers)
        overlaps[number] = 2.0 * np.sum(drawn & expected) / (drawn.sum() + expected.sum())
    return overlaps


@pytest.mark.parametrize("orientation", builders.ORIENTATIONS)
def test_our_reader_finds_every_voxel_in_every_orientation(orientation: str) -> None:
    context = torso_run(orientation)
    overlaps = dice(context, built(context))
    assert list(overlaps) == [1, 2, 3, 4, 5]
    assert min(overlaps.values()) == 1.0


@pytest.mark.parametrize("orientation", ["HFS", "coronal", "sagittal", "oblique"])
def test_no_contour_ends_straight_above_or_below_its_first_point(orientation: str) -> None:
    for roi in built(torso_run(orientation)).ROIContourSequence:
        for contour in roi.ContourSequence:
            points = np.asarray(contour.ContourData, np.float32).reshape(-1, 3)
            assert (points[0, :2] != points[-1, :2]).any()  # or plastimatch leaves the last one out


def test_each_slice_has_its_contours_at_its_own_position() -> None:
    series = odd_series.at_heights(builders.ct_series(SMALL_SHAPE), [0, 2, 5, 9, 14, 20])
    context = small_run(datasets=series)
    geometry = replace(context.series.volume.geometry, origins_mm=builders.positions(series))
    uneven = replace(context.series, volume=replace(context.series.volume, geometry=geometry))
    uneven.__dict__.update({k: context.series.__dict__[k] for k in ("datasets", "input_digest")})
    structures = built(replace(context, series=uneven))
    places = {str(d.SOPInstanceUID): np.asarray(d.ImagePositionPatient, float) for d in series}
    normal = builders.normal(series[0])
    for roi in structures.ROIContourSequence:
        for contour in roi.ContourSequence:
            (image,) = contour.ContourImageSequence
            points = np.asarray(contour.ContourData, float).reshape(-1, 3)
            assert len(points) == contour.NumberOfContourPoints
            off_mm = (points - places[image.ReferencedSOPInstanceUID]) @ normal
            assert np.abs(off_mm).max() < 1e-3


def test_who_it_belongs_to_and_what_it_says() -> None:
    context = small_run()
    structures, source = built(context), context.series.datasets[0]
    assert structures.SOPClassUID == RTStructureSetStorage
    assert structures.SOPInstanceUID == context.instance_uid("rtstruct")
    assert structures.SeriesInstanceUID == context.series_uid("rtstruct")
    assert (structures.SeriesNumber, structures.Modality) == (9004, "RTSTRUCT")
    assert (structures.PatientID, structures.StudyInstanceUID) == (source.PatientID, source.StudyInstanceUID)
    assert structures.Manufacturer == MANUFACTURER
    assert structures.ApprovalStatus == "UNAPPROVED"
    purpose = structures.ContributingEquipmentSequence[-1].PurposeOfReferenceCodeSequence[0]
    assert purpose.CodeValue == "109102"
    (frame,) = structures.ReferencedFrameOfReferenceSequence
    assert frame.FrameOfReferenceUID == source.FrameOfReferenceUID
    (study,) = frame.RTReferencedStudySequence
    assert study.ReferencedSOPInstanceUID == source.StudyInstanceUID
    (series,) = study.RTReferencedSeriesSequence
    assert series.SeriesInstanceUID == source.SeriesInstanceUID
    listed = [image.ReferencedSOPInstanceUID for image in series.ContourImageSequence]
    assert listed == [d.SOPInstanceUID for d in context.series.datasets]


def test_there_is_a_region_for_each_structure_that_was_found() -> None:
    context = small_run()  # the fourth is not there
    structures = built(context)
    found = [context.spec.structures[n - 1] for n in (1, 2, 3, 5)]
    regions = structures.StructureSetROISequence
    assert [(r.ROINumber, r.ROIName) for r in regions] == [(s.number, s.label) for s in found]
    assert {r.ROIGenerationAlgorithm for r in regions} == {"AUTOMATIC"}
    for contours, notes, structure in zip(
        structures.ROIContourSequence, structures.RTROIObservationsSequence, found, strict=True
    ):
        assert contours.ReferencedROINumber == notes.ReferencedROINumber == structure.number
        assert tuple(contours.ROIDisplayColor) == structure.coded.rgb
        assert [c.ContourNumber for c in contours.ContourSequence] == [
            *range(1, len(contours.ContourSequence) + 1)
        ]
        (code,) = notes.RTROIIdentificationCodeSequence
        assert code.CodeValue == structure.coded.type.value
        modifiers = [m.CodeValue for m in code.get("SegmentedPropertyTypeModifierCodeSequence", ())]
        assert modifiers == ([structure.coded.modifier.value] if structure.coded.modifier else [])


def test_structures_that_include_others_are_drawn_with_them() -> None:
    context = torso_run()
    body = context.spec.structures[0].model_copy(update={"includes": (2, 3)})
    card = context.spec.model_copy(update={"structures": (body, *context.spec.structures[1:])})
    context = replace(context, spec=card)
    assert min(dice(context, built(context)).values()) == 1.0


def test_an_outline_that_one_value_cannot_hold_is_drawn_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    context = torso_run()
    whole = len(built(context).ROIContourSequence[0].ContourSequence)
    monkeypatch.setattr("ai.results.rtstruct._LONGEST", 500)
    structures = built(context)
    for roi in structures.ROIContourSequence:
        for contour in roi.ContourSequence:
            assert len("\\".join(str(v) for v in contour.ContourData)) <= 500
    assert len(structures.ROIContourSequence[0].ContourSequence) > whole
    assert min(dice(context, structures).values()) == 1.0


def test_numbers_have_at_most_sixteen_characters() -> None:
    spacing_mm, origin_mm = (3.0, 0.0123456, 0.0123456), (-12345.678, 9876.5, 1e4)
    datasets = builders.ct_series(SMALL_SHAPE, spacing_mm, "oblique", origin_mm=origin_mm)
    series = series_of(datasets, builders.affine(SMALL_SHAPE, spacing_mm, "oblique", origin_mm))
    structures = built(run_of(series, small_labels()))
    texts = [
        text
        for roi in structures.ROIContourSequence
        for contour in roi.ContourSequence
        for text in contour.get_item("ContourData").value.decode().split("\\")
    ]
    assert max(len(text.strip()) for text in texts) <= 16


def test_a_destination_gets_one_only_if_it_wants_it_and_something_was_found() -> None:
    context = small_run()
    with_one, without = Profile(rtstruct=True, overview=False), Profile(overview=False)
    assert [r.kind for r in write_results(context, [with_one]).results] == ["seg", "sr", "rtstruct"]
    assert "rtstruct" not in [r.kind for r in write_results(context, [without]).results]
    nothing = replace(context, labels=np.zeros_like(context.labels))
    assert build_rtstruct(nothing) is None


def test_a_radiograph_has_no_place_in_the_patient_and_no_structure_set(tmp_path: Path) -> None:
    series = read_series(builders.write_series([dx(np.zeros((40, 56), np.uint8))], tmp_path))
    context = run_of(series, np.ones(series.volume.geometry.shape, np.uint8))
    assert build_rtstruct(context) is None


def test_the_same_run_gives_the_same_bytes() -> None:
    first, second = (build_rtstruct(small_run()) for _ in range(2))
    assert first is not None
    assert second is not None
    assert encode(first, "1.2.3") == encode(second, "1.2.3")
