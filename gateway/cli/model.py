"""``aigw model``: bring a model, see which there are, make sure that one runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from gateway.cli.common import (
    EXIT_FAILED,
    EXIT_NOT_FOUND,
    EXIT_STATE,
    EXIT_USAGE,
    JsonOption,
    console,
    fail,
    print_json,
    where_hint,
)

if TYPE_CHECKING:
    from ai.terminology.given import Given
    from gateway.cli.model_add import Added, Wishes
    from gateway.settings import Settings

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        envvar="AIGW_CONFIG",
        readable=False,
        help="Configuration file: its model_dirs are used.",
    ),
]
FolderOption = Annotated[
    list[Path] | None, typer.Option("--model-dir", help="Folder with model cards; may repeat.")
]
_EXIT_CODES = {
    "UNKNOWN_MODEL": EXIT_NOT_FOUND,
    "TASK_UNKNOWN": EXIT_NOT_FOUND,
    "WEIGHTS_MISSING": EXIT_NOT_FOUND,
    "MODEL_SOURCE_MISSING": EXIT_NOT_FOUND,
    "MODEL_EXISTS": EXIT_STATE,
    "LICENCE_UNKNOWN": EXIT_USAGE,
    "MODEL_NAME_INVALID": EXIT_USAGE,
    "STRUCTURE_NOT_CODED": EXIT_USAGE,
    "CODE_NAME_UNKNOWN": EXIT_USAGE,
    "CODE_INVALID": EXIT_USAGE,
}

model = typer.Typer(help="Models: add, list, verify, try, compare.", no_args_is_help=True)


@model.command()
def add(
    source: Annotated[
        str, typer.Argument(help="Folder or file of the model, or the name of one to accept the licence of.")
    ] = "",
    from_bundle: Annotated[
        str, typer.Option(help="Instead: name of a MONAI bundle, downloaded from its model zoo.")
    ] = "",
    totalsegmentator: Annotated[
        str,
        typer.Option(
            metavar="TASK", help="The source is a folder of TotalSegmentator's weights: take this task of it."
        ),
    ] = "",
    to: Annotated[Path | None, typer.Option(help="Folder of model cards that it goes to.")] = None,
    config_file: ConfigFile = None,
    name: Annotated[str, typer.Option(help="Its id here; else made from the source's name.")] = "",
    version: Annotated[str, typer.Option(help="Its version; else the source's.")] = "",
    licence: Annotated[str, typer.Option(help="SPDX expression of its terms; else the source's.")] = "",
    commercial: Annotated[
        Literal["yes", "no", "contract"] | None, typer.Option(help="Whether the terms allow commercial use.")
    ] = None,
    accept_licence: Annotated[
        str, typer.Option(metavar="NAME", help="Who has read and accepts terms that restrict the use.")
    ] = "",
    replace: Annotated[bool, typer.Option(help="Put it in the place of another version.")] = False,
    code: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=CODE", help="Code of a structure: a key of the table, or SCHEME:VALUE:MEANING."
        ),
    ] = None,
    codes: Annotated[Path | None, typer.Option(help="Codes of structures: CSV with name and key.")] = None,
    private_codes: Annotated[
        bool, typer.Option(help="Give structures without a code one of our private scheme 99GATEWAY.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Copy a model into a model folder, pin its files, and write its card. Nothing of it is run."""
    from ai.errors import AiError
    from gateway.cli.model_add import Wishes, add_model, downloaded_bundle

    if bool(source) == bool(from_bundle):
        fail("SOURCE_NEEDED", "Give the folder or file of a model, or --from-bundle NAME.", EXIT_USAGE)
    folder = _target(to, config_file)
    try:
        wishes = Wishes(
            name=name,
            version=version,
            licence=licence,
            commercial=commercial or "",
            accepted_by=_signature(accept_licence),
            replace=replace,
            task=totalsegmentator,
            codes=_codes(code or (), codes),
            private_codes=private_codes,
        )
        if from_bundle:
            with downloaded_bundle(from_bundle, version) as bundle:
                added = add_model(bundle, folder, wishes)
        else:
            added = _accepted(source, folder, wishes) or add_model(Path(source), folder, wishes)
    except AiError as error:
        fail(error.code, error.reason, _EXIT_CODES.get(error.code, EXIT_FAILED))
    except OSError as error:
        fail("MODEL_NOT_WRITTEN", f"{error.filename or folder}: {error.strerror}.", EXIT_FAILED)
    if as_json:
        print_json(_added_record(added))
    else:
        _tell(added)


@model.command("list")
def list_models(
    config_file: ConfigFile = None, model_dir: FolderOption = None, as_json: JsonOption = False
) -> None:
    """All models of the folders, and those that ship with the gateway: licence, structures, state."""
    from ai.errors import ModelError
    from ai.model import find_card, list_cards
    from gateway.cli.model_state import quick_problems, record_of, state_of

    folders = _folders(config_file, model_dir)
    rows: list[dict[str, Any]] = []
    for name, path in sorted(list_cards(folders).items()):
        try:
            spec = find_card(name, folders)
        except ModelError as error:
            reasons = [{"code": error.code, "reason": error.reason}]
            rows.append({"id": name, "card": str(path), "state": "card invalid", "problems": reasons})
            continue
        problems = quick_problems(spec)
        reasons = [problem._asdict() for problem in problems]
        rows.append({**record_of(spec), "card": str(path), "state": state_of(problems), "problems": reasons})
    if as_json:
        print_json({"models": rows})
    else:
        _print_list(rows)


@model.command()
def verify(
    names: Annotated[
        list[str] | None, typer.Argument(help="Models by name, card or folder; all of them when left out.")
    ] = None,
    config_file: ConfigFile = None,
    model_dir: FolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check cards, codes, licences and hashes, and load each model on the CPU; exit 1 with the reasons."""
    from ai.errors import UnknownModel
    from ai.model import list_cards
    from gateway.cli.model_process import model_host
    from gateway.cli.model_state import verdict

    settings = _settings(config_file)
    folders = [*_given(model_dir), *(settings.model_dirs if settings else ())]
    named = names or sorted(list_cards(folders))
    try:
        with model_host("cpu", settings, folders=[*folders, *_beside(named)]) as host:
            rows = [verdict(name, folders, host) for name in named]
    except UnknownModel as error:
        fail(error.code, f"{error.reason}{where_hint(folders)}", EXIT_NOT_FOUND)
    if as_json:
        print_json({"ok": all(row["ok"] for row in rows), "models": rows})
    else:
        _print_verdicts(rows)
    if not all(row["ok"] for row in rows):
        raise typer.Exit(EXIT_FAILED)


def _beside(names: Sequence[str]) -> list[Path]:
    """Folders of the cards that are given by their path."""
    return [Path(name).parent for name in names if Path(name).exists()]


def _mount() -> None:
    """The verbs that run models live in a module of their own."""
    verbs = import_module("gateway.cli.model_try")
    model.command("try")(verbs.try_model)
    model.command("compare")(verbs.compare)


def _target(to: Path | None, config_file: Path | None) -> Path:
    """Where a model goes: ``--to``, else the first of the configuration's folders."""
    if to is not None:
        return to
    folders = _configured(config_file)
    if not folders:
        where = f"model_dirs of {config_file} is empty" if config_file else "there is no --config"
        reason = f"Where shall the model go? Give --to DIR, for {where}; gateway.yaml then needs "
        fail("TARGET_NEEDED", f"{reason}model_dirs: [DIR].", EXIT_USAGE)
    return folders[0]


def _folders(config_file: Path | None, given: list[Path] | None) -> list[Path]:
    return [*_given(given), *_configured(config_file)]


def _given(folders: list[Path] | None) -> list[Path]:
    for folder in folders or ():
        if not folder.is_dir():
            fail("FOLDER_NOT_FOUND", f"There is no folder {folder}.", EXIT_NOT_FOUND)
    return folders or []


def _configured(config_file: Path | None) -> Sequence[Path]:
    settings = _settings(config_file)
    return settings.model_dirs if settings else ()


def _settings(config_file: Path | None) -> Settings | None:
    """The configuration; its models are not looked at, for one that is missing may be added now."""
    from gateway.settings import load_settings

    return load_settings(config_file, os.environ) if config_file else None


def _signature(who: str) -> str:
    from gateway.clock import SystemClock

    day = datetime.fromtimestamp(SystemClock().now_s(), UTC).date().isoformat()
    return f"{who.strip()}, {day}" if who.strip() else ""


def _codes(given: Sequence[str], file: Path | None) -> dict[str, Given]:
    """Codes by the names of structures; those on the command line go before those of the file."""
    from ai.terminology.given import given_in, given_in_file

    return {**(given_in_file(file) if file else {}), **dict(given_in(text) for text in given)}


def _accepted(source: str, folder: Path, wishes: Wishes) -> Added | None:
    """Accept the licence of a model that is in the folder already; None if the source is something else."""
    from gateway.cli.model_add import Added, accept_licence

    card = folder / f"{Path(source).stem if source.endswith('.yaml') else source}.yaml"
    is_there = card.is_file() and (source == card.stem or Path(source).resolve() == card.resolve())
    if not is_there or Path(source).is_dir():
        return None
    if not wishes.accepted_by:
        reason = f"{source} is in {folder} already. Give --accept-licence NAME to accept its terms."
        fail("MODEL_EXISTS", reason, EXIT_STATE)
    return Added(accept_licence(card, wishes.accepted_by), card, ())


def _added_record(added: Added) -> dict[str, Any]:
    from gateway.cli.model_state import record_of

    files = dict(added.spec.files)
    facts = {"card": str(added.card), "added": added.is_new, "files": files, "warnings": list(added.warnings)}
    return {**record_of(added.spec), **facts}


def _tell(added: Added) -> None:
    spec = added.spec
    done = "added" if added.is_new else "is there already, unchanged"
    lines = [f"{spec.id} {spec.version} ({spec.loader}, {len(spec.files)} files) {done}: {added.card}"]
    lines += [f"  note: {warning}" for warning in added.warnings]
    if spec.licence.commercial != "yes":
        by = spec.licence.accepted_by
        gate = f"accepted by {by}" if by else "NOT ACCEPTED: it does not run until --accept-licence NAME"
        lines.append(f"  licence {spec.licence.spdx}, commercial use: {spec.licence.commercial}; {gate}")
    modality = " or ".join(spec.accepts.modalities)
    lines += [
        "Look at the card, check it with",
        f"  aigw model verify {added.card}",
        f"and write into gateway.yaml (with a route for {modality} that says model: {spec.id})",
        f"  model_dirs: [{added.card.parent.resolve()}]",
        "  models:",
        f"    {spec.id}:",
        f"      card: {spec.id}",
    ]
    sys.stdout.write("\n".join(lines) + "\n")


def _print_list(rows: Sequence[dict[str, Any]]) -> None:
    table = Table("model", "version", "kind", "licence", "structures", "state")
    for row in rows:
        if "version" not in row:
            table.add_row(row["id"], "", "", "", "", row["state"])
            continue
        licence = row["licence"]
        gate = "" if licence["commercial"] == "yes" else f" (commercial: {licence['commercial']})"
        shown = ", ".join(row["structures"][:3])
        more = len(row["structures"]) - 3
        structures = shown + (f" and {more} more" if more > 0 else "")
        text = f"{licence['spdx']}{gate}"
        table.add_row(row["id"], row["version"], row["loader"], text, structures, row["state"])
    console().print(table)
    for row in rows:
        for problem in row["problems"]:
            sys.stdout.write(f"{problem['code']}: {problem['reason']}\n")


def _print_verdicts(rows: Sequence[dict[str, Any]]) -> None:
    for row in rows:
        title = f"{row['id']} {row['version']}" if "version" in row else row["id"]
        sys.stdout.write(f"{title}: {'ok' if row['ok'] else 'does not run'}\n")
        for problem in row["problems"]:
            sys.stdout.write(f"  {problem['code']}: {problem['reason']}\n")


_mount()
