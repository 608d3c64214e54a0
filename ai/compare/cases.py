"""Many cases at once: two folders whose files belong together by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from ai.compare.rows import TOLERANCE_MM, Comparison, Merge, compare_files
from ai.errors import AiError

_ENDINGS = (".nii.gz", ".nii", ".dcm")
_RESULTS = ("mask.nii.gz", "seg.dcm")
"""What stands for a case that is a folder, as the gateway writes it."""


@dataclass(frozen=True)
class Case:
    """One case: its comparison, or the error that came instead."""

    name: str
    comparison: Comparison | None
    error: AiError | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        error = {"code": self.error.code, "reason": self.error.reason} if self.error else None
        told = self.comparison.to_dict() if self.comparison else {}
        structures = told.pop("rows", [])
        return {"name": self.name, "structures": structures, **told, "error": error}


@dataclass(frozen=True)
class Cases:
    """All cases, and the files of either side that have no partner.

    ``mean_dice`` is the mean over cases of each case's mean; ``worst`` the case with the lowest one.
    """

    cases: tuple[Case, ...]
    only_in_masks: tuple[str, ...] = ()
    only_in_truths: tuple[str, ...] = ()

    @property
    def means(self) -> dict[str, float]:
        """Mean Dice of each case that has one, by name."""
        found = {case.name: case.comparison.mean_dice for case in self.cases if case.comparison}
        return {name: dice for name, dice in found.items() if dice is not None}

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "cases": [case.to_dict() for case in self.cases],
            **overall(self.means),
            "only_in_masks": list(self.only_in_masks),
            "only_in_truths": list(self.only_in_truths),
        }


def compare_cases(
    masks: Path, truths: Path, mapping: Merge | None = None, tolerance_mm: float = TOLERANCE_MM
) -> Cases:
    """Compare a file with a file, or a folder with a folder, case by case.

    Case ``a`` is ``a.nii``, ``a.nii.gz``, ``a.dcm``, or a folder ``a`` with the results of a run.
    A case that fails is reported and does not end the others.

    Raises
    ------
    AiError
        ``NO_CASES``: no name is on both sides.
    """
    ours, theirs = case_files(masks), case_files(truths)
    if len(ours) == len(theirs) == 1 and not (masks.is_dir() and truths.is_dir()):
        theirs = dict(zip(ours, theirs.values(), strict=True))
    both = [name for name in ours if name in theirs]
    if not both:
        reason = f"No case is in both: {masks.name} has {_listed(list(ours))}, "
        raise AiError("NO_CASES", f"{reason}{truths.name} has {_listed(list(theirs))}.")
    return Cases(
        cases=tuple(_case(name, ours[name], theirs[name], mapping, tolerance_mm) for name in both),
        only_in_masks=tuple(name for name in ours if name not in theirs),
        only_in_truths=tuple(name for name in theirs if name not in ours),
    )


def case_files(place: Path) -> dict[str, Path]:
    """Segmentations by case name: one file, one result, or those of a folder; hidden files are left."""
    if place.is_file():
        return {case_name(place): place}
    if own := _result(place):
        return {place.resolve().name: own}
    found: dict[str, Path] = {}
    for path in sorted(p for p in place.iterdir() if not p.name.startswith(".")):
        if path.is_file() and path.name.endswith(_ENDINGS):
            found.setdefault(case_name(path), path)
        elif path.is_dir() and (result := _result(path)):
            found.setdefault(path.name, result)
    return found


def case_name(path: Path) -> str:
    """The file's name without ``.nii``, ``.nii.gz`` or ``.dcm``."""
    ending = next((ending for ending in _ENDINGS if path.name.endswith(ending)), "")
    return path.name.removesuffix(ending)


def overall(means: dict[str, float]) -> dict[str, Any]:
    """Mean of the cases' mean Dice, the lowest of them, and whose it is."""
    worst = min(means, key=lambda name: means[name], default=None)
    return {
        "mean_dice": fmean(means.values()) if means else None,
        "worst_dice": means[worst] if worst is not None else None,
        "worst_case": worst,
    }


def _result(folder: Path) -> Path | None:
    """The segmentation of a folder that holds the results of one run."""
    if not (folder / "run.json").is_file():
        return None
    return next((folder / name for name in _RESULTS if (folder / name).is_file()), None)


def _case(name: str, mask: Path, truth: Path, mapping: Merge | None, tolerance_mm: float) -> Case:
    try:
        return Case(name, compare_files(mask, truth, mapping, tolerance_mm=tolerance_mm))
    except AiError as error:
        return Case(name, None, error)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") or "none"
