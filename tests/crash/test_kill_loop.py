"""``kill -9`` at random times while several scanners send: nothing acknowledged is lost, nothing is corrupt.

The node is the real one (``gateway.serve``), started again and again on the same data by forking a process
that has imported it already; only the worker is left out, which has no part in receiving.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import sqlite3
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from tests.builders import ct_series
from tests.gateway_process import GatewayProcess
from tests.peers import RawSender, encoded
from tests.waiting import wait_until

RUNS = int(os.environ.get("AIGW_KILL_RUNS", "50"))

pytestmark = [pytest.mark.crash, pytest.mark.timeout(300 + 5 * RUNS)]

SENDERS = 4
MOST_INSTANCES = 80
LONGEST_LIFE_S = 5.0
REPOSITORY = Path(__file__).parents[2]
CT = "1.2.840.10008.5.1.4.1.1.2"
CONFIGURATION = """\
version: 1
data_dir: ${GW_DATA}
dicom:
  ae_title: AIGW
  listen: {host: 127.0.0.1, port: "${GW_DICOM_PORT}"}
peers:
  scanner: {ae_title: SCANNER, host: 127.0.0.1, roles: [source]}
admission: {keep_free: 0B, refuse_when_disk_over: 100%}
completion: {quiet_for: 1h, at_most: 2h}
web:
  listen: {host: 127.0.0.1, port: "${GW_HTTP_PORT}"}
workers: {device: cpu}
drain_timeout: 1s
"""
FORKING = """
import os, sys
from functools import partial
from pathlib import Path
import gateway.serve as serve
from gateway.clock import SystemClock
from gateway.jobs.executor import LocalExecutor
from gateway.logs import configure
from gateway.settings.load import load_settings
serve.LocalExecutor = partial(LocalExecutor, command=("cat",))
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        log = configure("serve")
        os._exit(serve.serve(load_settings(Path(sys.argv[1]), os.environ), SystemClock(), log))
    os.waitpid(child, 0)
    print("ended", flush=True)
"""


class Nursery:
    """Starts nodes on one data folder, one after another."""

    def __init__(self, folder: Path) -> None:
        self.gateway = GatewayProcess(folder, pacs_port=1, configuration=CONFIGURATION)
        self._log = self.gateway.log.open("ab")
        self._parent = subprocess.Popen(
            [sys.executable, "-c", FORKING, str(self.gateway.config)],
            env={**self.gateway.environment, "PYTHONPATH": str(REPOSITORY)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=REPOSITORY,
        )

    def start(self) -> int:
        """A node that is ready; its process id."""
        size = self.gateway.log.stat().st_size
        assert self._parent.stdin is not None
        self._parent.stdin.write(b"start\n")
        self._parent.stdin.flush()

        def ready() -> list[int]:
            text = self.gateway.log.read_bytes()[size:].decode().splitlines()
            lines = [line for line in text if '"event": "ready"' in line and line.endswith("}")]
            return [int(line.split('"pid": ')[1].split(",")[0].rstrip("}")) for line in lines]

        pids: list[int] = wait_until(ready, 60, f"the ready line in {self.gateway.log}")
        return pids[0]

    def kill(self, pid: int) -> None:
        """``kill -9``, and wait until it is gone."""
        os.kill(pid, signal.SIGKILL)
        assert self._parent.stdout is not None
        assert self._parent.stdout.readline() == b"ended\n"

    def close(self) -> None:
        """End the process that forks."""
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        self._parent.stdin.close()
        self._parent.wait(timeout=20)
        self._parent.stdout.close()
        self._log.close()


class Scanner:
    """Sends series after series, each instance until it is acknowledged; remembers what was."""

    def __init__(self, number: int, port: int) -> None:
        self.acknowledged: dict[str, str] = {}
        """SOP Instance UID → SHA-256 of the data set."""
        self.connections = 0
        self._number = number
        self._port = port
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        """Send from now on."""
        self._thread.start()

    def end(self) -> None:
        """Send no more."""
        self._ended.set()
        self._thread.join(timeout=60)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        waiting = self._instances()
        uid, data = next(waiting)
        while not self._ended.is_set():
            with suppress(Exception), RawSender(self._port, [CT]) as sender:  # the node dies at any time
                self.connections += sender.association.is_established
                while sender.association.is_established and not self._ended.is_set():
                    if sender.send(CT, uid, data).get("Status") != 0x0000:
                        break
                    self.acknowledged[uid] = hashlib.sha256(data).hexdigest()
                    uid, data = next(waiting)
            self._ended.wait(0.02)

    def _instances(self) -> Iterator[tuple[str, bytes]]:
        choose = random.Random(self._number)
        for seed in range(self._number, 1_000_000, SENDERS):
            size = choose.choice((8, 32, 256))
            for dataset in ct_series((choose.randint(3, 12), size, size), seed=seed):
                yield str(dataset.SOPInstanceUID), encoded(dataset)


@contextmanager
def scanning(port: int) -> Iterator[list[Scanner]]:
    scanners = [Scanner(number, port) for number in range(SENDERS)]
    for scanner in scanners:
        scanner.start()
    try:
        yield scanners
    finally:
        for scanner in scanners:
            scanner.end()


def test_killed_at_random_times_under_load_nothing_is_lost_and_nothing_is_corrupt(tmp_path: Path) -> None:
    choose = random.Random(2026)
    nursery = Nursery(tmp_path)
    data, under_load = nursery.gateway.data, 0
    try:
        with scanning(nursery.gateway.dicom_port) as scanners:
            for _ in range(RUNS):
                pid = nursery.start()
                taken = live_until_random_moment(scanners, choose)
                nursery.kill(pid)
                under_load += taken > 0
                assert_journal_is_whole(data)
        acknowledged = {uid: digest for each in scanners for uid, digest in each.acknowledged.items()}
        assert under_load >= RUNS // 2, f"only {under_load} of {RUNS} kills came while instances were taken"
        nursery.kill(nursery.start())  # what a crash left behind is removed by the next start
    finally:
        nursery.close()
    assert_all_kept(data, acknowledged)


def live_until_random_moment(scanners: Sequence[Scanner], choose: random.Random) -> int:
    """Wait until some more instances are acknowledged, and a little longer; how many they were."""
    before = sum(len(each.acknowledged) for each in scanners)
    enough = before + choose.randint(0, MOST_INSTANCES)
    deadline_s = time.monotonic() + LONGEST_LIFE_S
    while sum(len(each.acknowledged) for each in scanners) < enough and time.monotonic() < deadline_s:
        time.sleep(0.002)
    time.sleep(choose.uniform(0.0, 0.02))
    return sum(len(each.acknowledged) for each in scanners) - before


def assert_journal_is_whole(data: Path) -> None:
    with closing(sqlite3.connect(f"file:{data / 'journal.db'}?mode=ro", uri=True)) as journal:
        assert journal.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def assert_all_kept(data: Path, acknowledged: dict[str, str]) -> None:
    """Every acknowledged instance has one row, and every row a file with just the bytes that were sent."""
    assert_journal_is_whole(data)
    with closing(sqlite3.connect(f"file:{data / 'journal.db'}?mode=ro", uri=True)) as journal:
        rows = journal.execute("SELECT sop_instance_uid, digest, path FROM instance").fetchall()
        members = journal.execute("SELECT sum(instance_count) FROM series WHERE revision = 1").fetchone()[0]
    found = {uid: digest for uid, digest, _ in rows}
    assert len(found) == len(rows) == members
    lost = {uid for uid, digest in acknowledged.items() if found.get(uid) != digest}
    assert not lost, f"{len(lost)} of {len(acknowledged)} acknowledged instances are not in the journal"
    corrupt = [path for _, digest, path in rows if digest_of_data_set(data / "spool" / path) != digest]
    assert not corrupt, f"{len(corrupt)} of {len(rows)} files are not what was sent"
    assert len(rows) <= len(acknowledged) + RUNS * SENDERS  # one each can be committed and not answered


def digest_of_data_set(path: Path) -> str:
    raw = path.read_bytes()
    return hashlib.sha256(raw[144 + struct.unpack_from("<L", raw, 140)[0] :]).hexdigest()
