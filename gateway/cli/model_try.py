"""``aigw model try`` and ``aigw model compare``: is this model any good, on these cases?"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from gateway.cli.common import (
    EXIT_FAILED,
    EXIT_NOT_FOUND,
    EXIT_PARTLY,
    JsonOption,
    console,
    fail,
    prepare_folder,
    print_json,
    where_hint,
)
from gateway.cli.compare_view import (
    MergeOption,
    ToleranceOption,
    merged,
    metric_cells,
    number,
    print_cases,
    print_overall,
    usable_tolerance,
)
from gateway.cli.progress import progress_bar
from gateway.cli.segment import EXIT_CODES, check_device
from gateway.cli.trial import Plan, Report, Wanted, plan, try_case

if TYPE_CHECKING:
    from ai.model import ModelSpec, Predictor
    from gateway.settings import Settings


def try_model(
    model: Annotated[
        str, typer.Argument(help="Name of a card, its path, or the folder or file of a model not yet added.")
    ],
    source: Annotated[
        Path, typer.Argument(metavar="INPUT", help="DICOM folder, NIfTI file, or folder of NIfTI cases.")
    ],
    truth: Annotated[
        Path | None, typer.Option(help="NIfTI, DICOM SEG or RTSTRUCT; for many cases a folder, by name.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the results of each case.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda:N.")] = "auto",
    model_dir: Annotated[list[Path] | None, typer.Option(help="Folder with model cards; may repeat.")] = None,
    config_file: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            envvar="AIGW_CONFIG",
            readable=False,
            help="Configuration file, for its model_dirs.",
        ),
    ] = None,
    series: Annotated[str | None, typer.Option(help="Series Instance UID, if there are several.")] = None,
    part: Annotated[str, typer.Option(help="Which part of a series that makes several.")] = "",
    merge: MergeOption = None,
    tolerance_mm: ToleranceOption = 1.0,
    deterministic: Annotated[bool, typer.Option(help="The same bits each time, even where slower.")] = False,
    accept_licence: Annotated[
        str, typer.Option(metavar="NAME", help="Who accepts the terms of a model not yet added.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Run a model on cases without a PACS, and compare its results with the truth."""
    from ai.errors import AiError
    from gateway.cli.model_process import model_host

    check_device(device)
    wanted = Wanted(part, merged(merge or []), usable_tolerance(tolerance_mm), out)
    settings = _settings(config_file)
    folders = _folders(model_dir or (), settings)
    if out is not None:
        prepare_folder(out)
    private = [path for path in (source, truth, out) if path is not None]
    start = partial(model_host, device, settings, deterministic=deterministic, private=private)
    try:
        with _model(model, folders, accept_licence) as spec:
            beside = [*([spec.folder.parent] if spec.folder else []), *folders]
            with start(folders=beside) as host, progress_bar() as bar:
                bar("load", 0.0)
                cases = plan(source, truth, series, len(spec.accepts.channels))
                loaded = host.load(spec, beside)
                reports = _try_all(cases, loaded, wanted, bar)
    except AiError as error:
        hint = where_hint(folders) if error.code == "UNKNOWN_MODEL" else ""
        fail(error.code, f"{error.reason}{hint}", EXIT_CODES.get(error.code, EXIT_FAILED))
    told = _told(spec, loaded.device, reports, cases.notes)
    if as_json:
        print_json(told)
    else:
        _print(told, out)
    _leave([report.error is not None for report in reports])


def compare(
    mask: Annotated[Path, typer.Argument(help="Our result: NIfTI or DICOM SEG; or a folder of cases.")],
    truth: Annotated[Path, typer.Argument(help="The reference: NIfTI, SEG or RTSTRUCT; or a folder.")],
    merge: MergeOption = None,
    tolerance_mm: ToleranceOption = 1.0,
    as_json: JsonOption = False,
) -> None:
    """Compare results with the truth, for one case or two folders whose files match by name."""
    from ai.compare import compare_cases
    from ai.errors import AiError

    for path in (mask, truth):
        if not path.exists():
            fail("FILE_NOT_FOUND", f"There is no file or folder {path}.", EXIT_NOT_FOUND)
    tolerance_mm = usable_tolerance(tolerance_mm)
    try:
        cases = compare_cases(mask, truth, merged(merge or []), tolerance_mm)
    except AiError as error:
        fail(error.code, error.reason, EXIT_NOT_FOUND if error.code == "NO_CASES" else EXIT_FAILED)
    if as_json:
        print_json(cases.to_dict())
    else:
        print_cases(cases)
    _leave([case.error is not None for case in cases.cases])


def _leave(failed: Sequence[bool]) -> None:
    """Exit codes: all, some or none of the cases failed."""
    if any(failed):
        raise typer.Exit(EXIT_FAILED if all(failed) else EXIT_PARTLY)


def _settings(config_file: Path | None) -> Settings | None:
    from gateway.settings import load_settings

    return load_settings(config_file, os.environ) if config_file else None


def _folders(given: Sequence[Path], settings: Settings | None) -> list[Path]:
    for folder in given:
        if not folder.is_dir():
            fail("FOLDER_NOT_FOUND", f"There is no folder {folder}.", EXIT_NOT_FOUND)
    return [*given, *(settings.model_dirs if settings else ())]


@contextmanager
def _model(text: str, folders: Sequence[Path], accepted_by: str) -> Iterator[ModelSpec]:
    """A card by name or path; a model that has none is drafted and pinned in a folder that goes away."""
    from ai.errors import UnknownModel
    from ai.model import find_model

    try:
        known = find_model(text, folders)
    except UnknownModel:
        if not Path(text).exists():
            raise
    else:
        yield known
        return
    with TemporaryDirectory(prefix="aigw-try-") as folder:
        yield _drafted(Path(text), Path(folder), accepted_by)


def _drafted(source: Path, to: Path, accepted_by: str) -> ModelSpec:
    """Register a model in a folder that goes away.

    Neither terms that nobody states nor structures without a code stop a trial; terms that forbid do.
    """
    from ai.errors import ModelError
    from gateway.cli.model_add import Wishes, add_model

    try:
        added = add_model(source, to, Wishes(accepted_by=accepted_by, private_codes=True))
        warnings = added.warnings
    except ModelError as error:
        if error.code != "LICENCE_UNKNOWN":
            raise
        unknown = Wishes(
            licence="LicenseRef-unknown", commercial="contract", accepted_by="a trial", private_codes=True
        )
        added = add_model(source, to, unknown)
        told = "The terms of this model are not known; read them before its results are used."
        warnings = (*added.warnings, told)
    for warning in warnings:
        sys.stderr.write(f"note: {warning}\n")
    return added.spec


def _try_all(cases: Plan, model: Predictor, wanted: Wanted, bar: Any) -> list[Report]:
    reports = []
    for index, case in enumerate(cases.cases, start=1):
        out = wanted.out / case.name if wanted.out and cases.is_folder_of_cases else wanted.out
        before = f"{index}/{len(cases.cases)} {case.name}: " if len(cases.cases) > 1 else ""

        def told(stage: str, done: float, before: str = before) -> None:
            bar(f"{before}{stage}", done)

        reports.append(try_case(case, model, wanted, told, out))
    return reports


def _told(spec: ModelSpec, device: str, reports: Sequence[Report], notes: Sequence[str]) -> dict[str, Any]:
    from ai.compare.cases import overall

    means = {r.name: r.comparison.mean_dice for r in reports if r.comparison is not None}
    return {
        "model": spec.id,
        "version": spec.version,
        "device": device,
        "cases": [report.to_dict() for report in reports],
        **overall({name: dice for name, dice in means.items() if dice is not None}),
        "notes": list(notes),
    }


def _print(told: dict[str, Any], out: Path | None) -> None:
    _print_structures(told["cases"])
    for case in told["cases"]:
        before = f"{case['name']}: "
        if case["error"]:
            console().print(f"{before}{case['error']['code']}: {case['error']['reason']}")
        for finding in case["quality"]:
            if finding["verdict"] != "PASS":
                console().print(f"{before}{finding['verdict']}: {finding['reason']}")
        for note in case["notes"]:
            console().print(f"{before}{note}")
        for name, value in case["scalars"].items():
            console().print(f"{before}{name} {value:g}")
    for note in told["notes"]:
        console().print(note)
    print_overall(told)
    if out is not None:
        console().print(f"wrote results to {out}")


def _print_structures(cases: Sequence[dict[str, Any]]) -> None:
    """One row each; what compares them with a truth only where there is one."""
    rows = [row for case in cases for row in case["structures"]]
    compared = any(row["truth"] is not None for row in rows)
    metrics = ("difference mL", "Dice", "Jaccard", "HD95 mm", "surface Dice") if compared else ()
    table = Table("case", "s", "structure", "size", *metrics)
    for case in cases:
        first = (case["name"], f"{case['seconds']:.1f}")
        for row in case["structures"]:
            size = number(row["volume_ml"], ".2f") + " mL"
            if row["area_mm2"] is not None:
                size = f"{row['area_mm2']:.0f} mm²"
            shown = size if row["found"] else "not found"
            cells = (number(row["difference_ml"], "+.2f"), *metric_cells(row)) if compared else ()
            table.add_row(*first, row["label"], shown, *cells)
            first = ("", "")
    if rows:
        console().print(table)
