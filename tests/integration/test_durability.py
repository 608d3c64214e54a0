"""0000 means durable: proved by the system calls of the running node, and by disks that fill up under it."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import shutil
import sqlite3
import struct
import subprocess
import threading
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
from gateway.receive.admit import Admission, AdmissionLimits, Arrival
from gateway.spool import Spool
from tests.builders import ct_series, torso_series
from tests.gateway_process import GatewayProcess, wait_until
from tests.peers import RawSender, encoded, recording_scp
from tests.stow import AUTHORIZATION, CONTENT_TYPE, multipart, part10, post
from tests.traces import Call, read_trace, strace

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
    row = after(calls, folder.ended, "pwrite64", "write", what="journal.db-wal")[0]
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
    end = f"{gateway.process.pid} +++ exited with 0 +++"
    wait_until(lambda: end in trace.read_text(encoding="latin-1"), 30, "the end of the trace")
    return read_trace(trace)


def flushes_overlap(calls: Sequence[Call]) -> bool:
    """Nobody waits for the file of somebody else: two flushes of files were under way at the same time."""
    flushes = sorted(
        (c for c in calls if c.name == "fsync" and c.what.endswith(".part")), key=lambda c: c.begun
    )
    pairs = itertools.pairwise(flushes)
    return any(later.begun < earlier.ended and later.thread != earlier.thread for earlier, later in pairs)


def test_the_order_is_not_found_where_it_is_not() -> None:
    """The proof itself: a trace in which the answer goes out before the flush of the journal is refused."""
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
        ("pwrite64", "/s/journal.db-wal", ""),
        ("fdatasync", "/s/journal.db-wal", ""),
        ("sendto", "TCP:[1]", f'"\x04 {element} {field}"'),
    ]
    right = [Call(1, n, what, text, 0, i, i) for i, (n, what, text) in enumerate(steps)]
    assert_durable_before_it_is_answered(right, dataset)
    for place in range(len(steps) - 1):
        order = [*range(place), place + 1, place, *range(place + 2, len(steps))]
        moved = [steps[step] for step in order]
        wrong = [Call(1, n, what, text, 0, i, i) for i, (n, what, text) in enumerate(moved)]
        with pytest.raises((AssertionError, IndexError)):
            assert_durable_before_it_is_answered(wrong, dataset)


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
