"""Two readers that share no code with ours: SimpleITK (ITK with GDCM) and dcm2niix."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

FloatArray = npt.NDArray[np.float64]
SAME_PLACE_MM = 1e-3
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_FLOAT32 = 1e-6  # relative rounding of readers that compute in single precision
_DCM2NIIX = Path(sys.executable).parent / "dcm2niix"
_DCM2NIIX_OPTIONS = (
    "-b",
    "n",
    "-z",
    "n",
    "-p",
    "n",
    "-x",
    "n",
    "-f",
    "v%s",
)  # no sidecar, gzip, scaling, crop


@dataclass(frozen=True)
class Grid:
    """Voxels and the 4 × 4 affine of their indices to LPS millimetres; axes in any order."""

    voxels: npt.NDArray[Any]
    index_to_lps: FloatArray


@dataclass(frozen=True)
class Comparison:
    """How another reader's grid compares with ours.

    Attributes
    ----------
    kinds
        What differs; empty where everything agrees. ``shape``: another number of voxels, and then nothing
        else can be said. ``place``: a voxel centre lies elsewhere by more than 1e-3 mm. ``step``: there is
        one slice, and the vector to the next one, which there is not, differs. ``padding``: values differ
        only where the other reader gives the padding value. ``inverted``: our value and the other have one
        sum everywhere. ``rounding``: whole numbers differ by 1 at most. ``values``: otherwise.
    distance_mm
        Largest distance between a corner of our grid and the same voxel in the other's.
    differing
        How many values differ.
    """

    kinds: frozenset[str] = frozenset()
    distance_mm: float = 0.0
    differing: int = 0


def read_with_simpleitk(files: Sequence[Path], folder: Path) -> Grid:
    """The series as ITK reads it; GDCM finds the order of the files itself. Raises RuntimeError."""
    for n, file in enumerate(files):
        (folder / f"{n:05d}.dcm").symlink_to(file.resolve())
    if len(files) == 1:
        image = sitk.ReadImage(str(folder / "00000.dcm"))
    else:
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
        image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return Grid(sitk.GetArrayFromImage(image).swapaxes(0, 2), affine)  # ITK's index is (column, row, slice)


def read_with_dcm2niix(files: Sequence[Path], folder: Path) -> list[Grid]:
    """What dcm2niix makes of the files: one grid for each volume that it writes."""
    source, out = folder / "in", folder / "out"
    source.mkdir()
    out.mkdir()
    for n, file in enumerate(files):
        (source / f"{n:05d}.dcm").symlink_to(file.resolve())
    command = [str(_DCM2NIIX), *_DCM2NIIX_OPTIONS, "-o", str(out), str(source)]
    subprocess.run(command, check=False, capture_output=True, timeout=240)
    grids = []
    for path in sorted(out.glob("*.nii")):
        image: Any = nib.load(path)
        voxels = np.asarray(image.dataobj)
        for volume in np.moveaxis(voxels, -1, 0) if voxels.ndim == 4 else [voxels]:
            grids.append(Grid(volume, _LPS_TO_RAS @ image.affine))
    return grids


def compare(ours: Grid, other: Grid, padding: float | None = None) -> Comparison:
    """Compare two grids that may differ in the order and direction of their axes, and in nothing else.

    ``padding`` is the value, in the units of the voxels, that an image fills up its corners with.
    """
    axes, signs = _same_axes(ours.index_to_lps, other.index_to_lps)
    counts = ours.voxels.shape
    if tuple(other.voxels.shape[a] for a in axes) != counts:
        return Comparison(frozenset({"shape"}))
    kinds, distance_mm = _places(ours, other, axes, signs)
    flips = tuple(slice(None, None, sign) for sign in signs)
    theirs = other.voxels.transpose(axes)[flips]
    how, differing = _values(ours.voxels, theirs, padding)
    return Comparison(frozenset({*kinds, *how}), distance_mm, differing)


def _same_axes(ours: FloatArray, other: FloatArray) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Which axis of the other grid each of ours follows, and whether it goes along (1) or against it (-1).

    Told by the angles between them alone: slices that are sheared in one grid follow those of the other.
    """
    cosines = _directions(other).T @ _directions(ours)
    orders = itertools.permutations(range(3))
    axes = max(orders, key=lambda order: sum(abs(cosines[a, i]) for i, a in enumerate(order)))
    return axes, tuple(1 if cosines[a, i] > 0 else -1 for i, a in enumerate(axes))


def _directions(affine: FloatArray) -> FloatArray:
    return affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)


def _places(ours: Grid, other: Grid, axes: tuple[int, ...], signs: tuple[int, ...]) -> tuple[set[str], float]:
    shape = np.array(ours.voxels.shape)
    index = np.array(list(itertools.product(*((0, n - 1) for n in shape))))
    there = np.empty_like(index)
    there[:, axes] = np.where(np.array(signs) > 0, index, shape - 1 - index)
    apart = np.c_[index, np.ones(8)] @ ours.index_to_lps.T - np.c_[there, np.ones(8)] @ other.index_to_lps.T
    distance_mm = float(np.linalg.norm(apart, axis=1).max())
    steps = ours.index_to_lps[:3, :3] - other.index_to_lps[:3, axes] * np.array(signs)
    wrong_step = (np.linalg.norm(steps, axis=0) > SAME_PLACE_MM) & (shape == 1)
    kinds = {"place": distance_mm > SAME_PLACE_MM, "step": bool(wrong_step.any())}
    return {kind for kind, differs in kinds.items() if differs}, distance_mm


def _values(ours: npt.NDArray[Any], theirs: npt.NDArray[Any], padding: float | None) -> tuple[set[str], int]:
    mine, yours = ours.astype(np.float64), theirs.astype(np.float64)
    apart = np.abs(yours - mine)
    differs = apart > 1e-3 + _FLOAT32 * np.abs(mine)
    differing = int(np.count_nonzero(differs))
    if not differing:
        return set(), 0
    if padding is not None and (yours[differs] == padding).all():
        return {"padding"}, differing
    if np.ptp(mine + yours) == 0.0:
        return {"inverted"}, differing
    return {"rounding" if apart.max() <= 1.0 else "values"}, differing
