"""What ``aigw model try`` tries a model on: cases, each run and compared on its own."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.cli.common import EXIT_NOT_FOUND, EXIT_USAGE, fail
from gateway.cli.segment import choose_series, run_options
from gateway.errors import GatewayError

if TYPE_CHECKING:
    from ai.compare import Comparison, Segmentation
    from ai.compare.rows import Merge
    from ai.model import Predictor, Progress

_NIFTI = (".nii.gz", ".nii")
_CHANNEL = re.compile(r"(.+)_(\d{4})")
_METRICS = ("dice", "jaccard", "hausdorff95_mm", "surface_dice", "difference_ml", "difference_percent")


@dataclass(frozen=True)
class TrialCase:
    """One input with its truth.

    Attributes
    ----------
    files
        The DICOM files of one series, or one NIfTI file for each channel (or one with all of them).
    """

    name: str
    files: tuple[Path, ...]
    is_nifti: bool
    truth: Path | None = None


@dataclass(frozen=True)
class Plan:
    """All cases, and what is odd about them, in sentences."""

    cases: tuple[TrialCase, ...]
    is_folder_of_cases: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wanted:
    """How cases are run and compared."""

    part_key: str = ""
    merge: Merge | None = None
    tolerance_mm: float = 1.0
    out: Path | None = None


@dataclass
class Report:
    """What came of one case; ``error`` instead of ``run`` where it failed."""

    name: str
    seconds: float = 0.0
    run: Mapping[str, Any] = field(default_factory=dict)
    comparison: Comparison | None = None
    notes: list[str] = field(default_factory=list)
    error: dict[str, str] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        found = self.comparison
        rows = {row["number"]: row for row in found.to_dict()["rows"]} if found else {}
        return {
            "name": self.name,
            "seconds": round(self.seconds, 3),
            "structures": [_structure(s, rows.get(s["number"], {})) for s in self.run.get("segments", ())],
            "scalars": self.run.get("scalars", {}),
            "mean_dice": found.mean_dice if found else None,
            "worst_dice": found.worst_dice if found else None,
            "same_grid": found.same_grid if found else None,
            "quality": list(self.run.get("quality", ())),
            "notes": [*self.notes, *(_notes(found) if found else ())],
            "error": self.error,
        }


def plan(source: Path, truth: Path | None, series: str | None, channels: int) -> Plan:
    """Find the cases of an input, and for each its truth.

    NIfTI files ``a_0000.nii.gz``, ``a_0001.nii.gz`` … are the channels of case ``a`` where there are as many
    as the model takes; else each file is a case. Raises AiError: NOT_DICOM and the like.
    """
    for path in (source, truth):
        if path is not None and not path.exists():
            fail("FILE_NOT_FOUND", f"There is no file or folder {path}.", EXIT_NOT_FOUND)
    images = _images(source)
    if not images:
        return Plan((_dicom_case(source, truth, series),), is_folder_of_cases=False)
    inputs = _with_channels(images, channels)
    truths = _truths(truth, inputs, alone=source.is_file())
    cases = tuple(
        TrialCase(name, files, is_nifti=True, truth=truths.get(name)) for name, files in inputs.items()
    )
    notes = []
    lacking = [case.name for case in cases if truth is not None and case.truth is None]
    if truth is not None and len(lacking) == len(cases):
        reason = f"{truth} has no truth for {', '.join(lacking[:5])}: files belong together by name."
        fail("TRUTH_NOT_FOUND", reason, EXIT_NOT_FOUND)
    if lacking:
        notes.append(f"Without a truth: {', '.join(lacking)}.")
    return Plan(cases, source.is_dir(), tuple(notes))


def try_case(
    case: TrialCase, model: Predictor, wanted: Wanted, progress: Progress, out: Path | None
) -> Report:
    """Run one case and compare it; what goes wrong is reported, and the next one goes on."""
    from ai.errors import AiError
    from gateway.cli.model_process import sentence

    report = Report(case.name)
    start_s = time.perf_counter()
    try:
        ours = _run(case, model, wanted, progress, out, report)
        report.seconds = time.perf_counter() - start_s
        if case.truth is not None:
            report.comparison = _compare(ours, case.truth, wanted)
    except AiError as error:
        report.error = {"code": error.code, "reason": error.reason}
    except GatewayError as error:  # the model ended its process, hung, or failed without a name
        report.error = {"code": error.name, "reason": sentence(error)}
    except (RuntimeError, ValueError, MemoryError) as error:
        first_line = str(error).partition("\n")[0]
        report.error = {"code": "MODEL_FAILED", "reason": f"{type(error).__name__}: {first_line}"}
    return report


def _run(
    case: TrialCase,
    model: Predictor,
    wanted: Wanted,
    progress: Progress,
    out: Path | None,
    report: Report,
) -> Segmentation:
    """Results of one case, written where that is wanted."""
    from ai.compare import label_map
    from ai.nifti_run import run_nifti, write_nifti_outcome
    from ai.pipeline import run_series, write_outcome

    names = {structure.number: structure.label for structure in model.spec.structures}
    parts = {structure.number: structure.includes for structure in model.spec.structures}
    options = run_options(wanted.part_key)
    if case.is_nifti:
        image = run_nifti(case.files, model, options, progress)
        report.run = image.run
        report.notes += [str(note) for note in _listed(image.run["notes"])]
        if out is not None:
            write_nifti_outcome(image, out)
        return label_map(image.labels, image.geometry.index_to_lps, names, parts=parts)
    outcome = run_series(case.files, model, options, progress)
    report.run = outcome.run
    report.notes += [note.text for note in outcome.context.series.notes]
    if out is not None:
        write_outcome(outcome, out)
    frame_uid = outcome.context.series.volume.geometry.frame_of_reference_uid
    affine = outcome.mask_geometry.index_to_lps
    return label_map(outcome.mask, affine, names, frame_of_reference_uid=frame_uid, parts=parts)


def _compare(ours: Segmentation, truth: Path, wanted: Wanted) -> Comparison:
    from ai.compare import compare, read_segmentation

    return compare(ours, read_segmentation(truth, grid=ours), wanted.merge, wanted.tolerance_mm)


def _images(source: Path) -> list[Path]:
    """The NIfTI file, or the NIfTI files of a folder; none where it is DICOM."""
    if source.is_file():
        return [source] if source.name.endswith(_NIFTI) else []
    return [
        path
        for path in sorted(source.iterdir())
        if path.is_file() and path.name.endswith(_NIFTI) and not path.name.startswith(".")
    ]


def _with_channels(images: Sequence[Path], channels: int) -> dict[str, tuple[Path, ...]]:
    """Files by case name; those that differ in a channel number only are one case."""
    groups: dict[str, list[Path]] = {}
    for path in images:
        found = _CHANNEL.fullmatch(_stem(path))
        groups.setdefault(found[1] if found else _stem(path), []).append(path)
    cases: dict[str, tuple[Path, ...]] = {}
    for name, files in groups.items():
        wanted = [f"{name}_{channel:04d}" for channel in range(channels)]
        if [_stem(path) for path in files] == wanted:
            cases[name] = tuple(files)
        else:
            cases |= {_stem(path): (path,) for path in files}
    return cases


def _truths(truth: Path | None, inputs: Mapping[str, tuple[Path, ...]], *, alone: bool) -> dict[str, Path]:
    """Truth by case name: of the same name, with or without the channel number; alone any one file."""
    from ai.compare.cases import case_files

    if truth is None:
        return {}
    found = case_files(truth)
    if alone and len(inputs) == len(found) == 1:
        return dict(zip(inputs, found.values(), strict=True))
    named = {}
    for name, files in inputs.items():
        path = found.get(name) or found.get(_stem(files[0]))
        if path is not None:
            named[name] = path
    return named


def _dicom_case(source: Path, truth: Path | None, series: str | None) -> TrialCase:
    from ai.compare.cases import case_files
    from ai.folder import find_series

    name = source.resolve().stem if source.is_file() else source.resolve().name
    files = [source] if source.is_file() else choose_series(find_series(source), series)
    found = case_files(truth) if truth is not None else {}
    path = found.get(name) or (next(iter(found.values())) if len(found) == 1 else None)
    if truth is not None and path is None:
        reason = f"{truth} has {len(found)} files, and none is named {name}; give the file itself."
        fail("TRUTH_NOT_FOUND", reason, EXIT_USAGE)
    return TrialCase(name, tuple(files), is_nifti=False, truth=path)


def _notes(found: Comparison) -> list[str]:
    others = found.only_in_truth
    more = f" and {len(others) - 5} more" if len(others) > 5 else ""
    told = f"Only in the truth: {', '.join(others[:5])}{more}."
    return [*found.warnings, *([told] if others else ())]


def _structure(segment: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("number", "key", "label", "found", "volume_ml", "area_mm2")
    metrics = {name: row.get(name) for name in ("truth", "truth_volume_ml", *_METRICS)}
    return {**{name: segment[name] for name in kept}, **metrics}


def _stem(path: Path) -> str:
    ending = next((ending for ending in _NIFTI if path.name.endswith(ending)), path.suffix)
    return path.name.removesuffix(ending)


def _listed(value: object) -> list[Any]:
    return list(value) if isinstance(value, list) else []
