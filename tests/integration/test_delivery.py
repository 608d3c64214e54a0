"""Delivery to a real PACS (Orthanc), and ``aigw echo`` / ``aigw send`` against it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian

from gateway.clock import SystemClock
from gateway.deliver.send import Sender, SenderSettings
from gateway.deliver.storage_scu import Address
from gateway.header import InstanceHeader
from gateway.journal import Journal, JournalReader
from gateway.journal.records import NewInstance, NewJob, NewResult, SeriesDecision
from gateway.retry import Policy
from gateway.spool import Spool
from tests.builders import ct_series, write_series
from tests.gateway_process import GatewayProcess
from tests.hostile import wire
from tests.orthanc import Orthanc
from tests.ports import free_port
from tests.waiting import wait_until
from tests.wire_peer import WirePeer, associate_ac

POLICY = Policy(first_retry_s=0.2, factor=1.5, longest_wait_s=0.5, give_up_after_s=3600.0, refused_attempts=3)


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with Orthanc(tmp_path_factory.mktemp("pacs")) as pacs:
        yield pacs


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_series(ct_series(shape=(6, 16, 16), seed=77), tmp_path_factory.mktemp("ct"))


def aigw(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway", *map(str, arguments)]
    environment = {k: v for k, v in os.environ.items() if k != "AIGW_CONFIG"}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=environment)


def queue_for_delivery(journal: Journal, results: Spool, files: list[Path]) -> None:
    """A finished job whose results are these files."""
    now = SystemClock().now_s()
    header = InstanceHeader("1.2", "1.9", "1.3", "1.4", {})
    journal.record_instance(NewInstance(header, "1", "0", "0", 1, "scanner"), now)
    [series] = journal.receiving_series()
    job = NewJob("model", "card", ("pacs",), "test")
    journal.decide_series(
        series, SeriesDecision({}, {}, {}, "ROUTE_MATCHED", "test", (job,), refused=False), now
    )
    claimed = journal.claim_job("lease", now + 60, now)
    assert claimed is not None
    rows = []
    for number, path in enumerate(files):
        stored = results.store(path.read_bytes())
        meta = dcmread(path, stop_before_pixels=True)
        sop_class, sop_instance = str(meta.SOPClassUID), str(meta.SOPInstanceUID)
        rows.append(
            NewResult(f"file-{number}", sop_class, sop_instance, "1.5", str(ExplicitVRLittleEndian),
                      stored.path, stored.digest, stored.size_bytes)
        )  # fmt: skip
    journal.finish_job(claimed, rows, {}, now)


def states(path: Path) -> list[str]:
    reader = JournalReader(path)
    try:
        details: list[Any] = [reader.series_details(series) for series in reader.series()]
    finally:
        reader.close()
    return [d["state"] for s in details for j in s["jobs"] for r in j["results"] for d in r["deliveries"]]


def test_a_pacs_that_goes_down_and_comes_back_holds_everything_exactly_once(tmp_path: Path) -> None:
    series = ct_series(shape=(8, 64, 64), seed=4711)
    paths = write_series(series, tmp_path / "ct")
    pacs = Orthanc(tmp_path / "pacs")
    journal, results = Journal(tmp_path / "journal.db"), Spool(tmp_path / "results")
    queue_for_delivery(journal, results, paths)
    address = Address("pacs", "ORTHANC", "127.0.0.1", pacs.dicom_port)
    settings = SenderSettings("pacs", address, "AIGW", results.root, POLICY, timeout_s=10.0)
    stopping = threading.Event()
    sender = Sender(journal, settings, SystemClock(), structlog.get_logger())
    thread = threading.Thread(target=sender.run, args=(stopping,), daemon=True)
    thread.start()
    try:
        time.sleep(0.7)  # some attempts while nobody listens
        assert set(states(tmp_path / "journal.db")) <= {"pending", "sending"}
        with pacs:
            wait_until(lambda: states(tmp_path / "journal.db") == ["sent"] * 8, 30, "all to be sent")
            stored = pacs.instances()
            assert sorted(i["MainDicomTags"]["SOPInstanceUID"] for i in stored) == sorted(
                str(dataset.SOPInstanceUID) for dataset in series
            )
            assert data_set(pacs.file(stored[0]["ID"])) in {data_set(p.read_bytes()) for p in paths}
    finally:
        stopping.set()
        thread.join(timeout=10)
        journal.close()


def data_set(content: bytes) -> bytes:
    return content[144 + int.from_bytes(content[140:144], "little") :]


def test_echo_answers_for_a_peer_of_the_configuration_and_for_an_address(
    tmp_path: Path, orthanc: Orthanc
) -> None:
    node = GatewayProcess(tmp_path / "node", orthanc.dicom_port)
    done = node.aigw("echo", "pacs")
    assert (done.returncode, "answered in" in done.stdout) == (0, True)
    done = aigw("echo", f"ORTHANC@127.0.0.1:{orthanc.dicom_port}", "--json")
    assert json.loads(done.stdout)["ok"] is True


def test_echo_exits_4_with_the_reason(orthanc: Orthanc) -> None:
    done = aigw("echo", f"WRONG@127.0.0.1:{orthanc.dicom_port}")
    assert done.returncode == 4
    assert "ASSOCIATION_REJECTED" in done.stderr
    assert "check the AE title WRONG" in done.stderr
    done = aigw("echo", f"ORTHANC@127.0.0.1:{free_port()}")
    assert (done.returncode, done.stderr.split(":")[0]) == (4, "PEER_UNREACHABLE")


def test_echo_of_something_that_is_no_peer_says_what_a_peer_is(tmp_path: Path) -> None:
    node = GatewayProcess(tmp_path / "node", free_port())
    done = node.aigw("echo", "pax")
    assert done.returncode == 5
    assert "UNKNOWN_PEER" in done.stderr
    assert "scanner, pacs" in done.stderr


def test_a_peer_that_accepts_oddly_is_named_without_a_traceback(files: list[Path]) -> None:
    with WirePeer(associate_ac(user=wire.user_information(6))) as pacs:
        for command in (
            ["echo", f"PACS@127.0.0.1:{pacs.port}"],
            ["send", f"PACS@127.0.0.1:{pacs.port}", files[0]],
        ):
            done = aigw(*command)
            assert (done.returncode, done.stderr.split(":")[0]) == (4, "MAXIMUM_LENGTH_TOO_SMALL")
            assert "Traceback" not in done.stderr


def test_send_stores_a_folder_as_it_is(orthanc: Orthanc, files: list[Path]) -> None:
    done = aigw("send", f"ORTHANC@127.0.0.1:{orthanc.dicom_port}", files[0].parent)
    assert (done.returncode, done.stdout.split(" objects")[0]) == (0, "6 of 6")
    sent = {str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in files}
    assert sent <= {i["MainDicomTags"]["SOPInstanceUID"] for i in orthanc.instances()}


def test_send_exits_3_when_only_some_could_be_sent(
    tmp_path: Path, orthanc: Orthanc, files: list[Path]
) -> None:
    note = tmp_path / "note.txt"
    note.write_text("not DICOM")
    done = aigw("send", f"ORTHANC@127.0.0.1:{orthanc.dicom_port}", files[0], note)
    assert done.returncode == 3
    assert "NOT_DICOM: note.txt" in done.stderr


def test_send_exits_4_when_nobody_listens(files: list[Path]) -> None:
    done = aigw("send", f"ORTHANC@127.0.0.1:{free_port()}", files[0])
    assert done.returncode == 4
    assert "PEER_UNREACHABLE" in done.stderr
