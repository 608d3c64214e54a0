"""``aigw segment`` and ``aigw compare``: the library on a folder, without a PACS."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from gateway import __version__
from gateway.cli.common import EXIT_FAILED, EXIT_NOT_FOUND, EXIT_USAGE, console, fail, prepare_folder
from gateway.clock import SystemClock

if TYPE_CHECKING:
    from ai.model import ModelSpec
    from ai.model import Progress as Report

_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")
_EXIT_CODES = {
    "SEVERAL_SERIES": EXIT_USAGE,
    "SEVERAL_VOLUMES": EXIT_USAGE,
    "PART_NOT_FOUND": EXIT_NOT_FOUND,
    "UNKNOWN_MODEL": EXIT_NOT_FOUND,
}


def segment(
    folder: Annotated[Path, typer.Argument(help="Folder with the DICOM files of one series.")],
    out: Annotated[
        Path, typer.Option(help="Folder for seg.dcm, sr.dcm, overview.dcm/png, mask.nii.gz, run.json.")
    ],
    model: Annotated[str, typer.Option(help="Name of a model card.")] = "ct-tissue",
    model_dir: Annotated[list[Path] | None, typer.Option(help="Folder with model cards; may repeat.")] = None,
    series: Annotated[
        str | None, typer.Option(help="Series Instance UID, if the folder has several.")
    ] = None,
    part: Annotated[
        str | None, typer.Option(help="Which part of a series that makes several: `aigw volume` names them.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda:N.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print run.json instead of a table.")] = False,
) -> None:
    """Segment one series from a folder: the same code path as the node, without a PACS."""
    from ai.errors import AiError
    from ai.folder import find_series
    from ai.model import find_card

    if not _DEVICE.fullmatch(device):
        fail("DEVICE_UNKNOWN", f"There is no device {device!r}: give auto, cpu or cuda:N.", EXIT_USAGE)
    if not folder.is_dir():
        fail("FOLDER_NOT_FOUND", f"There is no folder {folder}.", EXIT_NOT_FOUND)
    prepare_folder(out)
    try:
        spec = find_card(model, model_dir or ())
        files = _choose(find_series(folder), series)
        run = _run(files, spec, device, part or "", out)
    except AiError as error:
        fail(error.code, error.reason, _EXIT_CODES.get(error.code, EXIT_FAILED))
    if as_json:
        typer.echo(json.dumps(dict(run), indent=2))
    else:
        _print_table(run, out)


def _choose(found: dict[str, list[Path]], wanted: str | None) -> list[Path]:
    from ai.errors import SeriesRefused

    if wanted is not None:
        if wanted not in found:
            reason = f"The folder has no series {wanted}; it has {_listing(found)}."
            fail("SERIES_NOT_FOUND", reason, EXIT_NOT_FOUND)
        return found[wanted]
    if len(found) > 1:
        raise SeriesRefused(
            "SEVERAL_SERIES",
            f"The folder has {len(found)} series: {_listing(found)}. Choose one with --series UID.",
        )
    return next(iter(found.values()))


def _listing(found: dict[str, list[Path]]) -> str:
    return ", ".join(f"{uid or '(no UID)'} with {len(files)} files" for uid, files in sorted(found.items()))


def _run(files: list[Path], spec: ModelSpec, device: str, part_key: str, out: Path) -> Mapping[str, object]:
    from ai.loaders import InProcess, choose_device, load_model
    from ai.pipeline import RunOptions, run_series, write_outcome

    created_at = datetime.fromtimestamp(SystemClock().now_s(), tz=UTC).astimezone()
    options = RunOptions(created_at=created_at, software_version=__version__, part_key=part_key)
    with _progress() as report:
        outcome = run_series(files, InProcess(load_model(spec, choose_device(device))), options, report)
    write_outcome(outcome, out)
    return outcome.run


@contextmanager
def _progress() -> Iterator[Report]:
    """A bar on a terminal, silence elsewhere."""
    columns = (TextColumn("{task.description:<10}"), BarColumn(), TimeElapsedColumn())
    with Progress(
        *columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True
    ) as bar:
        task = bar.add_task("start", total=1.0)
        yield lambda stage, done: bar.update(task, description=stage, completed=done)


def _print_table(run: Mapping[str, object], out: Path) -> None:
    table = Table("segment", "volume mL", "mean HU", "SD", "min", "max")
    segments = run["segments"]
    assert isinstance(segments, list)  # noqa: S101 - the shape of run.json
    for row in segments:
        if row["found"]:
            numbers = (row["hu_mean"], row["hu_sd"], row["hu_minimum"], row["hu_maximum"])
            table.add_row(
                row["label"], f"{row['volume_ml']:.1f}", *("" if n is None else f"{n:.0f}" for n in numbers)
            )
        else:
            table.add_row(row["label"], "not found", "", "", "", "")
    console().print(table)
    console().print(f"wrote {', '.join(sorted(p.name for p in out.iterdir()))} to {out}")


def compare(
    mask: Annotated[Path, typer.Argument(help="Our result: NIfTI label map or DICOM SEG.")],
    truth: Annotated[Path, typer.Argument(help="The reference: NIfTI label map or DICOM SEG.")],
    merge: Annotated[
        list[str] | None,
        typer.Option(help="Merge truth labels into one of ours, e.g. --merge 2=10,11; may repeat."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Dice and volume difference per structure, in patient space."""
    from ai.compare import compare_files
    from ai.errors import AiError

    for path in (mask, truth):
        if not path.exists():
            fail("FILE_NOT_FOUND", f"There is no file {path}.", EXIT_NOT_FOUND)
    try:
        comparison = compare_files(mask, truth, _merge(merge or []))
    except AiError as error:
        fail(error.code, error.reason, EXIT_FAILED)
    if as_json:
        typer.echo(json.dumps(comparison.to_dict(), indent=2))
        return
    table = Table("structure", "truth", "Dice", "mask mL", "truth mL", "difference mL")
    for row in comparison.rows:
        dice = "-" if row.dice is None else f"{row.dice:.3f}"
        volumes = (f"{row.volume_ml:.1f}", f"{row.truth_volume_ml:.1f}", f"{row.difference_ml:+.1f}")
        table.add_row(row.label, row.truth, dice, *volumes)
    console().print(table)
    for side, names in (("mask", comparison.only_in_mask), ("truth", comparison.only_in_truth)):
        if names:
            console().print(f"only in the {side}: {', '.join(names)}")
    if not comparison.same_grid:
        console().print("The grids differ: the truth was resampled to the mask's grid by nearest neighbour.")


def _merge(pairs: list[str]) -> dict[str, list[int]] | None:
    merged = {}
    for pair in pairs:
        ours, equals, numbers = pair.partition("=")
        if not equals or not all(n.strip().isdigit() for n in numbers.split(",")):
            fail("MERGE_NOT_UNDERSTOOD", f"Write --merge OURS=NUMBER[,NUMBER…], not {pair!r}.", EXIT_USAGE)
        merged[ours] = [int(n) for n in numbers.split(",")]
    return merged or None
