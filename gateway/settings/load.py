"""Reads the configuration file: all problems at once, each with its place, or frozen settings."""

from __future__ import annotations

import copy
import os
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ai.errors import ModelError
from gateway.settings.document import Document, parse
from gateway.settings.model import Settings
from gateway.settings.problems import Location, Problem, SettingsError, did_you_mean
from gateway.settings.references import CHECKS, Check
from gateway.settings.secret_places import is_secret
from gateway.settings.section import Section
from gateway.settings.sources import SOURCE_CHECKS
from gateway.settings.units import FROM_FILE

T = TypeVar("T", bound=Section)
FindCard = Callable[[str, Sequence[Path]], object]
"""``ai.model.find_card``: raises ModelError when the card is missing or wrong."""

_LARGEST_FILE = 1024 * 1024


def load_settings(
    path: Path,
    environment: Mapping[str, str],
    find_card: FindCard | None = None,
    *,
    further: Sequence[Check] = (),
    warnings: list[Problem] | None = None,
) -> Settings:
    """Read and check a configuration file.

    Parameters
    ----------
    environment
        Where ``${NAME}`` is looked up.
    find_card
        Given, every model's card is looked up too; ``aigw check`` and ``aigw serve`` do so.
    further
        More checks, such as :func:`gateway.settings.tls_check.check_tls_files`.
    warnings
        Gets what works, and should be seen to.

    Raises
    ------
    SettingsError
        A ConfigurationError with every problem found, sorted by line.
    """
    document = _read(path, environment)
    settings = _validate(document, path.parent) if not document.problems or document.values else None
    if settings is not None:
        for check in (*CHECKS, *SOURCE_CHECKS, *further):
            check(settings, document)
        if find_card is not None:
            _check_cards(settings, document, find_card)
    if settings is None or document.problems:
        raise SettingsError(document.problems)
    if warnings is not None:
        warnings.extend(sorted(document.warnings))
    return settings


def _read(path: Path, environment: Mapping[str, str]) -> Document:
    unreadable = Document(str(path), [])
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)
        if len(content) <= _LARGEST_FILE:
            return parse(content.decode("utf-8-sig"), str(path), environment)
        unreadable.add((), f"larger than {_LARGEST_FILE} bytes, so no configuration")
    except OSError as error:
        unreadable.add((), f"cannot be read: {os.strerror(error.errno or 0)}")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        unreadable.add((), "not UTF-8 text", (line, 1))
    return unreadable


def _validate(document: Document, folder: Path) -> Settings | None:
    """Settings, or None with problems noted. A broken part is left out to look at the rest too."""
    values = document.values
    if not isinstance(values, dict):
        document.add((), "a configuration is a mapping of settings; see config/gateway.yaml")
        return None
    try:
        settings = Settings.model_validate(values, context=FROM_FILE)
    except ValidationError as error:
        for details in error.errors(include_url=False):
            _note(document, details)
        rest = _without_broken_parts(document, values)
        return _with_absolute_paths(rest, folder.absolute()) if rest else None
    return _with_absolute_paths(settings, folder.absolute())


def _with_absolute_paths(settings: Settings, folder: Path) -> Settings:
    """Relative paths start at the folder of the file."""
    dicom, web = settings.dicom, settings.web
    if dicom.tls is not None:
        dicom = dicom.model_copy(update={"tls": _with_absolute_files(dicom.tls, folder)})
    if web.tls is not None:
        web = web.model_copy(update={"tls": _with_absolute_files(web.tls, folder)})
    absolute = {
        "data_dir": folder / settings.data_dir,
        "model_dirs": tuple(folder / each for each in settings.model_dirs),
        "dicom": dicom,
        "web": web,
    }
    return settings.model_copy(update=absolute)


def _with_absolute_files(tls: T, folder: Path) -> T:
    return tls.model_copy(update={name: folder / each for name, each in tls if isinstance(each, Path)})


def _note(document: Document, error: ErrorDetails) -> None:
    """Add a problem that pydantic found, unless its place is already known to be broken."""
    location: Location = tuple(step for step in error["loc"] if step != "[key]")
    if any(location[:end] in document.broken for end in range(1, len(location) + 1)):
        return
    items_broken = any(each[: len(location)] == location for each in document.broken)
    if error["type"] == "too_short" and items_broken:  # pydantic does not count the items that it refused
        return
    document.add(location, _sentence(error, location))


def _sentence(error: ErrorDetails, location: Location) -> str:
    match error["type"]:
        case "extra_forbidden":
            return f"unknown setting{did_you_mean(str(location[-1]), _settings_of(location[:-1]))}"
        case "missing":
            return "this setting is required"
        case "model_type" | "model_attributes_type" | "dict_type":
            return "must be a mapping of settings (key: value)"
        case "tuple_type":
            return "must be a list, for example [a, b]"
        case "too_short":
            return "must name at least one"
        case "string_type":
            shown = "" if is_secret(location) else f": {str(error['input'])!r}"
            return f"must be text; write it in quotes{shown}"
        case "int_parsing" | "int_type" | "int_from_float":
            return "must be a whole number" + (
                "" if is_secret(location) else f", not {str(error['input'])!r}"
            )
        case "literal_error":
            given, expected = str(error["input"]), error.get("ctx", {}).get("expected", "")
            return f"must be {expected}, not {given!r}"
        case _:
            return error["msg"].removeprefix("Value error, ")


def _settings_of(location: Location) -> tuple[str, ...]:
    """Names of the settings that the section at a location knows."""
    kind: Any = Settings
    for step in location:
        fields = getattr(kind, "model_fields", None)
        if fields is not None:
            kind = fields[step].annotation if step in fields else None
        else:
            arguments = [a for a in get_args(kind) if a is not Ellipsis]
            kind = arguments[-1] if arguments else None
        if get_origin(kind) in (Union, types.UnionType):
            kind = next(a for a in get_args(kind) if a is not type(None))
    return tuple(getattr(kind, "model_fields", ()))


def _without_broken_parts(document: Document, values: dict[str, object]) -> Settings | None:
    """Settings with what is broken left out, so that references are checked in the same run."""
    kept = copy.deepcopy(values)
    for location in document.broken:
        _remove(kept, location)
    kept = {"version": 1, "data_dir": ".", **kept}
    try:
        return Settings.model_validate(kept, context=FROM_FILE)
    except ValidationError as error:  # something required is missing: do without the whole section
        for details in error.errors(include_url=False):
            kept.pop(str(details["loc"][0]), None)
    try:
        return Settings.model_validate({"version": 1, "data_dir": ".", **kept}, context=FROM_FILE)
    except ValidationError:
        return None


def _remove(values: dict[str, object], location: Location) -> None:
    """Take a setting out; a list loses all its items, because positions must stay true."""
    while location and isinstance(location[-1], int):
        location = location[:-1]
    node: Any = values
    for step in location[:-1]:
        try:
            node = node[step]
        except (KeyError, IndexError, TypeError):
            return
    if location and isinstance(node, dict):
        node.pop(location[-1], None)


def _check_cards(settings: Settings, document: Document, find_card: FindCard) -> None:
    for name, choice in settings.models.items():
        try:
            find_card(choice.card, settings.model_dirs)
        except ModelError as error:
            document.add(("models", name, "card"), f"{error.code}: {error.reason}")
