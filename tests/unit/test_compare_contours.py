"""RTSTRUCT as truth: contours on the grid of a mask."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from PIL import Image, ImageDraw
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage

from ai.compare import compare_files
from ai.compare.contours import fill
from ai.errors import AiError
from ai.nifti import write_nifti
from tests.builders import affine, ct_series, uid
from tests.runs import even_geometry

SHAPE, SPACING_MM = (8, 30, 34), (3.0, 0.8, 0.7)
FRAME = uid(1, "frame")
Corners = Sequence[tuple[float, float]]


def ring(index_to_lps: np.ndarray, k: float, corners: Corners, kind: str = "CLOSED_PLANAR") -> Dataset:
    """A contour through (row, column) corners on slice ``k`` of a grid."""
    contour = Dataset()
    contour.ContourGeometricType = kind
    contour.NumberOfContourPoints = len(corners)
    points = [(index_to_lps @ [k, row, column, 1.0])[:3] for row, column in corners]
    contour.ContourData = [f"{value:.6f}"[:16] for point in points for value in point]
    return contour


def rectangle(top: float, left: float, bottom: float, right: float) -> list[tuple[float, float]]:
    return [(top, left), (top, right), (bottom, right), (bottom, left)]


def rtstruct(path: Path, rois: dict[str, Sequence[Dataset]], frames: Sequence[str] = (FRAME,)) -> Path:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = RTStructureSetStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = uid(1, "rtstruct")
    dataset.Modality = "RTSTRUCT"
    dataset.StructureSetROISequence, dataset.ROIContourSequence = [], []
    for index, (name, contours) in enumerate(rois.items()):
        roi, drawn = Dataset(), Dataset()
        roi.ROINumber = drawn.ReferencedROINumber = index + 1
        roi.ROIName = name
        roi.ReferencedFrameOfReferenceUID = frames[index % len(frames)]
        drawn.ContourSequence = list(contours)
        dataset.StructureSetROISequence.append(roi)
        dataset.ROIContourSequence.append(drawn)
    dataset.save_as(path, enforce_file_format=True)
    return path


def nifti(path: Path, labels: np.ndarray, index_to_lps: np.ndarray) -> Path:
    write_nifti(path, labels, even_geometry(index_to_lps, labels.shape))
    return path


def box() -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:6, 5:15, 8:24] = 1
    return labels


def box_contours(grid: np.ndarray, slices: Sequence[float] = range(2, 6)) -> list[Dataset]:
    return [ring(grid, k, rectangle(4.5, 7.5, 14.5, 23.5)) for k in slices]


@pytest.mark.parametrize("orientation", ["HFS", "FFS", "prone", "coronal", "sagittal", "oblique"])
def test_contours_of_a_box_are_its_voxels_in_every_orientation(orientation: str, tmp_path: Path) -> None:
    grid = affine(SHAPE, SPACING_MM, orientation, (12.0, -30.0, 7.0))
    mask = nifti(tmp_path / "mask.nii.gz", box(), grid)
    truth = rtstruct(tmp_path / "truth.dcm", {"Box": box_contours(grid)})
    result = compare_files(mask, truth)
    (row,) = result.rows
    assert (row.truth, row.dice, row.hausdorff95_mm, row.surface_dice) == ("Box", 1.0, 0.0, 1.0)
    assert row.difference_ml == pytest.approx(0.0)
    assert result.warnings == ()
    assert result.same_grid


def test_a_mask_whose_array_runs_through_other_axes_is_met_all_the_same(tmp_path: Path) -> None:
    grid = affine(SHAPE, SPACING_MM, "HFS")
    truth = rtstruct(tmp_path / "truth.dcm", {"Box": box_contours(grid)})
    exchanged = grid[:, [2, 0, 1, 3]]  # an array (columns, slices, rows)
    mask = nifti(tmp_path / "mask.nii.gz", box().transpose(2, 0, 1), exchanged)
    assert compare_files(mask, truth).rows[0].dice == 1.0


def test_a_contour_within_another_is_a_hole_and_one_beside_it_is_not(tmp_path: Path) -> None:
    grid = affine(SHAPE, SPACING_MM)
    labels = box()
    labels[2:6, 8:12, 10:14] = 0
    labels[2:6, 20:25, 2:9] = 1
    contours = [
        ring(grid, k, corners)
        for k in range(2, 6)
        for corners in (
            rectangle(4.5, 7.5, 14.5, 23.5),
            rectangle(7.5, 9.5, 11.5, 13.5),
            rectangle(19.5, 1.5, 24.5, 8.5),
        )
    ]
    truth = rtstruct(tmp_path / "truth.dcm", {"Box": contours})
    assert compare_files(nifti(tmp_path / "m.nii.gz", labels, grid), truth).rows[0].dice == 1.0


def test_a_keyhole_is_a_hole(tmp_path: Path) -> None:
    grid = affine(SHAPE, SPACING_MM)
    labels = box()
    labels[2:6, 8:12, 10:14] = 0
    outer, inner = rectangle(4.5, 7.5, 14.5, 23.5), rectangle(7.5, 9.5, 11.5, 13.5)
    keyhole = [*outer, outer[0], *inner[::-1], inner[-1], outer[0]]
    truth = rtstruct(tmp_path / "t.dcm", {"Box": [ring(grid, k, keyhole) for k in range(2, 6)]})
    assert compare_files(nifti(tmp_path / "m.nii.gz", labels, grid), truth).rows[0].dice == 1.0


def test_structures_may_overlap_and_match_by_name(tmp_path: Path) -> None:
    grid = affine(SHAPE, SPACING_MM)
    other = [ring(grid, k, rectangle(9.5, 12.5, 19.5, 29.5)) for k in range(3, 7)]
    truth = rtstruct(tmp_path / "t.dcm", {"Other": other, "BOX": box_contours(grid)})
    mask = nifti(tmp_path / "m.nii.gz", box(), grid)
    result = compare_files(mask, truth, names={1: "box"})
    assert [(row.truth, row.dice) for row in result.rows] == [("BOX", 1.0)]
    assert result.only_in_truth == ("Other",)
    merged = compare_files(mask, truth, {"1": [1, 2]}).rows[0]
    overlap = 3 * 5 * 11
    assert merged.truth_volume_ml == pytest.approx((640 + 4 * 10 * 17 - overlap) * 3.0 * 0.8 * 0.7 / 1000)


def test_contours_on_thicker_slices_stand_for_all_slices_that_they_cover(tmp_path: Path) -> None:
    grid = affine((24, *SHAPE[1:]), (1.0, 0.8, 0.7))
    labels = box().repeat(3, axis=0)
    contours = box_contours(grid, [7, 10, 13, 16])  # slices 6-8, 9-11, 12-14, 15-17
    truth = rtstruct(tmp_path / "t.dcm", {"Box": contours})
    assert compare_files(nifti(tmp_path / "m.nii.gz", labels, grid), truth).rows[0].dice == 1.0


def test_what_lies_far_apart_on_single_slices_is_not_joined(tmp_path: Path) -> None:
    grid = affine((60, *SHAPE[1:]), (1.0, 0.8, 0.7))
    truth = rtstruct(tmp_path / "t.dcm", {"Two": box_contours(grid, [5, 50])})
    mask = nifti(tmp_path / "m.nii.gz", np.repeat(box()[2:3], 60, 0), grid)
    (row,) = compare_files(mask, truth).rows
    assert row.truth_volume_ml == pytest.approx(2 * 5 * 160 * 0.8 * 0.7 / 1000)  # 5 mm thick at most


def test_contours_beyond_the_mask_count_as_missed_and_are_told(tmp_path: Path) -> None:
    grid = affine(SHAPE, SPACING_MM)
    truth = rtstruct(tmp_path / "t.dcm", {"Box": box_contours(grid)})
    part = nifti(tmp_path / "m.nii.gz", box()[:4], grid)
    result = compare_files(part, truth)
    assert result.rows[0].dice == pytest.approx(2 * 2 / (2 + 4))
    assert "mL of the truth lie where the mask has no image" in result.warnings[0]


def test_points_and_open_lines_are_left_out_with_a_warning(tmp_path: Path) -> None:
    grid = affine(SHAPE, SPACING_MM)
    marks = [ring(grid, 2, [(1, 1)], "POINT"), ring(grid, 2, rectangle(1, 1, 3, 3), "OPEN_PLANAR")]
    truth = rtstruct(tmp_path / "t.dcm", {"Box": [*box_contours(grid), *marks]})
    result = compare_files(nifti(tmp_path / "m.nii.gz", box(), grid), truth)
    assert result.rows[0].dice == 1.0
    assert result.warnings == (
        "1 contours of Box are POINT and enclose nothing; they were left out.",
        "1 contours of Box are OPEN_PLANAR and enclose nothing; they were left out.",
    )


def test_a_roi_without_contours_is_empty(tmp_path: Path) -> None:
    grid = affine(SHAPE, SPACING_MM)
    truth = rtstruct(tmp_path / "t.dcm", {"Box": []})
    (row,) = compare_files(nifti(tmp_path / "m.nii.gz", box(), grid), truth).rows
    assert (row.dice, row.truth_volume_ml, row.difference_percent) == (0.0, 0.0, None)


def seg(path: Path, frame_uid: str) -> Path:
    algorithm = hd.AlgorithmIdentificationSequence("test", codes.DCM.ArtificialIntelligence, "1")
    described = hd.seg.SegmentDescription(
        1, "Box", codes.SCT.Tissue, codes.SCT.Bone, "AUTOMATIC", algorithm_identification=algorithm
    )
    source = ct_series(SHAPE, SPACING_MM, FrameOfReferenceUID=frame_uid)
    kind = hd.seg.SegmentationTypeValues.BINARY
    hd.seg.Segmentation(
        source, box(), kind, [described], hd.UID(), 1, hd.UID(), 1, "M", "N", "1", "S"
    ).save_as(path)
    return path


def test_a_seg_chooses_the_contours_of_its_frame_of_reference(tmp_path: Path) -> None:
    grid = affine(SHAPE, SPACING_MM)
    moved = grid.copy()
    moved[:3, 3] += 40.0
    rois = {"Box": box_contours(grid), "Elsewhere": box_contours(moved)}
    truth = rtstruct(tmp_path / "t.dcm", rois, [FRAME, uid(1, "other frame")])
    result = compare_files(seg(tmp_path / "seg.dcm", FRAME), truth)
    assert [(row.label, row.dice) for row in result.rows] == [("Box", 1.0)]
    assert result.warnings == ("In another frame of reference, left out: Elsewhere.",)


def test_a_nifti_mask_cannot_choose_between_frames_of_reference(tmp_path: Path) -> None:
    grid = affine(SHAPE, SPACING_MM)
    rois = {"Box": box_contours(grid), "Elsewhere": box_contours(grid)}
    truth = rtstruct(tmp_path / "t.dcm", rois, [FRAME, uid(1, "other frame")])
    mask = nifti(tmp_path / "m.nii.gz", box(), grid)
    with pytest.raises(AiError, match="2 frames of reference"):
        compare_files(mask, truth)


def test_another_frame_of_reference_is_told(tmp_path: Path) -> None:
    truth = rtstruct(tmp_path / "t.dcm", {"Box": box_contours(affine(SHAPE, SPACING_MM))})
    result = compare_files(seg(tmp_path / "seg.dcm", uid(1, "third")), truth)
    assert result.rows[0].dice == 1.0
    assert result.warnings == ("The contours have another Frame of Reference UID than the mask.",)


def test_contours_are_taken_on_either_side_but_not_on_both(tmp_path: Path) -> None:
    grid = affine(SHAPE, SPACING_MM)
    contours = rtstruct(tmp_path / "t.dcm", {"Box": box_contours(grid)})
    mask = nifti(tmp_path / "m.nii.gz", box(), grid)
    assert compare_files(contours, mask).rows[0].dice == 1.0
    with pytest.raises(AiError, match="CONTOURS_WITHOUT_GRID"):
        compare_files(contours, contours)


def test_contours_oblique_to_the_mask_are_refused_by_name(tmp_path: Path) -> None:
    truth = rtstruct(tmp_path / "t.dcm", {"Box": box_contours(affine(SHAPE, SPACING_MM, "oblique"))})
    with pytest.raises(AiError, match="CONTOURS_OBLIQUE"):
        compare_files(nifti(tmp_path / "m.nii.gz", box(), affine(SHAPE, SPACING_MM)), truth)


def test_a_damaged_contour_is_refused_by_name(tmp_path: Path) -> None:
    grid = affine(SHAPE, SPACING_MM)
    contours = box_contours(grid)
    contours[1].ContourData = contours[1].ContourData[:-1]
    truth = rtstruct(tmp_path / "t.dcm", {"Box": contours})
    with pytest.raises(AiError, match="RTSTRUCT_UNREADABLE"):
        compare_files(nifti(tmp_path / "m.nii.gz", box(), grid), truth)


def test_polygons_that_share_an_edge_share_no_pixel_and_leave_none_out() -> None:
    left, right = np.array(rectangle(2, 2, 9, 5)), np.array(rectangle(2, 5, 9, 11))
    one, other = fill([left], (12, 14)), fill([right], (12, 14))
    assert not (one & other).any()
    np.testing.assert_array_equal(one | other, fill([np.array(rectangle(2, 2, 9, 11))], (12, 14)))
    assert one.sum() == 7 * 3


@pytest.mark.parametrize("seed", range(5))
def test_filling_agrees_with_point_in_polygon(seed: int) -> None:
    generator = np.random.default_rng(seed)
    polygon = generator.uniform(-3, 33, (12, 2))  # crosses itself, and the edges of the image
    rows, columns = 30, 28
    inside = np.zeros((rows, columns), np.bool_)
    for r in range(rows):
        for c in range(columns):
            crossings = 0
            for (y0, x0), (y1, x1) in zip(polygon, np.roll(polygon, -1, 0), strict=True):
                if (y0 <= r) != (y1 <= r):
                    crossings += x0 + (r - y0) * (x1 - x0) / (y1 - y0) <= c
            inside[r, c] = crossings % 2 == 1
    np.testing.assert_array_equal(fill([polygon], (rows, columns)), inside)


def test_a_smooth_contour_has_the_area_of_another_rasteriser(tmp_path: Path) -> None:
    angle = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    circle = np.stack([60 + 41.3 * np.sin(angle), 64 + 38.7 * np.cos(angle)], axis=1)
    ours = fill([circle], (128, 128))
    fine = Image.new("1", (128 * 8, 128 * 8))
    ImageDraw.Draw(fine).polygon([((x + 0.5) * 8, (y + 0.5) * 8) for y, x in circle], fill=1)
    assert ours.sum() == pytest.approx(np.asarray(fine).sum() / 64, rel=0.005)
    assert ours.sum() == pytest.approx(np.pi * 41.3 * 38.7, rel=0.005)
