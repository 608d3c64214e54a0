"""0000 means durable: proved by the system calls of the running node, and by disks that fill up under it."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import shutil
import sqlite3
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog
from pydicom.dataset import Dataset

from gateway.clock import SystemClock
from gateway.errors import OutOfResources
from gateway.journal import Journal
from gateway.receive.admit import Admission, AdmissionLimits
from gateway.receive.arrival import Arrival
from gateway.spool import Spool
from tests.builders import ct_series, torso_series
from tests.gateway_process import GatewayProcess
from tests.peers import RawSender, encoded, recording_scp
from tests.stow import AUTHORIZATION, CONTENT_TYPE, multipart, part10, post
from tests.traces import Call, has_ended, read_trace, strace
from tests.waiting import wait_until

CT = "1.2.840.10008.5.1.4.1.1.2"
Answered = Callable[[Sequence[Call], str], list[Call]]
"""Finds where an instance was acknowledged, by its UID."""

LEAN = """\
version: 1
data_dir: ${GW_DATA}
dicom:
  ae_title: AIGW
  listen: {host: 127.0.0.1, port: "${GW_DICOM_PORT}"}
peers:
  scanner: {ae_title: SCANNER, host: 127.0.0.1, roles: [source], web: {token: a-token-of-the-tests}}
admission: {keep_free: 0B, refuse_when_disk_over: 100%}
completion: {quiet_for: 1h, at_most: 2h}
web:
  listen: {host: 127.0.0.1, port: "${GW_HTTP_PORT}"}
workers: {device: cpu}
"""


def send_all(port: int, datasets: Sequence[Dataset]) -> None:
    with RawSender(port, [CT]) as sender:
        for dataset in datasets:
            assert sender.send(CT, dataset.SOPInstanceUID, encoded(dataset)).Status == 0x0000


# -- the order ----------------------------------------------------------------------------------


def answers(calls: Sequence[Call], uid: str) -> list[Call]:
    """Where a C-STORE-RSP for this instance was written to a connection."""
    element = struct.pack("<HHL", 0, 0x1000, len(uid) + len(uid) % 2).decode("latin-1") + uid
    field = struct.pack("<HHLH", 0, 0x0100, 2, 0x8001).decode("latin-1")
    return [
        c for c in calls if "TCP" in c.what and '"\x04' in c.text and element in c.text and field in c.text
    ]


def after(calls: Sequence[Call], place: int, *names: str, what: str) -> list[Call]:
    """Successful calls on a file that began after a place in the trace."""
    return [c for c in calls if c.name in names and c.begun > place and what in c.what and c.result >= 0]


def http_answers(calls: Sequence[Call], uid: str) -> list[Call]:
    """Where a STOW-RS response that refers to this instance was written to a connection: its begin."""
    sent = [c for c in calls if "TCP" in c.what and c.name in ("write", "writev", "sendto", "sendmsg")]
    starts = [c for c in sent if "HTTP/1.1 200" in c.text]
    bodies = [c for c in sent if "00081199" in c.text and uid in c.text]
    return [start for start in starts if any(body.what == start.what for body in bodies)]


def assert_durable_before_it_is_answered(
    calls: Sequence[Call], dataset: Dataset, answered: Answered = answers
) -> Call:
    """fsync of the file < rename < fsync of its folder < write and flush of the WAL < the answer."""
    digest = hashlib.sha256(encoded(dataset)).hexdigest()
    target = f"/objects/{digest[:2]}/{digest}.dcm"
    (rename,) = [c for c in calls if c.name.startswith("rename") and target in c.text]
    part = re.search(r'"([^"]*\.part)"', rename.text)
    assert part is not None
    written = [c for c in calls if c.name in ("write", "writev") and c.what == part[1]]
    synced = [c for c in calls if c.name == "fsync" and c.what == part[1]]
    assert [c.result for c in synced] == [0]
    assert max(c.ended for c in written) < synced[0].begun
    assert synced[0].ended < rename.begun
    folder = after(calls, rename.ended, "fsync", what=f"/objects/{digest[:2]}")[0]
    pages = after(calls, folder.ended, "pwrite64", "write", what="journal.db-wal")
    row = next((page for page in pages if digest in page.text), None)  # of this instance, not of another one
    assert row is not None
    flush = after(calls, row.ended, "fsync", "fdatasync", what="journal.db-wal")[0]
    (answer,) = answered(calls, str(dataset.SOPInstanceUID))
    assert flush.ended < answer.begun
    return answer


@pytest.fixture
def traced(tmp_path: Path) -> Iterator[tuple[GatewayProcess, Path]]:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed: scripts/install-test-tools")
    gateway = GatewayProcess(tmp_path / "node", pacs_port=1, configuration=LEAN)
    gateway.start(under=strace(tmp_path / "trace", longest_text=8192))
    yield gateway, tmp_path / "trace"
    gateway.__exit__(None, None, None)


def test_an_instance_is_answered_after_all_of_it_is_durable(traced: tuple[GatewayProcess, Path]) -> None:
    gateway, trace = traced
    series = ct_series((10, 64, 64))
    send_all(gateway.dicom_port, series)
    assert gateway.terminate() == 0
    calls = traced_calls(gateway, trace)
    found = [assert_durable_before_it_is_answered(calls, dataset) for dataset in series]
    assert len({answer.what for answer in found}) == 1
    assert [answer.begun for answer in found] == sorted(answer.begun for answer in found)


def test_so_it_is_with_four_associations_at_once(traced: tuple[GatewayProcess, Path]) -> None:
    gateway, trace = traced
    batches = [ct_series((15, 64, 64), seed=seed) for seed in range(4)]
    threads = [threading.Thread(target=send_all, args=(gateway.dicom_port, batch)) for batch in batches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert gateway.terminate() == 0
    calls = traced_calls(gateway, trace)
    for batch in batches:
        found = [assert_durable_before_it_is_answered(calls, dataset) for dataset in batch]
        assert len({answer.what for answer in found}) == 1  # each on its own connection
    assert flushes_overlap(calls)


def test_so_it_is_over_http(traced: tuple[GatewayProcess, Path]) -> None:
    """The one answer of STOW-RS goes out when all that it says is stored is durable."""
    gateway, trace = traced
    series = ct_series((10, 64, 64))
    body = multipart([part10(each) for each in series])
    fields = {**AUTHORIZATION, "Content-Type": CONTENT_TYPE}
    reply = post(gateway.http_port, body, fields)
    assert (reply.status, len(reply.data_set.ReferencedSOPSequence)) == (200, len(series))
    assert gateway.terminate() == 0
    calls = traced_calls(gateway, trace)
    found = {assert_durable_before_it_is_answered(calls, dataset, http_answers) for dataset in series}
    assert len(found) == 1


def traced_calls(gateway: GatewayProcess, trace: Path) -> list[Call]:
    """The whole trace: strace writes its end a little after that of the node."""
    assert gateway.process is not None
    process_id = gateway.process.pid
    wait_until(lambda: has_ended(trace, process_id), 30, "the end of the trace")
    return read_trace(trace)


def flushes_overlap(calls: Sequence[Call]) -> bool:
    """Nobody waits for the file of somebody else: two flushes of files were under way at the same time."""
    flushes = sorted(
        (c for c in calls if c.name == "fsync" and c.what.endswith(".part")), key=lambda c: c.begun
    )
    pairs = itertools.pairwise(flushes)
    return any(later.begun < earlier.ended and later.thread != earlier.thread for earlier, later in pairs)


def test_the_order_is_not_found_where_it_is_not() -> None:
    """The proof itself: no order but the right one, and no commit of another association, is taken for it."""
    dataset = ct_series((1, 8, 8))[0]
    digest = hashlib.sha256(encoded(dataset)).hexdigest()
    uid = str(dataset.SOPInstanceUID)
    element = struct.pack("<HHL", 0, 0x1000, len(uid) + len(uid) % 2).decode("latin-1") + uid
    field = struct.pack("<HHLH", 0, 0x0100, 2, 0x8001).decode("latin-1")
    steps = [
        ("write", "/s/incoming/1.part", ""),
        ("fsync", "/s/incoming/1.part", ""),
        ("rename", "", f'"/s/incoming/1.part", "/s/objects/{digest[:2]}/{digest}.dcm"'),
        ("fsync", f"/s/objects/{digest[:2]}", ""),
        ("pwrite64", "/s/journal.db-wal", f'"{uid}{digest}"'),
        ("fdatasync", "/s/journal.db-wal", ""),
        ("sendto", "TCP:[1]", f'"\x04 {element} {field}"'),
    ]
    assert_durable_before_it_is_answered(trace_of(steps), dataset)
    swapped = [
        [*steps[:place], steps[place + 1], steps[place], *steps[place + 2 :]]
        for place in range(len(steps) - 1)
    ]
    foreign = [("pwrite64", "/s/journal.db-wal", f'"9{uid}"'), ("fdatasync", "/s/journal.db-wal", "")]
    *before, row, flush, answer = steps
    assert_durable_before_it_is_answered(trace_of([*before, *foreign, row, flush, answer]), dataset)
    others = [
        [*before, *foreign, answer],  # it was never entered
        [*before, *foreign, answer, row, flush],
        [*before, *foreign, row, answer, flush],
        [*before[:-1], row, flush, before[-1], *foreign, answer],  # entered too early
    ]
    for wrong in (*swapped, *others):
        with pytest.raises((AssertionError, IndexError)):
            assert_durable_before_it_is_answered(trace_of(wrong), dataset)


def trace_of(steps: Sequence[tuple[str, str, str]]) -> list[Call]:
    """One call after the other, of one thread: name, file, arguments."""
    return [Call(1, name, what, text, 0, at, at) for at, (name, what, text) in enumerate(steps)]


# -- a full disk --------------------------------------------------------------------------------


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system in memory that has room for so much."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def what_fills(disk: Path) -> str:
    """Why a small disk is full: its room, its files, and what processes hold of it, deleted files too."""
    room = os.statvfs(disk)
    lines = [f"{room.f_bavail} of {room.f_blocks} blocks are free, and {room.f_ffree} files"]
    for path in sorted(disk.rglob("*")):
        with suppress(OSError):
            lines.append(f"{path.stat().st_blocks * 512} bytes: {path.relative_to(disk)}")
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            target = descriptor.readlink()
            if target.is_relative_to(disk):
                lines.append(f"process {descriptor.parts[2]} holds {target.relative_to(disk)}")
    return "\n".join(lines)


def fill(ballast: Path) -> None:
    """Leave no byte."""
    with ballast.open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def rows(data: Path) -> dict[str, str]:
    """SOP Instance UID → path."""
    with closing(sqlite3.connect(f"file:{data / 'journal.db'}?mode=ro", uri=True)) as journal:
        assert journal.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return dict(journal.execute("SELECT sop_instance_uid, path FROM instance"))


def test_a_journal_that_has_no_room_acknowledges_nothing_and_recovers_by_itself(tmp_path: Path) -> None:
    """The files have room on another disk: it is the commit that fails."""
    series = ct_series((12, 32, 32))
    with small_disk(tmp_path / "small", "6m") as disk:
        (disk / "data").mkdir()
        (tmp_path / "spool").mkdir()
        (disk / "data" / "spool").symlink_to(tmp_path / "spool")
        gateway = GatewayProcess(tmp_path / "node", pacs_port=1, configuration=LEAN)
        gateway.data = disk / "data"
        gateway.environment["GW_DATA"] = str(gateway.data)
        acknowledged: set[str] = set()
        refused = 0
        with gateway, RawSender(gateway.dicom_port, [CT]) as sender:
            fill(disk / "ballast")
            for dataset in series:
                status = sender.send(CT, dataset.SOPInstanceUID, encoded(dataset))
                assert status.Status in (0x0000, 0xA700), status
                refused += status.Status == 0xA700
                if status.Status == 0x0000:
                    acknowledged.add(str(dataset.SOPInstanceUID))
            assert refused > 0
            assert "JOURNAL_UNAVAILABLE" in status.ErrorComment
            assert not gateway.died
            (disk / "ballast").unlink()
            for dataset in series:
                assert sender.send(CT, dataset.SOPInstanceUID, encoded(dataset)).Status == 0x0000
        known = rows(gateway.data)
        assert known.keys() == {str(dataset.SOPInstanceUID) for dataset in series} >= acknowledged
        files = {
            p.relative_to(tmp_path / "spool").as_posix() for p in (tmp_path / "spool").glob("objects/*/*")
        }
        assert files == set(known.values())
        assert list((tmp_path / "spool" / "incoming").iterdir()) == []


def test_a_disk_that_fills_up_under_load_refuses_and_takes_again_by_itself(tmp_path: Path) -> None:
    """Spool and journal on one small disk, two associations that go on sending while it is full."""
    batches = [ct_series((40, 128, 128), seed=seed) for seed in (1, 2)]
    sent = {str(dataset.SOPInstanceUID): encoded(dataset) for batch in batches for dataset in batch}
    with small_disk(tmp_path / "small", "8m") as disk:
        gateway = GatewayProcess(tmp_path / "node", pacs_port=1, configuration=LEAN)
        gateway.data = disk / "data"
        gateway.environment["GW_DATA"] = str(gateway.data)
        (disk / "ballast").write_bytes(bytes(6 << 20))
        with gateway:
            loads = [Load(gateway.dicom_port, batch) for batch in batches]
            wait_until(lambda: all(load.refused >= 3 for load in loads), 60, "the disk to be full")
            (disk / "ballast").unlink()
            for load in loads:
                load.thread.join(120)
                assert not load.thread.is_alive(), what_fills(disk)
                assert load.statuses <= {0x0000, 0xA700}
            assert {uid for load in loads for uid in load.acknowledged} == sent.keys(), what_fills(disk)
            assert not gateway.died
            assert gateway.terminate() == 0
        known = rows(gateway.data)
        spool = gateway.data / "spool"
        assert {uid: data_set_in(spool / path) for uid, path in known.items()} == sent
        files = {path.relative_to(spool).as_posix() for path in spool.glob("objects/*/*")}
        assert files == set(known.values())
        assert [list((spool / name).iterdir()) for name in ("incoming", "quarantine")] == [[], []]


class Load:
    """An association that sends a series, each instance until it is acknowledged."""

    def __init__(self, port: int, datasets: Sequence[Dataset]) -> None:
        self.acknowledged: set[str] = set()
        self.statuses: set[int] = set()
        self.refused = 0
        self.thread = threading.Thread(target=self._send, args=(port, datasets), daemon=True)
        self.thread.start()

    def _send(self, port: int, datasets: Sequence[Dataset]) -> None:
        with RawSender(port, [CT]) as sender:
            for dataset in datasets:
                if not self._is_taken(sender, dataset):
                    return

    def _is_taken(self, sender: RawSender, dataset: Dataset) -> bool:
        for _ in range(2000):
            answer = sender.send(CT, dataset.SOPInstanceUID, encoded(dataset))
            self.statuses.add(answer.Status)
            if answer.Status == 0x0000:
                self.acknowledged.add(str(dataset.SOPInstanceUID))
                return True
            self.refused += 1
            time.sleep(0.02)
        return False


def data_set_in(path: Path) -> bytes:
    """What a stored file has behind its file meta information."""
    content = path.read_bytes()
    return content[144 + int.from_bytes(content[140:144], "little") :]


def test_a_disk_that_fills_up_in_the_middle_of_a_data_set_is_noticed_before_it_is_full(
    tmp_path: Path,
) -> None:
    log = structlog.get_logger()
    with small_disk(tmp_path / "small", "64m") as disk:
        spool, journal = Spool(disk / "spool"), Journal(disk / "journal.db")
        limits = AdmissionLimits(keep_free_bytes=32 << 20, refuse_over_fraction=1.0)
        admission = Admission(spool, journal, SystemClock(), log, limits)
        arrival = Arrival("scanner", "SCANNER", CT, "1.2.3", "1.2.840.10008.1.2.1")
        intake = admission.begin(arrival)

        def write_all() -> None:
            for _ in range(64):
                intake.write(bytes(1 << 20))

        with pytest.raises(OutOfResources, match="DISK_FULL") as refused:
            write_all()
        assert refused.value.dimse_status == 0xA700
        assert intake.size_bytes <= 40 << 20
        assert shutil.disk_usage(disk).free > 60 << 20
        assert list((disk / "spool" / "incoming").iterdir()) == []
        dataset = ct_series((1, 64, 64))[0]
        admission.admit(encoded(dataset), replace(arrival, sop_instance_uid=str(dataset.SOPInstanceUID)))
        journal.close()


# -- bit rot ------------------------------------------------------------------------------------


def test_rot_is_found_in_the_background_while_the_node_runs(tmp_path: Path) -> None:
    """No job, no restart, nobody who sends it again: the reader comes to the file by itself."""
    series = ct_series((60, 8, 8))
    with GatewayProcess(tmp_path / "node", 1, LEAN + "storage: {verify_rate: 1GiB}\n") as gateway:
        send_all(gateway.dicom_port, series)
        spool = gateway.data / "spool"
        turn = wait_until(lambda: text_of(spool / "verified"), 90, "the first folder to be read")
        folders_until = {path: folders_between(turn, path) for path in rows(gateway.data).values()}
        path = min(folders_until, key=lambda path: (folders_until[path] - 4) % 256)  # it comes to it soon
        raw = bytearray((spool / path).read_bytes())
        raw[-3] ^= 0x04
        (spool / path).write_bytes(raw)
        wait_until(lambda: alarms(gateway), 150, "the damage to be found")
        assert [(alarm["level"], alarm["path"]) for alarm in alarms(gateway)] == [("critical", path)]
        assert not (spool / path).exists()
        assert [file.read_bytes() for file in (spool / "quarantine").iterdir()] == [raw]
        assert json.loads(gateway.aigw("status", "--json").stdout)["instances"]["damaged"] == 1
        assert gateway.terminate() == 0


def folders_between(turn: str, path: str) -> int:
    """How many folders are read before that of a file."""
    return (int(path.split("/")[1], 16) - int(turn, 16)) % 256


def text_of(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def alarms(gateway: GatewayProcess) -> list[dict[str, Any]]:
    return [event for event in gateway.events() if event["event"] == "INSTANCE_DAMAGED"]


def job_of(gateway: GatewayProcess) -> dict[str, Any]:
    """State and failure of the only job; empty while there is none."""
    with closing(sqlite3.connect(f"file:{gateway.data / 'journal.db'}?mode=ro", uri=True)) as journal:
        journal.row_factory = sqlite3.Row
        row = journal.execute("SELECT state, failure_name, failure_reason FROM job").fetchone()
        return dict(row) if row else {}


def test_no_model_sees_a_damaged_image_and_sending_it_again_brings_the_results(tmp_path: Path) -> None:
    series, _ = torso_series(shape=(24, 48, 48), spacing_mm=(9.0, 8.0, 8.0))
    with recording_scp("ORTHANC") as pacs, GatewayProcess(tmp_path / "node", pacs.port) as gateway:
        send_all(gateway.dicom_port, series)
        damaged = gateway.data / "spool" / rows(gateway.data)[str(series[7].SOPInstanceUID)]
        raw = bytearray(damaged.read_bytes())
        raw[-100] ^= 0x10
        damaged.write_bytes(raw)
        wait_until(lambda: job_of(gateway).get("state") == "failed", 60, "the job to fail")
        job = job_of(gateway)
        assert job["failure_name"] == "INSTANCE_DAMAGED"
        assert "send the series again" in job["failure_reason"]
        assert pacs.uids() == []
        assert [p.read_bytes() for p in (gateway.data / "spool" / "quarantine").iterdir()] == [raw]
        (alarm,) = [event for event in gateway.events() if event["event"] == "INSTANCE_DAMAGED"]
        assert alarm["level"] == "critical"
        told = gateway.aigw("study", "explain", str(series[0].SeriesInstanceUID)).stdout
        assert str(series[7].SOPInstanceUID) in told
        assert "INSTANCE_DAMAGED" in told

        send_all(gateway.dicom_port, series)
        wait_until(lambda: len(pacs.uids()) == 3, 60, "the results")
        assert job_of(gateway)["state"] == "done"
        with closing(sqlite3.connect(f"file:{gateway.data / 'journal.db'}?mode=ro", uri=True)) as journal:
            assert journal.execute("SELECT count(*), max(revision) FROM series").fetchone() == (1, 1)
        assert gateway.terminate() == 0
