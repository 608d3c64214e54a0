"""Comparisons as tables: one case, or many."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from gateway.cli.common import EXIT_USAGE, console, fail

if TYPE_CHECKING:
    from ai.compare import Cases, Comparison

MergeOption = Annotated[
    list[str] | None,
    typer.Option(help="Merge truth labels into one of ours, e.g. --merge 2=10,11; may repeat."),
]
ToleranceOption = Annotated[
    float, typer.Option("--tolerance-mm", min=0.0, help="Of the surface Dice, millimetres.")
]
_COLUMNS = ("mask mL", "truth mL", "difference mL", "%", "Dice", "Jaccard", "HD95 mm", "surface Dice")


def merged(pairs: Sequence[str]) -> dict[str, list[int]] | None:
    """``["2=10,11"]`` as ``{"2": [10, 11]}``; None for no pair."""
    found = {}
    for pair in pairs:
        ours, equals, numbers = pair.partition("=")
        if not equals or not all(n.strip().isdigit() for n in numbers.split(",")):
            fail("MERGE_NOT_UNDERSTOOD", f"Write --merge OURS=NUMBER[,NUMBER…], not {pair!r}.", EXIT_USAGE)
        found[ours] = [int(n) for n in numbers.split(",")]
    return found or None


def usable_tolerance(tolerance_mm: float) -> float:
    """A tolerance that is a length; leaves with EXIT_USAGE for infinity and NaN."""
    if not math.isfinite(tolerance_mm):
        fail("TOLERANCE_UNUSABLE", f"{tolerance_mm} mm is no tolerance.", EXIT_USAGE)
    return tolerance_mm


def metric_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Dice, Jaccard, Hausdorff 95 and surface Dice of one structure."""
    return (
        number(row.get("dice"), ".3f"),
        number(row.get("jaccard"), ".3f"),
        number(row.get("hausdorff95_mm"), ".2f"),
        number(row.get("surface_dice"), ".3f"),
    )


def number(value: float | None, form: str) -> str:
    """A number in a table; a dash where there is none."""
    return "-" if value is None else format(value, form)


def print_comparison(comparison: Comparison) -> None:
    """One case."""
    table = Table("structure", "truth", *_COLUMNS)
    told = comparison.to_dict()
    for row in told["rows"]:
        table.add_row(row["label"], row["truth"], *_cells(row))
    console().print(table)
    for side, names in (("mask", comparison.only_in_mask), ("truth", comparison.only_in_truth)):
        if names:
            console().print(f"only in the {side}: {', '.join(names)}")
    _print_notes(comparison)


def print_cases(cases: Cases) -> None:
    """Many cases, each structure a row, and what holds for all of them."""
    table = Table("case", "structure", *_COLUMNS)
    for case in cases.cases:
        for row in case.to_dict()["structures"]:
            table.add_row(case.name, row["label"], *_cells(row))
    console().print(table)
    for case in cases.cases:
        if case.error is not None:
            console().print(f"{case.name}: {case.error}")
        elif case.comparison is not None:
            _print_notes(case.comparison, f"{case.name}: ")
    for side, names in (("masks", cases.only_in_masks), ("truths", cases.only_in_truths)):
        if names:
            console().print(f"only among the {side}: {', '.join(names)}")
    print_overall(cases.to_dict())


def print_overall(told: Mapping[str, Any]) -> None:
    """Mean and worst of the cases' mean Dice."""
    if told["mean_dice"] is not None:
        worst = f"worst case {told['worst_dice']:.3f} ({told['worst_case']})"
        console().print(f"mean Dice {told['mean_dice']:.3f}, {worst}")


def _cells(row: Mapping[str, Any]) -> Iterable[str]:
    return (
        number(row["volume_ml"], ".2f"),
        number(row["truth_volume_ml"], ".2f"),
        number(row["difference_ml"], "+.2f"),
        number(row["difference_percent"], "+.1f"),
        *metric_cells(row),
    )


def _print_notes(comparison: Comparison, before: str = "") -> None:
    if not comparison.same_grid:
        text = "The grids differ: the truth was resampled to the mask's grid by nearest neighbour."
        console().print(f"{before}{text}")
    for warning in comparison.warnings:
        console().print(f"{before}{warning}")
