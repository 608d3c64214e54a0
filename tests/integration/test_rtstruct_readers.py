"""RT structure sets before tools that share no code with ours: dicom3tools and plastimatch.

plastimatch fills the contours on the grid of the images that they were drawn on.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from scipy import ndimage

from ai.results.context import ResultContext
from ai.results.encode import encode
from ai.results.rtstruct import build_rtstruct
from ai.volume import LabelArray, read_series
from tests import builders, odd_series
from tests.runs import run_of, torso_run

FIXTURES = Path(__file__).parents[3] / "shared" / "data" / "fixture"
PLASTIMATCH = Path(sys.executable).parent / "plastimatch"
SHAPE, SPACING_MM = (12, 56, 48), (5.0, 3.1, 4.3)
REAL = {
    "CT of the body, J2K": "ct_body_siemens_j2k_totalseg/dicom",
    "CT of the chest": "ct_chest_lidc0314/dicom_native_sub",
    "MR crop": "mr_hippocrop_dicom",
}
AWKWARD: dict[str, Callable[[], list[Dataset]]] = {
    "sheared tilt": lambda: builders.with_sheared_tilt(builders.ct_series(SHAPE, SPACING_MM), 15.0),
    "true tilt": lambda: builders.with_true_tilt(builders.ct_series(SHAPE, SPACING_MM), -20.0),
    "uneven": lambda: odd_series.at_heights(
        builders.ct_series(SHAPE, SPACING_MM), 60.0 * np.linspace(0.0, 1.0, SHAPE[0]) ** 1.5
    ),
    "enhanced": lambda: [odd_series.enhanced(builders.ct_series(SHAPE, SPACING_MM))],
    "one slice": lambda: builders.ct_series((1, 30, 34)),
}


@dataclass(frozen=True)
class Case:
    """A structure set and its images as files."""

    context: ResultContext
    images: Path
    structures: Path


def shapes(shape: tuple[int, int, int]) -> LabelArray:
    """Rings with islands, one-pixel lines and single pixels, on every slice elsewhere."""
    labels = np.zeros(shape, np.uint8)
    rows, columns = np.mgrid[: shape[1], : shape[2]]
    for k in range(shape[0]):
        away = np.hypot(rows - 22 - k / 3, columns - 20 - k / 2)
        labels[k][away < 14] = 1
        labels[k][away < 8] = 0
        labels[k][away < 3] = 1
        labels[k, 46, 4 : 40 - k] = 2
        labels[k, 41:51, 30] = 2
        labels[k, 3, 3 + k] = labels[k, 5, 4 + k] = 3
        labels[k, 40:44, 40:46] = 4
    return labels


def soft(voxels: np.ndarray) -> LabelArray:
    """Regions of a real image, with holes and islands: thresholds of the smoothed voxels."""
    smooth = ndimage.gaussian_filter(voxels.astype(np.float32), (0.5, 2.0, 2.0))
    low, high = np.quantile(smooth, (0.6, 0.9))
    labels: LabelArray = (smooth > low).astype(np.uint8) + (smooth > high).astype(np.uint8)
    return labels


def written(context: ResultContext, folder: Path) -> Case:
    """The structure set of a run, and its source slices without their voxels."""
    structures = build_rtstruct(context)
    assert structures is not None
    (folder / "rtstruct.dcm").write_bytes(encode(structures, "1.2.3"))
    blank = []
    for header in context.series.datasets:
        image = Dataset()
        image.update(header)
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.PixelData = bytes(2 * image.Rows * image.Columns)
        image.BitsAllocated = 16
        blank.append(image)
    builders.write_series(blank, folder / "images")
    return Case(context, folder / "images", folder / "rtstruct.dcm")


def made(name: str) -> ResultContext:
    if name.endswith("torso"):
        return torso_run(name.removesuffix("torso").strip() or "HFS")
    datasets = builders.ct_series(SHAPE, SPACING_MM, name)
    base = torso_run(name, SHAPE, SPACING_MM)
    base.series.__dict__["datasets"] = tuple(builders.without(datasets, "PixelData"))
    return run_of(base.series, shapes(SHAPE))


def real(name: str) -> ResultContext:
    folder = FIXTURES / REAL[name]
    if not folder.exists():
        pytest.skip(f"the real images (../shared/data) are not on this machine: {REAL[name]}")
    series = read_series(sorted(path for path in folder.rglob("*") if path.is_file()))
    return run_of(series, soft(series.volume.voxels))


@pytest.fixture(
    scope="module",
    params=[
        *("torso", "oblique torso", "coronal torso", "sagittal torso"),
        *("HFS", "FFS", "prone", "decubitus_left", "coronal", "sagittal", "oblique"),
        *REAL,
    ],
)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    context = real(request.param) if request.param in REAL else made(request.param)
    return written(context, tmp_path_factory.mktemp("rtstruct"))


def test_plastimatch_fills_the_contours_as_the_mask(case: Case, tmp_path: Path) -> None:
    command = [str(PLASTIMATCH), "convert", "--input", str(case.structures), "--prefix-format", "nrrd"]
    command += ["--referenced-ct", str(case.images), "--output-prefix", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout[-500:]
    geometry = case.context.series.volume.geometry
    found = 0
    for structure in case.context.spec.structures:
        expected = case.context.labels == structure.number
        if not expected.any():
            continue
        image = sitk.ReadImage(str(tmp_path / f"{structure.label}.nrrd"))
        filled = _on_grid(image, geometry.index_to_lps, geometry.shape)
        dice = 2.0 * np.sum(filled & expected) / (filled.sum() + expected.sum())
        assert dice >= 0.99, f"{structure.label}: {dice:.4f}"
        found += 1
    assert found >= 2


def _on_grid(image: Any, index_to_lps: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """The nearest voxels of an image on another grid."""
    steps = index_to_lps[:3, [2, 1, 0]]  # ITK's index is (column, row, slice)
    spacing = np.linalg.norm(steps, axis=0)
    itk: Any = sitk
    like = itk.Image(shape[2], shape[1], shape[0], itk.sitkUInt8)
    like.SetOrigin(index_to_lps[:3, 3].tolist())
    like.SetSpacing(spacing.tolist())
    like.SetDirection((steps / spacing).reshape(-1).tolist())
    moved = itk.Resample(image, like, itk.Transform(), itk.sitkNearestNeighbor, 0)
    return np.asarray(itk.GetArrayFromImage(moved)) > 0


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is not installed")
def test_dciodvfy_finds_no_error(case: Case) -> None:
    _assert_valid(case.structures)


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is not installed")
@pytest.mark.parametrize("name", AWKWARD)
def test_dciodvfy_finds_no_error_for_awkward_series(name: str, tmp_path: Path) -> None:
    series = read_series(builders.write_series(AWKWARD[name](), tmp_path / "in"))
    labels = np.zeros(series.volume.geometry.shape, np.uint8)
    labels[:, 3:20, 4:22], labels[:, 8:12, 8:12] = 1, 0
    structures = build_rtstruct(run_of(series, labels))
    assert structures is not None
    (tmp_path / "rtstruct.dcm").write_bytes(encode(structures, "1.2.3"))
    _assert_valid(tmp_path / "rtstruct.dcm")


def _assert_valid(path: Path) -> None:
    done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False, timeout=60)
    lines = (done.stdout + done.stderr).splitlines()
    assert "RTStructureSet" in lines
    assert [line for line in lines if line.startswith("Error")] == []
