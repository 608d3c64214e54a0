"""Kill the receiver at every durable step: what was acknowledged is there, and once."""

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
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage

from tests.builders import ct_series
from tests.peers import RawSender, encoded

pytestmark = pytest.mark.crash

REPOSITORY = Path(__file__).parents[2]
CT = str(CTImageStorage)
POINTS = ("spool.written", "spool.file_synced", "spool.renamed", "spool.directory_synced", "admit.committed")
SERVE = """
import sys
from pathlib import Path
from tests.peers import receiver
with receiver(Path(sys.argv[1])) as running:
    print(running.port, running.removed, len(running.missing), flush=True)
    sys.stdin.read()
"""


class Process:
    """A receiver in a process of its own that can be killed."""

    def __init__(self, folder: Path, failpoint: str = "") -> None:
        environment = {**os.environ, "AIGW_TEST_FAILPOINT": failpoint, "PYTHONPATH": str(REPOSITORY)}
        self.child = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(folder)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
        )
        assert self.child.stdout is not None
        self.port, self.removed, self.missing = map(int, self.child.stdout.readline().split())

    def end(self) -> int:
        """Stop it if it still runs; its return code."""
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        self.child.stdin.close()
        code = self.child.wait(timeout=20)
        self.child.stdout.close()
        return code


@contextmanager
def serving(folder: Path, failpoint: str = "") -> Iterator[Process]:
    process = Process(folder, failpoint)
    try:
        yield process
    finally:
        process.end()


def send_until_it_dies(port: int, datasets: Sequence[Dataset], acknowledged: dict[str, str]) -> None:
    """Send over two associations; remember what was answered with 0000, by digest."""

    def send(part: Sequence[Dataset]) -> None:
        with RawSender(port, [CT]) as sender:
            for dataset in part:
                if not sender.association.is_established:
                    return
                data = encoded(dataset)
                if sender.send(CT, dataset.SOPInstanceUID, data).get("Status") == 0x0000:
                    acknowledged[dataset.SOPInstanceUID] = hashlib.sha256(data).hexdigest()

    threads = [threading.Thread(target=send, args=(datasets[start::2],)) for start in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()


def rows(folder: Path) -> list[Any]:
    with closing(sqlite3.connect(f"file:{folder / 'journal.db'}?mode=ro", uri=True)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return connection.execute("SELECT sop_instance_uid, digest, path FROM instance").fetchall()


def digest_of_data_set(path: Path) -> str:
    raw = path.read_bytes()
    return hashlib.sha256(raw[144 + struct.unpack_from("<L", raw, 140)[0] :]).hexdigest()


def assert_nothing_acknowledged_is_lost(folder: Path, acknowledged: dict[str, str]) -> None:
    found = {uid: (digest, path) for uid, digest, path in rows(folder)}
    for uid, digest in acknowledged.items():
        assert found[uid][0] == digest
    for digest, path in found.values():
        assert digest_of_data_set(folder / "spool" / path) == digest


def assert_resending_gives_exactly_one_row_each(folder: Path, datasets: Sequence[Dataset]) -> None:
    acknowledged: dict[str, str] = {}
    with serving(folder) as process:
        assert process.missing == 0
        send_until_it_dies(process.port, datasets, acknowledged)
    assert len(acknowledged) == len(datasets)
    assert sorted(uid for uid, _, _ in rows(folder)) == sorted(d.SOPInstanceUID for d in datasets)
    assert_nothing_acknowledged_is_lost(folder, acknowledged)
    with closing(sqlite3.connect(f"file:{folder / 'journal.db'}?mode=ro", uri=True)) as connection:
        counts = connection.execute("SELECT instance_count, revision FROM series").fetchall()
    assert sum(count for count, _ in counts) == len(datasets)
    files = {p.relative_to(folder / "spool").as_posix() for p in (folder / "spool").rglob("*") if p.is_file()}
    assert files == {path for _, _, path in rows(folder)}


def test_killed_at_every_durable_step_nothing_acknowledged_is_lost_and_nothing_is_twice(
    tmp_path: Path,
) -> None:
    sent: list[Dataset] = []
    acknowledged: dict[str, str] = {}
    garbage = 0
    for run, (point, count) in enumerate((p, c) for p in POINTS for c in (1, 6)):
        batch = ct_series((10, 8, 8), seed=run + 1)
        sent += batch
        before = len(acknowledged)
        process = Process(tmp_path, f"{point}:{count}")
        garbage += process.removed
        assert process.missing == 0
        send_until_it_dies(process.port, batch, acknowledged)
        assert process.end() == -signal.SIGKILL, f"{point}:{count} was not reached"
        assert len(acknowledged) - before < count
        assert_nothing_acknowledged_is_lost(tmp_path, acknowledged)
    assert garbage > 0
    assert len(acknowledged) > 0
    assert_resending_gives_exactly_one_row_each(tmp_path, sent)


@pytest.mark.parametrize(("point", "missing"), [("spool.written", 1), ("spool.renamed", 0)])
def test_killed_while_a_damaged_file_is_replaced_the_next_one_replaces_it(
    tmp_path: Path, point: str, missing: int
) -> None:
    """The damaged file is in quarantine then, and the whole one not yet (or just) under its name."""
    series = ct_series((3, 8, 8))
    acknowledged: dict[str, str] = {}
    with serving(tmp_path) as process:
        send_until_it_dies(process.port, series, acknowledged)
    (rotten,) = [path for uid, _, path in rows(tmp_path) if uid == series[1].SOPInstanceUID]
    file = tmp_path / "spool" / rotten
    raw = bytearray(file.read_bytes())
    raw[-3] ^= 1
    file.write_bytes(raw)
    killed = Process(tmp_path, f"{point}:1")
    send_until_it_dies(killed.port, series[1:2], {})
    assert killed.end() == -signal.SIGKILL
    with serving(tmp_path) as process:
        assert process.missing == missing  # the alarm of the node
        again: dict[str, str] = {}
        send_until_it_dies(process.port, series[1:2], again)
        assert list(again) == [series[1].SOPInstanceUID]
    assert_nothing_acknowledged_is_lost(tmp_path, acknowledged)
    assert [path.read_bytes() for path in (tmp_path / "spool" / "quarantine").iterdir()] == [raw]


def test_killed_at_any_time_nothing_acknowledged_is_lost_and_nothing_is_twice(tmp_path: Path) -> None:
    choose = random.Random(20)
    sent: list[Dataset] = []
    acknowledged: dict[str, str] = {}
    for run in range(5):
        batch = ct_series((60, 8, 8), seed=100 + run)
        sent += batch
        process = Process(tmp_path)
        assert process.missing == 0
        target = len(acknowledged) + choose.randint(1, 40)
        killer = threading.Thread(target=_kill_after, args=(process, acknowledged, target, choose.random()))
        killer.start()
        send_until_it_dies(process.port, batch, acknowledged)
        killer.join(timeout=30)
        assert process.end() == -signal.SIGKILL
        assert len(acknowledged) < len(sent)
        assert_nothing_acknowledged_is_lost(tmp_path, acknowledged)
    assert len(acknowledged) > 5
    assert_resending_gives_exactly_one_row_each(tmp_path, sent)


def _kill_after(process: Process, acknowledged: dict[str, str], count: int, fraction: float) -> None:
    """Kill when so many are acknowledged and a random part of the next 20 ms has gone by."""
    deadline = time.monotonic() + 20
    while len(acknowledged) < count and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.02 * fraction)
    process.child.kill()
