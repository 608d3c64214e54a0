"""The Segmentation as independent tools see it: dicom3tools checks it, dcmqi reads the mask back."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest

from ai.results.context import ResultContext
from ai.results.encode import encode
from ai.results.seg import build_seg
from tests.unit.seg_context import SHAPE, small_context, torso_context

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def tool(name: str) -> str:
    path = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def write_seg(context: ResultContext, folder: Path) -> Path:
    path = folder / "seg.dcm"
    path.write_bytes(encode(build_seg(context), "1.2.3"))
    return path


def dcmqi_label_map(seg: Path, context: ResultContext) -> npt.NDArray[np.uint8]:
    """What dcmqi reads, on the grid of our label map by patient position alone."""
    out = seg.parent / "itk"
    out.mkdir()
    command = [tool("segimage2itkimage"), "-t", "nifti", "-p", "s", "--mergeSegments"]
    subprocess.run(
        [*command, "--inputDICOM", str(seg), "--outputDirectory", str(out)],
        check=True,
        capture_output=True,
        timeout=120,
    )
    labels = np.zeros(context.labels.shape, np.uint8)
    lps_to_index = np.linalg.inv(context.series.volume.geometry.index_to_lps)
    (path,) = sorted(out.glob("*.nii*"))
    image: Any = nib.load(path)
    voxels = np.asarray(image.dataobj)
    filled = np.argwhere(voxels)
    lps = LPS_TO_RAS @ image.affine @ np.c_[filled, np.ones(len(filled))].T
    index = (lps_to_index @ lps)[:3].T
    assert np.abs(index - np.rint(index)).max(initial=0.0) < 0.01, "a voxel lies off our grid"
    labels[tuple(np.rint(index).astype(int).T)] = voxels[tuple(filled.T)]
    return labels


def dciodvfy_errors(path: Path) -> list[str]:
    done = subprocess.run([tool("dciodvfy"), str(path)], capture_output=True, text=True, timeout=120)
    return [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]


@pytest.mark.parametrize("orientation", ["HFS", "FFS", "prone", "oblique"])
def test_the_asymmetric_torso_comes_back_unmirrored(orientation: str, tmp_path: Path) -> None:
    context = torso_context(orientation)
    assert set(np.unique(context.labels)) >= {1, 2, 3, 4}
    read = dcmqi_label_map(write_seg(context, tmp_path), context)
    np.testing.assert_array_equal(read, context.labels)


def test_an_absent_structure_is_still_listed_for_a_reader(tmp_path: Path) -> None:
    """dcmqi reads the small case with bone absent; dcmdump lists the segment all the same."""
    context = small_context()
    seg = write_seg(context, tmp_path)
    np.testing.assert_array_equal(dcmqi_label_map(seg, context), context.labels)
    dump = subprocess.run([tool("dcmdump"), "+P", "0062,0005", str(seg)], capture_output=True, check=True)
    labels = [line.split("[")[1].split("]")[0] for line in dump.stdout.decode().splitlines()]
    assert labels == ["Body", "Left lung", "Right lung", "Bone", "Metal implant"]


def test_dicom3tools_finds_no_error(tmp_path: Path) -> None:
    assert dciodvfy_errors(write_seg(torso_context("oblique"), tmp_path)) == []


def test_dicom3tools_finds_no_error_when_nothing_was_found(tmp_path: Path) -> None:
    context = small_context(labels=np.zeros(SHAPE, np.uint8))
    assert dciodvfy_errors(write_seg(context, tmp_path)) == []
