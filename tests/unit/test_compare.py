"""Comparison of two segmentations."""

from __future__ import annotations

import json
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from pydicom.sr.codedict import codes

from ai.compare import compare_files
from ai.errors import AiError
from ai.geometry import VolumeGeometry
from ai.nifti import write_nifti
from tests.builders import affine, ct_series
from tests.runs import even_geometry

SHAPE = (6, 20, 24)
SPACING_MM = (3.0, 0.8, 0.7)


def geometry(
    orientation: str = "HFS", shape: tuple[int, int, int] = SHAPE, scale: float = 1.0
) -> VolumeGeometry:
    spacing = (SPACING_MM[0], SPACING_MM[1] * scale, SPACING_MM[2] * scale)
    return even_geometry(affine(shape, spacing), shape)


def labels() -> np.ndarray:
    """Two boxes that no flip or swap of axes maps onto themselves."""
    result = np.zeros(SHAPE, np.uint8)
    result[0:3, 2:9, 3:8] = 1
    result[4:6, 10:18, 12:22] = 2
    return result


def nifti(path: Path, voxels: np.ndarray, where: VolumeGeometry) -> Path:
    write_nifti(path, voxels, where)
    return path


def seg(path: Path, voxels: np.ndarray, kind: hd.seg.SegmentationTypeValues) -> Path:
    algorithm = hd.AlgorithmIdentificationSequence("test", codes.DCM.ArtificialIntelligence, "1")
    descriptions = [
        hd.seg.SegmentDescription(
            number, label, codes.SCT.Tissue, codes.SCT.Bone, "AUTOMATIC", algorithm_identification=algorithm
        )
        for number, label in enumerate(("First box", "Second box"), start=1)
    ]
    hd.seg.Segmentation(
        ct_series(SHAPE, SPACING_MM), voxels, kind, descriptions, hd.UID(), 1, hd.UID(), 1, "M", "N", "1", "S"
    ).save_as(path)
    return path


def test_equal_maps_have_dice_one_and_no_difference(tmp_path: Path) -> None:
    mask = nifti(tmp_path / "mask.nii.gz", labels(), geometry())
    result = compare_files(mask, mask)
    assert result.same_grid
    assert [(row.number, row.dice, row.difference_ml) for row in result.rows] == [
        (1, 1.0, 0.0),
        (2, 1.0, 0.0),
    ]
    assert result.rows[0].volume_ml == pytest.approx(3 * 7 * 5 * 3.0 * 0.8 * 0.7 / 1000)


def test_the_same_map_stored_with_flipped_and_exchanged_axes_is_matched_exactly(tmp_path: Path) -> None:
    mask = nifti(tmp_path / "mask.nii.gz", labels(), geometry())
    flip = np.zeros((4, 4))
    flip[3, 3] = 1.0
    flip[[0, 1, 2], [2, 1, 0]] = (1.0, -1.0, 1.0)  # stored as (column, row backwards, slice)
    flip[1, 3] = SHAPE[1] - 1
    other = even_geometry(geometry().index_to_lps @ flip, SHAPE[::-1])
    truth = nifti(tmp_path / "truth.nii.gz", labels()[:, ::-1].transpose(2, 1, 0), other)
    result = compare_files(mask, truth)
    assert result.same_grid
    assert [row.dice for row in result.rows] == [1.0, 1.0]


def test_a_mirrored_map_is_not_taken_for_the_same(tmp_path: Path) -> None:
    mask = nifti(tmp_path / "mask.nii.gz", labels(), geometry())
    truth = nifti(tmp_path / "truth.nii.gz", labels()[:, :, ::-1], geometry())
    assert all(row.dice is not None and row.dice < 0.5 for row in compare_files(mask, truth).rows)


def test_another_grid_is_resampled_and_said_so(tmp_path: Path) -> None:
    mask = nifti(tmp_path / "mask.nii.gz", labels(), geometry())
    fine = labels().repeat(2, 1).repeat(2, 2)
    truth = nifti(tmp_path / "truth.nii.gz", fine, geometry(shape=(6, 40, 48), scale=0.5))
    result = compare_files(mask, truth)
    assert not result.same_grid
    assert [row.dice for row in result.rows] == [1.0, 1.0]
    assert result.rows[0].difference_ml == pytest.approx(0)


def test_difference_in_volume_is_signed_and_relative_to_the_truth(tmp_path: Path) -> None:
    smaller = labels()
    smaller[0:1] = 0  # one of three slices of the first box
    mask = nifti(tmp_path / "mask.nii.gz", smaller, geometry())
    truth = nifti(tmp_path / "truth.nii.gz", labels(), geometry())
    row = compare_files(mask, truth).rows[0]
    assert row.dice == pytest.approx(0.8)
    assert row.difference_percent == pytest.approx(-100 / 3)
    assert row.difference_ml == pytest.approx(row.volume_ml - row.truth_volume_ml)


def test_a_structure_only_in_the_truth_has_dice_zero(tmp_path: Path) -> None:
    mask = nifti(tmp_path / "mask.nii.gz", np.where(labels() == 1, 1, 0).astype(np.uint8), geometry())
    truth = nifti(tmp_path / "truth.nii.gz", labels(), geometry())
    row = compare_files(mask, truth).rows[1]
    assert (row.number, row.dice, row.difference_percent) == (2, 0.0, -100.0)


def test_labels_of_the_truth_can_be_merged_by_name_or_number(tmp_path: Path) -> None:
    run = {"segments": [{"number": 1, "label": "Both boxes"}]}
    (tmp_path / "run.json").write_text(json.dumps(run), encoding="utf-8")
    mask = nifti(tmp_path / "mask.nii.gz", (labels() > 0).astype(np.uint8), geometry())
    (tmp_path / "truth").mkdir()
    truth = nifti(tmp_path / "truth" / "truth.nii.gz", labels(), geometry())
    for label in ("both_boxes", "1"):
        result = compare_files(mask, truth, {label: [1, 2]})
        assert [(row.label, row.truth, row.dice) for row in result.rows] == [("Both boxes", "1 + 2", 1.0)]
        assert result.only_in_truth == ()


def test_an_unknown_label_in_the_mapping_is_refused_with_what_exists(tmp_path: Path) -> None:
    mask = nifti(tmp_path / "mask.nii.gz", labels(), geometry())
    with pytest.raises(AiError, match=r"LABEL_UNKNOWN.*it has 1, 2"):
        compare_files(mask, mask, {"Spleen": [1]})


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_a_dicom_seg_equals_the_nifti_of_the_same_mask(kind: str, tmp_path: Path) -> None:
    mask = seg(tmp_path / "seg.dcm", labels(), hd.seg.SegmentationTypeValues(kind))
    truth = nifti(tmp_path / "truth.nii.gz", labels(), geometry())
    for first, second in ((mask, truth), (truth, mask), (mask, mask)):
        result = compare_files(first, second)
        assert result.same_grid
        assert [row.dice for row in result.rows] == [1.0, 1.0]
    assert [row.label for row in compare_files(mask, mask).rows] == ["First box", "Second box"]


def test_labels_match_by_name_where_both_sides_have_names(tmp_path: Path) -> None:
    mask = nifti(tmp_path / "mask.nii.gz", (3 - labels()) * (labels() > 0), geometry())  # numbers exchanged
    truth = seg(tmp_path / "seg.dcm", labels(), hd.seg.SegmentationTypeValues.BINARY)
    result = compare_files(mask, truth, names={1: "second box", 2: "First  box", 3: "Other"})
    assert [(row.number, row.truth, row.dice) for row in result.rows] == [
        (1, "Second box", 1.0),
        (2, "First box", 1.0),
    ]
    assert result.only_in_mask == ("Other",)


def test_grids_that_do_not_meet_are_refused(tmp_path: Path) -> None:
    mask = nifti(tmp_path / "mask.nii.gz", labels(), geometry())
    far = geometry().index_to_lps.copy()
    far[2, 3] += 500
    truth = nifti(tmp_path / "truth.nii.gz", labels(), even_geometry(far, SHAPE))
    with pytest.raises(AiError, match="GRIDS_APART"):
        compare_files(mask, truth)


def test_files_that_are_no_segmentation_are_refused_by_name(tmp_path: Path) -> None:
    mask = nifti(tmp_path / "mask.nii.gz", labels(), geometry())
    image = ct_series(SHAPE, SPACING_MM)[0]
    image.save_as(tmp_path / "ct.dcm", enforce_file_format=True)
    for name, code in (("ct.dcm", "SEG_UNREADABLE"), ("absent.nii.gz", "FILE_UNREADABLE")):
        with pytest.raises(AiError) as refused:
            compare_files(mask, tmp_path / name)
        assert refused.value.code == code


def test_the_result_is_plain_json(tmp_path: Path) -> None:
    mask = nifti(tmp_path / "mask.nii.gz", labels(), geometry())
    written = json.loads(json.dumps(compare_files(mask, mask).to_dict()))
    assert written["same_grid"] is True
    assert written["rows"][1]["dice"] == 1.0
