"""``aigw segment`` and ``aigw compare``: the library on a folder, without a PACS."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from gateway import __version__
from gateway.cli.common import EXIT_FAILED, EXIT_NOT_FOUND, EXIT_USAGE, console, fail, load, prepare_folder
from gateway.cli.compare_view import MergeOption, ToleranceOption, merged, print_comparison, usable_tolerance
from gateway.cli.progress import progress_bar
from gateway.clock import SystemClock
from gateway.errors import GatewayError

if TYPE_CHECKING:
    from ai.model import ModelSpec
    from ai.pipeline import RunOptions
    from ai.profile import Profile

_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")
EXIT_CODES = {
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
    destination: Annotated[
        str,
        typer.Option(help="Write the results as this peer of --config wants them."),
    ] = "",
    config_file: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            envvar="AIGW_CONFIG",
            readable=False,
            help="Configuration file, for --destination.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print run.json instead of a table.")] = False,
) -> None:
    """Segment one series from a folder: the same code path as the node, without a PACS."""
    from ai.errors import AiError
    from ai.model import find_card
    from gateway.cli.model_process import sentence

    check_device(device)
    if not folder.is_dir():
        fail("FOLDER_NOT_FOUND", f"There is no folder {folder}.", EXIT_NOT_FOUND)
    profile = _profile_of(destination, config_file)
    prepare_folder(out)
    try:
        spec = find_card(model, model_dir or ())
        options = replace(run_options(part or ""), profiles=(profile,))
        run = _run(folder, series, spec, model_dir or (), device, options, out)
    except AiError as error:
        fail(error.code, error.reason, EXIT_CODES.get(error.code, EXIT_FAILED))
    except GatewayError as error:
        fail(error.name, sentence(error), EXIT_FAILED)
    if as_json:
        typer.echo(json.dumps(dict(run), indent=2))
    else:
        _print_table(run, out)


def _profile_of(destination: str, config_file: Path | None) -> Profile:
    """How a peer of the configuration wants its results; without one, the form that every viewer takes."""
    from ai.profile import DEFAULT_PROFILE
    from gateway.settings.runtime import profiles

    if not destination:
        return DEFAULT_PROFILE
    if config_file is None:
        fail("NO_CONFIGURATION", f"Say with --config which file has the peer {destination!r}.", EXIT_USAGE)
    settings = load(config_file)
    peer = settings.peers.get(destination)
    if peer is None or "destination" not in peer.roles:
        known = ", ".join(name for name, each in settings.peers.items() if "destination" in each.roles)
        reason = f"{destination!r} is no destination of the configuration ({known or 'it has none'})."
        fail("UNKNOWN_PEER", reason, EXIT_NOT_FOUND)
    return profiles(settings).of(destination)


def check_device(device: str) -> None:
    """Leave with EXIT_USAGE unless it is a device's name."""
    if not _DEVICE.fullmatch(device):
        fail("DEVICE_UNKNOWN", f"There is no device {device!r}: give auto, cpu or cuda:N.", EXIT_USAGE)


def run_options(part_key: str) -> RunOptions:
    """Options of a run that starts now."""
    from ai.pipeline import RunOptions

    created_at = datetime.fromtimestamp(SystemClock().now_s(), tz=UTC).astimezone()
    return RunOptions(created_at=created_at, software_version=__version__, part_key=part_key)


def choose_series(found: dict[str, list[Path]], wanted: str | None) -> list[Path]:
    """The files of the series that is wanted, or of the only one."""
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


def _run(
    folder: Path,
    series: str | None,
    spec: ModelSpec,
    model_dirs: Sequence[Path],
    device: str,
    options: RunOptions,
    out: Path,
) -> Mapping[str, object]:
    from gateway.cli.model_process import model_host

    with model_host(device, private=(folder, out), folders=model_dirs) as host:  # it starts meanwhile
        from ai.folder import find_series
        from ai.pipeline import run_series, write_outcome

        files = choose_series(find_series(folder), series)
        with progress_bar() as report:
            outcome = run_series(files, host.load(spec, model_dirs), options, report)
    write_outcome(outcome, out)
    return outcome.run


def _print_table(run: Mapping[str, object], out: Path) -> None:
    table = Table("segment", "size", "mean HU", "SD", "min", "max")
    segments = run["segments"]
    assert isinstance(segments, list)  # noqa: S101 - the shape of run.json
    for row in segments:
        if row["found"]:
            numbers = (row["hu_mean"], row["hu_sd"], row["hu_minimum"], row["hu_maximum"])
            area_mm2 = row["area_mm2"]
            size = f"{row['volume_ml']:.1f} mL" if area_mm2 is None else f"{area_mm2:.0f} mm²"
            table.add_row(row["label"], size, *("" if n is None else f"{n:.0f}" for n in numbers))
        else:
            table.add_row(row["label"], "not found", "", "", "", "")
    console().print(table)
    for finding in run["quality"] if isinstance(run["quality"], list) else ():
        if finding["verdict"] != "PASS":
            console().print(f"{finding['verdict']}: {finding['reason']}")
    console().print(f"wrote {', '.join(sorted(p.name for p in out.iterdir()))} to {out}")


def compare(
    mask: Annotated[Path, typer.Argument(help="Our result: NIfTI label map or DICOM SEG.")],
    truth: Annotated[Path, typer.Argument(help="The reference: NIfTI label map, DICOM SEG or RTSTRUCT.")],
    merge: MergeOption = None,
    tolerance_mm: ToleranceOption = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Dice, Jaccard, Hausdorff 95, surface Dice and volumes per structure, in patient space."""
    from ai.compare import compare_files
    from ai.errors import AiError

    for path in (mask, truth):
        if not path.exists():
            fail("FILE_NOT_FOUND", f"There is no file {path}.", EXIT_NOT_FOUND)
    tolerance_mm = usable_tolerance(tolerance_mm)
    try:
        comparison = compare_files(mask, truth, merged(merge or []), tolerance_mm=tolerance_mm)
    except AiError as error:
        fail(error.code, error.reason, EXIT_FAILED)
    if as_json:
        typer.echo(json.dumps(comparison.to_dict(), indent=2))
    else:
        print_comparison(comparison)
