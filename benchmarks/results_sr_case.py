"""A run with many structures, without files: what the report is timed and compared on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ai.measure import measure
from ai.model import Structure
from ai.model.structure import CodeEntry, Coding
from ai.quality import Finding, Verdict
from ai.results.context import ResultContext, derive_identity
from tests import builders
from tests.runs import run_of, series_of

_SPACING_MM = (1.5, 0.8, 0.8)
_PIXELS = 48
_LUNG = CodeEntry(value="39607008", scheme="SCT", meaning="Lung")
_ANATOMY = CodeEntry(value="91723000", scheme="SCT", meaning="Anatomical Structure")
_SIDES = {
    "left": CodeEntry(value="7771000", scheme="SCT", meaning="Left"),
    "right": CodeEntry(value="24028007", scheme="SCT", meaning="Right"),
}


def many_structures_run(structures: int, slices: int, absent: int = 0) -> ResultContext:
    """A run that found boxes: every third structure has a side and a partner, every fifth is cut off.

    The last ``absent`` structures were not found.
    """
    shape = (slices, _PIXELS, _PIXELS)
    found = structures - absent
    labels = np.zeros(shape, np.uint8)
    for number in range(1, found + 1):
        start = (number * 7) % max(slices - 3, 1)
        row, column = divmod(number * 4, _PIXELS)
        labels[start : start + 3, row * 4 % _PIXELS : row * 4 % _PIXELS + 3, column : column + 3] = number
    datasets = builders.ct_series(shape, _SPACING_MM, "HFS")
    run = run_of(series_of(datasets, builders.affine(shape, _SPACING_MM, "HFS")), np.zeros_like(labels))
    spec = run.spec.model_copy(
        update={"structures": tuple(_structure(number) for number in range(1, structures + 1))}
    )
    identity = derive_identity(str(datasets[0].SeriesInstanceUID), "0" * 64, spec, run.software_version)
    measured = measure(run.series.volume, labels, spec.structures)
    return replace(
        run,
        spec=spec,
        labels=labels,
        measurements=measured,
        identity=identity,
        quality=tuple(_finding(m.structure) for m in measured if m.found),
    )


def _structure(number: int) -> Structure:
    """A structure; of numbers 3n + 1 and 3n + 2 one is left and the other right."""
    side = {1: "left", 2: "right"}.get(number % 3, "")
    name = f"structure_{number // 3:03d}"
    return Structure(
        number=number,
        key=f"{name}_{side}" if side else name,
        label=f"Structure {number // 3} {side}".strip(),
        coding=Coding(
            category=_ANATOMY, type=_LUNG, modifier=_SIDES.get(side), rgb=(number, 255 - number, 128)
        ),
    )


def _finding(structure: Structure) -> Finding:
    verdict = Verdict.PARTIAL if structure.number % 5 == 0 else Verdict.PASS
    reason = f"{structure.label}: touches the superior border of the field of view; 2.3 mL is a lower bound."
    return Finding((structure.key,), "complete", verdict, reason)
