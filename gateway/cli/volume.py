"""``aigw volume``: what the gateway makes of a folder, without models and without a PACS."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn

from gateway.cli.common import EXIT_FAILED, EXIT_NOT_FOUND, EXIT_STATE, EXIT_USAGE, fail

if TYPE_CHECKING:
    from gateway.cli.volume_files import Outputs
    from gateway.cli.volume_rows import Record, Row, SurveyedSeries

Say = Callable[[str], None]


def volume(
    folder: Annotated[
        Path, typer.Argument(help="Folder with a series or a whole study; or a DICOMDIR, or a file.")
    ],
    picture: Annotated[
        Path | None, typer.Option(help="Draw the three middle planes: FILE.png; of several FILE-1.png …")
    ] = None,
    nifti: Annotated[
        Path | None, typer.Option(help="Write the voxels: FILE.nii.gz; of several FILE-1.nii.gz …")
    ] = None,
    series: Annotated[str | None, typer.Option(help="Only the series of this Series Instance UID.")] = None,
    part: Annotated[str | None, typer.Option(help="Only this part, of a series that makes several.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help='Print {"volumes": […]}, for programs.')] = False,
) -> None:
    """Show which volumes a folder makes: accepted, fixed or refused, and where they lie.

    A refusal is an answer: the command ends with 0 all the same, or with 6 if there is no volume for the
    picture or the NIfTI asked for; with 1 without any DICOM file, 5 without the folder.
    """
    from ai.errors import AiError
    from ai.folder import survey_folder
    from gateway.cli.volume_files import Outputs
    from gateway.cli.volume_rows import rows_of_files, rows_of_series, survey_series

    if not folder.exists():
        fail("FOLDER_NOT_FOUND", f"There is no folder {folder}.", EXIT_NOT_FOUND)
    try:
        outputs = Outputs(picture, nifti)
    except AiError as error:
        fail(error.code, error.reason, EXIT_USAGE)
    with _working() as say:
        say("looking for files")
        found = survey_folder(folder)
        say(f"reading the headers of {len(found.series)} series")
        surveyed = _chosen(survey_series(found), series, part)
        rows = (row for each in surveyed for row in rows_of_series(each, part))
        outputs = replace(outputs, several=sum(each.volumes(part) for each in surveyed) > 1)
        records = _described(rows, outputs, say)
    if series is None and part is None:
        records += [row.record for row in rows_of_files(found)]
    _show(records, found.others, as_json)
    if not records:
        reason = f"None of the files in {folder.name} is a DICOM file; it has {found.others}."
        fail("NOT_DICOM", reason, EXIT_FAILED)
    if (picture or nifti) and all(record["verdict"] == "REFUSED" for record in records):
        fail("NO_VOLUME", "All is refused, so there is nothing to draw or to write.", EXIT_STATE)


def _chosen(surveyed: list[SurveyedSeries], series: str | None, part: str | None) -> list[SurveyedSeries]:
    """The series asked for by ``--series``, and of these the ones that have the part; all without."""
    chosen = [each for each in surveyed if series is None or each.uid == series]
    if series is not None and not chosen:
        listing = ", ".join(each.uid or "(no UID)" for each in surveyed) or "none"
        fail("SERIES_NOT_FOUND", f"The folder has no series {series}; it has {listing}.", EXIT_NOT_FOUND)
    if part is None:
        return chosen
    having = [each for each in chosen if any(p.key == part for p in each.parts)]
    if not having:
        keys = ", ".join(shlex.quote(p.key) for each in chosen for p in each.parts) or "none"
        reason = f"There is no part {shlex.quote(part)}; there are {keys}."
        fail("PART_NOT_FOUND", reason, EXIT_NOT_FOUND)
    return having


def _described(rows: Iterable[Row], outputs: Outputs, say: Say) -> list[Record]:
    """The records of all rows, volumes first; files are written as the voxels come and go."""
    from ai.errors import AiError

    volumes: list[Record] = []
    refused: list[Record] = []
    for row in rows:
        if row.image is None:
            refused.append(row.record)
            continue
        number = len(volumes) + 1
        say(f"volume {number}")
        try:
            volumes.append({**row.record, **outputs.write(row.image, row.record, number)})
        except AiError as error:
            fail(error.code, error.reason, EXIT_USAGE)
        except OSError as error:
            fail("OUT_UNUSABLE", f"{error.filename} cannot be written: {error.strerror}.", EXIT_USAGE)
    return volumes + refused


def _show(records: list[Record], others: int, as_json: bool) -> None:
    from gateway.cli.volume_view import print_volumes

    if as_json:
        sys.stdout.write(json.dumps({"volumes": records}, indent=2, ensure_ascii=False) + "\n")
    elif records:
        print_volumes(records, others)


@contextmanager
def _working() -> Iterator[Say]:
    """What is being done, on a terminal; silence elsewhere."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"))
    error = Console(stderr=True)
    with Progress(*columns, console=error, disable=not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task("start", total=None)
        yield lambda text: bar.update(task, description=text)
