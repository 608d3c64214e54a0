"""``aigw echo`` and ``aigw send``: does a peer answer, and does it take our files?"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.common import (
    EXIT_DONE,
    EXIT_NOT_FOUND,
    EXIT_PARTLY,
    EXIT_PEER,
    EXIT_USAGE,
    JsonOption,
    fail,
    print_json,
)

if TYPE_CHECKING:
    from gateway.deliver.storage_scu import Address, StorageSCU, StoredObject

PeerArgument = Annotated[str, typer.Argument(help="A peer of the configuration, or AE@host:port.")]
OptionalConfig = Annotated[
    Path | None,
    typer.Option("--config", "-c", envvar="AIGW_CONFIG", readable=False, help="Configuration file (YAML)."),
]
CallingOption = Annotated[
    str | None, typer.Option("--calling", help="Our AE title; that of the configuration when left out.")
]
TimeoutOption = Annotated[float, typer.Option("--timeout", min=1.0, help="Seconds to wait for an answer.")]


def echo(
    peer: PeerArgument,
    config_file: OptionalConfig = None,
    calling: CallingOption = None,
    timeout_s: TimeoutOption = 10.0,
    as_json: JsonOption = False,
) -> None:
    """Ask a peer with C-ECHO whether it talks to us; exit 4 if it does not."""
    from gateway.clock import SystemClock
    from gateway.deliver.storage_scu import VERIFICATION, StorageSCU
    from gateway.errors import PeerError

    address, our_title = _resolve(peer, config_file, calling)
    clock = SystemClock()
    started_s = clock.monotonic_s()
    try:
        with StorageSCU(address, our_title, {VERIFICATION}, timeout_s) as scu:
            scu.echo()
    except PeerError as error:
        if as_json:
            print_json({"peer": str(address), "ok": False, "name": error.name, "reason": error.reason})
        fail(error.name, error.reason, EXIT_PEER)
    milliseconds = round((clock.monotonic_s() - started_s) * 1000)
    if as_json:
        print_json({"peer": str(address), "ok": True, "milliseconds": milliseconds})
    else:
        sys.stdout.write(f"{address} answered in {milliseconds} ms.\n")


def send(
    peer: PeerArgument,
    files: Annotated[list[Path], typer.Argument(help="DICOM files, or folders of them.")],
    config_file: OptionalConfig = None,
    calling: CallingOption = None,
    timeout_s: TimeoutOption = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Send DICOM files to a peer as they are; exit 3 if some were not stored, 4 if none."""
    from gateway.deliver.storage_scu import StorageSCU
    from gateway.errors import PeerError

    address, our_title = _resolve(peer, config_file, calling)
    objects, problems = _read(_expand(files))
    if not objects and not problems:
        fail("NO_FILES", "There is no file to send.", EXIT_NOT_FOUND)
    stored = 0
    try:
        for group in _groups(objects):
            with StorageSCU(address, our_title, {each.context for each in group}, timeout_s) as scu:
                stored += _store_all(scu, group, problems)
    except PeerError as error:
        problems.append(f"{error.name}: {error.reason}")
    _report(address, stored, len(objects), problems, as_json=as_json)
    if problems:
        raise typer.Exit(EXIT_PARTLY if stored else EXIT_PEER if objects else EXIT_USAGE)
    raise typer.Exit(EXIT_DONE)


def _store_all(scu: StorageSCU, objects: Sequence[StoredObject], problems: list[str]) -> int:
    """Store one by one; the end of the association ends it, a refused object does not."""
    from gateway.errors import PeerError

    stored = 0
    for each in objects:
        try:
            scu.store(each)
        except PeerError as error:
            if not scu.is_established:
                raise
            problems.append(f"{each.path.name}: {error.name}: {error.reason}")
        else:
            stored += 1
    return stored


def _report(address: Address, stored: int, total: int, problems: Sequence[str], *, as_json: bool) -> None:
    if as_json:
        body: dict[str, Any] = {"peer": str(address), "stored": stored, "files": total}
        print_json({**body, "problems": list(problems)})
    else:
        sys.stdout.write(f"{stored} of {total} objects stored at {address}.\n")
    for problem in problems:
        sys.stderr.write(f"{problem}\n")


def _expand(files: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for path in files:
        if path.is_dir():
            found += sorted(each for each in path.rglob("*") if each.is_file())
        elif path.is_file():
            found.append(path)
        else:
            fail("FILE_NOT_FOUND", f"There is no file {path}.", EXIT_NOT_FOUND)
    return found


def _read(paths: Sequence[Path]) -> tuple[list[StoredObject], list[str]]:
    from gateway.deliver.storage_scu import read_stored_object

    objects, problems = [], []
    for path in paths:
        try:
            objects.append(read_stored_object(path))
        except ValueError as error:
            problems.append(f"NOT_DICOM: {error}")
    return objects, problems


def _groups(objects: Sequence[StoredObject]) -> list[list[StoredObject]]:
    """In order, at most 128 presentation contexts a group: one association each."""
    groups: list[list[StoredObject]] = []
    contexts: set[tuple[str, str]] = set()
    for each in objects:
        if not groups or len(contexts | {each.context}) > 128:
            groups.append([])
            contexts = set()
        groups[-1].append(each)
        contexts.add(each.context)
    return groups


def _resolve(peer: str, config_file: Path | None, calling: str | None) -> tuple[Address, str]:
    """The address of a peer, and our AE title."""
    from gateway.deliver.storage_scu import Address
    from gateway.settings import load_settings
    from gateway.uids import is_ae_title

    settings = load_settings(config_file, os.environ) if config_file else None
    ours = calling or (settings.dicom.ae_title if settings else "AIGW")
    if not is_ae_title(ours):
        reason = f"{ours!r} is no AE title: give 1 to 16 printable characters without backslash."
        fail("NO_AE_TITLE", reason, EXIT_USAGE)
    if settings and peer in settings.peers:
        known = settings.peers[peer]
        if known.port is None:
            fail("PEER_WITHOUT_PORT", f"The peer {peer} has no port: add one under peers.", EXIT_USAGE)
        return Address(peer, known.ae_title, known.host, known.port), ours
    title, at, place = peer.partition("@")
    host, colon, port = place.rpartition(":")
    if at and colon and host and port.isdigit() and 0 < int(port) < 65536 and is_ae_title(title):
        return Address(peer, title, host.strip("[]"), int(port)), ours
    known_names = ", ".join(settings.peers) if settings else "none, because no --config was given"
    fail(
        "UNKNOWN_PEER",
        f"{peer!r} is neither AE@host:port nor a configured peer ({known_names}).",
        EXIT_NOT_FOUND,
    )
