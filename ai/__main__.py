"""``python -m ai SERIES_DIR OUT_DIR``: the library alone, on a folder with one series."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ai.errors import AiError, SeriesRefused
from ai.folder import find_series
from ai.loaders import InProcess, choose_device, load_model
from ai.model import find_card
from ai.pipeline import RunOptions, run_series, write_outcome


def main(arguments: list[str] | None = None) -> int:
    """Run one series; 0 when the results are written, 1 with a named reason on stderr when not."""
    parser = argparse.ArgumentParser(prog="python -m ai", description=__doc__)
    parser.add_argument("series", type=Path, help="folder with the DICOM files of one series")
    parser.add_argument("out", type=Path, help="folder for seg.dcm, sr.dcm, overview, mask.nii.gz, run.json")
    parser.add_argument("--model", default="ct-tissue", help="name of a model card (default: ct-tissue)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:N (default: auto)")
    parser.add_argument("--part", default="", help="which part of a series that makes several volumes")
    options = parser.parse_args(arguments)
    if not options.series.is_dir():
        sys.stderr.write(f"FOLDER_NOT_FOUND: There is no folder {options.series}.\n")
        return 5
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        sys.stderr.write(f"OUT_UNUSABLE: {options.out} cannot be a folder for results: {error.strerror}.\n")
        return 2
    try:
        _run(options)
    except AiError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _run(options: argparse.Namespace) -> None:
    spec = find_card(options.model)
    series = find_series(options.series)
    if len(series) > 1:
        reason = f"The folder has {len(series)} DICOM series; give a folder with one."
        raise SeriesRefused("SEVERAL_SERIES", reason)
    (files,) = series.values()
    model = load_model(spec, choose_device(options.device))
    created_at = datetime.now(tz=UTC).astimezone()  # noqa: TID251 - the composition root of the library alone
    run_options = RunOptions(created_at=created_at, software_version=_version(), part_key=options.part)
    write_outcome(run_series(files, InProcess(model), run_options, _say), options.out)


def _say(stage: str, fraction: float) -> None:
    if fraction >= 1.0:
        sys.stderr.write(f"{stage} done\n")


def _version() -> str:
    try:
        return version("dicom-ai-gateway")
    except PackageNotFoundError:
        return "unknown"


if __name__ == "__main__":
    sys.exit(main())
