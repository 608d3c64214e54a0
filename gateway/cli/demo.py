"""``aigw demo``: a scanner, the gateway and a PACS on this machine, and the whole job once.

The gateway is the real one, ``aigw serve`` in a process of its own. The PACS is our own receiving
room with a folder of its own; the scanner is our own sending room.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from gateway.cli.common import EXIT_FAILED, EXIT_NOT_FOUND, EXIT_USAGE, console, fail, prepare_folder
from gateway.cli.demo_pacs import DemoPacs
from gateway.clock import SystemClock
from gateway.deliver.storage_scu import Address, StorageSCU, read_stored_object
from gateway.journal import JournalReader

_START_TIMEOUT_S = 60.0
_JOB_TIMEOUT_S = 900.0
_POLL_S = 0.2
_MARKER = ".aigw-demo"

_CONFIGURATION = """\
# Written by `aigw demo`. Start this gateway again with: aigw serve --config {path}
version: 1
data_dir: {data}
dicom:
  ae_title: AIGW
  listen: {{host: 127.0.0.1, port: {dicom_port}}}
peers:
  scanner: {{ae_title: SCANNER, host: 127.0.0.1, roles: [source]}}
  pacs: {{ae_title: {pacs_ae_title}, host: 127.0.0.1, port: {pacs_port}, roles: [destination]}}
completion: {{quiet_for: 1s}}
models:
  tissue: {{card: ct-tissue}}
routes:
  - name: ct-volumes
    when: {{Modality: CT, ImageType: {{lacks: [LOCALIZER]}}, instances: {{at_least: 10}}}}
    model: tissue
    send: [pacs]
results: {{status: live}}
web:
  listen: {{host: 127.0.0.1, port: {http_port}}}
"""


def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything the demo writes.")] = Path("aigw-demo"),
    series: Annotated[
        Path | None, typer.Option(help="Folder with a CT series of your own instead of the sample.")
    ] = None,
) -> None:
    """Run the main job once, end to end, on this machine's loopback, and show what happened."""
    say = console().print
    _start_afresh(out)
    files = _series_files(out, series)
    say(f"scanner   {len(files)} images in {files[0].parent}")
    with DemoPacs(out / "pacs") as pacs:
        config, port = _write_configuration(out, pacs)
        with _gateway(out, config):
            say(f"gateway   AIGW@127.0.0.1:{port}, log in {out / 'gateway.log'}")
            say(f"PACS      {pacs.ae_title}@127.0.0.1:{pacs.port}")
            _send(files, port)
            say("sent      every image acknowledged; the gateway waits until the series is complete")
            story = _wait_for_results(out / "gateway" / "journal.db")
        results = pacs.export(out / "results")
    if "overview" in results:
        results["picture"] = _save_picture(results["overview"])
    _show(story, results)


def _start_afresh(out: Path) -> None:
    """Make the folder, or empty it of what an earlier demo wrote; anybody else's folder is left alone."""
    prepare_folder(out)
    if any(out.iterdir()) and not (out / _MARKER).exists():
        fail(
            "FOLDER_IN_USE",
            f"{out} has files that no demo wrote: choose another folder with --out.",
            EXIT_USAGE,
        )
    (out / _MARKER).touch()
    for name in ("gateway", "results", "sample"):
        shutil.rmtree(out / name, ignore_errors=True)


def _series_files(out: Path, series: Path | None) -> list[Path]:
    if series is None:
        from ai.sample import write_sample_series

        return list(write_sample_series(out / "sample").files)
    if not series.is_dir():
        fail("FOLDER_NOT_FOUND", f"There is no folder {series}.", EXIT_NOT_FOUND)
    from ai.errors import SeriesRefused
    from ai.folder import find_series

    try:
        found = find_series(series)
    except SeriesRefused as error:
        fail(error.code, error.reason, EXIT_FAILED)
    return max(found.values(), key=len)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _write_configuration(out: Path, pacs: DemoPacs) -> tuple[Path, int]:
    config, dicom_port = out / "gateway.yaml", _free_port()
    text = _CONFIGURATION.format(
        path=config,
        data=json.dumps(str((out / "gateway").absolute())),
        dicom_port=dicom_port,
        http_port=_free_port(),
        pacs_ae_title=pacs.ae_title,
        pacs_port=pacs.port,
    )
    config.write_text(text, encoding="utf-8")
    return config, dicom_port


@contextmanager
def _gateway(out: Path, config: Path) -> Iterator[None]:
    """``aigw serve`` until the block ends; then SIGTERM, as a service manager would."""
    log = out / "gateway.log"
    with log.open("wb") as sink:
        command = [sys.executable, "-m", "gateway", "serve", "--config", str(config)]
        process = subprocess.Popen(command, stderr=sink, stdout=sink, env=os.environ)
    try:
        _wait(
            lambda: process.poll() is not None or b'"event": "ready"' in log.read_bytes(),
            _START_TIMEOUT_S,
            f"the gateway did not become ready; see {log}",
        )
        if process.poll() is not None:
            fail(
                "GATEWAY_ENDED", f"The gateway ended with code {process.returncode}; see {log}.", EXIT_FAILED
            )
        yield
    finally:
        process.terminate()
        process.wait(timeout=_START_TIMEOUT_S)


def _wait(condition: Any, timeout_s: float, what: str) -> Any:
    clock, pause = SystemClock(), threading.Event()
    deadline = clock.monotonic_s() + timeout_s
    while clock.monotonic_s() < deadline:
        if value := condition():
            return value
        pause.wait(_POLL_S)
    fail("DEMO_TIMEOUT", f"After {timeout_s:.0f} s {what}.", EXIT_FAILED)


def _send(files: list[Path], port: int) -> None:
    objects = [read_stored_object(path) for path in files]
    address = Address("gateway", "AIGW", "127.0.0.1", port)
    with StorageSCU(address, "SCANNER", {o.context for o in objects}, timeout_s=60.0) as scanner:
        for item in objects:
            scanner.store(item)


def _wait_for_results(journal: Path) -> dict[str, Any]:
    """The record of the newest series, once everything about it is decided and delivered."""
    reader = JournalReader(journal)

    def finished() -> dict[str, Any] | None:
        story = reader.series_details(reader.series()[-1])
        if story["state"] in ("unmatched", "refused"):
            return story
        jobs = story["jobs"]
        deliveries = [d for job in jobs for result in job["results"] for d in result["deliveries"]]
        ended = jobs and all(job["state"] in ("done", "failed") for job in jobs)
        return story if ended and all(d["state"] in ("sent", "dead") for d in deliveries) else None

    story: dict[str, Any] = _wait(finished, _JOB_TIMEOUT_S, "there was no result; see gateway.log")
    reader.close()
    return story


def _show(story: dict[str, Any], results: dict[str, Path]) -> None:
    print_ = console().print
    happened = Table("step", "what happened", title="What happened")
    happened.add_row("complete", str(story["evidence"]["reason"]))
    happened.add_row("geometry", f"{story['verdict']['code']}: {story['verdict']['reason']}")
    for event in story["events"][2:]:
        happened.add_row("route", event["reason"])
    for job in story["jobs"]:
        for event in job["events"][1:]:
            happened.add_row("job", f"{event['name']}: {event['reason']}")
        for result in job["results"]:
            for delivery in result["deliveries"]:
                happened.add_row(
                    "delivery", f"{result['kind']} to {delivery['destination']}: {delivery['state']}"
                )
    print_(happened)
    if not results:
        fail("NO_RESULT", f"The series is {story['state']}; the table above says why.", EXIT_FAILED)
    volumes = Table("segment", "volume mL", "mean HU", title="Measurements")
    for row in story["jobs"][0]["run"]["segments"]:
        found = row["found"]
        volumes.add_row(
            row["label"],
            f"{row['volume_ml']:.1f}" if found else "not found",
            f"{row['hu_mean']:.0f}" if found else "",
        )
    print_(volumes)
    for kind, path in results.items():
        print_(f"{kind:<10}{path}")
    print_(f"\nThe picture: {results['picture']}")


def _save_picture(overview: Path) -> Path:
    """The RGB pixels of the overview picture (Secondary Capture) as PNG beside it."""
    from PIL import Image
    from pydicom import dcmread

    path = overview.with_suffix(".png")
    Image.fromarray(dcmread(overview).pixel_array).save(path)
    return path
