"""NIfTI files: same voxels at the same places of the patient."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ai.errors import AiError
from ai.geometry import VolumeGeometry
from ai.nifti import read_nifti, write_nifti
from tests.builders import ORIENTATIONS, affine
from tests.runs import even_geometry

SHAPE = (4, 5, 6)
SPACING_MM = (2.5, 0.8, 0.5)


def geometry(orientation: str) -> VolumeGeometry:
    return even_geometry(affine(SHAPE, SPACING_MM, orientation, (-10.0, 20.0, 30.0)), SHAPE)


def labels() -> np.ndarray:
    return np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(np.uint8)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_voxel_lies_at_the_same_place_of_the_patient_for_nibabel(orientation: str, tmp_path: Path) -> None:
    write_nifti(tmp_path / "mask.nii.gz", labels(), geometry(orientation))
    image = nib.load(tmp_path / "mask.nii.gz")
    for index in [(0, 0, 0), (3, 1, 2), (1, 4, 5)]:
        ras = image.affine @ [index[2], index[1], index[0], 1]
        lps = geometry(orientation).index_to_lps @ [*index, 1]
        np.testing.assert_allclose(ras, [-lps[0], -lps[1], lps[2], 1], atol=1e-4)
        assert np.asanyarray(image.dataobj)[index[::-1]] == labels()[index]


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_reading_gives_back_voxels_and_affine(orientation: str, tmp_path: Path) -> None:
    write_nifti(tmp_path / "mask.nii", labels(), geometry(orientation))
    grid = read_nifti(tmp_path / "mask.nii")
    np.testing.assert_array_equal(grid.voxels, labels())
    np.testing.assert_allclose(grid.index_to_lps, geometry(orientation).index_to_lps, atol=1e-4)


def test_sform_and_qform_agree_and_are_in_scanner_millimetres(tmp_path: Path) -> None:
    write_nifti(tmp_path / "mask.nii.gz", labels(), geometry("oblique"))
    header = nib.load(tmp_path / "mask.nii.gz").header
    (sform, sform_code), (qform, qform_code) = header.get_sform(coded=True), header.get_qform(coded=True)
    assert (sform_code, qform_code) == (1, 1)
    np.testing.assert_allclose(sform, qform, atol=1e-3)
    assert header.get_xyzt_units()[0] == "mm"


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.nii.gz", "b.nii.gz"):
        write_nifti(tmp_path / name, labels(), geometry("HFS"))
    first, second = ((tmp_path / name).read_bytes() for name in ("a.nii.gz", "b.nii.gz"))
    assert first == second


def test_voxels_of_another_shape_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the geometry"):
        write_nifti(tmp_path / "mask.nii", labels().T, geometry("HFS"))


def test_what_is_no_nifti_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "text.nii").write_text("not an image", encoding="utf-8")
    write_nifti(tmp_path / "whole.nii.gz", labels(), geometry("HFS"))
    (tmp_path / "cut.nii.gz").write_bytes((tmp_path / "whole.nii.gz").read_bytes()[:100])
    for name in ("text.nii", "cut.nii.gz", "absent.nii"):
        with pytest.raises(AiError) as refused:
            read_nifti(tmp_path / name)
        assert refused.value.code == "NIFTI_UNREADABLE"
        assert name in refused.value.reason
