"""The dispatcher and the executor against a scripted worker process: a real child, real signals."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog

from gateway.clock import SystemClock
from gateway.header import InstanceHeader
from gateway.jobs.checks import result_damage
from gateway.jobs.dispatch import Dispatcher, DispatchSettings
from gateway.jobs.executor import LocalExecutor, worker_environment
from gateway.jobs.messages import WorkerSettings
from gateway.journal import Journal, JournalReader
from gateway.journal.records import NewInstance, NewJob, NewResult, SeriesDecision
from gateway.spool import Spool

SCRIPTED_WORKER = Path(__file__).parent / "scripted_worker.py"


class Bench:
    """A journal with queued jobs, and a dispatcher that runs them on the scripted worker."""

    def __init__(self, folder: Path, cards: tuple[str, ...], **limits: float) -> None:
        self.folder = folder
        self.clock = SystemClock()
        self.journal = Journal(folder / "journal.db")
        self.spool = Spool(folder / "spool")
        self.results = Spool(folder / "results")
        log = structlog.get_logger()
        settings = WorkerSettings("cpu", cards=("ok",), card_folders=(), heartbeat_s=0.05)
        self.executor = LocalExecutor(settings, log, (sys.executable, str(SCRIPTED_WORKER)))
        self.dispatcher = Dispatcher(self.journal, self.executor, self._settings(limits), self.clock, log)
        self.jobs = [self.add(number, card) for number, card in enumerate(cards, start=1)]
        self.stopping = threading.Event()
        self.thread = threading.Thread(
            target=self.dispatcher.run, args=(self.stopping, limits.get("drain_s", 5.0)), daemon=True
        )

    def _settings(self, limits: dict[str, float]) -> DispatchSettings:
        return DispatchSettings(
            spool_root=self.spool.root,
            results_root=self.results.root,
            card_folders=(),
            device="cpu",
            series_number_base=9000,
            software_version="test",
            max_attempts=3,
            retry_after_s=0.05,
            job_timeout_s=limits.get("job_timeout_s", 20.0),
            lease_s=limits.get("lease_s", 10.0),
        )

    def add(self, number: int, card: str) -> int:
        stored = self.spool.store(f"instance {number}".encode())
        header = InstanceHeader("1.2.840.10008.5.1.4.1.1.2", f"1.2.{number}", "1.3", f"1.4.{number}", {})
        instance = NewInstance(header, "1.2.840.10008.1.2.1", stored.digest, stored.path, 10, "scanner")
        now = self.clock.now_s()
        self.journal.record_instance(instance, now)
        [series] = self.journal.receiving_series()
        job = NewJob("model", card, ("pacs",), "test")
        decision = SeriesDecision({"reason": "quiet"}, {}, {}, "ROUTE_MATCHED", "test", (job,), refused=False)
        (job_id,) = self.journal.decide_series(series, decision, now)
        return job_id

    def start(self) -> None:
        self.executor.start()
        self.thread.start()

    def close(self) -> None:
        self.stopping.set()
        if self.thread.ident is not None:
            self.thread.join(timeout=10)
        self.executor.stop()
        self.journal.close()

    def record(self, job_id: int) -> dict[str, Any]:
        reader = JournalReader(self.folder / "journal.db")
        try:
            details = [reader.series_details(series) for series in reader.series()]
            return next(job for each in details for job in each["jobs"] if job["id"] == job_id)
        finally:
            reader.close()

    def wait_for(self, job_id: int, state: str) -> dict[str, Any]:
        return wait_for(lambda: (r := self.record(job_id))["state"] == state and r)


def wait_for(condition: Callable[[], Any], timeout_s: float = 20.0) -> Any:
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError("waited in vain")


Make = Callable[..., Bench]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Make]:
    made: list[Bench] = []

    def make(*cards: str, **limits: float) -> Bench:
        made.append(Bench(tmp_path, cards, **limits))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_a_job_ends_as_done_with_its_results_in_the_outbox(bench: Make) -> None:
    b = bench("ok")
    b.start()
    job = b.wait_for(b.jobs[0], "done")
    assert [r["kind"] for r in job["results"]] == ["seg", "sr"]  # the worker reported sr first
    assert [d["state"] for r in job["results"] for d in r["deliveries"]] == ["pending", "pending"]
    assert job["run"] == {"stage_times_s": {"model": 0.1}}


def test_a_stray_print_of_a_model_does_not_disturb_the_protocol(bench: Make) -> None:
    b = bench("noisy")
    b.start()
    assert b.wait_for(b.jobs[0], "done")["attempts"] == 1


def test_a_poison_job_fails_with_its_reason_and_the_next_one_runs(bench: Make) -> None:
    b = bench("crash", "ok")
    b.start()
    failed = b.wait_for(b.jobs[0], "failed")
    assert failed["failure_name"] == "WORKER_DIED"
    assert failed["failure_reason"] == (
        "The worker ended with signal 9 while running this series, 3 of 3 attempts."
    )
    assert [e["name"] for e in failed["events"]].count("lease_expired") == 2
    assert b.wait_for(b.jobs[1], "done")["attempts"] == 1


def test_a_decoder_that_crashes_is_named_by_its_stage_and_the_next_series_runs(bench: Make) -> None:
    b = bench("decoder-crash", "ok")
    b.start()
    failed = b.wait_for(b.jobs[0], "failed")
    assert failed["failure_reason"] == (
        "The worker ended with signal 11 while reading the pixels, 3 of 3 attempts."
    )
    assert b.wait_for(b.jobs[1], "done")["attempts"] == 1


def test_a_job_that_takes_too_long_says_what_it_was_doing(bench: Make) -> None:
    b = bench("slow-model", job_timeout_s=0.4)
    b.start()
    failed = b.wait_for(b.jobs[0], "failed")
    assert failed["failure_reason"] == (
        "The job took more than 0.4 s (workers.job_timeout) and was ended while the model was running, "
        "3 of 3 attempts."
    )


def test_a_refusal_fails_at_once_by_its_name(bench: Make) -> None:
    b = bench("refuse")
    b.start()
    failed = b.wait_for(b.jobs[0], "failed")
    assert (failed["failure_name"], failed["attempts"]) == ("PIXEL_DATA_TOO_SHORT", 1)


def test_a_retryable_error_is_tried_again_up_to_the_limit(bench: Make) -> None:
    b = bench("full")
    b.start()
    failed = b.wait_for(b.jobs[0], "failed")
    assert (failed["failure_name"], failed["attempts"]) == ("DISK_FULL", 3)
    assert [e["name"] for e in failed["events"]].count("retryable_error") == 2


def test_a_job_that_takes_too_long_is_ended(bench: Make) -> None:
    b = bench("hang", "ok", job_timeout_s=0.4)
    b.start()
    assert b.wait_for(b.jobs[0], "failed")["failure_name"] == "JOB_TIMEOUT"
    b.wait_for(b.jobs[1], "done")


def test_a_worker_without_a_sign_of_life_is_ended(bench: Make) -> None:
    b = bench("silent", lease_s=0.5)
    b.start()
    assert b.wait_for(b.jobs[0], "failed")["failure_name"] == "WORKER_SILENT"


def test_a_worker_that_does_not_read_its_request_is_ended_too(bench: Make) -> None:
    b = bench("ok", lease_s=0.5)
    pipe_bytes = 64 * 1024
    b.dispatcher._settings = replace(b.dispatcher._settings, software_version="x" * 4 * pipe_bytes)
    b.executor.start()
    pid = wait_for(lambda: (h := b.executor.health()).ready and h.pid)
    os.kill(pid, signal.SIGSTOP)
    b.thread.start()
    job = b.wait_for(b.jobs[0], "done")
    assert job["attempts"] == 2
    assert "WORKER_SILENT" in " ".join(event["reason"] for event in job["events"])


def test_a_worker_killed_from_outside_loses_nothing(bench: Make) -> None:
    b = bench("hang-once")
    b.start()
    b.wait_for(b.jobs[0], "running")
    wait_for((b.folder / "hanging").exists)
    b.executor.kill()
    done = b.wait_for(b.jobs[0], "done")
    assert (done["attempts"], done["failure_name"]) == (2, None)


def test_a_missing_file_fails_the_job_by_name(bench: Make) -> None:
    b = bench("ok")
    for path in b.spool.root.glob("objects/*/*"):
        path.unlink()
    b.start()
    failed = b.wait_for(b.jobs[0], "failed")
    assert failed["failure_name"] == "INSTANCE_FILE_MISSING"
    assert "the first is SOP Instance 1.2.1: " in failed["failure_reason"]


def test_a_result_file_that_is_not_what_was_reported_is_not_committed(bench: Make) -> None:
    b = bench("liar")
    b.start()
    failed = b.wait_for(b.jobs[0], "failed")
    assert (failed["failure_name"], failed["attempts"]) == ("RESULT_FILE_DAMAGED", 3)
    assert failed["results"] == []


def test_a_result_path_may_not_leave_the_results_folder(tmp_path: Path) -> None:
    for path in ("../journal.db", "/etc/passwd", "objects/../../x"):
        result = NewResult("seg", "1", "1", "1", "1", path, "0" * 64, 1)
        assert "leaves the results folder" in result_damage(tmp_path, result)


def test_stopping_puts_a_running_job_back_without_charging_an_attempt(bench: Make) -> None:
    b = bench("hang", drain_s=0.1)
    b.start()
    b.wait_for(b.jobs[0], "running")
    b.stopping.set()
    b.thread.join(timeout=10)
    job = b.record(b.jobs[0])
    assert (job["state"], job["attempts"], job["interruptions"]) == ("queued", 0, 1)
    assert job["failure_name"] == "GATEWAY_STOPPED"


def test_stopping_lets_a_job_finish_that_finishes_in_time(bench: Make) -> None:
    b = bench("slow")
    b.start()
    b.wait_for(b.jobs[0], "running")
    b.stopping.set()
    b.thread.join(timeout=10)
    assert b.record(b.jobs[0])["state"] == "done"


def test_jobs_wait_while_no_model_can_be_loaded(bench: Make) -> None:
    b = bench("ok")
    b.executor._settings = WorkerSettings("cpu", ("broken",), (), 0.05)
    b.start()
    wait_for(lambda: "MODEL_CARD_INVALID" in b.executor.health().reason)
    assert not b.executor.health().ready
    assert b.record(b.jobs[0])["state"] == "queued"


def test_a_worker_that_cannot_start_is_tried_again_and_jobs_wait(tmp_path: Path) -> None:
    log = structlog.get_logger()
    settings = WorkerSettings("cpu", (), (), 1.0)
    executor = LocalExecutor(settings, log, (sys.executable, "-c", "raise SystemExit(3)"))
    executor.start()
    try:
        wait_for(lambda: "exit code 3" in executor.health().reason)
        assert executor.alive
    finally:
        executor.stop()


def test_the_worker_gets_no_secrets_from_our_environment() -> None:
    given = {"PATH": "/bin", "HTTPS_PROXY": "http://x", "GW_PASSWORD": "x", "CUDA_VISIBLE_DEVICES": "0"}
    assert worker_environment(given) == {"PATH": "/bin", "CUDA_VISIBLE_DEVICES": "0"}
