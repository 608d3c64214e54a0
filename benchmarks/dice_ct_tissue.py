"""How well does ct-tissue agree with reference labels? Dice and volumes per structure, failures included.

    python benchmarks/dice_ct_tissue.py [--data ../shared/data] [--json FILE] [--device cpu]

Cases: the drawn sample chest (exact truth), and two real scans labelled by TotalSegmentator v2. Labels of a
model are not expert truth: they leave out costal cartilage, forearm, hand, patella, lower leg, teeth, and
follow a 1.5 mm grid. They are still the best reference at hand for lung and bone. Cases whose data is
missing are named, not skipped in silence.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).parent.parent))

from ai.compare import Comparison, compare_files
from ai.errors import AiError
from ai.geometry import VolumeGeometry
from ai.loaders import load_model
from ai.model import RunContext, find_card, run_to_end
from ai.nifti import read_nifti, write_nifti
from ai.sample import write_sample_series
from ai.volume import Volume, read_series

# TotalSegmentator v2, task "total": numbers of its classes.
_LUNGS: dict[str, Sequence[int]] = {"Left lung": (10, 11), "Right lung": (12, 13, 14)}
_BONE = (*range(25, 51), *range(69, 79), 91, *range(92, 117))
_TOTAL: dict[str, Sequence[int]] = {**_LUNGS, "Bone": _BONE}


@dataclass(frozen=True)
class Case:
    """A scan, its reference and what to compare."""

    name: str
    reference: str
    volume: Volume
    truth: Path
    mapping: Mapping[str, Sequence[int]] | None


def main() -> int:
    """Run every case and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    results: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, load in _cases(options.data, Path(scratch)):
            try:
                case = load()
            except (OSError, AiError) as error:
                print(f"\n{name}: NOT RUN: {error}")
                results.append({"case": name, "not_run": str(error)})
                continue
            seconds, comparison = _run(case, options.device, Path(scratch))
            _print(case, seconds, comparison)
            results.append(
                {
                    "case": name,
                    "reference": case.reference,
                    "seconds": round(seconds, 2),
                    **comparison.to_dict(),
                }
            )
    if options.json:
        options.json.write_text(json.dumps(results, indent=1), encoding="utf-8")
    return 0


def _cases(data: Path, scratch: Path) -> Iterator[tuple[str, Callable[[], Case]]]:
    body = data / "fixture" / "ct_body_siemens_j2k_totalseg"
    yield "drawn sample chest", lambda: _sample(scratch)
    yield "abdomen and lung bases, 3 mm, no contrast", lambda: _nifti(body)
    yield "upper abdomen, 2 mm, contrast, no lung in the reference", lambda: _dicom(body)


def _sample(scratch: Path) -> Case:
    written = write_sample_series(scratch / "sample")
    shape = (written.labels.shape[0], written.labels.shape[1], written.labels.shape[2])
    geometry = _geometry(written.index_to_lps, shape)
    truth = scratch / "sample-truth.nii.gz"
    write_nifti(truth, written.labels, geometry)
    volume = read_series(written.files).volume
    return Case("drawn sample chest", "exact, by construction", volume, truth, None)


def _nifti(folder: Path) -> Case:
    path = folder / "nifti" / "example_ct_sm.nii.gz"
    _need(path)
    image = read_nifti(path)
    geometry = _geometry(image.index_to_lps, _shape(image.voxels))
    volume = Volume(np.rint(image.voxels).astype(np.int16), geometry)
    truth = folder / "nifti" / "example_seg.nii.gz"
    return Case("abdomen and lung bases, 3 mm, no contrast", "TotalSegmentator v2", volume, truth, _TOTAL)


def _geometry(index_to_lps: npt.NDArray[np.float64], shape: tuple[int, int, int]) -> VolumeGeometry:
    origins_mm = index_to_lps[:3, 3] + np.arange(shape[0])[:, None] * index_to_lps[:3, 0]
    return VolumeGeometry(index_to_lps, shape, (), origins_mm, None)


def _dicom(folder: Path) -> Case:
    _need(folder / "dicom")
    volume = read_series(sorted((folder / "dicom").iterdir())).volume
    truth = folder / "nifti" / "example_seg_dicom.nii.gz"
    name = "upper abdomen, 2 mm, contrast, no lung in the reference"
    return Case(name, "TotalSegmentator v2", volume, truth, _TOTAL)


def _need(path: Path) -> None:
    if not path.exists():
        raise FileNotFoundError(f"{path} is not on this machine")


def _shape(voxels: npt.NDArray[np.generic]) -> tuple[int, int, int]:
    return (voxels.shape[0], voxels.shape[1], voxels.shape[2])


def _run(case: Case, device: str, scratch: Path) -> tuple[float, Comparison]:
    spec = find_card("ct-tissue")
    model = load_model(spec, device)
    start = time.perf_counter()
    labels = run_to_end(model, [case.volume], lambda _stage, _done: None, RunContext()).labels
    seconds = time.perf_counter() - start
    mask = scratch / "mask.nii.gz"
    write_nifti(mask, labels, case.volume.geometry)
    names = {structure.number: structure.label for structure in spec.structures}
    return seconds, compare_files(mask, case.truth, case.mapping, names)


def _print(case: Case, seconds: float, comparison: Comparison) -> None:
    grid = "same grid" if comparison.same_grid else "truth resampled by nearest neighbour"
    print(f"\n{case.name}\n  reference: {case.reference}; {grid}; {seconds:.1f} s")
    print(f"  {'structure':<14} {'Dice':>6} {'mL':>9} {'reference mL':>13} {'difference':>11}")
    for row in comparison.rows:
        overlap = "none" if row.dice is None else f"{row.dice:.3f}"
        share = "" if row.difference_percent is None else f"{row.difference_percent:+.1f} %"
        print(
            f"  {row.label:<14} {overlap:>6} {row.volume_ml:>9.1f} {row.truth_volume_ml:>13.1f} {share:>11}"
        )


if __name__ == "__main__":
    sys.exit(main())
