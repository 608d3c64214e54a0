"""The real worker with the real model: its answers, its death in the middle of a job."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import structlog
from pydicom import dcmread
from pydicom.uid import RLELossless

from gateway.jobs.executor import LocalExecutor
from gateway.jobs.messages import (
    Died,
    Done,
    Event,
    Failed,
    Heartbeat,
    JobRequest,
    Progress,
    Ready,
    WorkerSettings,
)
from tests.builders import ct_series, torso_series, with_attributes, write_series
from tests.gateway_process import GatewayProcess
from tests.scripted_peer import ScriptedPeer
from tests.waiting import wait_until

SHAPE, SPACING_MM = (28, 48, 48), (10.0, 8.0, 8.0)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    series, _ = torso_series(shape=SHAPE, spacing_mm=SPACING_MM, seed=31)
    return write_series(series, tmp_path_factory.mktemp("ct"))


class Worker:
    """A real worker process, and its answers."""

    def __init__(self, memory_limit_bytes: int | None = None) -> None:
        settings = WorkerSettings("cpu", ("ct-tissue",), (), 0.2, memory_limit_bytes)
        self.executor = LocalExecutor([settings], structlog.get_logger())
        self.seen: list[Event] = []

    def wait_for(self, *kinds: type[Event]) -> Event:
        def arrived() -> Event | None:
            heard = self.executor.next_event(0.05)
            if heard is None:
                return None
            self.seen.append(heard.event)
            return heard.event if isinstance(heard.event, kinds) else None

        event: Event = wait_until(arrived, 120, " or ".join(kind.__name__ for kind in kinds))
        return event

    def run(self, files: list[Path], results: Path, card: str = "ct-tissue", part: str = "") -> Event:
        self.submit(files, results, card, part)
        return self.wait_for(Done, Failed, Died)

    def submit(self, files: list[Path], results: Path, card: str = "ct-tissue", part: str = "") -> int:
        """Give the worker a job; returns its process id."""
        request = JobRequest(
            job_id=1,
            lease_id="lease",
            files=tuple(map(str, files)),
            part=part,
            card=card,
            card_folders=(),
            created_at_s=1_790_000_000.0,
            series_number_base=9000,
            results_root=str(results),
            software_version="0.1.0",
            revision=1,
        )
        pid = self.executor.health().pid
        assert pid is not None
        self.executor.submit(0, request, pid)
        return pid


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    made = Worker()
    made.executor.start()
    ready = made.wait_for(Ready)
    assert isinstance(ready, Ready)
    assert (ready.models, ready.problems) == (("ct-tissue",), ())
    yield made
    made.executor.stop()


def test_a_job_gives_durable_results_that_say_what_they_are(
    worker: Worker, files: list[Path], tmp_path: Path
) -> None:
    done = worker.run(files, tmp_path)
    assert isinstance(done, Done), done
    assert {result.kind for result in done.results} == {"seg", "sr", "overview"}
    for result in done.results:
        content = (tmp_path / result.path).read_bytes()
        assert hashlib.sha256(content).hexdigest() == result.digest
        dataset = dcmread(tmp_path / result.path)
        assert dataset.SOPInstanceUID == dataset.file_meta.MediaStorageSOPInstanceUID
        assert dataset.SOPInstanceUID == result.sop_instance_uid
        assert dataset.SeriesInstanceUID == result.series_instance_uid
        assert dataset.SeriesNumber == {"seg": 9001, "sr": 9002, "overview": 9003}[result.kind]
    assert {s["label"] for s in done.run["segments"]} >= {"Left lung", "Right lung"}
    assert any(isinstance(event, Heartbeat) for event in worker.seen)
    assert any(isinstance(event, Progress) for event in worker.seen)


def test_the_same_job_gives_the_same_bytes(worker: Worker, files: list[Path], tmp_path: Path) -> None:
    first, second = worker.run(files, tmp_path / "a"), worker.run(files, tmp_path / "b")
    assert isinstance(first, Done)
    assert isinstance(second, Done)
    assert first.results == second.results


def test_a_refused_series_is_a_named_failure_that_no_retry_can_help(
    worker: Worker, files: list[Path], tmp_path: Path
) -> None:
    failed = worker.run([files[0]], tmp_path)
    assert isinstance(failed, Failed)
    assert not failed.retryable
    assert failed.name.isupper()
    unknown = worker.run(files, tmp_path, card="ct-tisue")
    assert isinstance(unknown, Failed)
    assert (unknown.name, unknown.retryable) == ("UNKNOWN_MODEL", False)
    assert "Did you mean ct-tissue" in unknown.reason


def test_a_full_disk_is_worth_another_attempt(worker: Worker, files: list[Path], tmp_path: Path) -> None:
    blocked = tmp_path / "results"
    blocked.write_text("a file where the folder should be")
    failed = worker.run(files, blocked)
    assert isinstance(failed, Failed)
    assert (failed.name, failed.retryable) == ("DISK_ERROR", True)


def test_a_part_that_the_files_do_not_have_is_a_named_failure(
    worker: Worker, files: list[Path], tmp_path: Path
) -> None:
    failed = worker.run(files, tmp_path, part="EchoTime=4.6")
    assert isinstance(failed, Failed)
    assert (failed.name, failed.retryable) == ("PART_NOT_FOUND", False)


@pytest.fixture(scope="module")
def huge(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A CT of 40 slices of 4096 × 4096: small files, and 1.3 GB of voxels."""
    series = with_attributes(ct_series((40, 32, 32)), Rows=4096, Columns=4096)
    first = series[0]
    first.PixelData = np.full((4096, 4096), 24, "<i2").tobytes()
    first.compress(RLELossless, generate_instance_uid=False)
    for dataset in series[1:]:
        dataset.PixelData = first.PixelData
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = RLELossless
    return write_series(series, tmp_path_factory.mktemp("huge"))


def test_a_series_that_needs_more_memory_than_allowed_fails_by_name_and_the_next_one_runs(
    huge: list[Path], files: list[Path], tmp_path: Path
) -> None:
    limited = Worker(memory_limit_bytes=2**30)
    limited.executor.start()
    try:
        limited.wait_for(Ready)
        failed = limited.run(huge, tmp_path)
        assert isinstance(failed, Failed), failed
        assert failed.name == "OUT_OF_MEMORY"
        assert "workers.memory_limit is 1.0 GiB" in failed.reason
        assert isinstance(limited.run(files, tmp_path), Done)
    finally:
        limited.executor.stop()


def test_a_crash_of_a_decoder_ends_the_worker_only_and_the_next_series_runs(
    huge: list[Path], files: list[Path], tmp_path: Path
) -> None:
    crashing = Worker()
    crashing.executor.start()
    try:
        crashing.wait_for(Ready)
        pid = crashing.submit(huge, tmp_path)
        reading = crashing.wait_for(Progress)
        assert isinstance(reading, Progress)
        assert reading.stage == "read"
        os.kill(pid, signal.SIGSEGV)  # as a fault in a decoder would
        died = crashing.wait_for(Done, Failed, Died)
        assert died == Died("signal 11")
        crashing.wait_for(Ready)
        assert isinstance(crashing.run(files, tmp_path), Done)
    finally:
        crashing.executor.stop()


@pytest.mark.parametrize("point", ["worker.started", "worker.segmented", "worker.results_written"])
def test_a_worker_killed_in_a_job_is_replaced_and_the_job_ends_as_done(
    tmp_path: Path, files: list[Path], point: str
) -> None:
    marker = tmp_path / "died"
    with ScriptedPeer(ae_title="ORTHANC") as pacs:
        gateway = GatewayProcess(tmp_path / "node", pacs.port)
        armed = {"AIGW_TEST_FAILPOINT": f"{point}:1", "AIGW_TEST_FAILPOINT_ONCE": str(marker)}
        with running(gateway, armed):
            send(gateway, files)
            wait_until(lambda: len(pacs.received) == 3, 120, "three results at the PACS")
            assert marker.exists()
            assert gateway.terminate() == 0
    assert len(set(pacs.uids())) == 3
    requeued = [e for e in gateway.events() if e["event"] == "job_requeued"]
    assert [e["failure"] for e in requeued] == ["WORKER_DIED"]


def test_a_poison_series_fails_with_its_reason_and_the_node_goes_on(
    tmp_path: Path, files: list[Path]
) -> None:
    with ScriptedPeer(ae_title="ORTHANC") as pacs:
        gateway = GatewayProcess(tmp_path / "node", pacs.port)
        with running(gateway, {"AIGW_TEST_FAILPOINT": "worker.started:1"}):
            send(gateway, files)
            failed = wait_until(
                lambda: [e for e in gateway.events() if e["event"] == "job_failed"], 120, "the job to fail"
            )
            assert failed[0]["failure"] == "WORKER_DIED"
            assert "signal 9" in failed[0]["reason"]
            assert "3 of 3 attempts" in failed[0]["reason"]
            us = f"AIGW@127.0.0.1:{gateway.dicom_port}"
            assert gateway.aigw("echo", us, "--calling", "SCANNER").returncode == 0
            assert gateway.terminate() == 0
    assert pacs.received == []


@contextmanager
def running(gateway: GatewayProcess, environment: dict[str, str]) -> Iterator[None]:
    """The gateway with a failpoint armed; killed at the end if it is still there."""
    gateway.start(environment)
    try:
        yield
    finally:
        if not gateway.died:
            gateway.kill()


def send(gateway: GatewayProcess, files: list[Path]) -> None:
    """Send the files as the scanner would."""
    target = f"AIGW@127.0.0.1:{gateway.dicom_port}"
    done = gateway.aigw("send", target, str(files[0].parent), "--calling", "SCANNER")
    assert done.returncode == 0, done.stderr
