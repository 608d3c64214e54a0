"""Folders of cases, and segmentations of other makers."""

from __future__ import annotations

import json
from pathlib import Path

import highdicom as hd
import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from ai.compare import compare, compare_cases, compare_files, read_segmentation
from ai.compare.segmentation import place
from ai.errors import AiError
from ai.nifti import write_nifti
from gateway.cli.app import build_app
from tests.builders import affine
from tests.runs import even_geometry

SHAPE = (5, 12, 14)
DATA = Path(__file__).parents[3] / "shared" / "data" / "fixture"


def labels(shift: int = 0) -> np.ndarray:
    result = np.zeros(SHAPE, np.uint8)
    result[1:4, 2:8, 2 + shift : 8 + shift] = 1
    result[1:4, 9:11, 2:8] = 2
    return result


def write(path: Path, voxels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_nifti(path, voxels, even_geometry(affine(SHAPE, (2.0, 1.0, 1.0)), SHAPE))
    return path


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Cases a (as it should be), b (shifted), c (damaged), and one more on either side."""
    masks, truths = tmp_path / "masks", tmp_path / "truths"
    for name, shift in (("a", 0), ("b", 2)):
        write(masks / name / "mask.nii.gz", labels(shift))
        segments = [{"number": n, "label": f"Part {n}"} for n in (1, 2)]
        (masks / name / "run.json").write_text(json.dumps({"segments": segments}), encoding="utf-8")
    write(masks / "d.nii.gz", labels())
    write(masks / ".hidden.nii.gz", labels())
    for name in "abce":
        write(truths / f"{name}.nii.gz", labels())
    (masks / "c.nii.gz").write_bytes((truths / "c.nii.gz").read_bytes()[:60])
    return masks, truths


def test_cases_match_by_name_and_one_that_fails_does_not_end_the_others(folders: tuple[Path, Path]) -> None:
    result = compare_cases(*folders)
    assert [case.name for case in result.cases] == ["a", "b", "c"]
    assert (result.only_in_masks, result.only_in_truths) == (("d",), ("e",))
    told = result.to_dict()
    first, second, third = told["cases"]
    assert [(row["label"], row["dice"]) for row in first["structures"]] == [("Part 1", 1.0), ("Part 2", 1.0)]
    shifted = 2 * 4 / (6 + 6)
    assert second["mean_dice"] == pytest.approx((shifted + 1) / 2)
    assert second["worst_dice"] == pytest.approx(shifted)
    assert third["error"]["code"] == "NIFTI_UNREADABLE"
    assert told["mean_dice"] == pytest.approx((1 + (shifted + 1) / 2) / 2)
    assert (told["worst_dice"], told["worst_case"]) == (second["mean_dice"], "b")


def test_folders_without_a_common_case_are_refused_with_their_names(folders: tuple[Path, Path]) -> None:
    masks, _ = folders
    with pytest.raises(AiError, match=r"NO_CASES.*masks has a, b, c, d, other has x\."):
        compare_cases(masks, write(masks.parent / "other" / "x.nii.gz", labels()).parent)


def test_one_file_is_one_case_whatever_the_names(folders: tuple[Path, Path]) -> None:
    masks, truths = folders
    for mask in (masks / "a", masks / "a" / "mask.nii.gz"):
        (case,) = compare_cases(mask, truths / "e.nii.gz").cases
        assert case.comparison is not None
        assert case.comparison.mean_dice == 1.0


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(build_app("model"), ["model", *map(str, arguments)])
    return result.exit_code, result.stdout + result.stderr


def test_the_command_ends_with_3_where_some_cases_failed(folders: tuple[Path, Path]) -> None:
    code, text = run("compare", *folders, "--json", "--tolerance-mm", "2.5")
    assert code == 3
    told = json.loads(text)
    assert told["worst_case"] == "b"
    assert {case["tolerance_mm"] for case in told["cases"] if not case["error"]} == {2.5}
    code, text = run("compare", *folders)
    assert code == 3
    for word in ("surface Dice", "HD95 mm", "NIFTI_UNREADABLE", "only among the masks: d", "mean Dice 0.917"):
        assert word in text


def test_the_command_ends_with_0_1_2_or_5(folders: tuple[Path, Path]) -> None:
    masks, truths = folders
    assert run("compare", masks / "a", truths / "a.nii.gz")[0] == 0
    assert run("compare", masks / "c.nii.gz", truths / "c.nii.gz")[0] == 1
    assert run("compare", masks / "a", truths / "a.nii.gz", "--tolerance-mm", "nan")[0] == 2
    assert run("compare", masks / "a", truths / "a.nii.gz", "--merge", "1=x")[0] == 2
    assert run("compare", masks / "nothing", truths)[0] == 5


def test_a_label_that_is_to_be_merged_and_is_not_there_is_told(folders: tuple[Path, Path]) -> None:
    masks, truths = folders
    result = compare_files(masks / "a" / "mask.nii.gz", truths / "a.nii.gz", {"1": [1, 7]})
    assert result.warnings == ("The truth has no label 7, to be merged into 1.",)


def test_a_truth_of_fewer_slices_is_told(tmp_path: Path) -> None:
    where = affine(SHAPE, (2.0, 1.0, 1.0))
    mask = write(tmp_path / "mask.nii.gz", labels())
    write_nifti(tmp_path / "t.nii.gz", labels()[:3], even_geometry(where, (3, *SHAPE[1:])))
    result = compare_files(mask, tmp_path / "t.nii.gz")
    assert result.rows[0].dice == pytest.approx(2 * 2 / (2 + 3))
    (warning,) = result.warnings
    assert warning == "0.096 mL of the mask lie where the truth has no image: they count as wrong."


def test_an_image_given_as_a_label_map_is_refused(tmp_path: Path) -> None:
    mask = write(tmp_path / "mask.nii.gz", labels())
    image = np.full(SHAPE, -1000, np.int16)
    write(tmp_path / "ct.nii.gz", image)
    with pytest.raises(AiError, match=r"NO_LABEL_MAP: ct\.nii\.gz holds values from -1000"):
        compare_files(mask, tmp_path / "ct.nii.gz")


def test_labels_of_a_nifti_with_scale_factors_are_whole_numbers(tmp_path: Path) -> None:
    mask = write(tmp_path / "mask.nii.gz", labels())
    image = nib.load(mask)
    scaled = nib.Nifti1Image(np.asarray(image.dataobj, np.float32) * 1.0000001, image.affine)
    nib.save(scaled, tmp_path / "truth.nii.gz")
    assert [row.dice for row in compare_files(mask, tmp_path / "truth.nii.gz").rows] == [1.0, 1.0]


FOREIGN = {
    "PET by 3D Slicer": ("pet_qin_headneck_with_seg/SEG/tumor_User1_Manual_Trial1.dcm", 2, 1),
    "dcmqi": ("ct3_liver_seg_dcmqi/seg/liver.dcm", 1, 1),
    "dcmqi, overlaps": ("ct3_liver_seg_dcmqi/seg/partial_overlaps.dcm", 5, 3),
    "label map": ("ct3_liver_seg_dcmqi/seg/sparse-labelmap-ppv5.dcm", 1, 1),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_segmentations_of_other_makers_are_read_segment_by_segment(name: str) -> None:
    path, segments, layers = DATA / FOREIGN[name][0], *FOREIGN[name][1:]
    if not path.exists():
        pytest.skip(f"../shared/data is not on this machine: {path.name}")
    found = read_segmentation(path)
    assert len(found.names) == segments
    assert len(found.layers) == layers
    image = hd.seg.segread(path)
    for number in found.names:
        expected = image.get_volume(segment_numbers=[number], combine_segments=False).array[..., 0]
        box = found.own.box((number,))
        assert box is not None
        whole = ((0, 0, 0), found.shape)
        np.testing.assert_array_equal(found.own.cut((number,), whole), expected > 0)
        assert found.voxel_count((number,)) == np.count_nonzero(expected)
    assert all(row.dice == row.jaccard == row.surface_dice == 1.0 for row in compare(found, found).rows)


def test_the_tumour_of_a_pet_lies_on_its_slices(tmp_path: Path) -> None:
    folder = DATA / "pet_qin_headneck_with_seg"
    if not folder.is_dir():
        pytest.skip("../shared/data is not on this machine: pet_qin_headneck_with_seg")
    from ai.folder import find_series
    from ai.volume import read_series

    (files,) = find_series(folder / "PET").values()
    volume = read_series(files).volume
    truth = read_segmentation(folder / "SEG" / "tumor_User1_Manual_Trial1.dcm")
    placed = place(truth, volume.geometry.index_to_lps)
    assert placed.exact
    whole = ((0, 0, 0), volume.geometry.shape)
    tumour = placed.cut(tuple(truth.names), whole)
    assert np.count_nonzero(tumour) == truth.voxel_count(tuple(truth.names)) > 100
    assert volume.voxels[tumour].mean() > 5 * volume.voxels[~tumour].mean()  # it takes up the tracer
    write_nifti(tmp_path / "mask.nii.gz", tumour.astype(np.uint8), volume.geometry)
    result = compare_files(
        tmp_path / "mask.nii.gz", folder / "SEG" / "tumor_User1_Manual_Trial1.dcm", {"1": list(truth.names)}
    )
    assert (result.rows[0].dice, result.same_grid) == (1.0, True)


def test_readers_of_a_nodule_agree_as_their_votes_say() -> None:
    folder = DATA / "ct_chest_lidc0314" / "labels"
    if not folder.is_dir():
        pytest.skip("../shared/data is not on this machine: ct_chest_lidc0314")
    votes = folder / "nodule_reader_votes_0to4.nii.gz"
    result = compare_files(folder / "nodule_consensus_50pct.nii.gz", votes, {"1": [2, 3, 4]})
    (row,) = result.rows
    assert (row.dice, row.hausdorff95_mm) == (1.0, 0.0)
    any_reader = compare_files(folder / "nodule_consensus_50pct.nii.gz", votes, {"1": [1, 2, 3, 4]}).rows[0]
    assert any_reader.dice is not None
    assert 0.5 < any_reader.dice < 1.0
