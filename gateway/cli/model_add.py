"""``aigw model add``: a draft becomes a folder of pinned files and a card beside it."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ai.errors import ModelError
from gateway.cli.card_text import card_text, with_acceptance

if TYPE_CHECKING:
    from ai.loaders.drafts import Draft
    from ai.model import ModelSpec
    from ai.terminology.given import Given

_MOST_FILES = 2000
_MOST_FILE_BYTES = 8 << 30
_MOST_BYTES = 32 << 30
_CHUNK_BYTES = 1 << 20
_UNKNOWN_LICENCE = "LicenseRef-unknown"
_DOWNLOAD_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Wishes:
    """What a person says about a model that is added; empty: as the source says.

    Attributes
    ----------
    name
        Its id here.
    accepted_by
        Who accepted its terms, and when.
    replace
        Whether another model or version of that id may give way.
    task
        Of TotalSegmentator, where the source is a folder of its weights.
    codes
        Codes of structures, by the source's names for them.
    private_codes
        Whether structures that nobody has a code for may have private ones.
    """

    name: str = ""
    version: str = ""
    licence: str = ""
    commercial: str = ""
    accepted_by: str = ""
    replace: bool = False
    task: str = ""
    codes: Mapping[str, Given] = field(default_factory=dict)
    private_codes: bool = False


@dataclass(frozen=True)
class Added:
    """What was done: ``is_new`` is False where the same model was there already."""

    spec: ModelSpec
    card: Path
    warnings: tuple[str, ...]
    is_new: bool = True


def add_model(source: Path, to: Path, wishes: Wishes) -> Added:
    """Copy a model below ``to`` and write its card; nothing of it is run.

    Raises
    ------
    ModelError
        What :func:`ai.loaders.drafts.draft` raises, or for a task
        :func:`ai.loaders.totalsegmentator.cards.draft_task`, and :func:`ai.loaders.drafts.with_codes_of`;
        LICENCE_UNKNOWN, MODEL_EXISTS, MODEL_SOURCE_UNSAFE, MODEL_SOURCE_TOO_LARGE, MODEL_NAME_INVALID,
        MODEL_CARD_INVALID.
    """
    from ai.loaders.drafts import draft, with_codes_of
    from ai.loaders.stages import with_pinned_stages
    from ai.loaders.totalsegmentator.cards import draft_task
    from ai.model import find_card

    found = draft_task(wishes.task, source) if wishes.task else draft(source)
    found = with_codes_of(found, wishes.codes, private=wishes.private_codes)
    name = wishes.name or _as_id(found.name)
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", name):
        reason = f"{name!r} is no id of a model: use a-z, 0-9 and -, at most 64; give one with --name."
        raise ModelError("MODEL_NAME_INVALID", reason)
    fields = _fields(found, name, wishes)
    if fields.get("loader") == "pipeline":
        fields = with_pinned_stages(fields, partial(find_card, folders=(to,)))
    to.mkdir(parents=True, exist_ok=True)
    with _staging(to) as staging:
        pinned = _copy(found.files, _root(source, found), staging / name)
        spec = _write_card(staging / f"{name}.yaml", fields | ({"files": pinned} if pinned else {}))
        known = _existing(to / f"{name}.yaml")
        if known is not None and not wishes.replace:
            if (known.version, dict(known.files), known.stages) == (spec.version, pinned, spec.stages):
                if wishes.accepted_by and not known.licence.accepted_by:
                    known = accept_licence(to / f"{name}.yaml", wishes.accepted_by)
                return Added(known, to / f"{name}.yaml", found.warnings, is_new=False)
            raise ModelError(
                "MODEL_EXISTS",
                f"{to} has {name} {known.version} already, and this is {spec.version} with "
                f"{_difference(known.files, pinned)}: give --replace, or another --name.",
            )
        card = _put_in_place(staging, to, name)
    return Added(_loaded(card), card, found.warnings)


def accept_licence(card: Path, who: str) -> ModelSpec:
    """Write into a card who accepted its terms; every other byte stays."""
    text = with_acceptance(card.read_text(encoding="utf-8"), who)
    _replace_file(card, text)
    return _loaded(card)


@contextmanager
def downloaded_bundle(name: str, version: str) -> Iterator[Path]:
    """A MONAI bundle of the model zoo in a temporary folder, got by MONAI's own downloader.

    Raises ModelError BUNDLE_NOT_DOWNLOADED: no internet, no such bundle; INFERENCE_NOT_INSTALLED.
    """
    import socket

    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", name):
        raise ModelError("BUNDLE_NOT_DOWNLOADED", f"{name!r} is no name of a MONAI bundle.")
    try:
        from monai.bundle.scripts import download, download_large_files
    except ImportError as error:
        reason = "Downloading a bundle needs MONAI; install dicom-ai-gateway[inference]."
        raise ModelError("INFERENCE_NOT_INSTALLED", reason) from error
    usual_s = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT_S)
    try:
        with tempfile.TemporaryDirectory(prefix="aigw-bundle-") as folder:
            try:
                download(name=name, version=version or None, bundle_dir=folder, progress=False)
                for listed in sorted(Path(folder).glob("*/large_files.*")):
                    download_large_files(str(listed.parent), listed.name)
            except (OSError, ValueError, RuntimeError, ImportError) as error:
                first_line = str(error).partition("\n")[0] or type(error).__name__
                raise ModelError(
                    "BUNDLE_NOT_DOWNLOADED",
                    f"The bundle {name} could not be had from the MONAI model zoo ({first_line}). Without "
                    "internet, copy its folder here and give that: aigw model add FOLDER.",
                ) from error
            yield Path(folder)  # the bundle is the folder in it
    finally:
        socket.setdefaulttimeout(usual_s)


def _fields(found: Draft, name: str, wishes: Wishes) -> dict[str, object]:
    """The card's fields with what the person said."""
    fields: dict[str, object] = {"id": name, **found.fields}
    if wishes.version:
        fields["version"] = wishes.version
    given = fields.get("licence")
    licence: dict[str, object] = dict(given) if isinstance(given, Mapping) else {}
    if licence.get("spdx") in (None, "", _UNKNOWN_LICENCE):
        licence = {key: value for key, value in licence.items() if key not in ("spdx", "commercial")}
    if wishes.licence:
        licence = {"spdx": wishes.licence} | {k: v for k, v in licence.items() if k != "spdx"}
    if wishes.commercial:
        licence["commercial"] = wishes.commercial
    if "spdx" not in licence or "commercial" not in licence:
        raise ModelError(
            "LICENCE_UNKNOWN",
            f"The source does not say clearly under which terms {name} may be used. Read them, and give "
            "--licence SPDX and --commercial yes, no or contract.",
        )
    licence.pop("accepted_by", None)  # acceptance is a person's here, never a source's
    if wishes.accepted_by:
        licence["accepted_by"] = wishes.accepted_by
    fields["licence"] = licence
    return fields


def _as_id(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:64].strip("-")


def _root(source: Path, found: Draft) -> Path:
    """The folder that no file may lie outside of; the stages of an nnU-Net cascade are neighbours."""
    folder = (source if source.is_dir() else source.parent).resolve()
    has_stages = found.fields.get("loader") == "nnunet" and (folder / "plans.json").is_file()
    return folder.parent if has_stages else folder


@contextmanager
def _staging(to: Path) -> Iterator[Path]:
    """A folder on the same disk, gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix=".adding-", dir=to))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _copy(files: Mapping[str, Path], root: Path, folder: Path) -> dict[str, str]:
    """Copy files and give the SHA-256 of what was written, by name."""
    from ai.model import below_folder

    if len(files) > _MOST_FILES:
        raise ModelError(
            "MODEL_SOURCE_TOO_LARGE", f"The model has {len(files)} files; at most {_MOST_FILES}."
        )
    total = 0
    pinned = {}
    for name, path in sorted(files.items()):
        try:
            target = folder / below_folder(name)
        except ValueError as error:
            raise ModelError("MODEL_SOURCE_UNSAFE", f"{error}.") from error
        real = path.resolve()
        if not real.is_relative_to(root):
            reason = f"{path} leads to {real}, outside of {root}; put the file itself there."
            raise ModelError("MODEL_SOURCE_UNSAFE", reason)
        size = _size_of(real)
        total += size
        if size > _MOST_FILE_BYTES or total > _MOST_BYTES:
            reason = f"{path} has {size >> 20} MiB, all files {total >> 20}; at most "
            reason += f"{_MOST_FILE_BYTES >> 20} and {_MOST_BYTES >> 20} MiB are taken."
            raise ModelError("MODEL_SOURCE_TOO_LARGE", reason)
        target.parent.mkdir(parents=True, exist_ok=True)
        pinned[name] = _copied(real, target, size)
    return pinned


def _size_of(path: Path) -> int:
    try:
        found = path.stat()
    except OSError as error:
        raise ModelError("MODEL_FILE_MISSING", f"{path} cannot be read ({error.strerror}).") from error
    if not stat.S_ISREG(found.st_mode):
        raise ModelError("MODEL_SOURCE_UNSAFE", f"{path} is no regular file.")
    return found.st_size


def _copied(path: Path, target: Path, size: int) -> str:
    """Copy the file that was looked at: no link that took its place since then, and no more of it."""
    digest = hashlib.sha256()
    with open(path, "rb", opener=_without_links) as source, target.open("xb") as copy:
        while chunk := source.read(min(_CHUNK_BYTES, size - copy.tell())):
            digest.update(chunk)
            copy.write(chunk)
        copy.flush()
        os.fsync(copy.fileno())
    return digest.hexdigest()


def _without_links(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _write_card(path: Path, fields: Mapping[str, object]) -> ModelSpec:
    path.write_text(card_text(path.stem, fields), encoding="utf-8")
    return _loaded(path)


def _loaded(card: Path) -> ModelSpec:
    from ai.model import load_card

    return load_card(card)


def _existing(card: Path) -> ModelSpec | None:
    return _loaded(card) if card.exists() else None


def _difference(known: Mapping[str, str], new: Mapping[str, str]) -> str:
    changed = sum(known.get(name) != digest for name, digest in new.items())
    changed += sum(name not in new for name in known)
    return f"{changed} other file{'' if changed == 1 else 's'}"


def _put_in_place(staging: Path, to: Path, name: str) -> Path:
    """Move the folder, then the card. Between the two an old card pins files that are no longer there, and
    is refused for that; a new card never stands before its files.
    """
    folder, card = to / name, to / f"{name}.yaml"
    if folder.exists():
        folder.rename(staging / "replaced")  # goes away with the staging folder
    if (staging / name).exists():
        (staging / name).rename(folder)
    _sync_folder(to)
    _replace_file(card, (staging / f"{name}.yaml").read_text(encoding="utf-8"))
    return card


def _replace_file(path: Path, text: str) -> None:
    """Write a file in one step: it has the old content or the new one, whatever happens."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
