"""How many instances a second: each receiver under the same load, in turns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.receive_data import draw
from benchmarks.receive_files import digests, read, renew
from benchmarks.receive_limits import STAGES
from benchmarks.receive_peers import Server
from benchmarks.receive_report import Report, median_row
from benchmarks.receive_wire import CALLED, CALLING, MAX_PDU_BYTES, encode

_ROOT = Path(__file__).parents[1]
_ROUND_TIMEOUT_S = 900


@dataclass
class Load:
    """What is sent at once: one folder for each association, one size for each instance."""

    name: str
    folders: Sequence[Path]

    @classmethod
    def drawn(cls, name: str, root: Path, associations: int, instances: int, side: int, number: int) -> Load:
        """``instances`` for each association, drawn below ``root``; ``number`` differs between loads."""
        folders = [root / f"{number}-{index}" for index in range(associations)]
        for index, folder in enumerate(folders):
            draw(folder, instances, side, side, number=number * 20 + index)
        return cls(name, folders)


class Rounds:
    """Counts rounds, so that every one has UIDs that no receiver has seen.

    Attributes
    ----------
    warm_up
        A first round warms up, and the disk has come to rest before each; else rates mean nothing.
    """

    def __init__(self, *, warm_up: bool) -> None:
        self.warm_up = warm_up
        self._number = 0

    def renew(self, load: Load) -> None:
        """New UIDs; then wait until the disk has nothing left to write of the round before."""
        self._number += 1
        renew(load.folders, self._number)
        if self.warm_up:
            os.sync()


def compare(report: Report, load: Load, servers: Sequence[Server], rounds: Rounds, count: int) -> None:
    """Let each server take the load ``count`` times, each round starting with another one."""
    runs: dict[str, list[dict[str, float]]] = {server.name: [] for server in servers}
    order = list(servers)
    for number in range(count + rounds.warm_up):  # the first one shows that everything is stored
        for server in order:
            rounds.renew(load)
            run = send(server, load.folders)
            if number or not rounds.warm_up:
                runs[server.name].append(run)
            if number == 0 and (wanted := digests(load.folders) - server.stored(digests(load.folders))):
                raise SystemExit(f"{server.name} has not stored {len(wanted)} instances as they were sent")
        order.append(order.pop(0))
    for server in servers:
        report.add(median_row(load.name, server.name, runs[server.name]))


def send(server: Server, folders: Sequence[Path]) -> dict[str, float]:
    """What our sender tells of one load; and the CPU time of the server."""
    before_s = server.cpu_s()
    run = _sender(server.port, folders, server.called, server.name)
    run["cpu_s"] = server.cpu_s() - before_s
    return run


def compare_stock(
    report: Report, tool: str, load: Load, servers: Sequence[Server], rounds: Rounds, count: int
) -> None:
    """The same with a client of DCMTK as it comes, Nagle's algorithm on; its whole process is timed."""
    runs: dict[str, list[dict[str, float]]] = {server.name: [] for server in servers}
    order = list(servers)
    files = sorted(path for folder in load.folders for path in folder.glob("*.dcm"))
    size = sum(path.stat().st_size for path in files)
    for _ in range(count):
        for server in order:
            rounds.renew(load)
            start_s = time.perf_counter()
            stock_client(tool, server.port, files)
            seconds = time.perf_counter() - start_s
            runs[server.name].append({"seconds": seconds, "instances": len(files), "bytes": size})
        order.append(order.pop(0))
    for server in servers:
        report.add(median_row(f"{tool}, {load.name}", server.name, runs[server.name]))


def stock_client(tool: str, port: int, files: Sequence[Path], *options: str) -> None:
    """dcmsend or storescu without any setting of the network."""
    environment = {name: value for name, value in os.environ.items() if name != "TCP_NODELAY"}
    command = [tool, *options, "-aet", CALLING, "-aec", CALLED, "127.0.0.1", str(port), *map(str, files)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=_ROUND_TIMEOUT_S, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"{tool} failed: {done.stderr or done.stdout}")


def limits(report: Report, loads: Sequence[Load], rounds: Rounds, count: int, scratch: Path) -> None:
    """What the machine can do under these loads, without DICOM."""
    for load in loads:
        runs: dict[str, list[dict[str, float]]] = {stage: [] for stage in STAGES}
        for number in range(count):
            for stage in STAGES:
                rounds.renew(load)
                folder = scratch / f"limit-{len(load.folders)}-{number}-{stage}"
                with _limit(stage, folder, load) as port:
                    runs[stage].append(_sender(port, load.folders, CALLED, stage))
        for stage in STAGES:
            report.add(median_row(load.name, f"limit: {stage}", runs[stage]))


@contextmanager
def _limit(stage: str, folder: Path, load: Load) -> Iterator[int]:
    folder.mkdir()
    first = read(next(load.folders[0].glob("*.dcm")))
    message_bytes = len(encode(first, 1, 1, MAX_PDU_BYTES))
    command = [sys.executable, "-m", "benchmarks.receive_limits", stage, str(folder), str(message_bytes)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=_ROOT)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


def _sender(port: int, folders: Sequence[Path], called: str, name: str) -> dict[str, float]:
    arguments = [str(port), *map(str, folders), "--called", called]
    command = [sys.executable, "-m", "benchmarks.receive_sender", *arguments]
    done = subprocess.run(
        command, cwd=_ROOT, capture_output=True, text=True, timeout=_ROUND_TIMEOUT_S, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"sending to {name} failed: {done.stderr}")
    run: dict[str, float] = json.loads(done.stdout)
    return run
